"""The client's offline phases: each in its turn in a thread of the session's own, so that they run beside the online phases or long before them.

Inferences may be prepared before their images are there. Then the provider has dealt for them, the server holds what was dealt and prepared,
and an image that arrives pays its online phase alone. Nothing else changes: such an inference is an attempt like any other, its number goes up by
one, every party begins it once and ends it once, and its streams were drawn for it alone. What it needs is in the memory of the three
parties' processes, under keys of the session, and ends with the session: nothing is used twice, or after a restart.
"""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import Future

import numpy as np

from threepc.errors import RunError
from threepc.party import inference
from threepc.party.pacing import PacedSender
from threepc.party.session import measured
from threepc.party.tracing import Timeline, noting, result_of
from threepc.plan.schedule import Plan
from threepc.protocol.roles import Client
from threepc.transport.channel import Channel
from threepc.transport.framing import Control
from threepc.transport.meter import Meter

CLOSED = "this session was closed"


class Ahead:
    """One attempt's offline phase, run elsewhere; the online phase reads the input's mask and the outputs' shares from it when it needs them.

    meter: counts what the client sends for it, and is dealt. dealt: what the provider said of its part, once somebody has heard that.
    """

    def __init__(self, role: Client, plan: Plan, trace: Timeline | None) -> None:
        self.role, self.plan, self.meter = role, plan, Meter()
        self.dealt: Control | None = None
        self._trace = trace
        self._mask: Future[np.ndarray] = Future()
        self._kept: Future[list[np.ndarray]] = Future()
        self._seconds = 0.0

    def run(self, provider: Channel) -> None:
        """Prepare. Raises what goes wrong, of which `fail` tells who asks for the results.

        provider: where that comes from which is dealt to the client; then what the provider says of its part is heard here, before further attempts'.
        """
        began = time.perf_counter()
        note = noting(self._trace, "offline", inference.nothing)
        kept = inference.prepare(self.role, self.plan, self._mask.set_result, note)
        self._seconds = time.perf_counter() - began
        if self.plan.cost.offline.get("provider->client"):
            self.dealt = provider.receive_control("dealt")
        self._kept.set_result(kept)

    def fail(self, error: BaseException) -> None:
        """There will be no result."""
        for future in (self._mask, self._kept):
            if not future.done():
                future.set_exception(error)

    def join(self) -> None:
        """Wait for the end; raises what went wrong."""
        self._kept.result()

    @property
    def is_over(self) -> bool:
        """Whether the whole phase is: at the client, and as far as it has heard at the provider."""
        return self.dealt is not None and self._kept.done()

    @property
    def seconds(self) -> float:
        """What the phase took, once it is over; its two parts run side by side."""
        return self._seconds if self.dealt is None else max(self._seconds, measured(self.dealt, "seconds"))

    @property
    def mask(self) -> np.ndarray:
        """d of the input, as soon as it is drawn."""
        return result_of(self._mask, self._trace)

    @property
    def kept(self) -> list[np.ndarray]:
        """What each output's opening needs, when all is prepared."""
        return result_of(self._kept, self._trace)


class Preparing:
    """The thread in which a session's offline phases run, one after the other, in the order of their attempts."""

    def __init__(self, paced: PacedSender, provider: Channel, channels: list[Channel]) -> None:
        """paced: to the server; provider: from there; channels: all of the session, which end where an offline phase fails."""
        self._paced, self._provider, self._channels = paced, provider, channels
        self._waiting: queue.SimpleQueue[Ahead | None] = queue.SimpleQueue()
        self._lock, self._closed = threading.Lock(), False
        threading.Thread(target=self._run, name="prepare", daemon=True).start()

    def begin(self, ahead: Ahead) -> Ahead:
        """Have it run when those before it are done; where the session was closed meanwhile, it fails."""
        with self._lock:  # what is put behind the end, nobody takes, and its results would be waited for for ever
            if not self._closed:
                self._waiting.put(ahead)
                return ahead
        ahead.fail(RunError(CLOSED))
        return ahead

    def close(self) -> None:
        """Begin nothing more."""
        with self._lock:
            self._closed = True
            self._waiting.put(None)

    def _run(self) -> None:
        failure: BaseException | None = None
        while (ahead := self._waiting.get()) is not None:
            if failure is None:
                try:
                    for channel in (self._paced.channel, self._provider):
                        channel.attempt, channel.meter = ahead.role.attempt, ahead.meter
                    ahead.run(self._provider)
                except BaseException as error:  # noqa: BLE001 - it is raised where the result is waited for
                    failure = RunError(CLOSED) if self._closed and isinstance(error, RunError) else error
                    for channel in self._channels:
                        channel.close()
            if failure is not None:
                ahead.fail(failure)
