"""All that a party sees of a ReLU in two messages, and in six, for all pads at once, in rings of a few bits: one element of a run for each value of the pads.

The code that runs is the protocol's own; only its streams are replaced, by ones that count. A party's view is then uniform if and only if each of its
values occurs equally often, whatever the input: a proof for these sizes, not statistics. Words of the gate are gone through whole, or in their lowest
bit alone, to which all that is done with them can be restricted (sums, differences, exclusive or); pads of the comparison always whole.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.protocol.harness import Recorder, signed
from threepc.kernels.gate import Cut
from threepc.kernels.keystream import BLOCK_BYTES, Source
from threepc.kernels.packing import TILE, unpack
from threepc.party.in_process import ThreeRoles
from threepc.prf import Keystream, Purpose
from threepc.protocol import one_level
from threepc.protocol.late_relu import LateRelu
from threepc.protocol.quick_relu import QuickRelu

Pads = dict[Purpose, list[dict[int, int]]]
"""By purpose, for every row that is drawn: which bit of an element's number is at which place of its word, or plane."""


class Counting(Keystream):
    """Every element draws the bits of its own number; where `state` is set, all elements the same: its bits, from a purpose's number on, say which rows are ones."""

    def __init__(self, key):
        super().__init__(key)
        self.pads: Pads = {}
        self.state: int | None = None
        self.planes = {Purpose.DECISION}

    def source(self, attempt, op, purpose, blocks):
        source, drawn = super().source(attempt, op, purpose, blocks), np.zeros(blocks * BLOCK_BYTES, np.uint8)
        planes = purpose in self.planes
        words = drawn.view(np.uint64 if planes else np.uint32).reshape(-1, TILE // 64 if planes else TILE)
        of_purpose = self.pads.get(purpose, [])
        for row, places in enumerate(of_purpose):
            mine = words[row :: len(of_purpose)]  # tile after tile
            mine[:] = (
                self._constant(purpose + row, mine.dtype)
                if self.state is not None
                else self._numbers(places, len(mine), planes).reshape(mine.shape)
            )
        return Source(source.keys, source.address, drawn)

    def _constant(self, row, dtype):
        return ~dtype.type(0) if self.state >> row & 1 else dtype.type(0)

    @staticmethod
    def _numbers(places, tiles, planes):
        numbers = np.arange(tiles * TILE, dtype=np.uint32)
        values = np.zeros_like(numbers)
        for place, bit in places.items():
            values |= ((numbers >> np.uint32(bit)) & np.uint32(1)) << np.uint32(place)
        return np.packbits(values.astype(np.uint8), bitorder="little").view(np.uint64) if planes else values


class CountingRoles(ThreeRoles):
    new_stream, new_channel = Counting, Recorder


def counted(relu: QuickRelu, of_client: bool, word_bits: int) -> tuple[Pads, int]:
    """Places of all pads that C, or S, shares with P, and their number. word_bits: of the gate's words; with 0 the gate has no pads at all."""
    bits, layout = 0, relu.one_level.layout

    def places(count, at=0):
        nonlocal bits
        bits += count
        return {at + i: bits - count + i for i in range(count)}

    rows = len(layout.wires) + 1 + of_client * (layout.tables + layout.classes)
    pads: Pads = {Purpose.OPENING: [places(relu.cut.kept_bits)], Purpose.DECISION: [places(1) for _ in range(rows)]}
    if of_client and word_bits:
        pads[Purpose.GATE] = [places(word_bits), places(word_bits)]
        if lifted := carries(relu):
            low, high = places(min(word_bits, lifted)), places(min(word_bits, lifted), 16)
            pads[Purpose.GATE].append(low | high)
        pads[Purpose.ACTIVATION] = [places(word_bits)]
        pads[Purpose.LABEL] = [places(word_bits) for _ in range(layout.classes + 1)]
    return pads, bits


def carries(relu):
    return relu.ring - relu.cut.kept_bits


def planes_of(message, rows):
    """Bits (rows, elements) of planes."""
    words = np.ascontiguousarray(message.view(np.uint64).reshape(-1, rows, TILE // 64).transpose(1, 0, 2))
    return np.unpackbits(words.view(np.uint8).reshape(rows, -1), axis=1, bitorder="little")


def words_of(message, widths, most):
    """The low `most` bits (rows, elements) of packed values of several widths."""
    tiles, at, out = message.view(np.uint8).reshape(-1, TILE // 8 * sum(widths)), 0, []
    for width in widths:
        words = np.empty((len(tiles), TILE), np.uint32)
        for tile, part in zip(words, tiles, strict=True):
            unpack(part[at : at + TILE // 8 * width].copy(), TILE, width, tile)
        at += TILE // 8 * width
        out += [((words.reshape(-1) >> np.uint32(bit)) & np.uint32(1)).astype(np.uint8) for bit in range(min(width, most))]
    return np.array(out)


def run_for_all_pads(relu, value, of_client, pads_of, state):
    """All roles, with `value` in every element, and the results' signed values.

    of_client: whether C's pads, or S's, are gone through; pads_of: from that, the places of pads.
    """
    roles = CountingRoles()
    for name, stream in roles.streams.items():
        stream.pads, _ = pads_of("C" in name)
        stream.planes |= {Purpose.LIFT} if "S" in name else set()
        stream.state = None if ("C" in name) == of_client else state
    nothing = np.zeros(relu.shape, np.uint32)
    d = relu.deal(roles.provider, nothing)
    relu.prepare(roles.client, nothing)
    server = np.full(relu.shape, value, np.int64).astype(np.uint32)
    u, _ = roles.together(lambda role: relu.serve(role, server), relu.infer)
    return roles, signed(u + d, relu.ring).reshape(-1)


def view_of_server(relu, roles, most):
    """Every bit that S receives of every element."""
    decision, ring, lifted = relu.one_level, relu.ring, carries(relu)
    planes, of_gate, labels = roles.dealt[0].sent[0][2]
    (half,) = roles.prepared[0].sent[0][2]
    wires, share, branches = roles.online[0].sent[0][2]
    view = [
        words_of(half, [relu.cut.kept_bits], 32),
        planes_of(planes, decision.layout.tables + decision.classes),
        planes_of(wires, decision.wires),
        planes_of(share, 1),
    ]
    if most:
        view += [
            words_of(of_gate, [ring, ring, *([lifted] * 2 if lifted else [])], most),
            words_of(labels, [ring] * decision.classes, most),
            words_of(branches, [ring] * 2, most),
        ]
    return np.concatenate(view)


def assert_each_view_occurs_equally_often(bits):
    """bits: (rows, elements)."""
    numbers = np.zeros(bits.shape[1], np.uint32)
    for row, values in enumerate(bits):
        numbers |= values.astype(np.uint32) << np.uint32(row)
    counts = np.bincount(numbers, minlength=1 << len(bits))
    assert counts.min() == counts.max(), f"views occur {counts.min()} to {counts.max()} times"


@pytest.fixture
def chunks_of(monkeypatch):
    """Sets the widest chunk, so that a few bits make several chunks."""

    def widest(width):
        one_level.layout.cache_clear()
        monkeypatch.setattr(one_level, "WIDEST_CHUNK", width)

    yield widest
    one_level.layout.cache_clear()


def quick(count_bits, kept, ring, width, low_bit=0, slopes=None):
    return QuickRelu(0, (1, 1, 1, 1 << count_bits), Cut(kept, 0, kept), ring, low_bit, width, slopes=slopes)


CASES = {
    "one chunk, words whole": (1, 2, 2, 1, 0, 32),
    "one chunk, lifted, words whole": (1, 2, 3, 1, 0, 32),
    "two chunks": (1, 3, 3, 2, 0, 1),
    "two chunks, lifted": (1, 3, 5, 2, 0, 1),
    "two chunks, of two bits and one": (2, 4, 4, 3, 0, 1),
    "three chunks, comparison alone": (1, 4, 4, 3, 0, 0),
    "two chunks of six bits, comparison alone": (3, 6, 6, 5, 0, 0),
    "window within eight bits": (2, 8, 8, 2, 5, 1),
}
"""Widest chunk, bits of the opened values and of the ring, width and low bit of the window, bits of the gate's words that are gone through."""


def inputs(relu):
    """Numbers of both signs, the ends of the range among them, and one outside."""
    most = 1 << relu.low_bit + relu.width
    return sorted({0, 1, most - 1, -1, -most, most})


@pytest.mark.parametrize("name", CASES)
def test_view_of_the_server_is_uniform_over_all_pads(name, chunks_of):
    widest, kept, ring, width, low_bit, most = CASES[name]
    chunks_of(widest)
    most = min(most, ring)
    _, bits = counted(quick(1, kept, ring, width, low_bit), True, most)
    relu = quick(max(bits, 14), kept, ring, width, low_bit)
    some = inputs(relu) if bits < 20 else (-1, 1)
    for number, value in enumerate(some):
        roles, results = run_for_all_pads(relu, value, True, lambda c: counted(relu, c, most), 0b1011001110001011 >> number)
        assert_each_view_occurs_equally_often(view_of_server(relu, roles, most))
        if abs(value) < 1 << kept - 2 and (value >= 0 or low_bit == 0):
            assert (results == max(value, 0)).all()


@pytest.mark.parametrize("name", CASES)
def test_view_of_the_client_is_uniform_over_all_pads(name, chunks_of):
    widest, kept, ring, width, low_bit, _ = CASES[name]
    chunks_of(widest)
    _, bits = counted(quick(1, kept, ring, width, low_bit), False, 0)
    relu = quick(max(bits, 14), kept, ring, width, low_bit)
    for number, value in enumerate(inputs(relu)):
        roles, _ = run_for_all_pads(relu, value, False, lambda c: counted(relu, c, 32), 0b1011001110001011 >> number)
        ((_, _, (opened, wires)),) = roles.online[1].sent
        assert_each_view_occurs_equally_often(np.concatenate([words_of(opened, [kept], 32), planes_of(wires, relu.one_level.wires)]))


def late_pads(relu, of_client):
    """Places of all pads of a ReLU in six messages that C, or S, shares with P, and their number: every word whole."""
    kept, ring, sizes, rows = relu.cut.kept_bits, relu.ring, [], relu.drelu.comparison.rows
    words = {Purpose.OPENING: [kept], Purpose.DECISION: [1] * (rows.own + of_client * rows.dealt), Purpose.LIFT: [1]}
    if of_client:
        words |= {Purpose.GATE: [kept, kept], Purpose.ACTIVATION: [ring], Purpose.LIFT: [ring - kept]}

    def places(count):
        sizes.append(count)
        return {i: sum(sizes) - count + i for i in range(count)}

    return {purpose: [places(count) for count in counts] for purpose, counts in words.items()}, sum(sizes)


def late(count_bits, kept, ring):
    """Of one chunk that compares one bit, which is all that values of three bits need."""
    return LateRelu(0, (1, 1, 1, 1 << count_bits), Cut(kept, 0, kept), ring, 0, 1)


@pytest.mark.parametrize("ring", (4, 5))
def test_view_of_the_server_of_a_late_lift_is_uniform_over_all_pads(ring):
    """All values that a lift can have, and one beyond; all pads of C with all of S."""
    kept = 3
    relu = late(late_pads(late(1, kept, ring), True)[1], kept, ring)
    for value in range(-2, 3):
        for state in (0, 1 << Purpose.DECISION, 1 << Purpose.LIFT, 1 << Purpose.DECISION | 1 << Purpose.LIFT):
            roles, results = run_for_all_pads(relu, value, True, lambda c: late_pads(relu, c), state)
            planes, of_gate, kappa = roles.dealt[0].sent[0][2]
            (half,), (_, (bit, v), (a,)) = roles.prepared[0].sent[0][2], (parts for _, _, parts in roles.online[0].sent)
            view = [words_of(half, [kept], 32), planes_of(planes, relu.drelu.comparison.rows.dealt), planes_of(bit, 1)]
            view += [
                words_of(of_gate, [kept, kept], 32),
                words_of(v, [kept], 32),
                *(words_of(part, [ring - kept], 32) for part in (kappa, a)),
            ]
            assert_each_view_occurs_equally_often(np.concatenate(view))
            if value < 2:
                assert (results == max(value, 0)).all()


@pytest.mark.parametrize("ring", (4, 5))
def test_view_of_the_client_of_a_late_lift_is_uniform_over_all_pads(ring):
    kept = 3
    relu = late(14, kept, ring)
    for number, value in enumerate(range(-2, 3)):
        roles, _ = run_for_all_pads(relu, value, False, lambda c: late_pads(relu, c), 0b1011001110001011 >> number)
        (opened, _), (_, bit), (choices,) = (parts for _, _, parts in roles.online[1].sent)
        assert_each_view_occurs_equally_often(np.concatenate([words_of(opened, [kept], 32), planes_of(bit, 1), planes_of(choices, 1)]))
