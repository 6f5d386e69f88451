"""The protocols' passes over whole runs, tile by tile: masks are drawn where they are used, and the interpreter is not asked for each tile.

A call handles some `Tiles` of a run, so that several threads can share it. What each tile does is in gate.py and decisions.py, whose letters
these are. A stream is a `Source`; every tile draws as many of its blocks as a full tile needs, also where it is the last and shorter.
Scratch of one tile comes from the caller and is its thread's own.
"""

from typing import NamedTuple

import numpy as np

from threepc.kernels import gate
from threepc.kernels.decisions import deal_decisions, infer_leaves, infer_top, serve_leaves, serve_top, share_and_masks
from threepc.kernels.keystream import BLOCK_BYTES, draw
from threepc.kernels.options import inline, kernel
from threepc.kernels.packing import TILE, TILE_WORDS, pack, unpack


@inline
def _bounds(tile, tiles):
    begin = tile * TILE
    return begin, min(begin + TILE, tiles.count)


@inline
def _packed(message, begin, end, bits):
    return message[begin // 8 * bits : end // 8 * bits]


@inline
def _blocks(bytes_of_an_element):
    """Blocks that a tile draws."""
    return TILE * bytes_of_an_element // BLOCK_BYTES


@kernel
def draw_words(stream, tiles, out):
    """out = the stream's words. out: the whole run."""
    step = _blocks(out.itemsize)
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        draw(stream, tile * step, out[begin:end])


# Opening


@kernel
def deal_openings(z, cut, client_stream, server_stream, tiles, own, r):
    """P: r = t + s + the cut of z, t and s drawn with C and with S. own: scratch."""
    step = _blocks(r.itemsize)
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        masks, s = r[begin:end], own[: end - begin]
        draw(client_stream, tile * step, masks)
        draw(server_stream, tile * step, s)
        for i in range(end - begin):
            masks[i] += s[i]
        gate.add_cut(z[begin:end], cut, 0, masks)


@kernel
def prepare_openings(z, cut, client_stream, tiles, masks, message):
    """C: message = t + the cut of z. masks: scratch."""
    step = _blocks(masks.itemsize)
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        t = masks[: end - begin]
        draw(client_stream, tile * step, t)
        gate.add_cut(z[begin:end], cut, 0, t)
        pack(t, end - begin, cut.kept_bits, _packed(message, begin, end, cut.kept_bits))


@kernel
def serve_openings(z, cut, half_opened, server_stream, tiles, masks, x, message):
    """S: x = half_opened + s + the cut of z, rounded; and packed into message. masks: scratch."""
    step = _blocks(x.itemsize)
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        s, half, out = masks[: end - begin], _packed(half_opened, begin, end, cut.kept_bits), _packed(message, begin, end, cut.kept_bits)
        draw(server_stream, tile * step, s)
        gate.open_masked(z[begin:end], cut, half, s, x[begin:end], out)


@kernel
def infer_openings(message, kept_bits, tiles, x):
    """C: x from S's message."""
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        unpack(_packed(message, begin, end, kept_bits), end - begin, kept_bits, x[begin:end])


# Decisions


class DealScratch(NamedTuple):
    """Planes of one tile, see `deal_decisions`: what P draws for it with either party, and what else is needed."""

    drawn: np.ndarray
    masks: np.ndarray
    work: np.ndarray


@inline
def _row_blocks(rows):
    return 8 * rows * TILE_WORDS // BLOCK_BYTES


@inline
def _drawn_rows(rows, message):
    """What a party draws: its own masks, and its share of what P deals unless it is told that in a message."""
    return rows.own if message.shape[0] else rows.dealt + rows.own


@kernel
def deal_all_decisions(comparison, r, stream, told_stream, tiles, scratch, dealt):
    """P: see `deal_decisions`. r: cut words; stream, told_stream: with the party that draws its share, and with the one that is told it."""
    rows, both = comparison.rows, comparison.rows.dealt + comparison.rows.own
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        words = (end - begin) // 64
        drawn, masks = scratch.drawn[: both * words], scratch.masks[: rows.own * words]
        draw(stream, tile * _row_blocks(both), drawn)
        draw(told_stream, tile * _row_blocks(rows.own), masks)
        deal_decisions(comparison, begin, r[begin:end], drawn, masks, scratch.work, dealt)


@kernel
def serve_all_leaves(comparison, y, server_stream, tiles, planes, work):
    """S: see `serve_leaves`; what the planes hold as drawn is drawn here. y: cut words (decisions, run)."""
    rows = _drawn_rows(comparison.rows, planes.dealt)
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        draw(server_stream, tile * _row_blocks(rows), planes.drawn[begin // 64 * rows : end // 64 * rows])
        for j in range(comparison.decisions):
            serve_leaves(comparison, j, begin, y[j, begin:end], planes, work)


@kernel
def infer_all_leaves(comparison, y, client_stream, tiles, received, drawn, planes, work):
    """C: see `infer_leaves`. y: cut words (decisions, run); received: a `ClientReceived`; drawn, work: scratch."""
    rows, dealt = _drawn_rows(comparison.rows, received.dealt), 8 * comparison.rows.dealt
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        words = (end - begin) // 64
        own = drawn[: rows * words]
        draw(client_stream, tile * _row_blocks(rows), own)
        told = received.dealt[dealt * (begin // 64) : dealt * (end // 64)]
        both = share_and_masks(comparison.rows, told, own, 0, words)
        for j in range(comparison.decisions):
            infer_leaves(comparison, j, begin, y[j, begin:end], both, received.leaves, planes, work)


@kernel
def serve_all_tops(comparison, tiles, planes, received, work, wires):
    """S: see `serve_top`."""
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        for j in range(comparison.decisions):
            serve_top(comparison, j, begin, (end - begin) // 64, planes, received, work, wires)


@kernel
def infer_all_tops(comparison, tiles, planes, their_groups, work):
    """C: see `infer_top`."""
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        for j in range(comparison.decisions):
            infer_top(comparison, j, begin, (end - begin) // 64, planes, their_groups, work)


# Gates


class GateMasks(NamedTuple):
    """What P knows of a gate. r: cut words, padded; beta_*: planes, a row for b and, with a constant, one for b'; d: ring words, padded."""

    r: np.ndarray
    beta_client: np.ndarray
    beta_server: np.ndarray
    d: np.ndarray


class GateInput(NamedTuple):
    """What C or S brings to a gate. x: cut words, padded; opened: planes of b^ and, with a constant, b'^; beta: planes (words,) of its half of b's mask."""

    x: np.ndarray
    opened: np.ndarray
    beta: np.ndarray


class GateScratch(NamedTuple):
    """Room for a tile's `Pads`, flat, and P's and S's ring words."""

    t: np.ndarray
    w: np.ndarray
    work: np.ndarray


@inline
def _draw_pads(stream, tile, rows, count, lifted, scratch):
    """The tile's pads: their `rows` rows of ring words, then w, where the gate lifts."""
    pads = gate.Pads(scratch.t[: rows * count].reshape(rows, count), scratch.w[:count])
    block = tile * _blocks(rows * scratch.t.itemsize + scratch.w.itemsize * lifted)
    for row in range(rows):
        block = draw(stream, block, pads.t[row])
    if lifted:
        draw(stream, block, pads.w)
    return pads


@kernel
def deal_gates(masks, lift, slopes, constant, client_stream, tiles, scratch, message):
    """P: see `deal_gate`, and `deal_constant` where there is a second row of betas."""
    bits, carries = lift.bits, gate.carry_bits(lift, slopes)
    material, rows = 2 * bits + 2 * carries, 2 * masks.beta_client.shape[0]
    tile_bits = material + 2 * bits * (rows > 2)
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        count, at, to = end - begin, begin // 64, end // 64
        pads, work = _draw_pads(client_stream, tile, rows, count, carries > 0, scratch), scratch.work[: 4 * count].reshape(4, count)
        part = _packed(message, begin, end, tile_bits)
        beta_client, beta_server = masks.beta_client[0, at:to], masks.beta_server[0, at:to]
        first_part = part[: count // 8 * material]
        gate.deal_gate(masks.r[begin:end], beta_client, beta_server, pads, masks.d[begin:end], lift, slopes, work, first_part)
        if rows > 2:
            rest = part[count // 8 * material :]
            gate.deal_constant(masks.beta_client[1, at:to], masks.beta_server[1, at:to], beta_server, pads, constant, bits, work, rest)


@kernel
def infer_gates(given, lift, slopes, client_stream, tiles, scratch, message):
    """C: see `infer_gate`, and `add_chosen_pad` where there is a second row of opened bits. given: a `GateInput`."""
    rows = 2 * given.opened.shape[0]
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        at, to = begin // 64, end // 64
        pads = _draw_pads(client_stream, tile, rows, end - begin, gate.carry_bits(lift, slopes) > 0, scratch)
        if rows > 2:
            gate.add_chosen_pad(pads, given.opened[1, at:to])
        out = _packed(message, begin, end, lift.bits)
        gate.infer_gate(given.x[begin:end], given.opened[0, at:to], given.beta[at:to], pads, lift, slopes, out)


@kernel
def serve_gates(given, v_message, dealt, lift, slopes, tiles, scratch, u):
    """S: see `serve_gate`, and `add_chosen_constant` where there is a second row of opened bits. given: a `GateInput`; u: without padding."""
    bits, twice = lift.bits, given.opened.shape[0] > 1
    material = 2 * bits + 2 * gate.carry_bits(lift, slopes)
    tile_bits = material + 2 * bits * twice
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        count, at, to = end - begin, begin // 64, end // 64
        work, part = scratch[: 5 * count].reshape(5, count), _packed(dealt, begin, end, tile_bits)
        v, first_part = _packed(v_message, begin, end, bits), part[: count // 8 * material]
        gate.serve_gate(given.x[begin:end], given.opened[0, at:to], given.beta[at:to], v, first_part, lift, slopes, work, u[begin:end])
        if twice:
            gate.add_chosen_constant(u[begin:end], given.opened[1, at:to], part[count // 8 * material :], bits, work)


# Truncation without a decision


@kernel
def deal_identities(r, d, lift, client_stream, tiles, pads, work, message):
    """P: see `deal_identity`. pads, work: scratch."""
    step = _blocks(pads.itemsize)
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        w = pads[: end - begin]
        draw(client_stream, tile * step, w)
        part = _packed(message, begin, end, 2 * lift.bits - lift.kept_bits)
        gate.deal_identity(r[begin:end], w, d[begin:end], lift, work[: end - begin], part)


@kernel
def infer_identities(carries, lift, client_stream, tiles, pads, message):
    """C: see `infer_identity`. carries: planes; pads: scratch."""
    step = _blocks(pads.itemsize)
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        w = pads[: end - begin]
        draw(client_stream, tile * step, w)
        gate.infer_identity(carries[begin // 64 : end // 64], w, lift, _packed(message, begin, end, lift.bits - lift.kept_bits))


@kernel
def serve_identities(x, reply, dealt, lift, tiles, scratch, u):
    """S: see `serve_identity`. u: without padding."""
    carry_bits = lift.bits - lift.kept_bits
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        work = scratch[: 3 * (end - begin)].reshape(3, end - begin)
        received, material = _packed(reply, begin, end, carry_bits), _packed(dealt, begin, end, lift.bits + carry_bits)
        gate.serve_identity(x[begin:end], received, material, lift, work, u[begin:end])
