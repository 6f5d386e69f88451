"""Tiles of a run that draw each other's words: results stay right, and a pad hides two values."""

from tests.mutations.mutation import Mutation, mutation

PRODUCT, LATE_LIFT, RUNS = "threepc/kernels/product.py", "threepc/kernels/late_lift.py", "threepc/kernels/runs.py"
STREAMS = "tests/protocol/test_streams.py::test_no_block_is_drawn_twice[48-logits-False]"
OF_PRODUCTS = "tests/protocol/test_product.py::test_what_is_dealt_comes_from_consecutive_parts_of_the_streams"
W = "        w = pads[: end - begin]\n        draw(client_stream, tile * step, w)\n"


def _first_tile(name: str, file: str, test: str, *draws: str) -> Mutation:
    return mutation(
        f"every tile draws the first one's {name}", file, *((draw, draw.replace("tile *", "0 * tile *")) for draw in draws), tests=(test,)
    )


TILES = (
    _first_tile("pads of a product", PRODUCT, OF_PRODUCTS, "tile * _blocks(t.itemsize + 4)"),
    _first_tile(
        "opening masks of a product",
        PRODUCT,
        OF_PRODUCTS,
        "draw(server_stream, tile * _blocks(r.itemsize), r)",
        "draw(server_stream, tile * _blocks(s.itemsize), s)",
    ),
    _first_tile(
        "choice masks of a late lift",
        LATE_LIFT,
        STREAMS,
        "draw(server_stream, tile * _PLANE_BLOCKS, s)",
        "draw(server_stream, tile * _PLANE_BLOCKS, own)",
    ),
    mutation(
        "tiles of a late lift draw half of each other's pads",
        LATE_LIFT,
        ("_WORD_BLOCKS, _PLANE_BLOCKS = 4 * TILE // BLOCK_BYTES", "_WORD_BLOCKS, _PLANE_BLOCKS = 2 * TILE // BLOCK_BYTES"),
        tests=(STREAMS,),
    ),
    _first_tile("masks of a result", RUNS, STREAMS, "draw(stream, tile * step, out[begin:end])"),
    _first_tile("pads of a truncation", RUNS, STREAMS, f"{W}        part =", f"{W}        gate.infer"),
    _first_tile("pads of a gate", RUNS, STREAMS, "block = tile * _blocks(rows * scratch.t.itemsize + scratch.w.itemsize * lifted)"),
)
