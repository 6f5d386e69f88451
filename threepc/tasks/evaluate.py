"""`threepc evaluate`: accuracy or mean IoU over the dataset of an MMLab config, secure against plaintext and against the cleartext twin.

Every image's result is a line of `results.jsonl` in the results folder, written when its batch is done; the same command goes on where it
ended, and a larger number of images extends what is there. `manifest.json` beside it says of which model, precision, spec and data.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from threepc.choices import LABEL
from threepc.errors import InputError, RunError
from threepc.files import check_writable, parse_json, read_json, write_atomically
from threepc.graph.outputs import joined, names
from threepc.images.card import ModelCard
from threepc.images.sliding import image_inputs, image_labels
from threepc.model.assemble import Assembled, Settings, assemble_loaded, module_outputs
from threepc.model.load import LoadedModel, load_model
from threepc.model.served import PublicModel, each
from threepc.party import one_host
from threepc.party.warmup import warm_up_for
from threepc.plan import twin

if TYPE_CHECKING:
    from threepc.console import Display
    from threepc.mmlab.datasets import ClassificationData, Sample, SegmentationData

PLAIN, TWIN, SECURE = "plaintext", "simulated", "secure"
VERSION = 1
TOP = 5


@dataclass(frozen=True)
class EvaluateOptions:
    """What `threepc evaluate` is told.

    images: how many of the dataset, None for all; a fixed order mixes its classes, and more begin with the same ones. secure, simulated:
    how many of these run through three parties on this machine, and through the cleartext twin, None for all of them. results: a folder.
    data_root: stands for the config's data/NAME. output: the name of the output that carries the labels, of a network that returns several.
    """

    config: str
    checkpoint: Path | None
    results: Path
    images: int | None = None
    secure: int | None = 0
    simulated: int | None = None
    data_root: Path | None = None
    output: str | None = None
    batch: int = 1
    size: tuple[int, int] | None = None
    settings: Settings = field(default_factory=Settings)
    transport: str = "ipc"
    network: str = "none"
    threads: int = 1
    timeout: float = 120.0


def evaluate(options: EvaluateOptions, display: Display) -> dict[str, Any]:
    """Run the dataset, or go on with it; the summary, which `summary.json` in the results folder holds too.

    Raises InputError: no such dataset, files that cannot be read, a results folder of something else, and as `threepc run` does.
    """
    from threepc.mmlab.datasets import open_dataset

    with display.stage("loading the model"):
        loaded = load_model(options.config, options.checkpoint, size=options.size)
        data = open_dataset(options.config, loaded.preprocessing.channels, options.data_root)
    if data.segmentation != loaded.card.segmentation:
        raise InputError(f"{options.config}: the dataset {data.name} does not belong to a network of this kind")
    with display.stage("importing the network") as tell:
        assembled = assemble_loaded(loaded, options.settings, tell)
    return evaluate_assembled(assembled, loaded, data, options, display)


def evaluate_assembled(
    assembled: Assembled, loaded: LoadedModel, data: ClassificationData | SegmentationData, options: EvaluateOptions, display: Display
) -> dict[str, Any]:
    """`evaluate` for a model and data that are loaded already."""
    chosen = labelled_output(assembled.public, options.output)
    if data.segmentation and assembled.public.reveals[chosen] == LABEL:
        raise InputError("mean IoU needs logits, which the client resizes to the image, not labels alone: evaluate with --reveal logits")
    order = [int(i) for i in np.random.default_rng(0).permutation(len(data))[: options.images]]
    wanted = {PLAIN: set(order), TWIN: set(order[: options.simulated]), SECURE: set(order[: options.secure])}
    if not order:
        raise InputError(f"{data.name}: there are no images to evaluate")
    several = {} if assembled.public.graph.returns_tensor else {"output": names(assembled.public.graph)[chosen]}
    slides = {"sliding": asdict(loaded.card.sliding)} if loaded.card.sliding else {}
    store = Store(options.results, _manifest(assembled, data) | several | slides)
    missing = [i for i in order if any(i in wanted[way] and way not in store.lines.get(i, {}) for way in wanted)]
    ways = _Ways(assembled, options, chosen)
    if missing and len(wanted[TWIN] | wanted[SECURE]):
        with display.stage("preparing kernels") as progress:
            warm_up_for(assembled.public, progress)
    with ways, display.bar(f"evaluating {loaded.name}", len(order)) as advance:
        advance(len(order) - len(missing))
        for batch in _batches(missing, wanted, options.batch):
            samples = [data[index] for index in batch]
            inputs = [image_inputs(sample.image, loaded.card, sample.name) for sample in samples]
            outputs = ways.outputs({way for way in wanted if batch[0] in wanted[way]}, inputs)
            label = partial(_labels, card=loaded.card)
            found = [_line(index, samples[row], outputs, row, data, label) for row, index in enumerate(batch)]
            store.append(found)
            advance(len(batch))
    summary = summarise([store.lines[index] for index in order], wanted, data, order)
    summary = store.manifest | {"model": loaded.name, "checkpoint": options.checkpoint and str(options.checkpoint)} | summary
    write_atomically(options.results / "summary.json", (json.dumps(summary, indent=1, allow_nan=False) + "\n").encode())
    return summary


def labelled_output(model: PublicModel, name: str | None) -> int:
    """The index of the output that carries the labels: the one called `name`, or else the only one that can.

    Of several outputs that can be a map, for a segmentation, or one number for each class that the model card knows.
    Raises InputError where there is none, or more than one.
    """
    known, classes = names(model.graph), len(model.card.classes)
    fits = [
        ((node.shape[1:] != (1, 1)) == model.card.segmentation and classes in (0, node.shape[0])) or model.graph.returns_tensor
        for node in model.graph.outputs
    ]
    if name is None:
        if sum(fits) != 1:
            raise InputError(
                f"{model.card.name} returns several outputs: say with --output which carries the labels, of {', '.join(known)}"
            )
        return fits.index(True)
    if name not in known:
        raise InputError(f"output: must be one of {', '.join(known)}, not {name!r:.80}")
    index = known.index(name)
    if not fits[index]:
        shape = "x".join(map(str, model.graph.outputs[index].shape))
        raise InputError(f"output: {name} has the shape {shape}, and carries no labels of {model.card.name}")
    return index


def _batches(indices: list[int], wanted: dict[str, set[int]], size: int) -> Iterator[list[int]]:
    """Runs of up to `size` images for which the same is wanted."""
    for _, alike in itertools.groupby(indices, key=lambda index: [index in chosen for chosen in wanted.values()]):
        same = list(alike)
        yield from (same[start : start + size] for start in range(0, len(same), size))


class _Ways:
    """The ways to run the network, each made ready when it is first needed. A context manager."""

    def __init__(self, assembled: Assembled, options: EvaluateOptions, output: int) -> None:
        """output: the index of the one that is wanted."""
        self._assembled, self._options, self._output, self._open = assembled, options, output, ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    @cached_property
    def _module(self) -> torch.nn.Module:
        return self._assembled.imported.plaintext()

    @cached_property
    def _packed(self) -> twin.Packed:
        return twin.pack(self._assembled.public.plan(1), self._assembled.served.weights)

    @cached_property
    def _parties(self) -> one_host.ThreeProcesses | one_host.ThreeThreads:
        served, options = self._assembled.served, self._options
        parties = one_host.open_parties(served, options.transport, options.network, threads=options.threads, timeout=options.timeout)
        self._open.push(parties)
        return parties

    def outputs(self, ways: set[str], images: Sequence[np.ndarray]) -> dict[str, dict[str, Any]]:
        """By way: `outputs`, for each image one array, as `threepc run` gives them for its windows, and `seconds` for all.

        images: for each its windows, float32 (windows, C, H, W).
        """
        windows, ends = np.concatenate(images), np.cumsum([len(image) for image in images])[:-1]
        run = {PLAIN: self._plain, TWIN: self._twin, SECURE: self._secure}
        found = {}
        for way in (PLAIN, TWIN, SECURE):
            if way in ways:
                began = time.perf_counter()
                parts = [run[way](windows[start : start + self._options.batch]) for start in range(0, len(windows), self._options.batch)]
                outputs = np.split(np.concatenate(parts), ends)
                found[way] = {"outputs": outputs, "seconds": time.perf_counter() - began}
        return found

    def _plain(self, images: np.ndarray) -> np.ndarray:
        return module_outputs(self._module, torch.from_numpy(images))[self._output]

    def _twin(self, images: np.ndarray) -> np.ndarray:
        public = self._assembled.public
        plan = public.plan(len(images))
        outputs = twin.simulate(plan, self._packed, images, seed=0, threads=self._options.threads)
        decoded = joined(public.graph, [outputs[node.name] for node in public.graph.outputs])
        return each(public.network_outputs(decoded))[self._output]

    def _secure(self, images: np.ndarray) -> np.ndarray:
        outputs, _ = self._parties.infer(images)
        return each(self._assembled.public.network_outputs(outputs))[self._output]


# A line of results


def _line(
    index: int, sample: Sample, found: dict[str, dict[str, Any]], position: int, data: Any, label: Callable[..., np.ndarray]
) -> dict[str, Any]:
    """What is kept of one image: by way its score, and how far it is from plaintext. label: `_labels` but for its first two arguments."""
    line: dict[str, Any] = {"index": index, "name": sample.name, "truth": sample.label}
    plain = found[PLAIN]["outputs"][position]
    plain_labels = label(plain, sample)
    for way, run in found.items():
        output = run["outputs"][position]
        labels = plain_labels if way == PLAIN else label(output, sample)
        entry: dict[str, Any] = {"seconds": run["seconds"] / len(run["outputs"])}
        if sample.label is None:
            areas = data.areas(index, labels)
            present = np.flatnonzero(areas.any(axis=0))
            entry["areas"] = {str(c): areas[:, c].tolist() for c in present}
        else:
            entry["label"] = int(labels)
            if np.ndim(output) > 1:
                entry["rank"] = int((output[0] > output[0, sample.label]).sum())
        if way != PLAIN:
            entry["agreement"] = float((labels == plain_labels).mean())
            if np.shape(output) == plain.shape:
                entry |= {"max_error": float(np.abs(output - plain).max()), "largest": float(np.abs(plain).max())}
        line[way] = entry
    return line


def _labels(outputs: np.ndarray, sample: Sample, card: ModelCard) -> np.ndarray:
    """The class, or the class of every pixel of the image. outputs: of its inputs."""
    if card.segmentation:
        return image_labels(outputs, card, (sample.image.shape[0], sample.image.shape[1]))
    return np.asarray(outputs[0].argmax() if np.ndim(outputs) > 1 else outputs[0])


# The summary


def summarise(lines: Sequence[dict[str, Any]], wanted: dict[str, set[int]], data: Any, order: Sequence[int]) -> dict[str, Any]:
    """Scores by way over the images that were wanted of it; for all but plaintext also plaintext's score on the same images."""
    by_way: dict[str, Any] = {}
    for way, indices in wanted.items():
        chosen = [line for line in lines if line["index"] in indices]
        if not chosen:
            continue
        score = _mean_iou if data.segmentation else _accuracy
        by_way[way] = {"images": len(chosen), **score(chosen, way)}
        by_way[way]["seconds_per_image"] = float(np.mean([line[way]["seconds"] for line in chosen]))
        if way == PLAIN:
            continue
        by_way[way]["plaintext_on_the_same"] = score(chosen, PLAIN)
        by_way[way]["agreement"] = float(np.mean([line[way]["agreement"] for line in chosen]))
        with_logits = [line[way] for line in chosen if "max_error" in line[way]]
        if with_logits:
            by_way[way]["max_error"] = max(entry["max_error"] for entry in with_logits)
            by_way[way]["max_relative_error"] = max(
                (entry["max_error"] / entry["largest"] for entry in with_logits if entry["largest"]), default=0.0
            )
    return {"images": len(order), "of": len(data), "results": by_way}


def _accuracy(lines: Sequence[dict[str, Any]], way: str) -> dict[str, float]:
    found = {"accuracy": float(np.mean([line[way]["label"] == line["truth"] for line in lines]))}
    if all("rank" in line[way] for line in lines):
        found[f"top{TOP}_accuracy"] = float(np.mean([line[way]["rank"] < TOP for line in lines]))
    return found


def _mean_iou(lines: Sequence[dict[str, Any]], way: str) -> dict[str, float]:
    total: dict[str, np.ndarray] = {}
    for line in lines:
        for name, areas in line[way]["areas"].items():
            total[name] = total.get(name, 0) + np.array(areas)
    sums = np.array(list(total.values()), np.float64).reshape(-1, 3)
    intersect, union, truth = sums.T
    known = truth > 0
    return {
        "mean_iou": float((intersect[union > 0] / union[union > 0]).mean()) if len(sums) else 0.0,
        "mean_accuracy": float((intersect[known] / truth[known]).mean()) if known.any() else 0.0,
        "pixel_accuracy": float(intersect.sum() / truth.sum()) if truth.sum() else 0.0,
    }


# What is kept


def _manifest(assembled: Assembled, data: Any) -> dict[str, Any]:
    digest = hashlib.sha256()
    for name, part in sorted(assembled.served.weights.items()):
        for key in ("weight", "bias"):
            digest.update(f"{name}\n{key}\n{part[key].shape}".encode())
            digest.update(np.ascontiguousarray(part[key]).data)
    public = assembled.public
    return {
        "version": VERSION,
        "fingerprint": public.fingerprint,
        "weights": digest.hexdigest(),
        "preprocessing": json.loads(public.card.to_json())["preprocessing"],
        "dataset": data.name,
        "dataset_images": len(data),
        "ring_bits": public.precision.bits,
        "precision": public.precision.to_plain(),
        "decisions": public.plan(1).drelus,
    }


class Store:
    """The results folder: `lines` by image index, of all runs so far of the same manifest."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        """Read what is there. Raises InputError where that is of another model, precision, spec or dataset, or nothing can be written."""
        self.manifest = manifest
        self.lines: dict[int, dict[str, Any]] = {}
        self._path, self._pinned = folder / "results.jsonl", folder / "manifest.json"
        check_writable(folder, is_directory=True)
        if self._pinned.exists():
            self._compare(self._pinned)
        if self._path.exists():
            self._read()

    def _compare(self, path: Path) -> None:
        held = read_json(path, "the results")
        wanted = json.loads(json.dumps(self.manifest))
        for key in [*wanted, *(held if isinstance(held, dict) else ())]:
            if not isinstance(held, dict) or held.get(key) != wanted.get(key):
                raise InputError(f"{path.parent} holds results of another {key.replace('_', ' ')}: give another folder, or remove this one")

    def _read(self) -> None:
        """Take the whole lines; cut off one that a dying run left unfinished."""
        content = self._path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        for number, text in enumerate(whole.splitlines(), 1):
            try:
                line = parse_json(text, "a result")
                self.lines[line["index"]] = line
            except (InputError, KeyError, TypeError):
                raise InputError(f"{self._path}, line {number}: no result of this program; give another folder") from None
        if whole != content:
            write_atomically(self._path, whole)

    def append(self, lines: Sequence[dict[str, Any]]) -> None:
        """Add the results of a batch, and keep what earlier runs know of the same images. On the disk when this returns."""
        merged = [self.lines.get(line["index"], {}) | line for line in lines]
        if not self._pinned.exists():
            write_atomically(self._pinned, (json.dumps(self.manifest, indent=1) + "\n").encode())
        try:
            with self._path.open("ab") as file:
                file.write("".join(json.dumps(line) + "\n" for line in merged).encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RunError(f"cannot write {self._path}: {error.strerror}") from None
        self.lines |= {line["index"]: line for line in merged}
