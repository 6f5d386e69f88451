"""The client: masks its images, prepares ahead, talks with the server online, and alone learns the result."""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import Future
from functools import cached_property
from types import TracebackType
from typing import Self

import numpy as np

from threepc.errors import InputError, RunError
from threepc.kernels.convolution import PackedWeight
from threepc.model.served import PublicModel
from threepc.party import inference
from threepc.party.connector import Connector
from threepc.party.memory import check_batch, check_weights, largest_batch
from threepc.party.offered import is_meant
from threepc.party.pacing import PacedSender
from threepc.party.record import USAGE, Counts, Record, by_link, by_step, difference
from threepc.party.rehearsal import rehearse_client
from threepc.party.session import (
    WAITING_S,
    Options,
    all_measured,
    allow_messages,
    close_all,
    kind_of,
    measured,
    new_session,
    open_channel,
    text_field,
)
from threepc.party.tracing import Timeline, noting, result_of
from threepc.party.usage import Usage, counted
from threepc.party.warmup import warm_up
from threepc.plan.schedule import Plan
from threepc.prf import Keystream, new_key
from threepc.protocol.roles import Client, KernelArgument
from threepc.transport.channel import Channel
from threepc.transport.framing import PROTOCOL_VERSION, Control, printable
from threepc.transport.meter import Meter


class ClientSession:
    """A session with a server and a provider: set up once, then any number of inferences, one at a time.

    A context manager. `model` is what the server says of its network; `meter` counts the client's links, and from what the other two declare
    and send nothing is taken on trust but their timing.
    """

    def __init__(self, connector: Connector, options: Options) -> None:
        """Connect and set up. Raises RunError when a party is missing or disagrees."""
        self._options, self.meter = options, Meter()
        self._channels: list[Channel] = []
        self._weights: dict[int, PackedWeight] = {}
        self._attempt, key = 0, new_key()
        self._ended = ""
        self._counted = contextlib.ExitStack()
        self._stream = Keystream(key)
        began = time.perf_counter()
        try:
            self._set_up(connector, key)
        except BaseException as error:
            self._end(error)
            raise
        self.setup_seconds = time.perf_counter() - began

    def _open(self, connector: Connector, role: str) -> Channel:
        channel = open_channel(connector.connect(role, self._options.tell), "client", role, self._options, self.meter)
        self._channels.append(channel)
        return channel

    def _set_up(self, connector: Connector, key: bytes) -> None:
        session = new_session()
        self._counted.enter_context(counted(session))
        hello = {"version": PROTOCOL_VERSION, "role": "client", "session": session.hex()}
        self._online = self._open(connector, "server")
        self._online.send_control("hello", hello | {"purpose": "online", "model": self._options.model})
        try:
            heard = self._hear_model()
            digest = text_field(heard, "weights")
            self.model = PublicModel.from_plain({key: value for key, value in heard.fields.items() if key != "weights"})
        except InputError as error:
            raise RunError(f"the server's description of its model is malformed: {error}") from None
        if not is_meant(self.model, self._options.model):
            raise RunError(f"the server answers with {printable(self.model.called)}, and not with {self._options.model}")
        self._options.accept(self.model)
        check_weights(self.model, self._options.memory, "the client")
        self._provider = self._open(connector, "provider")
        self._provider.send_control("hello", hello | {"fingerprint": self.model.fingerprint}, [key])
        self._offline = self._open(connector, "server")
        self._offline.send_control("hello", hello | {"purpose": "offline"})
        sizes = {step.op: step.protocol.mask_bytes for step in self.model.plan(1).linear}
        for channel in self._channels:
            channel.connection.allow(max(sum(sizes.values()), self._options.budget))
        cache, held = self._options.weight_cache, self._options.held
        self._weights = (held and held.get(digest, self.model.fingerprint)) or {}
        kept = None if cache is None or self._weights else cache.read(digest, list(sizes.values()))
        self._online.send_control("opened", {} if kept is None and not self._weights else {"weights": digest})
        for channel in self._channels:
            channel.session = session
        if not self._weights:
            self._receive_weights(digest, sizes, kept)
        warm_up(self.model.precision)
        rehearse_client(self.model, self._weights, self._options.memory, self._options.threads)
        self._online.receive_control("ready")  # first: the server hears of a provider that fails, the provider not of a server
        if self._provider.receive_control("ready").fields.get("fingerprint") != self.model.fingerprint:
            raise RunError("the provider confirmed another model")
        self.setup_links = {link: phases["setup"] for link, phases in by_link(self.meter.counts()).items() if "setup" in phases}
        self._paced = PacedSender(self._offline, self._options.budget)

    def _receive_weights(self, digest: str, sizes: dict[int, int], kept: list[np.ndarray] | None) -> None:
        """The masked weights as kernels take them, for this session and further ones. kept: those on the disk; else they come from the server."""
        received = []
        for index, step in enumerate(self.model.plan(1).linear):
            message = kept[index] if kept is not None else self._offline.receive(step.op, [(np.uint8, (sizes[step.op],))])[0]
            self._weights[step.op] = step.protocol.client_weights(KernelArgument(message).array)
            if self._options.weight_cache is not None and kept is None:
                received.append(message)
        if self._options.weight_cache is not None and kept is None:
            self._options.weight_cache.keep(digest, received)
        if self._options.held is not None:
            self._options.held.keep(digest, self.model.fingerprint, self._weights)

    def _hear_model(self) -> Control:
        """What the server says of its model, as soon as it has one, a place for this session, and the provider."""
        patience = max(self._options.timeout, 3 * WAITING_S)
        while (answer := self._online.receive_control("model", "waiting", timeout=patience)).kind == "waiting":
            self._options.tell(f"the server has this client wait: {printable(text_field(answer, 'for'))}")
        return answer

    @cached_property
    def largest_batch(self) -> int:
        """The most images that `infer` takes at once; 0 where this client's memory does not hold the work for one."""
        return largest_batch(self.model, self._options.memory)

    def infer(self, images: np.ndarray, separate: bool = False) -> tuple[np.ndarray, Record]:
        """Logits (N, ...) float64 of images (N, C, H, W), real numbers, and what it cost.

        separate: finish the offline phase before the online one begins, which needs all its bytes within the budget. Raises InputError before
        anything is sent, RunError when the run fails; then the session is over. It is over, too, with a record that is incomplete.
        """
        if self._ended:
            raise RunError(f"this session is over: {self._ended}")
        return self.infer_words(self.model.precision.image_words(images, self.model.graph.input.shape), separate)

    def infer_words(self, words: np.ndarray, separate: bool = False) -> tuple[np.ndarray, Record]:
        """As `infer`, of images that are ring words."""
        if self._ended:
            raise RunError(f"this session is over: {self._ended}")
        plan = check_batch(self.model, len(words), self._options.memory, "the client")
        ahead = max(plan.cost.offline.values(), default=0)
        if separate and ahead > self._options.budget:
            raise InputError(f"the offline phase needs a budget of {ahead / 1e6:.0f} MB to be finished before the online phase")
        try:
            return self._infer(words, plan, separate)
        except BaseException as error:
            self._end(error)
            raise

    def _infer(self, words: np.ndarray, plan: Plan, separate: bool) -> tuple[np.ndarray, Record]:
        attempt, before = self._attempt, self.meter.counts()
        self._attempt += 1
        self._stream.begin_attempt(attempt)
        allow_messages(plan, self._channels, self._options.budget)
        usage, began = Usage(self._online.session), time.perf_counter()
        self._provider.send_control("deal", {"attempt": attempt, "batch": plan.batch})
        role = Client(attempt, self._weights, self._stream, self._paced, self._online, self._options.threads)
        self._provider.attempt = self._offline.attempt = attempt
        ahead, dealt = _Ahead(role, plan, self._channels, self._options.trace), None
        if separate:
            ahead.join()
            dealt = self._provider.receive_control("dealt")
        prepared = time.perf_counter()
        try:
            self._online.send_control("infer", {"attempt": attempt, "batch": plan.batch})
            self._online.attempt = attempt
            logits = inference.infer(role, plan, words, ahead, noting(self._options.trace, "online", inference.nothing))
        except RunError:
            ahead.join()  # what went wrong there comes first
            raise
        end = time.perf_counter()
        self._stream.end_attempt(attempt)
        counts = difference(self.meter.counts(), before)
        record = Record({"offline": prepared - began, "online": end - prepared, "total": end - began}, by_link(counts))
        record.add_usage("client", usage.fields())
        try:
            if dealt is None:
                dealt = self._provider.receive_control("dealt")
                record.seconds["offline"] = max(ahead.seconds, measured(dealt, "seconds"))
            record.add_usage("provider", _usage(dealt))
            done = self._online.receive_control("done")
            record.add_usage("server", _usage(done))
            self._add_steps(record, plan, done, counts)
        except RunError as error:
            # the answer is there: a party that is gone by now takes no more with it than what it would have said of itself
            record.incomplete = str(error)
            self._end(error)
        return logits, record

    def _add_steps(self, record: Record, plan: Plan, done: Control, counts: Counts) -> None:
        """What travelled for one inference step by step; between provider and server as the server says it."""
        dealt_bytes = [int(size) for size in all_measured(done, "dealt", len(plan.steps))]
        seconds = all_measured(done, "layers", len(plan.steps))
        record.links["provider->server"] = {"offline": [sum(dealt_bytes), sum(map(bool, dealt_bytes))]}
        for step, (size, messages), more, taken in zip(plan.steps, by_step(plan, counts), dealt_bytes, seconds, strict=True):
            layer = {"name": step.name, "kind": step.kind, "seconds": taken, "bytes": size + more, "messages": messages}
            record.layers.append(layer)

    @property
    def has_ended(self) -> bool:
        """Whether nothing more can be asked in this session."""
        return bool(self._ended)

    def close(self) -> None:
        """End the session in good order."""
        self._end(None)

    def _end(self, error: BaseException | None) -> None:
        if self._ended:
            return
        self._ended = "it was closed"
        self._counted.close()
        self._stream.erase()
        if error is None:
            for channel in (self._online, self._provider):
                with contextlib.suppress(RunError):  # whoever is gone needs no goodbye
                    channel.send_control("bye", {})
            close_all(self._channels)
        else:
            self._ended = str(error) if isinstance(error, RunError) else f"{type(error).__name__} in the client"
            close_all(self._channels, self._ended, kind_of(error))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end(error)


def _usage(control: Control) -> dict[str, float]:
    return {key: measured(control, key) for key in USAGE if key in control.fields}


class _Ahead:
    """The offline phase in a thread of its own; the online phase reads the input's mask and the outputs' shares from it when it needs them."""

    def __init__(self, role: Client, plan: Plan, channels: list[Channel], trace: Timeline | None) -> None:
        self._role, self._plan, self._channels, self._trace = role, plan, channels, trace
        self._mask: Future[np.ndarray] = Future()
        self._kept: Future[list[np.ndarray]] = Future()
        self.seconds = 0.0
        threading.Thread(target=self._run, name="prepare", daemon=True).start()

    def _run(self) -> None:
        began = time.perf_counter()
        try:
            kept = inference.prepare(self._role, self._plan, self._mask.set_result, noting(self._trace, "offline", inference.nothing))
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is waited for
            for channel in self._channels:
                channel.close()
            for future in (self._mask, self._kept):
                if not future.done():
                    future.set_exception(error)
            return
        self.seconds = time.perf_counter() - began
        self._kept.set_result(kept)

    def join(self) -> None:
        """Wait for the end; raises what went wrong."""
        self._kept.result()

    @property
    def mask(self) -> np.ndarray:
        """d of the input, as soon as it is drawn."""
        return result_of(self._mask, self._trace)

    @property
    def kept(self) -> list[np.ndarray]:
        """What each output's opening needs, when all is prepared."""
        return result_of(self._kept, self._trace)
