"""The protocols' passes over whole runs, tile by tile: masks are drawn where they are used, and the interpreter is not asked for each tile.

A call handles the tiles first .. last - 1 of a run, so that several threads can share it. What each tile does is in gate.py and decisions.py, whose
letters these are. Every tile draws `step` blocks of a `Source`, a full tile's need, also where it is the last and shorter.
Scratch of one tile comes from the caller and is its thread's own.
"""

from threepc.kernels import gate
from threepc.kernels.decisions import count_rows, deal_decisions, infer_leaves, infer_top, serve_leaves, serve_top
from threepc.kernels.keystream import BLOCK_BYTES, draw
from threepc.kernels.options import inline, kernel
from threepc.kernels.packing import TILE, TILE_WORDS, pack, unpack


@inline
def _bounds(index, count):
    begin = index * TILE
    return begin, min(begin + TILE, count)


@inline
def _packed(message, begin, end, bits):
    return message[begin // 8 * bits : end // 8 * bits]


@inline
def _blocks(bytes_of_an_element):
    return TILE * bytes_of_an_element // BLOCK_BYTES


@kernel
def draw_words(source, first, last, out):
    """out = the stream's words. out: the whole run."""
    step = _blocks(out.itemsize)
    for index in range(first, last):
        begin, end = _bounds(index, out.shape[0])
        draw(source, index * step, out[begin:end])


# Opening


@kernel
def deal_openings(z, bits, shift, client, server, first, last, own, r):
    """P: r = t + s + (z >> shift), t and s drawn with C and with S."""
    step = _blocks(r.itemsize)
    for index in range(first, last):
        begin, end = _bounds(index, r.shape[0])
        masks, s = r[begin:end], own[: end - begin]
        draw(client, index * step, masks)
        draw(server, index * step, s)
        for i in range(end - begin):
            masks[i] += s[i]
        gate.add_cut(z[begin:end], bits, shift, 0, masks)


@kernel
def prepare_openings(z, bits, shift, client, first, last, count, masks, cut, message):
    """C: message = t + (z >> shift)."""
    step = _blocks(masks.itemsize)
    for index in range(first, last):
        begin, end = _bounds(index, count)
        t = masks[: end - begin]
        draw(client, index * step, t)
        gate.add_cut(z[begin:end], bits, shift, 0, t)
        pack(t, end - begin, cut, _packed(message, begin, end, cut))


@kernel
def serve_openings(z, bits, shift, rounding, half_opened, server, first, last, masks, cut, x, message):
    """S: x = half_opened + s + (z + rounding >> shift), and packed into message."""
    step = _blocks(x.itemsize)
    for index in range(first, last):
        begin, end = _bounds(index, x.shape[0])
        s, half = masks[: end - begin], _packed(half_opened, begin, end, cut)
        draw(server, index * step, s)
        gate.open_masked(z[begin:end], bits, shift, rounding, half, s, cut, x[begin:end], _packed(message, begin, end, cut))


@kernel
def infer_openings(message, cut, first, last, x):
    """C: x from S's message."""
    for index in range(first, last):
        begin, end = _bounds(index, x.shape[0])
        unpack(_packed(message, begin, end, cut), end - begin, cut, x[begin:end])


# Decisions


@inline
def _row_blocks(rows):
    return 8 * rows * TILE_WORDS // BLOCK_BYTES


@inline
def _drawn_rows(tables, many):
    """Rows that C and P draw (what all decisions share, then for each its products, wire masks, beta), and that S and P draw."""
    shared, products, leaf, top = count_rows(tables)
    return shared + many * (products + leaf + top + 1), many * (leaf + top + 1)


@kernel
def deal_all_decisions(tables, many, r, low, client, server, first, last, drawn, masks, work, dealt, beta_client, beta_server):
    """P: see `deal_decisions`; low: the window's first bit."""
    theirs, mine = _drawn_rows(tables, many)
    for index in range(first, last):
        begin, end = _bounds(index, r.shape[0])
        words = (end - begin) // 64
        half, own = drawn[: theirs * words], masks[: mine * words]
        draw(client, index * _row_blocks(theirs), half)
        draw(server, index * _row_blocks(mine), own)
        deal_decisions(tables, many, begin, r[begin:end], low, half, own, work, dealt, beta_client, beta_server)


@kernel
def serve_all_leaves(tables, y, low, server, first, last, dealt, masks, work, leaf_wires, groups, beta):
    """S: see `serve_leaves`. y: cut words (decisions, run); masks: drawn here and kept; leaf_wires, groups, beta: flat planes, a row a decision."""
    many = y.shape[0]
    _, mine = _drawn_rows(tables, many)
    for index in range(first, last):
        begin, end = _bounds(index, y.shape[1])
        draw(server, index * _row_blocks(mine), masks[begin // 64 * mine : end // 64 * mine])
        for j in range(many):
            serve_leaves(tables, many, j, begin, y[j, begin:end], low, dealt, masks, work, leaf_wires[j], groups[j], beta[j])


@kernel
def infer_all_leaves(tables, y, low, client, first, last, drawn, their_leaves, work, leaf_wires, group_wires, kept, share, beta):
    """C: see `infer_leaves`. y: cut words (decisions, run); their_leaves: bytes, a row a decision; the others flat planes, a row a decision."""
    many = y.shape[0]
    theirs, _ = _drawn_rows(tables, many)
    for index in range(first, last):
        begin, end = _bounds(index, y.shape[1])
        half = drawn[: theirs * (end - begin) // 64]
        draw(client, index * _row_blocks(theirs), half)
        for j in range(many):
            infer_leaves(
                tables,
                many,
                j,
                begin,
                y[j, begin:end],
                low,
                half,
                their_leaves[j],
                work,
                leaf_wires[j],
                group_wires[j],
                kept[j],
                share[j],
                beta[j],
            )


@kernel
def serve_all_tops(tables, count, first, last, dealt, masks, leaf_wires, their_leaves, their_groups, work, groups, group_wires, bit):
    """S: see `serve_top`; planes and bytes with a row a decision."""
    many = leaf_wires.shape[0]
    for index in range(first, last):
        begin, end = _bounds(index, count)
        for j in range(many):
            serve_top(
                tables,
                many,
                j,
                begin,
                (end - begin) // 64,
                dealt,
                masks,
                leaf_wires[j],
                their_leaves[j],
                their_groups[j],
                work,
                groups[j],
                group_wires[j],
                bit[j],
            )


@kernel
def infer_all_tops(tables, count, first, last, kept, group_wires, their_groups, beta, work, share):
    """C: see `infer_top`; planes and bytes with a row a decision."""
    for index in range(first, last):
        begin, end = _bounds(index, count)
        for j in range(share.shape[0]):
            infer_top(tables, begin, (end - begin) // 64, kept[j], group_wires[j], their_groups[j], beta[j], work, share[j])


# Gates


@inline
def _draw_pads(source, index, pads, w, lifted):
    """The tile's t_0, t_1 and, where the gate has a constant, p_0, p_1, all rows of pads; then w, where the gate lifts."""
    block = index * _blocks(pads.shape[0] * pads.itemsize + 4 * lifted)
    for row in range(pads.shape[0]):
        block = draw(source, block, pads[row])
    if lifted:
        draw(source, block, w)


@kernel
def deal_gates(r, beta_client, beta_server, source, first, last, d, bits, cut, constant, space, pads_of_lift, work, message):
    """P: see `deal_gate`, and `deal_constant` where there is a second row of betas. beta_*: planes, a row a bit; space: pads (2 or 4 tiles)."""
    material, words = 2 * bits + 2 * (bits - cut), 2 * beta_client.shape[0]
    tile_bits = material + 2 * bits * (words > 2)
    for index in range(first, last):
        begin, end = _bounds(index, r.shape[0])
        count, at, to = end - begin, begin // 64, end // 64
        pads, w = space[: words * count].reshape(words, count), pads_of_lift[:count]
        scratch = work[: 4 * count].reshape(4, count)
        _draw_pads(source, index, pads, w, bits > cut)
        part = _packed(message, begin, end, tile_bits)
        first_part = part[: count // 8 * material]
        gate.deal_gate(
            r[begin:end], beta_client[0, at:to], beta_server[0, at:to], pads[0], pads[1], w, d[begin:end], bits, cut, scratch, first_part
        )
        if words > 2:
            flips, rest = beta_server[0, at:to], part[count // 8 * material :]
            gate.deal_constant(beta_client[1, at:to], beta_server[1, at:to], flips, pads[2], pads[3], constant, bits, scratch, rest)


@kernel
def infer_gates(x, opened, beta, source, first, last, bits, cut, space, pads_of_lift, message):
    """C: see `infer_gate`, and `add_chosen_pad` where there is a second row of opened bits."""
    words = 2 * opened.shape[0]
    for index in range(first, last):
        begin, end = _bounds(index, x.shape[0])
        count, at, to = end - begin, begin // 64, end // 64
        pads, w = space[: words * count].reshape(words, count), pads_of_lift[:count]
        _draw_pads(source, index, pads, w, bits > cut)
        if words > 2:
            gate.add_chosen_pad(pads[0], pads[1], opened[1, at:to], pads[2], pads[3])
        gate.infer_gate(x[begin:end], opened[0, at:to], beta[at:to], pads[0], pads[1], w, bits, cut, _packed(message, begin, end, bits))


@kernel
def serve_gates(x, opened, beta, v_message, dealt, first, last, bits, cut, work, u):
    """S: see `serve_gate`, and `add_chosen_constant` where there is a second row of opened bits. u: without padding."""
    material, twice = 2 * bits + 2 * (bits - cut), opened.shape[0] > 1
    tile_bits = material + 2 * bits * twice
    for index in range(first, last):
        begin, end = _bounds(index, x.shape[0])
        count, at, to = end - begin, begin // 64, end // 64
        scratch, part = work[: 5 * count].reshape(5, count), _packed(dealt, begin, end, tile_bits)
        v, first_part = _packed(v_message, begin, end, bits), part[: count // 8 * material]
        gate.serve_gate(x[begin:end], opened[0, at:to], beta[at:to], v, first_part, bits, cut, scratch, u[begin:end])
        if twice:
            gate.add_chosen_constant(u[begin:end], opened[1, at:to], part[count // 8 * material :], bits, scratch)


# Truncation without a decision


@kernel
def deal_identities(r, source, first, last, d, bits, cut, pads_of_lift, work, message):
    """P: see `deal_identity`."""
    step = _blocks(4)
    for index in range(first, last):
        begin, end = _bounds(index, r.shape[0])
        w = pads_of_lift[: end - begin]
        draw(source, index * step, w)
        part = _packed(message, begin, end, 2 * bits - cut)
        gate.deal_identity(r[begin:end], w, d[begin:end], bits, cut, work[: end - begin], part)


@kernel
def infer_identities(carries, source, first, last, bits, cut, pads_of_lift, message):
    """C: see `infer_identity`."""
    step = _blocks(4)
    for index in range(first, last):
        begin, end = _bounds(index, 64 * carries.shape[0])
        w = pads_of_lift[: end - begin]
        draw(source, index * step, w)
        gate.infer_identity(carries[begin // 64 : end // 64], w, bits, cut, _packed(message, begin, end, bits - cut))


@kernel
def serve_identities(x, carry_message, dealt, first, last, bits, cut, work, u):
    """S: see `serve_identity`. u: without padding."""
    for index in range(first, last):
        begin, end = _bounds(index, x.shape[0])
        count = end - begin
        received, material = _packed(carry_message, begin, end, bits - cut), _packed(dealt, begin, end, 2 * bits - cut)
        gate.serve_identity(x[begin:end], received, material, bits, cut, work[: 3 * count].reshape(3, count), u[begin:end])
