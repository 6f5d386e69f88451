"""Losses of secrecy and of checks in what a peer may choose of a plan: results of usual networks stay right."""

from __future__ import annotations

from tests.mutations.mutation import mutation

HOSTILE = "tests/model/test_hostile_plans.py"
PADS = f"{HOSTILE}::test_pads_are_as_long_as_what_they_hide_whatever_a_precision_says"
PRODUCTS = "threepc/plan/products.py"

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
        "the client grants no credit for what it is dealt",
        "threepc/party/client.py",
        ("        role.on_taken = self._told.used\n", ""),
        tests=("tests/party/test_pacing.py::test_inferences_with_a_tiny_budget",),
    ),
)
