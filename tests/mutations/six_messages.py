"""Losses of secrecy of a ReLU in six messages: results stay right, a view does not stay uniform."""

from __future__ import annotations

from tests.mutations.mutation import Mutation, mutation

LATE_LIFT = "threepc/kernels/late_lift.py"
VIEWS, STREAMS = ("tests/protocol/test_views.py",), ("tests/protocol/test_streams.py",)

OF_PROVIDER = "        draw(client_stream, tile * _WORD_BLOCKS, words)\n"
OF_CLIENT = "        draw(client_stream, tile * _WORD_BLOCKS, rows[1])\n"
SIGNS = "        draw(server_stream, tile * _PLANE_BLOCKS, s)\n"
OF_SERVER = "        draw(server_stream, tile * _PLANE_BLOCKS, own)\n"


def _alike(name: str, first: tuple[str, str], second: tuple[str, str], tests: tuple[str, ...]) -> Mutation:
    """The provider and one other change what they draw alike."""
    return mutation(f"late lift: {name}", LATE_LIFT, first, second, tests=tests)


SIX_MESSAGES = (
    _alike(
        "what is dealt is without its pad",
        (OF_PROVIDER, f"{OF_PROVIDER}        words[:] = 0\n"),
        (OF_CLIENT, f"{OF_CLIENT}        rows[1][:] = 0\n"),
        VIEWS,
    ),
    _alike("the choice is without its mask", (SIGNS, f"{SIGNS}        s[:] = 0\n"), (OF_SERVER, f"{OF_SERVER}        own[:] = 0\n"), VIEWS),
    _alike(
        "every tile of the run draws the first one's pads",
        (OF_PROVIDER, OF_PROVIDER.replace("tile *", "0 * tile *")),
        (OF_CLIENT, OF_CLIENT.replace("tile *", "0 * tile *")),
        STREAMS,
    ),
    _alike(
        "every tile of the run draws the first one's masks",
        (SIGNS, SIGNS.replace("tile *", "0 * tile *")),
        (OF_SERVER, OF_SERVER.replace("tile *", "0 * tile *")),
        STREAMS,
    ),
    mutation(
        "late lift: the mask of the result is zero above the cut ring",
        "threepc/protocol/relu_layer.py",
        ("        return d, passed_d\n", "        return d & word_constant((1 << self.cut.kept_bits) - 1, d.dtype), passed_d\n"),
        tests=VIEWS,
    ),
)
