"""What every role of every protocol has at hand: its keyed streams, its channels, its threads, and the cut of long runs into tiles.

A run of elements is processed in tiles of 16,384, so that a tile's scratch stays in the L2 cache and tiles can go to several threads. Messages
and streams are laid out tile after tile, so the cut is part of the protocol: all parties make it alike. See kernels/runs.py.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Protocol, TypeVar, cast

import numpy as np

from threepc.errors import RunError
from threepc.kernels.convolution import PackedWeight
from threepc.kernels.keystream import BLOCK_BYTES, Source
from threepc.kernels.packing import BLOCK, TILE, Tiles, padded
from threepc.kernels.threads import Scratch, run_parts
from threepc.prf import Keystream, Purpose
from threepc.protocol.rows import Rows
from threepc.transport.channel import Channel
from threepc.transport.framing import Layout

scratch = Scratch().words
"""The protocols' scratch, the calling thread's own: see `Scratch.words`."""

Word = type[np.unsignedinteger]
"""uint32 or uint64."""

Weights = Mapping[int, PackedWeight]
"""A party's packed weights by op."""

OpenStream = Callable[[int, Purpose, int, int], Source]
"""A role's end of the streams that it shares with another one, such as `Client.with_provider`: op, purpose, elements, bytes that a full tile draws."""


def tiles(count: int) -> int:
    """Number of tiles of a run of `count` elements."""
    return -(-count // TILE)


def plane_words(count: int, rows: int) -> int:
    """64-bit words of `rows` bit planes of a run of `count` elements."""
    return padded(count) // BLOCK * rows


Result = TypeVar("Result")
Turns = Generator[None, None, Result]
"""A role's part in a protocol that pauses before each online message that it waits for, so that others may go on meanwhile."""


def at_once(result: Result) -> Turns[Result]:
    """A part that waits for nothing."""
    yield from ()
    return result


def finished(turns: Turns[Result]) -> Result:
    """The result of a part that nobody else takes turns with."""
    while True:
        try:
            next(turns)
        except StopIteration as stopped:
            return cast("Result", stopped.value)


class Sender(Protocol):
    """Where offline messages go: a channel, or one that is paced."""

    def send(self, op: int, parts: Sequence[np.ndarray], phase: str) -> None:
        """As `Channel.send`."""


class Receiver(Protocol):
    """Where messages come from: a channel, or one that is paced."""

    def receive(self, op: int, layout: Layout) -> list[np.ndarray]:
        """As `Channel.receive`."""


class Role:
    """Common to the roles: the attempt, the packed weights by op, threads. One object for each inference."""

    def __init__(self, attempt: int, weights: Weights, threads: int = 1) -> None:
        self.attempt, self.weights, self.threads = attempt, weights, threads

    def each_part(self, count: int, work: Callable[[Tiles], None]) -> None:
        """Run `work` over the tiles of a run, consecutive tiles to one thread each. Errors of `work` come through."""
        total = tiles(count)
        share = -(-total // self.threads)
        parts = [(Tiles(first, min(first + share, total), padded(count)),) for first in range(0, total, share or 1)]
        run_parts(work, parts)

    def _source(self, key: Keystream, op: int, purpose: Purpose, count: int, tile_bytes: int) -> Source:
        return key.source(self.attempt, op, purpose, tiles(count) * (tile_bytes // BLOCK_BYTES))


class Provider(Role):
    """P: knows both keys, deals to the server and, where a layer says so, to the client, hears nothing."""

    def __init__(
        self,
        attempt: int,
        weights: Weights,
        client_key: Keystream,
        server_key: Keystream,
        to_server: Sender,
        to_client: Sender,
        threads: int = 1,
    ) -> None:
        super().__init__(attempt, weights, threads)
        self.client_key, self.server_key, self.to_server, self.to_client = client_key, server_key, to_server, to_client

    def with_client(self, op: int, purpose: Purpose, count: int, tile_bytes: int) -> Source:
        """The stream shared with the client for a run of `count` elements; tile_bytes: what a full tile draws."""
        return self._source(self.client_key, op, purpose, count, tile_bytes)

    def with_server(self, op: int, purpose: Purpose, count: int, tile_bytes: int) -> Source:
        """The stream shared with the server."""
        return self._source(self.server_key, op, purpose, count, tile_bytes)

    def send_offline(self, op: int, *parts: np.ndarray) -> None:
        """Send offline material to the server."""
        self.to_server.send(op, _bytes(parts), "offline")

    def send_to_client(self, op: int, *parts: np.ndarray) -> None:
        """Send offline material to the client."""
        self.to_client.send(op, _bytes(parts), "offline")


class Peer(Role):
    """C or S: shares a stream with the provider, and talks online with the other one."""

    def __init__(self, attempt: int, weights: Weights, provider_key: Keystream, online: Channel, threads: int) -> None:
        super().__init__(attempt, weights, threads)
        self.provider_key, self.online = provider_key, online

    def with_provider(self, op: int, purpose: Purpose, count: int, tile_bytes: int) -> Source:
        """The stream shared with the provider for a run of `count` elements; tile_bytes: what a full tile draws."""
        return self._source(self.provider_key, op, purpose, count, tile_bytes)

    def send_online(self, op: int, *parts: np.ndarray) -> None:
        """Send an online message to the other one."""
        self.online.send(op, _bytes(parts), "online")

    def receive_online(self, op: int, *sizes: int) -> list[np.ndarray]:
        """An online message of the other one: byte arrays of the given sizes."""
        return _receive(self.online, op, sizes)


class Client(Peer):
    """C: one channel to the server for what is prepared offline, one for the online messages; the two may run in two threads.

    provider: where that which P deals to C comes from.
    """

    def __init__(
        self,
        attempt: int,
        weights: Weights,
        provider_key: Keystream,
        provider: Receiver,
        offline: Sender,
        online: Channel,
        threads: int = 1,
    ) -> None:
        super().__init__(attempt, weights, provider_key, online, threads)
        self.provider, self.offline = provider, offline
        self.on_taken: Callable[[int], None] = lambda _: None
        """Hears how many bytes of what was dealt are used."""
        self.kept: dict[int, list[np.ndarray]] = {}
        """By op: what `prepare` leaves to `infer`, which takes it away. The server answers an op only after its offline message, so it is there."""

    def keep_dealt(self, op: int, *sizes: int) -> None:
        """Offline: receive the provider's material for an op, byte arrays of the given sizes."""
        self.kept[op] = _receive(self.provider, op, sizes)

    def take_kept(self, op: int) -> list[np.ndarray]:
        """Online: what `prepare` has left. Raises RunError where a server has not waited for that."""
        if op not in self.kept:
            raise RunError(f"the server sent its message of op {op} before it had the client's")
        return self.kept.pop(op)

    def take_dealt(self, op: int) -> list[np.ndarray]:
        """Online: what `keep_dealt` has received. Raises as `take_kept` does."""
        parts = self.take_kept(op)
        self.on_taken(sum(part.nbytes for part in parts))
        return parts

    def send_offline(self, op: int, *parts: np.ndarray) -> None:
        """Send an offline message to the server."""
        self.offline.send(op, _bytes(parts), "offline")


class Server(Peer):
    """S: hears the provider and the client offline, talks with the client online."""

    def __init__(
        self,
        attempt: int,
        weights: Weights,
        biases: Mapping[int, np.ndarray],
        provider_key: Keystream,
        provider: Receiver,
        prepared: Receiver,
        online: Channel,
        threads: int = 1,
    ) -> None:
        super().__init__(attempt, weights, provider_key, online, threads)
        self.biases, self.provider, self.prepared = biases, provider, prepared
        self.coming: Rows | None = None
        """Of the layer that was begun last, while the client's answers to its rows are still to come."""

    def settle(self) -> None:
        """Have all come that the client was asked for."""
        if self.coming is not None:
            self.coming.whole()
            self.coming = None

    def receive_dealt(self, op: int, *sizes: int) -> list[np.ndarray]:
        """The provider's material for an op: byte arrays of the given sizes."""
        return _receive(self.provider, op, sizes)

    def receive_prepared(self, op: int, *sizes: int) -> list[np.ndarray]:
        """The client's offline message for an op."""
        return _receive(self.prepared, op, sizes)


def _bytes(parts: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [part.reshape(-1).view(np.uint8) for part in parts]


def _receive(channel: Receiver, op: int, sizes: Sequence[int]) -> list[np.ndarray]:
    return [KernelArgument(part).array for part in channel.receive(op, [(np.uint8, (size,)) for size in sizes])]


class KernelArgument:
    """A received array as kernels take it. numba types read-only arrays apart and would compile every kernel for both; no kernel writes to these."""

    def __init__(self, received: np.ndarray) -> None:
        interface = received.__array_interface__
        interface["data"] = interface["data"][0], False
        self._received, self.__array_interface__ = received, interface

    @property
    def array(self) -> np.ndarray:
        """A view that keeps the received message alive."""
        return np.asarray(self)
