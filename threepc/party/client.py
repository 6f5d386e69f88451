"""The client: masks its images, prepares ahead, talks with the server online, and alone learns the result."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from functools import cached_property
from types import TracebackType
from typing import Self, cast

import numpy as np

from threepc.errors import InputError, RunError
from threepc.kernels.convolution import PackedWeight
from threepc.model.served import PublicModel
from threepc.party import inference
from threepc.party.ahead import Ahead, Preparing
from threepc.party.connector import Connector
from threepc.party.memory import check_batch, check_weights, largest_batch
from threepc.party.offered import is_meant
from threepc.party.pacing import PacedReceiver, PacedSender
from threepc.party.record import USAGE, Counts, Record, by_link, by_step, difference
from threepc.party.rehearsal import rehearse_client
from threepc.party.session import (
    SETTLING_S,
    WAITING_S,
    Options,
    all_measured,
    allow_messages,
    check_ahead,
    close_all,
    kind_of,
    measured,
    new_session,
    number_field,
    open_channel,
    text_field,
)
from threepc.party.tracing import noting
from threepc.party.usage import Usage, counted
from threepc.party.warmup import warm_up_in_session
from threepc.plan.schedule import Plan
from threepc.prf import Keystream, new_key
from threepc.protocol.roles import Client, KernelArgument
from threepc.transport.channel import Channel
from threepc.transport.framing import PROTOCOL_VERSION, Control, printable
from threepc.transport.meter import Meter


class ClientSession:
    """A session with a server and a provider: set up once, then any number of inferences, one at a time.

    A context manager. `model` is what the server says of its network; `meter` counts the client's links but for the offline phases, each of
    which has a meter of its own, and from what the other two declare and send nothing is taken on trust but their timing. Where the options
    say that inferences are prepared ahead, each takes `batch` images: what is asked for is filled up with black ones.
    """

    def __init__(self, connector: Connector, options: Options) -> None:
        """Connect and set up. Raises RunError when a party is missing or disagrees."""
        self._options, self.meter = options, Meter()
        self._channels: list[Channel] = []
        self._weights: dict[int, PackedWeight] = {}
        self._preparing: Preparing | None = None
        self._ready: deque[Ahead] = deque()
        self._attempt, key = 0, new_key()
        self._ended, self._ending = "", threading.Lock()
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
        hello = {"version": PROTOCOL_VERSION, "role": "client", "session": session.hex()} | self._options.asked_ahead()
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
        check_ahead(self.model, self._options, "client")
        self._provider = self._open(connector, "provider")
        self._provider.send_control("hello", hello | {"fingerprint": self.model.fingerprint}, [key])
        self._offline = self._open(connector, "server")
        self._offline.send_control("hello", hello | {"purpose": "offline"})
        sizes = {step.op: step.protocol.mask_bytes for step in self.model.plan(1).holding}
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
        warm_up_in_session(self.model)
        rehearse_client(self.model, self._weights, self._options.memory, self._options.threads)
        self._online.receive_control("ready")  # first: the server hears of a provider that fails, the provider not of a server
        if self._provider.receive_control("ready").fields.get("fingerprint") != self.model.fingerprint:
            raise RunError("the provider confirmed another model")
        self.setup_links = {link: phases["setup"] for link, phases in by_link(self.meter.counts()).items() if "setup" in phases}
        self._paced, self._told = PacedSender(self._offline, self._options.budget), PacedReceiver(self._provider)
        self._preparing = Preparing(self._paced, self._provider, self._channels)
        if self._ended:  # another thread has closed this session meanwhile, when there was nothing to close yet
            self._preparing.close()

    def _receive_weights(self, digest: str, sizes: dict[int, int], kept: list[np.ndarray] | None) -> None:
        """The masked weights as kernels take them, for this session and further ones. kept: those on the disk; else they come from the server."""
        received = []
        for index, step in enumerate(self.model.plan(1).holding):
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
        most = largest_batch(self.model, self._options.memory)
        return min(most, self._options.batch) if self._options.ahead else most

    def infer(self, images: np.ndarray, separate: bool = False) -> tuple[np.ndarray, Record]:
        """Logits (N, ...) float64 of images (N, C, H, W), real numbers, and what it cost.

        separate: finish the offline phase before the online one begins, which needs all its bytes within the budget. Raises InputError before
        anything is sent, RunError when the run fails; then the session is over. It is over, too, with a record that is incomplete.
        """
        if self._ended:
            raise RunError(f"this session is over: {self._ended}")
        if images.ndim == 4:  # too many are refused before they are converted
            self._plan_for(len(images))
        return self.infer_words(self.model.precision.image_words(images, self.model.graph.input.shape), separate)

    def infer_words(self, words: np.ndarray, separate: bool = False) -> tuple[np.ndarray, Record]:
        """As `infer`, of images that are ring words."""
        if self._ended:
            raise RunError(f"this session is over: {self._ended}")
        count = len(words)
        plan = self._plan_for(count)
        if plan.batch > count:
            words = np.concatenate([words, np.zeros((plan.batch - count, *words.shape[1:]), words.dtype)])
        ahead = max(plan.cost.offline.values(), default=0)
        if separate and ahead > self._options.budget:
            raise InputError(f"the offline phase needs a budget of {ahead / 1e6:.0f} MB to be finished before the online phase")
        try:
            outputs, record = self._infer(words, plan, separate)
        except BaseException as error:
            self._end(error)
            raise
        return outputs[:count], record

    def _plan_for(self, count: int) -> Plan:
        """What is computed where `count` images are asked for. Raises InputError where these are too many at once."""
        batch = self._options.batch if self._options.ahead and count else count
        plan = check_batch(self.model, max(count, batch), self._options.memory, "the client")
        if self._options.ahead and count > batch:
            raise InputError(f"this session prepares inferences of {batch} image(s): ask for so many at most, not for {count}")
        return plan

    def prepare_ahead(self, most: float = math.inf, *, wait: bool = False) -> None:
        """Begin offline phases until as many inferences are prepared and not used as the options say, or `most`.

        wait: until they are over. Raises RunError when one fails; then the session is over. Without it nothing is begun where the provider has gone
        and others are prepared, which need nothing of it any more.
        """
        if self._ended:
            raise RunError(f"this session is over: {self._ended}")
        try:
            while len(self._ready) < min(self._options.ahead, most) and (
                wait or not self._ready or not self._provider.connection.has_ended
            ):
                self._ready.append(self._begin(self.model.plan(self._options.batch)))
            for ahead in list(self._ready) if wait else ():
                self._wait_for(ahead)
        except BaseException as error:
            self._end(error)
            raise

    @property
    def most_ready(self) -> int:
        """How many inferences this session prepares at most."""
        return self._options.ahead

    @property
    def ready(self) -> int:
        """How many inferences are prepared, or being prepared, and not used."""
        return 0 if self._ended else len(self._ready)

    def _begin(self, plan: Plan) -> Ahead:
        """The next attempt: from here on its number is used, whatever becomes of it."""
        attempt, self._attempt = self._attempt, self._attempt + 1
        self._stream.begin_attempt(attempt)
        allow_messages(plan, self._channels, self._options.budget)
        self._provider.send_control("deal", {"attempt": attempt, "batch": plan.batch})
        role = Client(attempt, self._weights, self._stream, self._provider, self._paced, self._online, self._options.threads)
        role.on_taken = self._told.used
        return cast("Preparing", self._preparing).begin(Ahead(role, plan, self._options.trace))

    def _wait_for(self, ahead: Ahead) -> None:
        """Until an offline phase is over at the client, and the provider has said so of its part; called in the order of attempts."""
        ahead.join()
        if ahead.dealt is None:
            ahead.dealt = self._provider.receive_control("dealt")

    def _settled(self, ahead: Ahead) -> float:
        """Wait until an offline phase is over and, where a network is simulated, all is there that was sent for it; how many seconds ago that was."""
        self._wait_for(ahead)
        over = time.monotonic()
        if not self._offline.is_simulated:
            return 0.0
        arrives = max(self._offline.arrives, number_field(cast("Control", ahead.dealt), "arrives"))
        coming = min(arrives - time.monotonic_ns(), round(SETTLING_S * 1e9))  # whatever the provider says
        time.sleep(max(0, coming) / 1e9)
        self._online.send_control("settle", {})
        over = max(over, measured(self._online.receive_control("settled", timeout=SETTLING_S), "at"))
        return max(0.0, time.monotonic() - over)

    def _infer(self, words: np.ndarray, plan: Plan, separate: bool) -> tuple[np.ndarray, Record]:
        before, usage, began = self.meter.counts(), Usage(self._online.session), time.perf_counter()
        try:
            ahead = self._ready.popleft()
        except IndexError:
            ahead = self._begin(plan)
        attempt, was_ready = ahead.role.attempt, ahead.is_over
        ago = self._settled(ahead) if separate else 0.0
        prepared = time.perf_counter()
        try:
            self._online.send_control("infer", {"attempt": attempt, "batch": plan.batch})
            self._online.attempt = attempt
            logits = inference.infer(ahead.role, plan, words, ahead, noting(self._options.trace, "online", inference.nothing))
        except RunError:
            ahead.join()  # what went wrong there comes first
            raise
        end = time.perf_counter()
        self._stream.end_attempt(attempt)
        counts = difference(self.meter.counts(), before) | ahead.meter.counts()
        record = Record({"offline": prepared - began - ago, "online": end - prepared, "total": end - began}, by_link(counts))
        record.precomputed = int(was_ready)
        record.add_usage("client", usage.fields())
        try:
            self._told.settle()
            self._wait_for(ahead)
            if not separate:
                record.seconds["offline"] = ahead.seconds
            record.add_usage("provider", _usage(cast("Control", ahead.dealt)))
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
        """Once, whichever thread is first, and wholly, whatever interrupts it."""
        reason = None if error is None else str(error) if isinstance(error, RunError) else f"{type(error).__name__} in the client"
        with self._ending:
            if self._ended:
                return
            self._ended = reason or "it was closed"
        with contextlib.ExitStack() as ending:
            ending.callback(close_all, self._channels, reason, "refused" if error is None else kind_of(error))
            ending.callback(self._counted.close)
            try:
                if self._preparing is not None:
                    self._preparing.close()  # before the key goes: what it prepares then fails because of the end, and says so
            finally:
                self._stream.erase()
            self._ready.clear()
            for channel in (self._online, self._provider) if error is None else ():
                with contextlib.suppress(RunError):  # whoever is gone needs no goodbye
                    channel.send_control("bye", {})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end(error)


def _usage(control: Control) -> dict[str, float]:
    return {key: measured(control, key) for key in USAGE if key in control.fields}
