"""The passes of a comparison that is combined in one level, over the tiles of a run: see decisions.py for two levels, whose layout of planes this has.

Chunks are wide and few. Once its wires are opened under masks m, the comparison is a sum of terms, each a product of what was opened and of a
secret: a product of masks, known to P. Secrets that meet the same product of what was opened are dealt as one; `selectors` are those products.
threepc/protocol/one_level.py makes the tables and says why this is safe.
"""

from typing import NamedTuple

import numpy as np

from threepc.kernels.comparison import mask_rows, xor
from threepc.kernels.decisions import _of_tile
from threepc.kernels.keystream import draw
from threepc.kernels.options import inline, kernel
from threepc.kernels.planes import slice_bits
from threepc.kernels.runs import _bounds, _row_blocks

_NONE = np.uint64(0)
_ONES = ~np.uint64(0)


class Layout(NamedTuple):
    """What is public about a layer's decisions, as int32 arrays, and numbers of planes.

    chunks (n, 3): width, first plane, first row in the tables. wires: leaf rows that are opened, 2 c and 2 c + 1 being lt and eq of chunk c.
    coefficients, secrets: programs of `add_products`, of wires; the last target of coefficients is the comparison's own sum of terms.
    window: bits that are compared, from bit low_bit of the cut words on. tables, classes: of one-hot tables, and of secrets that are dealt.
    """

    chunks: np.ndarray
    wires: np.ndarray
    coefficients: np.ndarray
    secrets: np.ndarray
    low_bit: int
    window: int
    tables: int
    classes: int


class Masks(NamedTuple):
    """What P makes of all tiles besides the message: S's shares of the secrets (classes, words), beta_C and beta_S, planes (words,)."""

    secrets: np.ndarray
    beta_client: np.ndarray
    beta_server: np.ndarray


class Choice(NamedTuple):
    """What C and S bring to the gate, planes: selectors (classes - 1, words), that of the first class being one, own half of b^ and of beta."""

    selectors: np.ndarray
    share: np.ndarray
    beta: np.ndarray


@kernel
def add_products(program, rows, out):
    """out[target] ^= AND of some rows, or all ones, for each step; program (steps, 2 + most rows): target, number of rows, the rows."""
    for step in range(program.shape[0]):
        target, count = out[program[step, 0]], program[step, 1]
        if count == 0:
            for j in range(target.shape[0]):
                target[j] ^= _ONES
        elif count == 1:
            a = rows[program[step, 2]]
            for j in range(target.shape[0]):
                target[j] ^= a[j]
        elif count == 2:
            a, b = rows[program[step, 2]], rows[program[step, 3]]
            for j in range(target.shape[0]):
                target[j] ^= a[j] & b[j]
        else:
            for j in range(target.shape[0]):
                value = rows[program[step, 2], j]
                for k in range(1, count):
                    value &= rows[program[step, 2 + k], j]
                target[j] ^= value


@kernel
def choose_row(bits, rows, out):
    """out = the row of `rows` that the bits name, low first, bit by bit; rows (2^bits, words) is overwritten."""
    left = rows.shape[0]
    for b in range(bits.shape[0]):
        left //= 2
        bit = bits[b]
        for i in range(left):
            target, zero, one = rows[i], rows[2 * i], rows[2 * i + 1]
            for j in range(bit.shape[0]):
                target[j] = zero[j] ^ (bit[j] & (zero[j] ^ one[j]))
    out[:] = rows[0]


@kernel
def select_wide_leaves(bits, chunks, tables, ones, work, out):
    """`comparison.select_leaves` for chunks of any width. work: as many rows as the widest chunk has values."""
    words = bits.shape[1]
    for c in range(chunks.shape[0]):
        width, bit, row = chunks[c, 0], chunks[c, 1], chunks[c, 2]
        values = 1 << width
        rows = work[: values * words].reshape(values, words)
        # the sum of the table's rows up to i, and one: share of [i < r]; of all rows, it is the row that is not dealt
        rows[0] = ones
        for i in range(values - 1):
            before, following, table = rows[max(i - 1, 0)], rows[i], tables[row + i]
            for j in range(words):
                following[j] = before[j] ^ table[j]
        rows[values - 1] = _NONE
        out[2 * c + 1] = rows[values - 2]
        choose_row(bits[bit : bit + width], rows, out[2 * c])
        for i in range(values - 1):
            rows[i] = tables[row + i]
        rows[values - 1] = out[2 * c + 1]
        choose_row(bits[bit : bit + width], rows, out[2 * c + 1])


@kernel
def deal_wide_tables(bits, chunks, half, work, out):
    """`comparison.deal_tables` for chunks of any width. work: as many rows as the widest chunk has values."""
    words = bits.shape[1]
    for c in range(chunks.shape[0]):
        width, bit, row = chunks[c, 0], chunks[c, 1], chunks[c, 2]
        hot = work[: words << width].reshape(1 << width, words)
        hot[0] = _ONES
        for b in range(width):
            for i in range(1 << b):
                high, low, one = hot[i + (1 << b)], hot[i], bits[bit + b]
                for j in range(words):
                    high[j] = low[j] & one[j]
                    low[j] &= ~one[j]
        for i in range((1 << width) - 1):
            mine, theirs, is_it = half[row + i], out[row + i], hot[i]
            for j in range(words):
                theirs[j] = mine[j] ^ is_it[j]


@inline
def _draw_rows(stream, tile, rows, words, space):
    """The tile's rows of planes from a stream, into scratch."""
    drawn = space[: rows * words]
    draw(stream, tile * _row_blocks(rows), drawn)
    return drawn.reshape(rows, words)


@inline
def _parts(layout, words, work):
    """Scratch for bits and leaves, opened wires, selectors, and what is left."""
    sizes = (layout.window + 1, 2 * layout.chunks.shape[0], layout.wires.shape[0], layout.classes + 1)
    ends = (sizes[0], sizes[0] + sizes[1], sizes[0] + sizes[1] + sizes[2], sizes[0] + sizes[1] + sizes[2] + sizes[3])
    bits = work[: ends[0] * words].reshape(sizes[0], words)
    leaves = work[ends[0] * words : ends[1] * words].reshape(sizes[1], words)
    wires = work[ends[1] * words : ends[2] * words].reshape(sizes[2], words)
    selectors = work[ends[2] * words : ends[3] * words].reshape(sizes[3], words)
    return bits, leaves, wires, selectors, work[ends[3] * words :]


@kernel
def deal_choices(layout, r, streams, tiles, work, message, masks):
    """P: the tables of r and S's shares of the secrets into the message, whose rows they are; `masks`. streams: of C and of S; work: scratch."""
    wires, classes, tables = layout.wires.shape[0], layout.classes, layout.tables
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        words, at = (end - begin) // 64, begin // 64
        half = _draw_rows(streams[0], tile, tables + classes + wires + 1, words, work)
        own = _draw_rows(streams[1], tile, wires + 1, words, work[half.size :])
        bits, _, opened, sums, rest = _parts(layout, words, work[half.size + own.size :])
        slice_bits(r[begin:end], layout.low_bit, bits)
        out = _of_tile(message, tables + classes, begin, words)
        deal_wide_tables(bits, layout.chunks, half, rest, out)
        xor(half[tables + classes :], own, opened)
        secrets = sums[:classes]
        secrets[:] = half[tables : tables + classes]
        add_products(layout.secrets, opened, secrets)
        beta_client, beta_server, first, sign = half[tables + classes + wires], own[wires], secrets[0], bits[layout.window]
        for j in range(words):
            # the mask's sign, and the mask of b^
            first[j] ^= sign[j] ^ beta_client[j] ^ beta_server[j]
        out[tables:] = secrets
        masks.secrets[:, at : at + words] = secrets
        masks.beta_client[at : at + words] = beta_client
        masks.beta_server[at : at + words] = beta_server


@kernel
def serve_wires(layout, y, server_stream, tiles, dealt, work, wires, choice):
    """S: its wires for message 1, and the choice's beta. y: cut words; dealt: P's message."""
    rows = layout.wires.shape[0]
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        words, at = (end - begin) // 64, begin // 64
        masks = _draw_rows(server_stream, tile, rows + 1, words, work)
        bits, leaves, _, _, rest = _parts(layout, words, work[masks.size :])
        slice_bits(y[begin:end], layout.low_bit, bits)
        select_wide_leaves(bits, layout.chunks, _of_tile(dealt, layout.tables + layout.classes, begin, words), _NONE, rest, leaves)
        mask_rows(layout.wires, leaves, masks, _of_tile(wires, rows, begin, words))
        choice.beta[at : at + words] = masks[rows]


@kernel
def infer_wires(layout, y, client_stream, tiles, theirs, work, wires, choice):
    """C: from S's wires its own for message 2, and its choice, whose share goes with it."""
    rows, classes, tables = layout.wires.shape[0], layout.classes, layout.tables
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        words, at = (end - begin) // 64, begin // 64
        half = _draw_rows(client_stream, tile, tables + classes + rows + 1, words, work)
        bits, leaves, opened, selectors, rest = _parts(layout, words, work[half.size :])
        slice_bits(y[begin:end], layout.low_bit, bits)
        select_wide_leaves(bits, layout.chunks, half, _ONES, rest, leaves)
        mine = _of_tile(wires, rows, begin, words)
        mask_rows(layout.wires, leaves, half[tables + classes :], mine)
        xor(mine, _of_tile(theirs, rows, begin, words), opened)
        selectors[:] = _NONE
        add_products(layout.coefficients, opened, selectors)
        share, sign, own = choice.share[at : at + words], bits[layout.window], selectors[classes]
        for j in range(words):
            share[j] = own[j] ^ sign[j] ^ _ONES
        _add_chosen(selectors, half[tables : tables + classes], share)
        choice.selectors[:, at : at + words] = selectors[1:classes]
        choice.beta[at : at + words] = half[tables + classes + rows]


@kernel
def serve_choices(layout, tiles, dealt, mine, theirs, work, choice):
    """S: from C's wires the choice's selectors and share. mine: its own wires."""
    rows, classes, tables = layout.wires.shape[0], layout.classes, layout.tables
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        words, at = (end - begin) // 64, begin // 64
        _, _, opened, selectors, _ = _parts(layout, words, work)
        xor(_of_tile(mine, rows, begin, words), _of_tile(theirs, rows, begin, words), opened)
        selectors[:] = _NONE
        add_products(layout.coefficients, opened, selectors)
        share = choice.share[at : at + words]
        share[:] = _NONE
        _add_chosen(selectors, _of_tile(dealt, tables + classes, begin, words)[tables:], share)
        choice.selectors[:, at : at + words] = selectors[1:classes]


@inline
def _add_chosen(selectors, secrets, share):
    """share ^= the secrets that the selectors choose."""
    for c in range(secrets.shape[0]):
        chosen, secret = selectors[c], secrets[c]
        for j in range(share.shape[0]):
            share[j] ^= chosen[j] & secret[j]
