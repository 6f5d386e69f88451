"""The client: masks its images, prepares ahead, talks with the server online, and alone learns the result."""

from __future__ import annotations

import threading
import time

import numpy as np

from threepc.errors import InputError, RunError
from threepc.model.served import PublicModel
from threepc.party import inference
from threepc.party.connector import Connector
from threepc.party.pacing import PacedSender
from threepc.party.provider import MAX_BATCH
from threepc.party.record import Record, by_link, by_step, difference
from threepc.party.session import Options, Usage, ending_together, new_session, number, numbers, open_channel
from threepc.party.warmup import warm_up
from threepc.plan.schedule import Plan
from threepc.prf import Keystream, new_key
from threepc.protocol.roles import Client, KernelArgument
from threepc.transport.channel import PROTOCOL_VERSION, Channel
from threepc.transport.meter import Meter


class ClientSession:
    """A session with a server and a provider: set up once, then any number of inferences, one at a time.

    A context manager. `model` is what the server says of its network; `meter` counts the client's links, and from what the other two declare
    and send nothing is taken on trust but their timing.
    """

    def __init__(self, connector: Connector, options: Options, expected: str | None = None):
        """Connect and set up. expected: the fingerprint that the model must have. Raises RunError when a party is missing or disagrees."""
        self._options, self.meter = options, Meter()
        self._attempt, self._channels = 0, []
        began = time.perf_counter()
        self._guard = ending_together(self._channels)
        self._guard.__enter__()
        try:
            self._connect(connector, expected)
        except BaseException as error:
            self._guard.__exit__(type(error), error, error.__traceback__)
            raise
        self.setup_seconds = time.perf_counter() - began

    def _open(self, connector: Connector, role: str) -> Channel:
        channel = open_channel(connector.connect(role), "client", role, self._options, self.meter)
        self._channels.append(channel)
        return channel

    def _connect(self, connector: Connector, expected: str | None) -> None:
        session, key = new_session(), new_key()
        hello = {"version": PROTOCOL_VERSION, "role": "client", "session": session.hex()}
        self._online = self._open(connector, "server")
        self._online.send_control("hello", hello | {"purpose": "online"})
        try:
            self.model = PublicModel.from_plain(self._online.receive_control("model").fields)
        except InputError as error:
            raise RunError(f"the server's description of its model is malformed: {error}") from None
        if expected is not None and self.model.fingerprint != expected:
            raise RunError("the server's model, ring, precision or relu spec is not the expected one: their fingerprints differ")
        self._options.accept(self.model)
        self._provider = self._open(connector, "provider")
        self._provider.send_control("hello", hello | {"fingerprint": self.model.fingerprint}, [key])
        self._offline = self._open(connector, "server")
        self._offline.send_control("hello", hello | {"purpose": "offline"})
        self._online.send_control("opened", {})
        for channel in self._channels:
            channel.session = session
        self._stream = Keystream(key)
        self._weights = {}
        for step in self.model.plan(1).linear:
            (message,) = self._offline.receive(step.op, [(np.uint8, (step.protocol.mask_bytes,))])
            self._weights[step.op] = step.protocol.client_weights(KernelArgument(message).array)
        warm_up(self.model.precision)
        self._online.receive_control("ready")  # first: the server hears of a provider that fails, the provider not of a server
        ready = self._provider.receive_control("ready")
        if ready.fields.get("fingerprint") != self.model.fingerprint:
            raise RunError("the provider confirmed another model")
        self.setup_links = {link: phases["setup"] for link, phases in by_link(self.meter.counts()).items() if "setup" in phases}
        self._paced = PacedSender(self._offline, self._options.budget)

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Ring words of images (N, C, H, W). Raises InputError for another shape, for what is not finite, and for what does not fit."""
        words = self.model.precision.image_words(images, self.model.graph.input.shape)
        if not 1 <= len(images) <= MAX_BATCH:
            raise InputError(f"an inference takes 1 to {MAX_BATCH} images at once, not {len(images)}")
        return words

    def infer(self, images: np.ndarray, separate: bool = False) -> tuple[np.ndarray, Record]:
        """Logits (N, ...) float64 of images (N, C, H, W), real numbers, and what it cost.

        separate: finish the offline phase before the online one begins, which needs all its bytes within the budget. Raises InputError before
        anything is sent, RunError when the run fails; then the session is over.
        """
        words = self.encode(images)
        plan = self.model.plan(len(images))
        if separate and max(plan.cost.offline.values()) > self._options.budget:
            raise InputError(
                f"the offline phase needs a budget of {max(plan.cost.offline.values()) / 1e6:.0f} MB to be finished before the online phase"
            )
        try:
            return self._infer(words, plan, separate)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise

    def _infer(self, words: np.ndarray, plan: Plan, separate: bool) -> tuple[np.ndarray, Record]:
        attempt, before = self._attempt, self.meter.counts()
        self._attempt += 1
        self._stream.begin_attempt(attempt)
        usage, began = Usage(), time.perf_counter()
        self._provider.send_control("deal", {"attempt": attempt, "batch": plan.batch})
        role = Client(attempt, self._weights, self._stream, self._paced, self._online, self._options.threads)
        self._provider.attempt = self._offline.attempt = attempt
        ahead = _Ahead(role, plan, self._channels)
        if separate:
            ahead.join()
            dealt = self._provider.receive_control("dealt")
        offline, start = time.perf_counter() - began, time.perf_counter()
        self._online.send_control("infer", {"attempt": attempt, "batch": plan.batch})
        self._online.attempt = attempt
        try:
            logits = inference.infer(role, plan, words, ahead)
        except RunError:
            ahead.join()  # what went wrong there comes first
            raise
        end = time.perf_counter()
        ahead.join()
        if not separate:
            dealt = self._provider.receive_control("dealt")
            offline = max(ahead.seconds, number(dealt, "seconds"))
        done = self._online.receive_control("done")
        self._stream.end_attempt(attempt)
        record = Record({"offline": offline, "online": end - start, "total": end - began})
        for key, measured in (("peak_rss_mb", record.peak_rss_mb), ("cpu_seconds", record.cpu_seconds)):
            measured |= {"client": usage.fields()[key], "server": number(done, key), "provider": number(dealt, key)}
        counts = difference(self.meter.counts(), before)
        dealt_bytes = numbers(done, "dealt", len(plan.steps))
        record.links = by_link(counts)
        record.links["provider->server"] = {"offline": [int(sum(dealt_bytes)), sum(map(bool, dealt_bytes))]}
        for step, (size, messages), more, seconds in zip(
            plan.steps, by_step(plan, counts), dealt_bytes, numbers(done, "layers", len(plan.steps))
        ):
            record.layers.append(
                {"name": step.name, "kind": step.kind, "seconds": seconds, "bytes": size + int(more), "messages": messages}
            )
        return logits, record

    def __enter__(self) -> ClientSession:
        return self

    def __exit__(self, kind, error, trace) -> None:
        if self._guard is None:
            return
        if kind is None:
            for channel in (self._online, self._provider):
                channel.send_control("bye", {})
        self._stream.erase()
        guard, self._guard = self._guard, None
        if kind is None:
            guard.__exit__(None, None, None)
        else:
            for channel in self._channels:
                channel.abort(str(error) if isinstance(error, RunError) else f"{kind.__name__} in the client")
                channel.close()


class _Ahead:
    """The offline phase in a thread of its own; the online phase reads the input's mask and the output's share from it when it needs them."""

    def __init__(self, role: Client, plan: Plan, channels: list[Channel]):
        self._role, self._plan, self._channels = role, plan, channels
        self._mask, self._has_mask, self._kept, self._error = None, threading.Event(), None, None
        self.seconds = 0.0
        self._thread = threading.Thread(target=self._run, name="prepare", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        began = time.perf_counter()
        try:
            self._kept = inference.prepare(self._role, self._plan, self._on_mask)
        except BaseException as error:
            self._error = error
            self._has_mask.set()
            for channel in self._channels:
                channel.close()
        self.seconds = time.perf_counter() - began

    def _on_mask(self, mask: np.ndarray) -> None:
        self._mask = mask
        self._has_mask.set()

    def join(self) -> None:
        """Wait for the end; raises what went wrong."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    @property
    def mask(self) -> np.ndarray:
        """d of the input, as soon as it is drawn."""
        self._has_mask.wait()
        if self._error is not None:
            raise self._error
        return self._mask

    @property
    def kept(self) -> np.ndarray:
        """What the output's opening needs, when all is prepared."""
        self.join()
        return self._kept
