"""What each protocol declares to send, an element, and the table of it in docs/protocol.md, between `<!-- costs -->` and `<!-- end -->`."""

import re
from collections.abc import Iterator
from pathlib import Path

from threepc.graph.relu_spec import IDENTITY
from threepc.kernels.gate import Cut
from threepc.plan.precision import Precision
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

PAGE = Path(__file__).parents[2] / "docs/protocol.md"
TABLE = re.compile(r"(<!-- costs -->\n).*?(<!-- end -->)", re.DOTALL)
RINGS = (48, 32)
SHAPE = (1, 64, 64, 64)
"""Large enough that nothing is lost to the padding of a run to 64 elements."""
ELEMENTS = 64**3

LOOKUPS = {48: (13, 61, 29), 32: (9, 37, 21)}
"""Bits within a row, of the sums, and those of them that are dropped, by ring."""
ROWS = 128

LINKS = (("offline", "provider->server"), ("offline", "client->server"), ("online", "server->client"), ("online", "client->server"))


def protocols(bits: int) -> Iterator[tuple[str, str, Cost, int]]:
    """(protocol, of what one is, its declared cost for many, how many) in a ring with its default precision."""
    precision = Precision.default(bits)
    kept = bits - precision.fraction
    cut, (low_bit, width) = Cut(bits, precision.fraction, kept), precision.comparison(kept)

    def relu(sizes: tuple[tuple[int, int], ...] | None = None, clip: int | None = None) -> Cost:
        return Relu(0, SHAPE, cut, bits, low_bit, width, sizes, clip).cost

    yield "ReLU and truncation", "element", relu(), ELEMENTS
    yield "ReLU and truncation, six messages", "element", LateRelu(0, SHAPE, cut, bits, low_bit, width).cost, ELEMENTS
    yield "ReLU and truncation, two messages", "element", QuickRelu(0, SHAPE, cut, bits, low_bit, width).cost, ELEMENTS
    for patch in ((2, 2), (4, 4)):
        yield f"block ReLU {patch[0]}x{patch[1]} and truncation", "element", relu((patch,) * 64), ELEMENTS
    yield "clip (ReLU6) and truncation", "element", relu(clip=6 << precision.fraction), ELEMENTS
    yield "truncation alone", "element", relu((IDENTITY,) * 64), ELEMENTS
    yield "max pooling 2x2, stride 2", "result", MaxPool(0, SHAPE, (2, 2), (2, 2), (0,) * 4, (1, 1), kept).cost, ELEMENTS // 4
    yield "max pooling 3x3, stride 2", "result", MaxPool(0, SHAPE, (3, 3), (2, 2), (1, 1, 0, 0), (1, 1), kept).cost, ELEMENTS // 4
    yield "product and truncation", "element", Product(0, (SHAPE, SHAPE), SHAPE, cut).cost, ELEMENTS
    yield "square and truncation", "element", Product(0, (SHAPE,), SHAPE, cut).cost, ELEMENTS
    low, total, dropped = LOOKUPS[bits]
    lookup = Lookup(0, SHAPE, Cut(bits, 0, low + ROWS.bit_length() - 1), low, total, dropped, ((0,) * ROWS,) * 3)
    yield f"lookup, {ROWS} rows", "element", lookup.cost, ELEMENTS
    for classes in (10, 1000):
        yield f"argmax of {classes:,}", "position", Argmax(0, (1, classes, 64, 64), bits, precision.fraction).cost, 64**2
    yield "input", "element", Input(0, SHAPE, bits).cost, ELEMENTS
    yield "output", "element", Output(0, ELEMENTS, bits, precision.fraction).cost, ELEMENTS
    yield "output to the server", "element", ServerOutput(0, ELEMENTS, bits, precision.fraction).cost, ELEMENTS
    yield "convolution, linear layer", "element", Linear(0, SHAPE, (64, 64, 3, 3), (1, 1), (1,) * 4, (1, 1), 1, bits).cost, ELEMENTS


def written(page: str) -> str:
    """The page with its table made anew."""
    lines = [
        "| protocol | ring | of each | offline P to S | offline C to S | online S to C | online C to S | sum | messages |",
        "|---|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    both = zip(*(protocols(bits) for bits in RINGS), strict=True)
    for bits, (name, each, cost, count) in ((bits, row) for pair in both for bits, row in zip(RINGS, pair, strict=True)):
        bytes_ = [getattr(cost, phase).get(link, 0) / count for phase, link in LINKS]
        assert sum(bytes_) * count == cost.total("offline") + cost.total("online"), f"{name}: a link that the table has no column for"
        cells = [name, str(bits), each, *map(_shown, [*bytes_, sum(bytes_)])]
        lines.append(f"| {' | '.join(cells)} | {cost.messages or ''} |")
    return TABLE.sub(lambda match: f"{match[1]}\n" + "\n".join(lines) + f"\n\n{match[2]}", page)


def _shown(number: float) -> str:
    return f"{number:,.3f}".rstrip("0").rstrip(".") if number else ""
