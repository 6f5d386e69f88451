"""Running a program: what client and server bring to it and are shown, between the hosts of a deployment or all on this machine."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import numpy as np

from threepc.console import Display
from threepc.errors import InputError, RunError, ThreepcError, typed
from threepc.model.served import PublicModel, ServedModel
from threepc.party import three_hosts
from threepc.party.client import ClientSession
from threepc.party.deployment import load
from threepc.party.listening import ListeningParty
from threepc.party.one_host import ThreeThreads
from threepc.party.provider import ProviderParty
from threepc.party.record import Record
from threepc.party.server import ServerParty
from threepc.party.session import log
from threepc.party.warmup import warm_up_for
from threepc.ring import word_of
from threepc.tensors.owners import of_client, of_server, share
from threepc.tensors.program import CLIENT, SERVER, Input, Program, check_policy
from threepc.tensors.ranges import check as check_ranges

P = TypeVar("P", bound=ListeningParty)

Values = Mapping[str, object]
"""Arrays by the names of inputs; of a data owner's input the message of its `Shares` to this party."""

Arrays = dict[str, np.ndarray]
"""Float64 by the names of outputs; whole numbers where they are indices."""


def willing(program: Program, policy: Mapping[str, str]) -> Callable[[PublicModel], None]:
    """What a party asks of the job that another one describes, before anything is computed.

    Its own policy must allow it, no number may get larger than the ring holds, and it must be this one.
    """

    def accept(model: PublicModel) -> None:
        check_policy(model, policy)
        check_ranges(model)
        if model.fingerprint != program.fingerprint:
            raise RunError(f"the server runs another job than {program.name} as it is here: their fingerprints differ")

    return accept


def _begin(program: Program, policy: Mapping[str, str]) -> None:
    """What every party does first: ask its policy, and say aloud what nobody checks."""
    program.check(policy)
    for line in program.assumptions:
        log.warning("%s: %s", program.name, line)


def client_words(program: Program, values: Values) -> np.ndarray:
    """The client's only input, ring words (1, numbers, 1, 1): its own arrays, and its shares of the data owners' ones, one after the other."""
    chosen = [each for each in program.inputs if each.owner != SERVER]
    _check_names("client", chosen, values)
    words = [_part(program, each, values[each.name], of_client).reshape(-1) for each in chosen]
    whole = np.concatenate(words) if words else np.zeros(1, word_of(program.public.precision.bits))
    return whole.reshape(1, -1, 1, 1)


def client_results(program: Program, decoded: np.ndarray) -> Arrays:
    """What the client was shown. decoded: as `ClientSession.infer` gives it."""
    shown = [each for each in program.outputs if each.to == CLIENT]
    ends = np.cumsum([math.prod(each.shape) for each in shown])
    parts = np.split(decoded.reshape(-1), ends[:-1]) if shown else []
    return {
        each.name: part.reshape(each.shape).astype(np.int64 if each.is_label else np.float64)
        for each, part in zip(shown, parts, strict=True)
    }


class ServerPart:
    """The server's side of a program. inputs: gives its arrays for the next run; shown: is told what a run revealed to it."""

    def __init__(self, program: Program, inputs: Callable[[], Values], shown: Callable[[Arrays], None]) -> None:
        self._program, self._inputs, self._shown = program, inputs, shown
        self._chosen = [each for each in program.inputs if each.owner != CLIENT]

    def words(self, values: Values) -> dict[str, np.ndarray]:
        """Ring words (1, C, H, W) by node. Raises InputError for missing arrays, others, and what does not fit."""
        _check_names("server", self._chosen, values)
        return {each.node: _part(self._program, each, values[each.name], of_server) for each in self._chosen}

    def given(self) -> dict[str, np.ndarray]:
        """As `ServerSide` has it. A refusal may quote a number: neither the other parties nor a log are told more than where it stands."""
        where = "the program that brings them"
        try:
            values = self._inputs()
            where = ""
            return self.words(values)
        except ThreepcError as error:
            log.error("the server's inputs of %s do not suit it: %s", self._program.name, where or str(error).partition(":")[0])
            raise RunError("the server's inputs do not suit the job") from None

    def shown(self, results: list[np.ndarray]) -> None:
        """As `ServerSide` has it."""
        chosen = [each for each in self._program.outputs if each.to == SERVER]
        try:
            self._shown({each.name: array.reshape(each.shape) for each, array in zip(chosen, results, strict=True)})
        except ThreepcError:  # of the program that is shown them, whose text is not for the other parties
            raise RunError("the server could not take what it was shown") from None


def _part(program: Program, declared: Input, value: object, of_party: Callable[[bytes, int, int], np.ndarray]) -> np.ndarray:
    if not declared.is_shared:
        return program.encoded(declared.name, value)
    if not isinstance(value, bytes):
        raise InputError(f"{declared.name}: must be a share of {declared.owner}'s, not {typed(value)}")
    try:
        words = of_party(value, math.prod(declared.shape), program.public.precision.bits)
    except InputError as error:
        raise InputError(f"{declared.name}: {error}") from None
    return words.reshape(1, *program.public.graph[declared.node].shape)


def _check_names(role: str, chosen: list[Input], values: Values) -> None:
    names = [each.name for each in chosen]
    for name in values.keys() ^ set(names):
        what = f"{name!r:.80} is missing" if name in names else f"{name!r:.80} is no input of the {role}'s"
        raise InputError(f"{what}: it brings {', '.join(names) or 'nothing'}")


@dataclass(frozen=True)
class Results:
    """What one run on this machine revealed to each of the two, and what it cost."""

    client: Arrays
    server: Arrays
    record: Record


class LocalParties:
    """The three parties of a program as threads; made by `local`."""

    def __init__(self, program: Program, policy: Mapping[str, str], threads: int, timeout: float) -> None:
        self._program = program
        self._values: Values = {}
        self._shown: Arrays = {}
        self._side = ServerPart(program, lambda: self._values, self._note)
        served = ServedModel(program.public, {}, self._side)
        self._parties = ThreeThreads(served, threads, timeout, accept=willing(program, policy))

    def _note(self, results: Arrays) -> None:
        self._shown = results

    def run(self, client: Values | None = None, server: Values | None = None, owners: Values | None = None) -> Results:
        """One run with the arrays that client, server and data owners bring. Raises InputError before anything is sent, for what does not suit."""
        shares = {name: share(self._program, name, values) for name, values in (owners or {}).items()}
        words = client_words(self._program, {**(client or {}), **{name: each.to_client for name, each in shares.items()}})
        self._values = {**(server or {}), **{name: each.to_server for name, each in shares.items()}}
        self._side.words(self._values)
        self._shown = {}
        decoded, record = self._parties.infer_words(words)
        return Results(client_results(self._program, decoded), self._shown, record)

    def close(self) -> None:
        """End the session."""
        self._parties.close()


@contextmanager
def local(program: Program, policy: Mapping[str, str], *, threads: int = 1, timeout: float = 120.0) -> Iterator[LocalParties]:
    """Client, server and provider as threads of this process: a demonstration and a test bed, not privacy.

    Raises InputError where the policy forbids what the program reveals.
    """
    _begin(program, policy)
    with Display().stage("preparing kernels") as progress:
        warm_up_for(program.public, progress)
    parties = LocalParties(program, policy, threads, timeout)
    try:
        yield parties
    finally:
        parties.close()


@contextmanager
def serve(
    deployment: Path | str,
    program: Program,
    policy: Mapping[str, str],
    inputs: Callable[[], Values] = dict,
    shown: Callable[[Arrays], None] = lambda _: None,
) -> Iterator[ServerParty]:
    """The server of a deployment, with this job for its only model, in a thread of its own until the `with` ends.

    inputs, shown: as `ServerPart` has them; they may be called from several threads. Raises InputError for keys, an address in use, and what
    the policy forbids.
    """
    _begin(program, policy)
    with _running(three_hosts.open_server(load(deployment), ServedModel(program.public, {}, ServerPart(program, inputs, shown)))) as party:
        yield party


@contextmanager
def provide(deployment: Path | str, program: Program, policy: Mapping[str, str]) -> Iterator[ProviderParty]:
    """The provider of a deployment for this job and no other; the rest as `serve`."""
    _begin(program, policy)
    with _running(three_hosts.open_provider(load(deployment), accept=willing(program, policy))) as party:
        yield party


@contextmanager
def _running(party: P) -> Iterator[P]:
    thread = threading.Thread(target=party.serve, name="serve a job", daemon=True)
    thread.start()
    try:
        yield party
    finally:
        party.stop()
        thread.join()


class Asking:
    """A client's session of a program with the parties of a deployment, for any number of runs. A context manager."""

    def __init__(self, deployment: Path | str, program: Program, policy: Mapping[str, str], name: str = "client") -> None:
        """name: of the client's key files. Raises InputError for these and for what the policy forbids, RunError when a party is missing or disagrees."""
        _begin(program, policy)
        self._program = program
        self._session: ClientSession = three_hosts.open_client(load(deployment), name, cache=False, accept=willing(program, policy))
        self.record: Record | None = None
        """What the last run cost."""

    def run(self, values: Values) -> Arrays:
        """One run. Raises InputError before anything is sent, RunError when a party fails; then the session is over."""
        decoded, self.record = self._session.infer_words(client_words(self._program, values))
        return client_results(self._program, decoded)

    def close(self) -> None:
        """End the session."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
