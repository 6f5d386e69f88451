"""Losses of secrecy of a ReLU in two messages: results stay right, a view does not stay uniform."""

from __future__ import annotations

from tests.mutations.mutation import Mutation, mutation

VIEWS = ("tests/protocol/test_views.py",)
STREAMS = ("tests/protocol/test_streams.py",)
ONE_LEVEL, LABELS = "threepc/kernels/one_level.py", "threepc/kernels/labels.py"
OF_PROVIDER = "        half = _draw_rows(streams[0], tile, tables + classes + wires + 1, words, work)\n"
OF_CLIENT = "        half = _draw_rows(client_stream, tile, tables + classes + rows + 1, words, work)\n"
DRAWN = "        block = draw(stream, block, labels[row])\n"


def _rows(name: str, of_provider: str, of_client: str) -> Mutation:
    """C and P take some of the rows that they share for zeros."""
    zeros = [(drawn, f"{drawn}        half[{rows}] = _NONE\n") for drawn, rows in ((OF_PROVIDER, of_provider), (OF_CLIENT, of_client))]
    return mutation(f"one level: {name}", ONE_LEVEL, *zeros, tests=VIEWS)


def _labels(name: str, change: str) -> Mutation:
    """C and P change the labels (classes, elements) and Delta, the row after them, alike."""
    return mutation(f"labels: {name}", LABELS, (DRAWN, f"{DRAWN}    {change}\n"), tests=VIEWS)


TWO_MESSAGES = (
    _rows("tables without the client's half", ":tables", ":tables"),
    _rows("secrets without the client's half", "tables : tables + classes", "tables : tables + classes"),
    _rows("wire masks of the client all zero", "tables + classes : tables + classes + wires", "tables + classes : tables + classes + rows"),
    _rows("the bit without the client's mask", "tables + classes + wires", "tables + classes + rows"),
    mutation(
        "one level: wire masks of the server all zero",
        ONE_LEVEL,
        (
            "        own = _draw_rows(streams[1], tile, wires + 1, words, work[half.size :])\n",
            "        own = _draw_rows(streams[1], tile, wires + 1, words, work[half.size :])\n        own[:wires] = _NONE\n",
        ),
        (
            "        masks = _draw_rows(server_stream, tile, rows + 1, words, work)\n",
            "        masks = _draw_rows(server_stream, tile, rows + 1, words, work)\n        masks[:rows] = _NONE\n",
        ),
        tests=VIEWS,
    ),
    _labels("all zero but for Delta", "labels[:classes] = 0"),
    _labels("Delta is zero, so that both branches have one pad", "labels[classes] = 0"),
    _labels("Delta is a label too", "labels[classes] = labels[0]"),
    _labels("two classes have one label", "labels[1 if classes > 1 else 0] = labels[0]"),
    mutation(
        "one level: every tile of the run draws the first one's rows",
        ONE_LEVEL,
        ("draw(stream, tile * _row_blocks(rows), drawn)", "draw(stream, 0 * tile * _row_blocks(rows), drawn)"),
        tests=STREAMS,
    ),
    mutation(
        "labels: every tile of the run draws the first one's",
        LABELS,
        (
            "    block = tile * _blocks((classes + 1) * space.itemsize)\n",
            "    block = 0 * tile * _blocks((classes + 1) * space.itemsize)\n",
        ),
        tests=STREAMS,
    ),
)
