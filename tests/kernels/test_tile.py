"""The register tile of a product, by its definition, whether it takes the depth in pairs or row by row."""

from unittest.mock import patch

import numba
import numpy as np
import pytest

from threepc.kernels import tile
from threepc.kernels.emitter import VECTOR_BYTES, Before, Matrix, at
from threepc.kernels.gemm import pack_rows
from threepc.kernels.tile import ROWS, VECTORS, close_panel, multiply_tile

LANES = VECTOR_BYTES // 8


@pytest.mark.parametrize("paired", [True, False])
def test_tile_is_the_product_however_it_takes_the_depth(paired):
    def product(a, b, c, before, depth, vectors, fresh, short):
        close_panel(at(b, 0), depth, vectors, short)
        multiply_tile(
            at(a, 0), at(b, 0), Matrix(at(c, 0), vectors * LANES), Before(at(before, 0), fresh), depth + depth % 2, vectors, short
        )

    rng = np.random.default_rng(0)
    with patch.object(tile, "in_pairs", return_value=paired), patch("threepc.kernels.gemm.in_pairs", return_value=paired):
        compiled = numba.njit(product)
        for depth in (1, 2, 7, 38):
            for vectors in range(1, VECTORS + 1):
                left, before, c = (rng.integers(0, 2**64, size, np.uint64) for size in ((ROWS, depth), ROWS, (ROWS, vectors * LANES)))
                right = rng.integers(0, 2**64, (depth + 2, vectors * LANES), np.uint64)
                wanted = left.astype(object) @ right[:depth].astype(object)
                for fresh in (True, False):
                    for short in (True, False):
                        start, got = (before[:, None] if fresh else c).astype(object), c.copy()
                        compiled(pack_rows(left[None], short), right.reshape(-1), got.reshape(-1), before, depth, vectors, fresh, short)
                        np.testing.assert_array_equal(
                            got.astype(object) % 2 ** (52 if short else 64), (wanted + start) % 2 ** (52 if short else 64)
                        )


def test_only_processors_that_gain_take_pairs_with_ifma():
    for name, gains in (("znver4", True), ("znver5", True), ("sapphirerapids", False)):
        with patch.object(tile, "cpu_name", return_value=name):
            assert tile.in_pairs(True) == gains and tile.in_pairs(False)
