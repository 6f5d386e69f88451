"""Losses of secrecy where a layer runs in pieces, with right results; and answers to rows that are taken too early, or held too long."""

from tests.mutations.mutation import mutation

STEPS, ROLES, PIECES_FILE = (f"threepc/protocol/{name}.py" for name in ("steps", "roles", "pieces"))
ROWS = "tests/protocol/test_rows.py"
WORDS = f"{ROWS}::test_rows_as_they_come_give_what_whole_layers_give"
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
    *(
        mutation(f"rows: {name}", file, (old, new), tests=(test,))
        for name, file, old, new, test in (
            ("a step that takes whole values begins before all answers are there", STEPS, "        server.settle()\n", "", WORDS),
            ("the server holds the last layer's words for ever", ROLES, "            self.coming = None\n", "", WORDS),
            ("the client's answers are taken for others", PIECES_FILE, "begun.popleft()", "begun.pop()", WORDS),
            (
                "a kernel may read rows that are not there",
                "threepc/protocol/linear.py",
                "return max(self.padding[0], self.padding[2]) < self._reach",
                "return True",
                f"{ROWS}::test_a_kernel_that_may_read_padding_alone_takes_whole_maps",
            ),
        )
    ),
    mutation(
        "the parties do not agree on the size of pieces",
        "threepc/model/served.py",
        ("self.to_client, self.piece, self.late)", "self.to_client, 0, self.late)"),
        tests=("tests/protocol/test_pieces.py::test_the_size_of_pieces_is_public_and_checked",),
    ),
    mutation(
        "patches are cut by rows",
        "threepc/plan/activations.py",
        ("if make is QuickRelu and not sizes and", "if make is QuickRelu and"),
        tests=("tests/protocol/test_pieces.py::test_patches_and_channels_that_pass_or_are_zero",),
    ),
)
