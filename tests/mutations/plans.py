"""Losses of secrecy and of checks in what a peer may choose of a plan: results of usual networks stay right."""

from __future__ import annotations

from tests.mutations.mutation import mutation

HOSTILE = "tests/model/test_hostile_plans.py"
PADS = f"{HOSTILE}::test_pads_are_as_long_as_what_they_hide_whatever_a_precision_says"
PRODUCTS, CARD, LIMITS = "threepc/plan/products.py", "threepc/images/card.py", "threepc/model/limits.py"
WINDOWS = "tests/model/test_hostile.py::test_windows_whose_logits_nobody_could_average"
WORK = "tests/model/test_hostile.py::test_work_beyond_what_one_inference_may_take_is_refused_before_it_is_planned"
FEW = "tests/images/test_card.py::test_windows_are_few_enough_and_have_few_enough_pixels_together"

PLANS = (
    mutation(
        "a product lifts by more bits than its pad has",
        PRODUCTS,
        ("min(max(1, product - at.fraction), MOST_LIFTED)", "max(1, product - at.fraction)"),
        tests=(PADS,),
    ),
    mutation(
        "a sloped gate lifts by more bits than its pads have",
        "threepc/plan/activations.py",
        ("CARRY_BITS - lifted, kept_bits)", "CARRY_BITS, kept_bits)"),
        tests=(PADS,),
    ),
    mutation(
        "a product may leave no bits to be opened",
        PRODUCTS,
        ("if product > at.bits - 2 and not at.draft:", "if False:"),
        tests=(f"{HOSTILE}::test_a_product_that_leaves_no_bits_is_refused",),
    ),
    mutation(
        "a maximum compares a bit that its words do not have",
        "threepc/plan/layers.py",
        ("if width >= cut.kept_bits:", "if width > cut.kept_bits:"),
        tests=(f"{HOSTILE}::test_a_maximum_compares_no_bit_that_its_words_do_not_have",),
    ),
    mutation(
        "the bits that layers compare may be no whole numbers",
        "threepc/plan/precision.py",
        ("            *chain.from_iterable(pairs.values()),\n", ""),
        tests=("tests/model/test_served.py",),
    ),
    mutation(
        "a truncation may be deeper than the pads of a lift",
        "threepc/plan/precision.py",
        ("if type(self.truncation) is not int or not MAX_TRUNCATION <= self.truncation <= DEEPEST_TRUNCATION:", "if False:"),
        tests=("tests/plan/test_precision.py::test_truncations_beyond_what_a_lift_hides_are_refused",),
    ),
    mutation(
        "a truncation that an average's comes to is deeper than the pads of a lift",
        "threepc/plan/scheduler.py",
        ("shift + early > min(DEEPEST_TRUNCATION, self.bits - LEAST_KEPT)", "shift + early > self.bits - LEAST_KEPT"),
        tests=("tests/plan/test_averages.py::test_a_stranger_leaves_values_their_bits",),
    ),
    mutation(
        "a ReLU compares its values' spare bit",
        "threepc/plan/precision.py",
        ("            if first + width > cut - 2:", "            if first + width > cut - 1:"),
        tests=(f"{HOSTILE}::test_a_relu_compares_no_more_than_its_values_have",),
    ),
    mutation(
        "the server is shown the numbers of a label",
        "threepc/plan/layers.py",
        ("        if at.reveals[node.name] == LABEL:\n            raise", "        if False:\n            raise"),
        tests=("tests/model/test_hostile.py::test_the_server_is_shown_no_labels",),
    ),
    mutation(
        "a clip may be as large as floats are",
        "threepc/plan/activations.py",
        ("if max(abs(start), abs(offset), abs(end or 0.0)) >= 2.0 ** (62 - fraction):", "if False:"),
        tests=("tests/model/test_hostile.py::test_a_graph_that_a_plan_cannot_hold_is_refused",),
    ),
    mutation(
        "the parties do not agree on layers of six messages",
        "threepc/model/served.py",
        ("self.to_client, self.piece, self.late)", "self.to_client, self.piece)"),
        tests=("tests/model/test_served.py::test_layers_of_two_or_six_messages_travel_where_there_are_any",),
    ),
    mutation(
        "a layer of two messages may be dealt to the client",
        "threepc/plan/schedule.py",
        ("_check_told(set(deciding(graph, reveal)).difference(quick), to_client)", "_check_told(set(deciding(graph, reveal)), to_client)"),
        tests=("tests/model/test_hostile.py::test_no_layer_of_two_messages_is_dealt_to_the_client",),
    ),
    mutation(
        "the client grants no credit for what it is dealt",
        "threepc/party/client.py",
        ("        role.on_taken = self._told.used\n", ""),
        tests=("tests/party/test_pacing.py::test_inferences_with_a_tiny_budget",),
    ),
    mutation("a card has any number of classes", CARD, (" and len(value) <= MOST_CLASSES", ""), tests=("tests/images/test_card.py",)),
    mutation(
        "a card has images resized to any size",
        CARD,
        ("max(self.size) <= self.short_edge <= LARGEST_SIDE", "max(self.size) <= self.short_edge"),
        tests=("tests/images/test_card.py",),
    ),
    *(
        mutation(name, CARD, (old, new), tests=(FEW,))
        for name, old, new in (
            ("a card has any number of windows", "most <= MOST_WINDOWS and most *", "most *"),
            ("windows of a card have any number of pixels", " and most * math.prod(window) <= MOST_WINDOW_PIXELS", ""),
            ("windows are counted of an image that does not lie on its side", "(self.scale, self.scale[::-1]))", "(self.scale,))"),
        )
    ),
    *(
        mutation(name, LIMITS, (old, new), tests=(test,))
        for name, old, new, test in (
            ("windows of a resized output are counted as they were", 'graph.output.attrs.get("resize", [])[:2] or ', "", WINDOWS),
            ("windows slide over a network of several outputs", "not graph.returns_tensor or ", "", WINDOWS),
            ("products of matrices are no work", '"avgpool", "matmul"', '"avgpool"', WORK.partition("::")[0]),
            ("a stranger's dilation reaches any distance", "dilation * (kernel - 1) // stride)", "(kernel - 1) // stride)", WORK),
        )
    ),
    mutation(
        "a table has no row for what is cut above its end",
        "threepc/plan/pieces.py",
        ("SPARE_ROWS = 3", "SPARE_ROWS = 2"),
        tests=("tests/plan/test_smooth.py::test_a_table_is_as_exact_as_it_says",),
    ),
    mutation(
        "a maximum compares as many bits as one of its values has",
        "threepc/plan/narrowing.py",
        ("exponent(ranges.values[node.inputs[0]]) + 1 + fraction", "exponent(ranges.values[node.inputs[0]]) + fraction"),
        tests=("tests/plan/test_narrowing.py::test_sums_of_patches_and_maxima_leave_nothing_out",),
    ),
    mutation(
        "what rows are computed from is not counted",
        "threepc/plan/schedule.py",
        ("lingering = lingering + freed if", "lingering = freed if"),
        tests=("tests/protocol/test_rows.py::test_all_that_rows_are_computed_from_is_counted",),
    ),
)
