"""The passes of a bit-sliced comparison over one tile, each a single call: interpreting one tile costs as much time as computing it.

A flat array of bit planes holds, tile after tile, its rows of the tile (TILE_WORDS words each, fewer in the last tile). `begin` is the tile's first
element. What the rows mean is set by `Tables`, see `threepc.protocol.window`.
"""

from typing import NamedTuple

import numpy as np

from threepc.kernels.comparison import combine, copy_rows, deal_products, deal_tables, mask_rows, select_leaves, xor
from threepc.kernels.options import inline, kernel
from threepc.kernels.planes import slice_bits

_NONE = np.uint64(0)
_ONES = ~np.uint64(0)


class Tables(NamedTuple):
    """A comparison's layout as int32 arrays, for the groups (leaves to groups) and for the top (groups to the result)."""

    chunks: np.ndarray
    wires: np.ndarray
    start: np.ndarray
    program: np.ndarray
    factors: np.ndarray
    top_wires: np.ndarray
    top_start: np.ndarray
    top_program: np.ndarray
    top_factors: np.ndarray


@inline
def _rows(flat, rows, begin, words):
    """The tile's rows in a flat array of words or bytes."""
    all_words = flat.view(np.uint64)
    at = begin // 64 * rows
    return all_words[at : at + rows * words].reshape(rows, words)


@inline
def count_rows(tables):
    """Rows: one-hot tables and sign bit, products, wires of the groups, wires of the top."""
    last = tables.chunks[tables.chunks.shape[0] - 1]
    shared = last[2] + (1 << last[0])
    return shared, tables.factors.shape[0] + tables.top_factors.shape[0], tables.wires.shape[0], tables.top_wires.shape[0]


@inline
def _width(tables):
    """Bits of the window."""
    last = tables.chunks[tables.chunks.shape[0] - 1]
    return last[1] + last[0]


@kernel
def deal_decisions(tables, many, begin, r, first, drawn, masks, work, dealt, beta_client, beta_server):
    """P: S's shares of the tile for `many` decisions against one mask r, into `dealt`; their beta_C and beta_S into planes (many, words).

    r: the tile's cut words; drawn, masks: the tile's rows drawn with C and with S, flat. Drawn with C, and in `dealt` without the last two: the
    rows that all decisions share, then for each its products, wire masks, beta. masks: for each its wire masks, beta. work: scratch.
    """
    words = r.shape[0] // 64
    shared, products, leaf, top = count_rows(tables)
    width, wires = _width(tables), leaf + top
    bits = work[: (width + 1) * words].reshape(width + 1, words)
    slice_bits(r, first, bits)
    half = drawn.reshape(shared + many * (products + wires + 1), words)
    mine = masks.reshape(many * (wires + 1), words)
    out = _rows(dealt, shared + many * products, begin, words)
    deal_tables(bits, tables.chunks, half, out)
    xor(bits[width:], half[shared - 1 : shared], out[shared - 1 : shared])
    firsts, at = tables.factors.shape[0], begin // 64
    for j in range(many):
        rest, own = half[shared + j * (products + wires + 1) :], mine[j * (wires + 1) :]
        theirs, target = rest[products:], out[shared + j * products : shared + (j + 1) * products]
        deal_products(tables.factors, theirs[:leaf], own[:leaf], rest[:firsts], target[:firsts])
        deal_products(tables.top_factors, theirs[leaf:wires], own[leaf:wires], rest[firsts:products], target[firsts:])
        beta_client[j, at : at + words] = theirs[wires]
        beta_server[j, at : at + words] = own[wires]


@kernel
def serve_leaves(tables, many, which, begin, y, first, dealt, masks, work, leaf_wires, groups, beta):
    """S: decision `which`'s leaf wires for message 1; the groups' starting rows and beta_S to keep.

    y: the tile's cut words; dealt, masks, leaf_wires, groups, beta: flat planes of all tiles; work: scratch.
    """
    words = y.shape[0] // 64
    shared, products, leaf, top = count_rows(tables)
    chunks, width = tables.chunks.shape[0], _width(tables)
    bits = work[: (width + 1) * words].reshape(width + 1, words)
    leaves = work[(width + 1) * words : (width + 1 + 2 * chunks) * words].reshape(2 * chunks, words)
    slice_bits(y, first, bits)
    select_leaves(bits, tables.chunks, _rows(dealt, shared + many * products, begin, words), _NONE, leaves)
    mine = _rows(masks, many * (leaf + top + 1), begin, words)[which * (leaf + top + 1) :]
    mask_rows(tables.wires, leaves, mine, _rows(leaf_wires, leaf, begin, words))
    copy_rows(tables.start, leaves, _rows(groups, tables.start.shape[0], begin, words))
    at = begin // 64
    beta[at : at + words] = mine[leaf + top]


@kernel
def infer_leaves(tables, many, which, begin, y, first, drawn, their_leaves, work, leaf_wires, group_wires, kept, share, beta):
    """C: from S's leaf wires, own leaf and group wires for message 2; what the top needs to keep. For decision `which`.

    y: the tile's cut words; drawn: the tile's rows drawn with P; kept: flat planes of the top's masks and products; share: of the result
    but for the top's products; work: scratch.
    """
    words = y.shape[0] // 64
    shared, products, leaf, top = count_rows(tables)
    chunks, outputs, width = tables.chunks.shape[0], tables.start.shape[0], _width(tables)
    bits = work[: (width + 1) * words].reshape(width + 1, words)
    work = work[(width + 1) * words :]
    leaves = work[: 2 * chunks * words].reshape(2 * chunks, words)
    work = work[2 * chunks * words :]
    opened = work[: leaf * words].reshape(leaf, words)
    results = work[leaf * words : (leaf + outputs) * words].reshape(outputs, words)
    rows = drawn.reshape(shared + many * (products + leaf + top + 1), words)
    dealt = rows[shared + which * (products + leaf + top + 1) :]
    masks = dealt[products:]
    slice_bits(y, first, bits)
    select_leaves(bits, tables.chunks, rows, _ONES, leaves)
    mine = _rows(leaf_wires, leaf, begin, words)
    mask_rows(tables.wires, leaves, masks, mine)
    xor(mine, _rows(their_leaves, leaf, begin, words), opened)
    copy_rows(tables.start, leaves, results)
    combine(tables.program, opened, masks[:leaf], dealt, _ONES, results)
    mask_rows(tables.top_wires, results, masks[leaf:], _rows(group_wires, top, begin, words))
    firsts, tops = tables.factors.shape[0], tables.top_factors.shape[0]
    keep = _rows(kept, top + tops, begin, words)
    keep[:top] = masks[leaf : leaf + top]
    keep[top:] = dealt[firsts : firsts + tops]
    at = begin // 64
    highest, sign = results[tables.top_start[0]], rows[shared - 1]
    for j in range(words):
        # lt of the highest group, the sign bits of y and r, and the constant one
        share[at + j] = highest[j] ^ bits[width, j] ^ sign[j] ^ _ONES
        beta[at + j] = masks[leaf + top, j]


@kernel
def serve_top(tables, many, which, begin, words, dealt, masks, leaf_wires, their_leaves, their_groups, work, groups, group_wires, bit):
    """S: from C's leaf and group wires, own group wires and half of b^ for message 3, of decision `which`. All flat planes; work: scratch."""
    shared, products, leaf, top = count_rows(tables)
    rows = _rows(dealt, shared + many * products, begin, words)
    material = rows[shared + which * products :]
    mine = _rows(masks, many * (leaf + top + 1), begin, words)[which * (leaf + top + 1) :]
    opened = work[: leaf * words].reshape(leaf, words)
    xor(_rows(leaf_wires, leaf, begin, words), _rows(their_leaves, leaf, begin, words), opened)
    results = _rows(groups, tables.start.shape[0], begin, words)
    combine(tables.program, opened, mine[:leaf], material, _NONE, results)
    wires = _rows(group_wires, top, begin, words)
    mask_rows(tables.top_wires, results, mine[leaf:], wires)
    opened_top = work[leaf * words : (leaf + top) * words].reshape(top, words)
    xor(wires, _rows(their_groups, top, begin, words), opened_top)
    result = _rows(bit, 1, begin, words)
    highest, sign = results[tables.top_start[0]], rows[shared - 1]
    for j in range(words):
        result[0, j] = highest[j] ^ sign[j] ^ mine[leaf + top, j]
    combine(tables.top_program, opened_top, mine[leaf : leaf + top], material[tables.factors.shape[0] :], _NONE, result)


@kernel
def infer_top(tables, begin, words, kept, group_wires, their_groups, beta, work, share):
    """C: from S's group wires, own half of b^ into `share`. All flat planes; work: scratch."""
    _, _, _, top = count_rows(tables)
    products = tables.top_factors.shape[0]
    keep = _rows(kept, top + products, begin, words)
    opened = work[: top * words].reshape(top, words)
    xor(_rows(group_wires, top, begin, words), _rows(their_groups, top, begin, words), opened)
    result, own = _rows(share, 1, begin, words), _rows(beta, 1, begin, words)
    combine(tables.top_program, opened, keep[:top], keep[top:], _ONES, result)
    for j in range(words):
        result[0, j] ^= own[0, j]
