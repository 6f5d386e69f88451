"""Losses of secrecy of a ReLU in six messages: results stay right, a view does not stay uniform."""

from __future__ import annotations

from tests.mutations.mutation import Mutation, mutation

LATE_RELU, LATE_LIFT, LAYER = "threepc/protocol/late_relu.py", "threepc/kernels/late_lift.py", "threepc/protocol/relu_layer.py"
SERVER, CLIENT = (
    f"tests/protocol/test_views.py::test_view_of_the_{who}_of_a_late_lift_is_uniform_over_all_pads" for who in ("server", "client")
)
STREAMS = "tests/protocol/test_streams.py::test_no_block_is_drawn_twice[48-logits-False]"


def _zeros(name: str, tile_bytes: str, test: str) -> Mutation:
    """Both who share a stream of the lift take it for zeros."""
    drawn = f"open_stream(self.op, Purpose.LIFT, self.count, {tile_bytes})"
    zeros = f"{drawn}._replace(drawn=np.zeros({tile_bytes} * (1 + self.count // TILE), np.uint8))"
    return mutation(f"late lift: {name}", LATE_RELU, (f"        return {drawn}\n", f"        return {zeros}\n"), tests=(test,))


def _first_tile(name: str, *draws: str) -> Mutation:
    changes = [(draw, draw.replace("tile *", "0 * tile *")) for draw in draws]
    return mutation(f"late lift: every tile of the run draws the first one's {name}", LATE_LIFT, *changes, tests=(STREAMS,))


SIX_MESSAGES = (
    _zeros("what is dealt is without its pad", "4 * TILE", SERVER),
    _zeros("the choice is without its mask", "8 * TILE_WORDS", CLIENT),
    mutation(
        "late lift: the mask of the result has no bits above the cut ring",
        LAYER,
        ("        return d, passed_d\n", "        return d & word_constant((1 << self.cut.kept_bits) - 1, d.dtype), passed_d\n"),
        tests=(SERVER,),
    ),
    _first_tile("pads", "draw(client_stream, tile * _WORD_BLOCKS, words)", "draw(client_stream, tile * _WORD_BLOCKS, rows[1])"),
    mutation(
        "late lift: what the client keeps of a ReLU is not counted",
        LATE_RELU,
        ("return self.late_lift.kept_bytes if self.decide else 0", "return 0"),
        tests=("tests/protocol/test_late_relu.py::test_what_the_client_keeps_is_what_is_declared",),
    ),
)
