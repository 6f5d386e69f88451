"""The three roles of a protocol in one process, over the in-memory connection, with a copy of everything that travels or is drawn."""

from __future__ import annotations

import numpy as np

from threepc.choices import RINGS
from threepc.graph.ir import Weights
from threepc.kernels.keystream import BLOCK_BYTES, fill
from threepc.party.in_process import ThreeRoles, share_weights
from threepc.plan.schedule import Plan
from threepc.prf import Keystream, new_key
from threepc.protocol.cost import Cost
from threepc.ring import Ring, word_of
from threepc.transport.channel import Channel

CP, SP, WEIGHTS = b"client, provider", b"server, provider", b"mask of weights."
"""Keys of tests that compare runs under the same keys."""

CUTS = {64: (16, 48), 48: (16, 32), 40: (12, 28), 32: (15, 17), 28: (11, 17), 24: (9, 15)}
"""The truncation and the bits that are left of it, by ring, as networks have them."""


DEEP = 48, 22, 26
"""Ring, truncation and the bits that are left where weights have more bits than usual."""

CUT_RINGS = (*((bits, *CUTS[bits]) for bits in (48, 32)), DEEP)
"""Of protocols that cut: (ring, truncation, bits that are left)."""


class Recorder(Channel):
    """A channel that keeps (op, phase, arrays) of everything sent and counts what is received."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.sent: list[tuple[int, str, list[np.ndarray]]] = []
        self.receptions = 0

    def send(self, op, parts, phase):
        self.sent.append((op, phase, [np.array(part) for part in parts]))
        super().send(op, parts, phase)

    def receive(self, *arguments, **options):
        self.receptions += 1
        return super().receive(*arguments, **options)

    def bytes_sent(self) -> list[tuple[int, str, list[bytes]]]:
        """What was sent, comparable with ==."""
        return [(op, phase, [part.tobytes() for part in parts]) for op, phase, parts in self.sent]


class RecordedKeystream(Keystream):
    """A keystream that keeps (purpose, bytes) of everything that kernels may draw, in order."""

    def __init__(self, key: bytes):
        super().__init__(key)
        self.drawn: list[tuple[int, np.ndarray]] = []

    def source(self, attempt, op, purpose, blocks):
        source = super().source(attempt, op, purpose, blocks)
        self.drawn.append((purpose, np.empty(BLOCK_BYTES * blocks, np.uint8)))
        fill(source, 0, self.drawn[-1][1])
        return source


class Trio(ThreeRoles):
    """The three roles, with a copy of everything that travels or is drawn."""

    new_stream, new_channel = RecordedKeystream, Recorder

    @property
    def measured(self) -> Cost:
        """What travelled, as the two ends of every link counted it, which agree."""
        counts = {key: count for meter in self.meters.values() for key, count in meter.counts().items()}
        for role, meter in self.meters.items():
            assert meter.counts() == {key: count for key, count in counts.items() if role in key[0]}
        phases: dict[str, dict[str, int]] = {"offline": {}, "online": {}, "setup": {}}
        for ((sender, receiver), phase, _), count in counts.items():
            link = f"{sender}->{receiver}"
            if count.bytes:
                phases[phase][link] = phases[phase].get(link, 0) + count.bytes
        return Cost(**phases, messages=sum(count.messages for (_, phase, _), count in counts.items() if phase == "online"))


def without_zeros(cost: Cost) -> Cost:
    """A cost without links that carry nothing."""
    clean = lambda links: {link: size for link, size in links.items() if size}
    return Cost(clean(cost.offline), clean(cost.online), clean(cost.setup), cost.messages)


def shares(rng: np.random.Generator, values: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Summands (client, server, provider) of values: c + s - p in the ring of `bits` bits, with garbage above its bits."""
    word = word_of(bits)
    full = lambda: rng.integers(0, np.iinfo(word).max, np.shape(values), word, endpoint=True)
    client, provider = full(), full()
    garbage = full() << word(bits) if bits < 8 * np.dtype(word).itemsize else word(0)
    return client, values.astype(np.int64).astype(word) - client + provider + garbage, provider


def run(protocol, summands, **options):
    """A protocol with deal, prepare, serve and infer on summands (client, server, provider): ((C's, S's, P's result), the Trio)."""
    trio = Trio(**options)
    client, server, provider = summands
    dealt = protocol.deal(trio.provider, provider)
    prepared = protocol.prepare(trio.client, client)
    served, _ = trio.together(lambda role: protocol.serve(role, server), protocol.infer)
    for ends in (trio.dealt, trio.told):
        assert ends[0].receptions == 0 and not ends[1].sent, "the provider hears nothing"
    return (prepared, served, dealt), trio


def opened(results, bits: int) -> np.ndarray:
    """Signed values of a masked activation: d at C, u at S."""
    client, server, provider = results
    mask = np.uint64((1 << bits) - 1)
    assert np.array_equal(client.astype(np.uint64) & mask, provider.astype(np.uint64) & mask)
    return Ring(bits).signed(client + server) if bits in RINGS else signed(client + server, bits)


def signed(words: np.ndarray, bits: int) -> np.ndarray:
    """The numbers of -2^(bits-1)..2^(bits-1)-1 that the low bits of words stand for."""
    up = np.uint64(64 - bits)
    return (words.astype(np.uint64) << up).view(np.int64) >> np.int64(64 - bits)


def edges(limit: int) -> np.ndarray:
    """Numbers at which arithmetic goes wrong if it does: 0, ±1, ±2^k and neighbours, up to ±limit."""
    powers = [1 << k for k in range(limit.bit_length())]
    near = {0, limit, limit - 1} | {p + i for p in powers for i in (-1, 0, 1)}
    return np.array(sorted({v for n in near for v in (n, -n) if abs(v) <= limit}), np.int64)


def values_up_to(rng: np.random.Generator, limit: int, count: int) -> np.ndarray:
    """`count` numbers of all sizes up to ±limit: the edges first, then numbers of random size."""
    some = edges(limit)[:count]
    sizes = rng.integers(0, limit.bit_length() + 1, count - len(some))
    rest = np.clip(rng.integers(0, 1 << 62, count - len(some)) >> (62 - sizes), 0, limit)
    return np.concatenate([some, rest * rng.choice((-1, 1), rest.size)])


def network_trio(plan: Plan, weights: Weights, weight_key: bytes | None = None, **options) -> Trio:
    """The three roles with a network's weights, masked as parties do it; what setup sends is counted by server and client."""
    shared = share_weights(plan, weights, weight_key or new_key())
    trio = Trio(shared, **options)
    for op, message in shared.messages.items():
        trio.prepared[1].send(op, [message], "setup")
        trio.prepared[0].receive(op, [(np.uint8, message.shape)])
    return trio


def run_network(trio: Trio, plan: Plan, images: np.ndarray) -> np.ndarray:
    """Offline phase, then online phase; logits (N, C, H, W)."""
    logits = trio.infer(plan, Ring(plan.precision.bits).encode(images, plan.precision.fraction))
    assert trio.dealt[0].receptions == trio.told[0].receptions == 0, "the provider hears nothing"
    return logits
