"""A slower network on one machine: messages arrive when a link of a given rate and delay would have delivered them.

The sender works out when the last byte of a message would leave a pipe of that rate, after all that it sent before,
and when it would arrive; the message carries that time and the receiver waits until then. Both read the machine's one
CLOCK_MONOTONIC, so this is for parties on one machine. The "online" and "offline" connections of one link
direction share one pipe: give both channels of the sending process the same `Shaper`. Other traffic, congestion
control and losses are not simulated.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Shaper:
    """The pipe of one link direction, held by its sender; threads may share it."""

    def __init__(
        self,
        rate_bits_per_s: float,
        one_way_delay_s: float,
        clock: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`clock` gives nanoseconds and `sleep` takes seconds; tests replace both. Raises ValueError for a rate that is not positive."""
        if not rate_bits_per_s > 0 or not one_way_delay_s >= 0:
            raise ValueError("a link needs a positive rate and a delay that is not negative")
        self._ns_per_byte = 8e9 / rate_bits_per_s
        self._delay_ns = round(one_way_delay_s * 1e9)
        self._clock = clock
        self._sleep = sleep
        self._free_at = 0
        self._lock = threading.Lock()

    def arrival(self, size: int) -> int:
        """Send `size` bytes through the pipe now; the clock's reading, in nanoseconds, when the last of them arrives."""
        with self._lock:
            self._free_at = max(self._clock(), self._free_at) + round(size * self._ns_per_byte)
            return self._free_at + self._delay_ns

    def wait(self, arrival: int, timeout: float | None = None) -> bool:
        """Wait until `arrival`; False, after `timeout` seconds, when it lies further ahead than that."""
        remaining = (arrival - self._clock()) / 1e9
        if timeout is not None and remaining > timeout:
            self._sleep(max(timeout, 0))
            return False
        if remaining > 0:
            self._sleep(remaining)
        return True
