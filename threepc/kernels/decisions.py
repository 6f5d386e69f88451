"""The passes of a bit-sliced comparison over one tile, each a single call: interpreting one tile costs as much time as computing it.

A flat array of bit planes holds, tile after tile, its rows of the tile (TILE_WORDS words each, fewer in the last tile). `begin` is the tile's first
element. What the rows mean is set by `Tables`, see `threepc.protocol.window`.
"""
from typing import NamedTuple

import numpy as np

from .comparison import combine, copy_rows, deal_products, deal_tables, mask_rows, select_leaves, xor
from .options import inline, kernel
from .planes import slice_bits

TILE = 16384
"""Elements of a full tile: its scratch stays in the L2 cache."""
TILE_WORDS = TILE // 64

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
def _counts(tables):
    """Rows: one-hot tables, all that is dealt, wires of the groups, wires of the top."""
    last = tables.chunks[tables.chunks.shape[0] - 1]
    table_rows = last[2] + (1 << last[0]) - 1
    dealt = table_rows + 1 + tables.factors.shape[0] + tables.top_factors.shape[0]
    return table_rows, dealt, tables.wires.shape[0], tables.top_wires.shape[0]


@kernel
def deal_decisions(tables, begin, r, first, drawn, masks, work, dealt, beta_client, beta_server):
    """P: S's shares of the tile into `dealt`, beta_C and beta_S into flat planes.

    r: the tile's cut words; drawn, masks: the tile's rows drawn with C (halves, wire masks, beta_C) and with S (wire masks, beta_S), flat.
    work: scratch of (width + 1) * words.
    """
    words = r.shape[0] // 64
    table_rows, dealt_rows, leaf, top = _counts(tables)
    last = tables.chunks[tables.chunks.shape[0] - 1]
    width = last[1] + last[0]
    bits = work[: (width + 1) * words].reshape(width + 1, words)
    slice_bits(r, first, bits)
    half, mine = drawn.reshape(dealt_rows + leaf + top + 1, words), masks.reshape(leaf + top + 1, words)
    out = _rows(dealt, dealt_rows, begin, words)
    deal_tables(bits, tables.chunks, half, out)
    xor(bits[width:], half[table_rows : table_rows + 1], out[table_rows : table_rows + 1])
    row, products = table_rows + 1, tables.factors.shape[0]
    theirs = half[dealt_rows:]
    deal_products(tables.factors, theirs[:leaf], mine[:leaf], half[row : row + products], out[row : row + products])
    row += products
    deal_products(tables.top_factors, theirs[leaf : leaf + top], mine[leaf : leaf + top], half[row:dealt_rows], out[row:dealt_rows])
    at = begin // 64
    beta_client[at : at + words] = theirs[leaf + top]
    beta_server[at : at + words] = mine[leaf + top]


@kernel
def server_leaves(tables, begin, y, first, dealt, masks, work, leaf_wires, groups, beta):
    """S: leaf wires for message 1; the groups' starting rows and beta_S to keep.

    y: the tile's cut words; dealt, masks, leaf_wires, groups, beta: flat planes of all tiles; work: scratch.
    """
    words = y.shape[0] // 64
    _, dealt_rows, leaf, top = _counts(tables)
    chunks = tables.chunks.shape[0]
    last = tables.chunks[chunks - 1]
    width = last[1] + last[0]
    bits = work[: (width + 1) * words].reshape(width + 1, words)
    leaves = work[(width + 1) * words : (width + 1 + 2 * chunks) * words].reshape(2 * chunks, words)
    slice_bits(y, first, bits)
    select_leaves(bits, tables.chunks, _rows(dealt, dealt_rows, begin, words), _NONE, leaves)
    mine = _rows(masks, leaf + top + 1, begin, words)
    mask_rows(tables.wires, leaves, mine, _rows(leaf_wires, leaf, begin, words))
    copy_rows(tables.start, leaves, _rows(groups, tables.start.shape[0], begin, words))
    at = begin // 64
    beta[at : at + words] = mine[leaf + top]


@kernel
def client_leaves(tables, begin, y, first, drawn, their_leaves, work, leaf_wires, group_wires, kept, share, beta):
    """C: from S's leaf wires, own leaf and group wires for message 2; what the top needs to keep.

    y: the tile's cut words; drawn: the tile's rows drawn with P; kept: flat planes of the top's masks and products; share: of the result
    but for the top's products; work: scratch.
    """
    words = y.shape[0] // 64
    table_rows, dealt_rows, leaf, top = _counts(tables)
    chunks, outputs = tables.chunks.shape[0], tables.start.shape[0]
    last = tables.chunks[chunks - 1]
    width = last[1] + last[0]
    bits = work[: (width + 1) * words].reshape(width + 1, words)
    work = work[(width + 1) * words :]
    leaves = work[: 2 * chunks * words].reshape(2 * chunks, words)
    work = work[2 * chunks * words :]
    opened = work[: leaf * words].reshape(leaf, words)
    results = work[leaf * words : (leaf + outputs) * words].reshape(outputs, words)
    rows = drawn.reshape(dealt_rows + leaf + top + 1, words)
    masks, dealt = rows[dealt_rows:], rows[table_rows + 1 : dealt_rows]
    slice_bits(y, first, bits)
    select_leaves(bits, tables.chunks, rows, _ONES, leaves)
    mine = _rows(leaf_wires, leaf, begin, words)
    mask_rows(tables.wires, leaves, masks, mine)
    xor(mine, _rows(their_leaves, leaf, begin, words), opened)
    copy_rows(tables.start, leaves, results)
    combine(tables.program, opened, masks[:leaf], dealt, _ONES, results)
    mask_rows(tables.top_wires, results, masks[leaf:], _rows(group_wires, top, begin, words))
    products, firsts = tables.top_factors.shape[0], tables.factors.shape[0]
    keep = _rows(kept, top + products, begin, words)
    keep[:top] = masks[leaf : leaf + top]
    keep[top:] = dealt[firsts:]
    at = begin // 64
    highest, sign = results[tables.top_start[0]], rows[table_rows]
    for j in range(words):
        # lt of the highest group, the sign bits of y and r, and the constant one
        share[at + j] = highest[j] ^ bits[width, j] ^ sign[j] ^ _ONES
        beta[at + j] = masks[leaf + top, j]


@kernel
def server_top(tables, begin, words, dealt, masks, leaf_wires, their_leaves, their_groups, work, groups, group_wires, bit):
    """S: from C's leaf and group wires, own group wires and half of b^ for message 3. All flat planes; work: scratch."""
    table_rows, dealt_rows, leaf, top = _counts(tables)
    material, mine = _rows(dealt, dealt_rows, begin, words)[table_rows:], _rows(masks, leaf + top + 1, begin, words)
    opened = work[: leaf * words].reshape(leaf, words)
    xor(_rows(leaf_wires, leaf, begin, words), _rows(their_leaves, leaf, begin, words), opened)
    results = _rows(groups, tables.start.shape[0], begin, words)
    combine(tables.program, opened, mine[:leaf], material[1:], _NONE, results)
    wires = _rows(group_wires, top, begin, words)
    mask_rows(tables.top_wires, results, mine[leaf:], wires)
    opened_top = work[leaf * words : (leaf + top) * words].reshape(top, words)
    xor(wires, _rows(their_groups, top, begin, words), opened_top)
    result = _rows(bit, 1, begin, words)
    highest = results[tables.top_start[0]]
    for j in range(words):
        result[0, j] = highest[j] ^ material[0, j] ^ mine[leaf + top, j]
    combine(tables.top_program, opened_top, mine[leaf : leaf + top], material[1 + tables.factors.shape[0] :], _NONE, result)


@kernel
def client_top(tables, begin, words, kept, group_wires, their_groups, beta, work, share):
    """C: from S's group wires, own half of b^ into `share`. All flat planes; work: scratch."""
    _, _, _, top = _counts(tables)
    products = tables.top_factors.shape[0]
    keep = _rows(kept, top + products, begin, words)
    opened = work[: top * words].reshape(top, words)
    xor(_rows(group_wires, top, begin, words), _rows(their_groups, top, begin, words), opened)
    result, own = _rows(share, 1, begin, words), _rows(beta, 1, begin, words)
    combine(tables.top_program, opened, keep[:top], keep[top:], _ONES, result)
    for j in range(words):
        result[0, j] ^= own[0, j]
