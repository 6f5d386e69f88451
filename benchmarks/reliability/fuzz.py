"""Fuzzing: everything that reads what others write, on valid documents with mutations; only the package's own refusals may come out.

Each target runs in a process of its own, so that a crash of native code is counted and its input kept. The folder corpus/ beside this file
holds inputs that once broke something, by target; every run begins with them, and tests try them again.
"""

from __future__ import annotations

import copy
import hashlib
import json
import multiprocessing
import random
import re
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.reliability import fuzz_targets
from threepc.errors import ThreepcError
from threepc.files import write_atomically
from threepc.transport.framing import MalformedError

CORPUS = Path(__file__).parent / "corpus"
LONGEST_S = 5.0
"""A reader that takes longer over one small input hangs."""
NASTY: tuple[object, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 2**64, 10**30, 0.0, -0.0, 1e308, 0.5, "", "a", "\x1b[2J", "[bold]x[/bold]",
    "\u202e", "x" * 5000, "../../etc/passwd", [], [[]], {}, {"": None}, [0, 0], [-1, 1], [65535, 65535], [1, 2, 3, 4, 5], ["a"],
)  # fmt: skip


@dataclass
class Found:
    """Of one target: inputs tried, those refused, and [(what happened, the input)]."""

    target: str
    inputs: int = 0
    refused: int = 0
    slowest: float = 0.0
    bad: list[tuple[str, bytes]] = field(default_factory=list)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """A valid document with one to several changes: of its bytes, or, where it is JSON, mostly of its structure."""
    if data[:1] in (b"{", b"[") and chance.random() < 0.8:
        try:
            document = json.loads(data)
        except ValueError:
            return _bytes(data, chance)
        for _ in range(chance.choice((1, 1, 1, 2, 4))):
            document = _structure(document, chance)
        return json.dumps(document).encode(errors="surrogatepass")
    return _bytes(data, chance)


def _bytes(data: bytes, chance: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        place, kind = chance.randrange(len(out) + 1), chance.randrange(6)
        if kind == 0 and out:
            out[place % len(out)] ^= 1 << chance.randrange(8)
        elif kind == 1 and out:
            out[place % len(out)] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            out[place:place] = chance.randbytes(chance.choice((1, 2, 8)))
        elif kind == 3:
            del out[place : place + chance.choice((1, 4, 64))]
        elif kind == 4:
            out[place:place] = out[place : place + 32]
        else:
            out[place : place + 8] = chance.choice((b"\xff" * 8, bytes(8), b"\0\0\0\0\0\0\0\x80", b"9" * 8))
    return bytes(out)


def _structure(document: Any, chance: random.Random) -> Any:
    """One change at a random place of a JSON document."""
    document = copy.deepcopy(document)
    places = list(_places(document))
    if not places:
        return chance.choice(NASTY)
    holder, key = chance.choice(places)
    kind = chance.randrange(5)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[chance.choice(("", "x", "name", "shape", "attrs", "__class__"))] = chance.choice(NASTY)
    elif kind == 2:
        other, theirs = chance.choice(places)
        holder[key] = copy.deepcopy(other[theirs])
    elif kind == 3 and type(holder[key]) is int:
        holder[key] += chance.choice((-1, 1, 2**16, 2**32, -(2**40)))
    else:
        holder[key] = chance.choice(NASTY)
    return document


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every (list or object, index or key) of a JSON document."""
    for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
        yield node, key
        yield from _places(node[key])


def fuzz(inputs: int, seed: int = 0, wanted: Callable[[str], bool] = lambda name: True) -> list[Found]:
    """`inputs` in all, shared among the targets by their weights, each target's in a process."""
    names = [name for name in fuzz_targets.TARGETS if wanted(name)]
    total = sum(fuzz_targets.TARGETS[name].weight for name in names)
    results = []
    for name in names:
        results.append(_alone(name, max(1, inputs * fuzz_targets.TARGETS[name].weight // total), seed))
        last = results[-1]
        print(f"{name}: {last.inputs} inputs, {last.refused} refused, {len(last.bad)} bad", flush=True)
    return results


def _alone(name: str, count: int, seed: int) -> Found:
    """One target in a process of its own; a process that dies is a finding, with the input that it had begun."""
    found, context = Found(name), multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        while found.inputs < count and len(found.bad) < 20:
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_run, args=(name, count - found.inputs, seed + found.inputs, folder, sender))
            process.start()
            sender.close()
            try:
                part: Found | None = receiver.recv()
            except EOFError:
                part = None
            process.join()
            if part is None:
                begun = Path(folder) / "begun"
                found.bad.append((f"the process died with {process.exitcode}", begun.read_bytes() if begun.exists() else b""))
                found.inputs += int((Path(folder) / "count").read_text()) if (Path(folder) / "count").exists() else 1
                continue
            found.inputs, found.refused = found.inputs + part.inputs, found.refused + part.refused
            found.slowest = max(found.slowest, part.slowest)
            found.bad += part.bad
    return found


def _run(name: str, count: int, seed: int, folder: str, sender: Connection) -> None:
    target, chance, found = fuzz_targets.TARGETS[name], random.Random(seed), Found(name)  # noqa: S311 - chooses mutations, nothing secret
    seeds, read, again = target.seeds(), target.reader(Path(folder)), kept(name)
    for number in range(count):
        data = again[number] if number < len(again) else mutated(chance.choice(seeds + again), chance)
        if target.native:
            (Path(folder) / "begun").write_bytes(data)
            (Path(folder) / "count").write_text(str(number + 1))
        began = time.perf_counter()
        try:
            read(data)
        except (ThreepcError, MalformedError):
            found.refused += 1
        except Exception:  # noqa: BLE001 - whatever it is, it is what is looked for
            found.bad.append((traceback.format_exc(limit=-3), data))
        found.slowest = max(found.slowest, time.perf_counter() - began)
        if found.slowest > LONGEST_S and not any("took" in what for what, _ in found.bad):
            found.bad.append((f"took {found.slowest:.1f} s", data))
        found.inputs += 1
        if len(found.bad) >= 20:
            break
    sender.send(found)


def kept(target: str) -> list[bytes]:
    """The inputs of the corpus for a target, in the order of their names."""
    return [path.read_bytes() for path in sorted((CORPUS / folder_of(target)).glob("*"))]


def folder_of(target: str) -> str:
    """The folder of a target's inputs in a corpus."""
    return re.sub("[^a-z]+", "_", target).strip("_")


def keep(results: list[Found], corpus: Path) -> None:
    """Add what went wrong to a corpus: a file for each input, called by the beginning of its SHA-256."""
    for result in results:
        for _, data in result.bad:
            write_atomically(corpus / folder_of(result.target) / hashlib.sha256(data).hexdigest()[:12], data)


def markdown(results: list[Found]) -> str:
    """The table for docs/reliability.md, and what went wrong below it."""
    rows = [f"| {r.target} | {r.inputs:,} | {r.refused:,} | {1000 * r.slowest:.0f} | {len(r.bad)} |" for r in results]
    rows.append(
        f"| all | {sum(r.inputs for r in results):,} | {sum(r.refused for r in results):,} | | {sum(len(r.bad) for r in results)} |"
    )
    bad = "".join(f"\n{r.target}: {what}\n{data[:400]!r}\n" for r in results for what, data in r.bad[:3])
    return "| reader | inputs | refused | slowest, ms | crashes |\n|---|---|---|---|---|\n" + "\n".join(rows) + "\n" + bad
