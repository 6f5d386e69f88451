"""The passes of a bit-sliced comparison over one tile, each a single call: interpreting one tile costs as much time as computing it.

A flat array of bit planes holds, tile after tile, its rows of the tile (TILE_WORDS words each, fewer in the last tile). `begin` is the tile's first
element. What the rows mean is set by `Comparison`; threepc/protocol/window.py and drelu.py make it.
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


class Rows(NamedTuple):
    """Numbers of bit planes.

    window: bits that are compared. shared: one-hot tables and the mask's sign bit, which all decisions on one mask share. products: dealt products
    of wire masks, leaves, top: wires that are opened of the leaves and of the top, all for each decision. dealt: one share of what P deals. own:
    what C and S each draw with P besides, their wire masks and beta.
    """

    window: int
    shared: int
    products: int
    leaves: int
    top: int
    dealt: int
    own: int


class Comparison(NamedTuple):
    """What is public about a layer's decisions: `decisions` of them on every mask, by a window of the cut words from bit `low_bit` on."""

    tables: Tables
    rows: Rows
    low_bit: int
    decisions: int


class Dealt(NamedTuple):
    """What P makes of all tiles: the message, bytes, and the masks beta of the bits, planes (decisions, words), of who draws its share and who is told."""

    message: np.ndarray
    beta_drawn: np.ndarray
    beta_told: np.ndarray


class ServerPlanes(NamedTuple):
    """What S keeps of all tiles: P's message, bytes, or nothing; what S draws, flat planes; and flat planes with a row a decision."""

    dealt: np.ndarray
    drawn: np.ndarray
    leaf_wires: np.ndarray
    groups: np.ndarray
    beta: np.ndarray


class ClientPlanes(NamedTuple):
    """What C keeps of all tiles: flat planes with a row a decision. kept: the top's masks and products; share: of the result, but for these."""

    leaf_wires: np.ndarray
    group_wires: np.ndarray
    kept: np.ndarray
    share: np.ndarray
    beta: np.ndarray


class ClientReceived(NamedTuple):
    """What C is sent before its message 2: P's message, bytes, or nothing, and S's leaf wires, bytes with a row a decision."""

    dealt: np.ndarray
    leaves: np.ndarray


class ClientWires(NamedTuple):
    """C's message 2 as S receives it: bytes with a row a decision."""

    leaves: np.ndarray
    groups: np.ndarray


class ServerWires(NamedTuple):
    """S's message 3: flat planes with a row a decision. bit: S's half of b^."""

    groups: np.ndarray
    bit: np.ndarray


@inline
def _of_tile(flat, rows, begin, words):
    """The tile's rows in a flat array of words or bytes."""
    all_words = flat.view(np.uint64)
    at = begin // 64 * rows
    return all_words[at : at + rows * words].reshape(rows, words)


@inline
def share_and_masks(rows, message, drawn, begin, words):
    """The tile's rows of a party's share of what P deals, and of its own masks. message: P's, bytes, or nothing where the share is drawn too.

    drawn: what it draws, flat planes, the share's rows before its own.
    """
    if message.shape[0]:
        return _of_tile(message, rows.dealt, begin, words), _of_tile(drawn, rows.own, begin, words)
    both = _of_tile(drawn, rows.dealt + rows.own, begin, words)
    return both[: rows.dealt], both[rows.dealt :]


@kernel
def deal_decisions(comparison, begin, r, drawn, masks, work, dealt):
    """P: one party's shares of the tile for all decisions against one mask r, and both parties' betas, into `dealt`.

    r: the tile's cut words; drawn, masks: the tile's rows drawn with the other party, and with this one, flat. Of the message, and first in
    `drawn`: the rows that all decisions share, then for each its products. masks, and last in `drawn`: for each its wire masks, beta. work: scratch.
    """
    tables, rows = comparison.tables, comparison.rows
    words, leaves, wires = r.shape[0] // 64, rows.leaves, rows.leaves + rows.top
    shared, products = rows.shared, rows.products
    bits = work[: (rows.window + 1) * words].reshape(rows.window + 1, words)
    slice_bits(r, comparison.low_bit, bits)
    both, own = drawn.reshape(rows.dealt + rows.own, words), masks.reshape(rows.own, words)
    half, theirs = both[: rows.dealt], both[rows.dealt :]
    out = _of_tile(dealt.message, rows.dealt, begin, words)
    deal_tables(bits, tables.chunks, half, out)
    xor(bits[rows.window :], half[shared - 1 : shared], out[shared - 1 : shared])
    of_groups, at = tables.factors.shape[0], begin // 64
    for j in range(comparison.decisions):
        first, last = shared + j * products, shared + (j + 1) * products
        rest, target = half[first:last], out[first:last]
        one, two = theirs[j * (wires + 1) :], own[j * (wires + 1) :]
        deal_products(tables.factors, one[:leaves], two[:leaves], rest[:of_groups], target[:of_groups])
        deal_products(tables.top_factors, one[leaves:wires], two[leaves:wires], rest[of_groups:], target[of_groups:])
        dealt.beta_drawn[j, at : at + words] = one[wires]
        dealt.beta_told[j, at : at + words] = two[wires]


@kernel
def serve_leaves(comparison, which, begin, y, planes, work):
    """S: decision `which`'s leaf wires for message 1; the groups' starting rows and beta_S to keep. y: the tile's cut words; work: scratch."""
    tables, rows = comparison.tables, comparison.rows
    words, chunks, wires = y.shape[0] // 64, tables.chunks.shape[0], rows.leaves + rows.top
    bits = work[: (rows.window + 1) * words].reshape(rows.window + 1, words)
    leaves = work[(rows.window + 1) * words : (rows.window + 1 + 2 * chunks) * words].reshape(2 * chunks, words)
    slice_bits(y, comparison.low_bit, bits)
    share, masks = share_and_masks(rows, planes.dealt, planes.drawn, begin, words)
    select_leaves(bits, tables.chunks, share, _NONE, leaves)
    mine = masks[which * (wires + 1) :]
    mask_rows(tables.wires, leaves, mine, _of_tile(planes.leaf_wires[which], rows.leaves, begin, words))
    copy_rows(tables.start, leaves, _of_tile(planes.groups[which], tables.start.shape[0], begin, words))
    at = begin // 64
    planes.beta[which, at : at + words] = mine[wires]


@kernel
def infer_leaves(comparison, which, begin, y, own, their_leaves, planes, work):
    """C: from S's leaf wires, own leaf and group wires for message 2; what the top needs to keep. For decision `which`.

    y: the tile's cut words; own: the tile's rows of `share_and_masks`; their_leaves: bytes with a row a decision; work: scratch.
    """
    tables, rows = comparison.tables, comparison.rows
    words, leaf, top, products = y.shape[0] // 64, rows.leaves, rows.top, rows.products
    chunks, outputs, shared = tables.chunks.shape[0], tables.start.shape[0], rows.shared
    bits = work[: (rows.window + 1) * words].reshape(rows.window + 1, words)
    work = work[(rows.window + 1) * words :]
    leaves = work[: 2 * chunks * words].reshape(2 * chunks, words)
    work = work[2 * chunks * words :]
    opened = work[: leaf * words].reshape(leaf, words)
    results = work[leaf * words : (leaf + outputs) * words].reshape(outputs, words)
    half, masks = own
    dealt, masks = half[shared + which * products :], masks[which * (leaf + top + 1) :]
    slice_bits(y, comparison.low_bit, bits)
    select_leaves(bits, tables.chunks, half, _ONES, leaves)
    mine = _of_tile(planes.leaf_wires[which], leaf, begin, words)
    mask_rows(tables.wires, leaves, masks, mine)
    xor(mine, _of_tile(their_leaves[which], leaf, begin, words), opened)
    copy_rows(tables.start, leaves, results)
    combine(tables.program, opened, masks[:leaf], dealt, _ONES, results)
    mask_rows(tables.top_wires, results, masks[leaf:], _of_tile(planes.group_wires[which], top, begin, words))
    of_groups, of_top = tables.factors.shape[0], tables.top_factors.shape[0]
    keep = _of_tile(planes.kept[which], top + of_top, begin, words)
    keep[:top] = masks[leaf : leaf + top]
    keep[top:] = dealt[of_groups : of_groups + of_top]
    share = _of_tile(planes.share[which], 1, begin, words)
    beta = _of_tile(planes.beta[which], 1, begin, words)
    highest, sign = results[tables.top_start[0]], half[shared - 1]
    for j in range(words):
        # lt of the highest group, the sign bits of y and r, and the constant one
        share[0, j] = highest[j] ^ bits[rows.window, j] ^ sign[j] ^ _ONES
        beta[0, j] = masks[leaf + top, j]


@kernel
def serve_top(comparison, which, begin, words, planes, received, work, wires):
    """S: from C's wires `received`, own group wires and half of b^ for message 3, of decision `which`, into `wires`. work: scratch."""
    tables, rows = comparison.tables, comparison.rows
    leaf, top, shared = rows.leaves, rows.top, rows.shared
    dealt, masks = share_and_masks(rows, planes.dealt, planes.drawn, begin, words)
    products, mine = dealt[shared + which * rows.products :], masks[which * (leaf + top + 1) :]
    opened = work[: leaf * words].reshape(leaf, words)
    xor(_of_tile(planes.leaf_wires[which], leaf, begin, words), _of_tile(received.leaves[which], leaf, begin, words), opened)
    results = _of_tile(planes.groups[which], tables.start.shape[0], begin, words)
    combine(tables.program, opened, mine[:leaf], products, _NONE, results)
    own = _of_tile(wires.groups[which], top, begin, words)
    mask_rows(tables.top_wires, results, mine[leaf:], own)
    opened_top = work[leaf * words : (leaf + top) * words].reshape(top, words)
    xor(own, _of_tile(received.groups[which], top, begin, words), opened_top)
    result = _of_tile(wires.bit[which], 1, begin, words)
    highest, sign = results[tables.top_start[0]], dealt[shared - 1]
    for j in range(words):
        result[0, j] = highest[j] ^ sign[j] ^ mine[leaf + top, j]
    combine(tables.top_program, opened_top, mine[leaf : leaf + top], products[tables.factors.shape[0] :], _NONE, result)


@kernel
def infer_top(comparison, which, begin, words, planes, their_groups, work):
    """C: from S's group wires, bytes with a row a decision, own half of b^ into the planes' `share`. work: scratch."""
    tables, top = comparison.tables, comparison.rows.top
    keep = _of_tile(planes.kept[which], top + tables.top_factors.shape[0], begin, words)
    opened = work[: top * words].reshape(top, words)
    xor(_of_tile(planes.group_wires[which], top, begin, words), _of_tile(their_groups[which], top, begin, words), opened)
    result, own = _of_tile(planes.share[which], 1, begin, words), _of_tile(planes.beta[which], 1, begin, words)
    combine(tables.top_program, opened, keep[:top], keep[top:], _ONES, result)
    for j in range(words):
        result[0, j] ^= own[0, j]
