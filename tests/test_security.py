"""docs/security.md against the code: its table of messages, the tests that it names, and the leaks that it admits."""

import ast
import dataclasses
import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.protocol.harness import CUTS, Trio, opened, run, shares, signed, without_zeros
from threepc.graph.relu_spec import IDENTITY, ZERO
from threepc.kernels.gate import Cut, Slopes
from threepc.kernels.packing import padded, unpack
from threepc.plan.precision import Precision
from threepc.prf import Keystream, Purpose, new_key
from threepc.protocol.argmax import Argmax
from threepc.protocol.cost import Cost
from threepc.protocol.input_output import Input, Output, ServerOutput
from threepc.protocol.late_relu import LateRelu
from threepc.protocol.linear import Linear
from threepc.protocol.lookup import Lookup
from threepc.protocol.max_pool import MaxPool
from threepc.protocol.product import Product
from threepc.protocol.quick_relu import QuickRelu
from threepc.protocol.relu import Relu
from threepc.protocol.relu_layer import ReluLayer
from threepc.ring import Ring, word_of

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/security.md").read_text()
INITIALS = {"client": "C", "server": "S", "provider": "P"}


class Row(NamedTuple):
    """One message of the table."""

    protocol: str
    message: str
    sender: str
    receiver: str
    phase: str
    per: str
    bits: str
    formula: str
    hidden: str

    @property
    def pads(self) -> list[tuple[str, str]]:
        """(key, purpose) of the streams that pad it."""
        return re.findall(r"k_(\w+), ([A-Z]+)", self.hidden)


def rows() -> list[Row]:
    table = TEXT[TEXT.index("## 2.") : TEXT.index("## 3.")]
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.splitlines() if line.startswith("| ")][1:]
    return [Row(c[0], c[1], *re.fullmatch(r"(\w+)->(\w+), (\w+)", c[2]).groups(), *c[3:]) for c in cells]


def cost_of_the_table(protocols: set[str], counts: dict[str, int], **values: int) -> Cost:
    """Bytes by link and phase that the rows of some protocols add up to. counts: of elements, decisions, weights."""
    phases: dict[str, dict[str, int]] = {"setup": defaultdict(int), "offline": defaultdict(int), "online": defaultdict(int)}
    for row in rows():
        if row.protocol in protocols:
            bits = eval(row.bits, {"__builtins__": {}}, values)
            phases[row.phase][f"{row.sender}->{row.receiver}"] += padded(counts[row.per]) // 8 * bits
    return without_zeros(Cost(**{phase: dict(links) for phase, links in phases.items()}))


def layout_of(relu: ReluLayer) -> dict[str, int]:
    """The names that the table's column of bits uses, but for the ring's."""
    many = len(relu.thresholds)
    if isinstance(relu, QuickRelu):
        decision = relu.one_level
        layout = {"tables": decision.layout.tables, "classes": decision.classes, "wires": decision.wires}
    else:
        window = relu.drelu.window
        groups, top = len(window.groups.wires), len(window.top.wires)
        layout = {"tables": window.table_rows, "products": window.product_rows, "leaves": groups, "groups": top}
    return layout | {"many": many, "finer": relu.slopes.bits if relu.slopes else 0}


def protocols_of(relu: ReluLayer) -> set[str]:
    """Of the table's first column, those whose messages a ReLU's decisions take."""
    if isinstance(relu, QuickRelu):
        return {"quick ReLU"}
    late, clips = isinstance(relu, LateRelu), len(relu.thresholds) > 1
    gate = {"late ReLU", *(["late clip"] if clips else [])} if late else {"ReLU, lifted early", *(["clip"] if clips else [])}
    return {"ReLU", "ReLU, C told" if relu.to_client else "ReLU, S told"} | gate


def relu_by_the_table(relu: ReluLayer) -> Cost:
    """What the table says that a ReLU sends, channels that only pass included."""
    many = len(relu.thresholds)
    decided = {"element": relu.opening.count, "decision": relu.decided // many}
    cost = cost_of_the_table(protocols_of(relu), decided, bits=relu.ring, kept=relu.cut.kept_bits, **layout_of(relu))
    if relu.both:
        return cost + cost_of_the_table({"rectify"}, {"element": relu.opening.count}, bits=relu.ring, kept=relu.cut.kept_bits)
    return cost + cost_of_the_table({"identity"}, {"element": relu.pass_opening.count}, bits=relu.ring, kept=relu.cut.kept_bits)


def relus() -> dict[str, ReluLayer]:
    """ReLUs of every kind, and those that can be in two messages, or in six."""
    cases = _relus()
    for name, relu in list(cases.items()):
        if relu.clip is None:
            cases[f"quick {name}"] = QuickRelu(**{field.name: getattr(relu, field.name) for field in dataclasses.fields(QuickRelu)})
        if LateRelu.suits(relu):
            cases[f"late {name}"] = LateRelu(**{field.name: getattr(relu, field.name) for field in dataclasses.fields(LateRelu)})
    return cases


def _relus() -> dict[str, ReluLayer]:
    cases: dict[str, ReluLayer] = {}
    for bits, (shift, kept) in CUTS.items():
        cut, slope = Cut(bits, shift, kept), min(16, kept)
        make = lambda sizes=None, clip=None, cut=cut: Relu(0, (2, 3, 5, 7), cut, cut.bits, 0, min(cut.kept_bits - 2, 30), sizes, clip)
        cases[f"plain {bits}"] = make()
        cases[f"clip {bits}"] = make(clip=64)
        cases[f"rectify {bits}"] = dataclasses.replace(make(), both=True)
        cases[f"leaky {bits}"] = dataclasses.replace(make(), slopes=Slopes(655, 1 << slope, slope))
        cases[f"hardsigmoid {bits}"] = dataclasses.replace(make(clip=64), slopes=Slopes(0, 1 << slope - 3, slope), start=-32)
        cases[f"blocks {bits}"] = make(((2, 3), IDENTITY, ZERO))
        cases[f"told {bits}"] = dataclasses.replace(make(clip=64), to_client=True)
        cases[f"passing {bits}"] = make((IDENTITY,) * 3)
    return cases


@pytest.mark.parametrize("name, relu", relus().items())
def test_bytes_of_the_table(name, relu):
    declared = without_zeros(relu.cost)
    assert relu_by_the_table(relu) == Cost(declared.offline, declared.online, declared.setup), name


PRODUCTS = {"spread": ((2, 3, 5, 7), (2, 3, 1, 1)), "same": ((2, 3, 5, 7),) * 2, "square": ((2, 3, 5, 7),)}


@pytest.mark.parametrize("factors", PRODUCTS.values(), ids=PRODUCTS)
def test_bytes_of_the_table_for_products(factors):
    for bits, (shift, kept) in CUTS.items():
        protocol = Product(0, factors, (2, 3, 5, 7), Cut(bits, shift, kept))
        sizes = [int(np.prod(factor)) for factor in factors]
        counts = {"element": protocol.count, "factor": sizes[0], "second factor": sizes[1] if len(sizes) > 1 else 0}
        table = cost_of_the_table({"product"}, counts, bits=bits, kept=kept)
        assert table == Cost(protocol.cost.offline, protocol.cost.online)


def test_streams_of_the_table_for_products():
    protocol, trio = Product(0, ((1, 1, 8, 8),) * 2, (1, 1, 8, 8), Cut(48, 16, 32)), Trio()
    nothing = [np.zeros((1, 1, 8, 8), np.uint64)] * 2
    protocol.deal(trio.provider, nothing)
    protocol.prepare(trio.client, nothing)
    trio.together(lambda server: protocol.serve(server, nothing), protocol.infer)
    for pair in ("CP", "SP"):
        named = {purpose for key, purpose in purposes({"product"}) if key == pair}
        for holder in (pair, pair[::-1]):
            assert {Purpose(purpose).name for purpose, _ in trio.streams[holder].drawn} == named


def _lookup() -> Lookup:
    return Lookup(0, (2, 3, 5, 7), Cut(48, 0, 20), 13, 61, 29, ((0,) * 128,) * 3)


def test_bytes_of_the_table_for_lookups():
    table = cost_of_the_table({"lookup"}, {"element": 210}, index=7, low=13, rows=128, total=61, dropped=29)
    assert table == Cost(_lookup().cost.offline, _lookup().cost.online)


def test_streams_of_the_table_for_lookups():
    nothing = np.zeros((2, 3, 5, 7), np.uint64)
    _, trio = run(_lookup(), (nothing,) * 3)
    for pair in ("CP", "SP"):
        named = {purpose for key, purpose in purposes({"lookup"}) if key == pair}
        for holder in (pair, pair[::-1]):
            assert {Purpose(purpose).name for purpose, _ in trio.streams[holder].drawn} == named


def test_bytes_of_the_table_for_inputs_outputs_and_weights():
    layer = Linear(0, (1, 4, 6, 6), (4, 3, 3, 3), (1, 1), (1,) * 4, (1, 1), 1, 48)
    assert cost_of_the_table({"Linear"}, {"weight": 108}, bits=48) == without_zeros(layer.cost)
    for table, declared in (
        (cost_of_the_table({"Input"}, {"element": 75}, bits=40), Input(0, (1, 3, 5, 5), 40).cost),
        (cost_of_the_table({"Output"}, {"element": 70}, bits=40, shift=14), Output(0, 70, 40, 14).cost),
        (cost_of_the_table({"Output to S"}, {"element": 70}, bits=40, shift=14), ServerOutput(0, 70, 40, 14).cost),
    ):
        assert table == Cost(declared.offline, declared.online)


@pytest.mark.parametrize("tournament", [MaxPool(0, (1, 2, 6, 6), (3, 3), (2, 2), (1,) * 4, (1, 1), 32), Argmax(0, (2, 10, 1, 1), 48, 16)])
def test_tournaments_send_what_their_comparisons_do(tournament):
    relus = [r.relu for part in tournament.passes for r in part.rounds] if isinstance(tournament, MaxPool) else tournament.rounds
    assert all(relu.cut == Cut(relu.ring, 0, relu.ring) for relu in relus)
    table = sum(map(relu_by_the_table, relus), Cost())
    if isinstance(tournament, Argmax):
        table += cost_of_the_table({"Output"}, {"element": 2}, bits=tournament.index_bits, shift=0)
    declared = without_zeros(tournament.cost)
    assert without_zeros(table) == Cost(declared.offline, declared.online)


def test_no_receiver_holds_the_key_of_its_pad():
    for row in rows():
        assert row.pads or (row.protocol in ("Output", "Output to S") and row.message == "result"), (
            f"{row.protocol}: {row.message} has no pad"
        )
        for key, purpose in row.pads:
            holders = {"W": "SP"}.get(key, key)
            assert INITIALS[row.receiver] not in holders, f"{row.protocol}: {row.message} is padded by k_{key}, which its receiver holds"
            assert purpose in Purpose.__members__


def purposes(protocols: set[str]) -> set[tuple[str, str]]:
    return {pad for row in rows() if row.protocol in protocols for pad in row.pads}


@pytest.mark.parametrize(
    "name, protocols",
    [
        ("plain 48", {"ReLU", "ReLU, S told", "ReLU, lifted early"}),
        ("told 48", {"ReLU", "ReLU, C told", "ReLU, lifted early", "clip"}),
        ("clip 48", {"ReLU", "ReLU, S told", "ReLU, lifted early", "clip"}),
        ("late plain 48", {"ReLU", "ReLU, S told", "late ReLU"}),
        ("late told 48", {"ReLU", "ReLU, C told", "late ReLU", "late clip"}),
        ("passing 48", {"identity"}),
        ("rectify 48", {"ReLU", "ReLU, S told", "ReLU, lifted early", "rectify"}),
        ("quick plain 48", {"quick ReLU"}),
        ("quick rectify 32", {"quick ReLU", "rectify"}),
    ],
)
def test_streams_of_the_table(name, protocols):
    """What the roles draw is what the table names, client and provider, server and provider alike."""
    relu = relus()[name]
    nothing = np.zeros(relu.shape, word_of(relu.ring))
    _, trio = run(relu, (nothing,) * 3)
    for pair in ("CP", "SP"):
        named = {purpose for key, purpose in purposes(protocols) if key == pair}
        for holder in (pair, pair[::-1]):
            drawn = {Purpose(purpose).name for purpose, words in trio.streams[holder].drawn if words.size}
            assert drawn == named, f"{name}, {holder}"


def test_streams_of_the_table_for_inputs_outputs_and_weights(monkeypatch):
    trio = Trio()
    Input(0, (1, 1, 8, 8), 48).mask(trio.client, trio.client.with_provider)
    Output(1, 64, 48, 16).prepare(trio.client, np.zeros(64, np.uint64))
    assert [("CP", Purpose(purpose).name) for purpose, _ in trio.streams["CP"].drawn] == [*purposes({"Input"}), *purposes({"Output"})]
    asked, stream = [], Keystream.stream
    monkeypatch.setattr(Keystream, "stream", lambda self, attempt, op, purpose: asked.append(purpose) or stream(self, attempt, op, purpose))
    key = Keystream(new_key())
    key.begin_attempt(0)
    Linear(0, (1, 4, 6, 6), (4, 3, 3, 3), (1, 1), (1,) * 4, (1, 1), 1, 48).provider_weights(key)
    assert [("W", Purpose(purpose).name) for purpose in asked] == [*purposes({"Linear"})]


# The tests that the document names


def test_every_test_that_is_named_exists():
    named = set(re.findall(r"`(test_\w+)`", TEXT))
    trees = (ast.parse(path.read_text()) for path in (ROOT / "tests").rglob("test_*.py"))
    functions = {node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert len(named) > 50
    assert named <= functions, "docs/security.md names tests that are no more"


# Bounds and ranges


@given(st.sampled_from(list(CUTS)), st.integers(1, 16), st.data())
def test_encoding_rounds_to_nearest(bits, fraction, data):
    limit = 2.0 ** (bits - 2 - fraction)
    value = data.draw(st.floats(-limit, limit, exclude_min=True, exclude_max=True))
    assume(abs(np.rint(value * 2.0**fraction)) < 2.0 ** (bits - 2))
    ring = Ring(bits)
    assert abs(ring.decode(ring.encode(np.array([value]), fraction), fraction)[0] - value) <= 2.0 ** -(fraction + 1)


def test_ranges_of_the_table():
    for bits, fraction, values, signs in re.findall(r"^\| (\d+) \| (\d+) \| 2\^(\d+) \| 2\^(\d+)", TEXT, re.MULTILINE):
        precision = Precision.default(int(bits))
        cut = precision.bits - precision.fraction
        first, width = precision.comparison(cut)
        assert precision.fraction == int(fraction) and first == 0
        assert (cut - 2 - precision.fraction, width - precision.fraction) == (int(values), int(signs))
    wide = Precision(64, 16, window=(16, 62))
    assert wide.comparison(48) == (0, 46)


# What the document admits


def test_provider_and_client_together_have_the_weights():
    layer = Linear(0, (1, 4, 6, 6), (4, 3, 1, 1), (1, 1), (0,) * 4, (1, 1), 1, 48)
    weight = np.random.default_rng(0).integers(0, 1 << 48, (4, 3, 1, 1), np.uint64)
    key, server, provider = new_key(), *(Keystream(bytes(16)) for _ in range(2))
    server, provider = Keystream(key), Keystream(key)
    for stream in (server, provider):
        stream.begin_attempt(0)
    message = layer.mask_weights(server, weight)
    at_client, mask = np.empty(padded(12), np.uint64), provider.stream(0, 0, Purpose.WEIGHT).fill(np.empty(padded(12), np.uint64))
    unpack(message, at_client.size, 48, at_client)
    assert np.array_equal(signed(at_client - mask, 48)[:12], signed(weight.reshape(-1), 48))


def test_provider_and_server_together_have_the_image():
    step, trio = Input(0, (1, 3, 8, 8), 48), Trio()
    image = np.random.default_rng(0).integers(0, 1 << 48, step.shape, np.uint64)
    d = step.mask(trio.client, trio.client.with_provider)
    u, _ = trio.together(step.serve, lambda client: step.infer(client, image, d))
    at_provider = step.mask(trio.provider, trio.provider.with_client)
    assert np.array_equal(signed(u + at_provider, 48), signed(image, 48))


def decoded(value, client_summand, rng, bits=48, shift=16):
    """What the client decodes of equal or other values (count,), each in an opening of its own, and the lowest value that gives this."""
    count, protocol, trio = value.size, Output(0, value.size, bits, shift), Trio()
    provider = rng.integers(0, 1 << bits, count, np.uint64)
    server = value.astype(np.int64).astype(np.uint64) - client_summand + provider
    protocol.deal(trio.provider, provider)
    kept = protocol.prepare(trio.client, client_summand)
    _, words = trio.together(lambda role: protocol.serve(role, server), lambda role: protocol.infer(role, kept))
    return Ring(bits).signed(words)


def test_low_bits_of_a_result_do_not_stay_hidden():
    """One query tells the result to 65,536 units of a product. A thousand queries that give one result tell it to a few hundred."""
    rng, count, secret = np.random.default_rng(0), 1024, 12_345_678_901
    client = rng.integers(0, 1 << 48, count, np.uint64)
    seen = decoded(np.full(count, secret), client, rng)
    lowest, highest = seen - (1 << 15), seen + (1 << 15) - 1
    assert np.all((lowest <= secret) & (secret <= highest))
    assert lowest.max() <= secret <= highest.min() and highest.min() - lowest.max() < 2000


def test_roundings_of_a_result_tell_its_derivatives():
    """The same eight hidden values in many queries: regressed on the client's own low bits, the results give the last layer's weights."""
    rng, bits, (shift, kept), queries = np.random.default_rng(0), 48, CUTS[48], 1 << 14
    weights = np.array([-1.5, -1, -0.5, 0.25, 0.5, 1, 1.5, 2])
    hidden = np.repeat(rng.integers(1 << 30, 1 << 34, weights.size), queries).reshape(1, weights.size, 128, -1)
    summands = shares(rng, hidden, bits)
    results, _ = run(Relu(0, hidden.shape, Cut(bits, shift, kept), bits, 0, 30), summands)
    activations = opened(results, bits).reshape(weights.size, queries)
    logits = (weights * (1 << shift)).astype(np.int64) @ activations
    seen = decoded(logits, rng.integers(0, 1 << bits, queries, np.uint64), rng)
    known = (summands[0].reshape(weights.size, queries) & np.uint64((1 << shift) - 1)).astype(np.float64) / (1 << shift)
    found = np.linalg.lstsq(np.stack([*known, np.ones(queries)], axis=1), seen / (1 << shift), rcond=None)[0][:-1]
    assert np.abs(-found - weights).max() < 0.4 and np.corrcoef(-found, weights)[0, 1] > 0.97
