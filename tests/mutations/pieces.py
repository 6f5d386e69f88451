"""Losses of secrecy where a layer runs in pieces: results stay right."""

from tests.mutations.mutation import mutation

ADDRESSES = "tests/protocol/test_pieces.py::test_a_layer_has_no_more_pieces_than_channels_or_rows_or_than_are_of_use"

PIECES = (
    mutation(
        "pieces of a layer have the same masks",
        "threepc/plan/scheduler.py",
        ("make(self.op + ops * i, where)", "make(self.op, where)"),
        tests=(ADDRESSES,),
    ),
    mutation(
        "the layer after one in pieces has the masks of its second piece",
        "threepc/plan/activations.py",
        ("    ops = OPS * (len(pieces.parts) if pieces else 1)\n", "    ops = OPS\n"),
        tests=(ADDRESSES,),
    ),
)
