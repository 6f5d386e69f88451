"""The gate of which C sends both branches, and S can read the one that its bit names: see threepc/protocol/labels.py, whose letters these are.

Passes over whole runs, as in runs.py. Secrets and selectors are planes of elements, (classes, words); the first class is always chosen.
"""

import numpy as np

from threepc.kernels import gate
from threepc.kernels.keystream import draw
from threepc.kernels.options import inline, kernel
from threepc.kernels.packing import pack, unpack
from threepc.kernels.runs import _blocks, _bounds, _draw_pads, _packed


@inline
def _mask_of(planes, j, i, word):
    """All ones where the element's bit is set."""
    return word(np.uint64(0) - ((planes[j] >> np.uint64(i)) & np.uint64(1)))


@inline
def _draw_labels(stream, tile, classes, count, space):
    """The tile's labels (classes, count) and, in a last row, Delta."""
    labels = space[: (classes + 1) * count].reshape(classes + 1, count)
    block = tile * _blocks((classes + 1) * space.itemsize)
    for row in range(classes + 1):
        block = draw(stream, block, labels[row])
    return labels


@inline
def _add_chosen(selector, label, out):
    """out ^= label where the selector, planes, is set."""
    word = out.dtype.type
    for j in range(selector.shape[0]):
        for i in range(64):
            out[64 * j + i] ^= label[64 * j + i] & _mask_of(selector, j, i, word)


@kernel
def deal_labels(secrets, bits, client_stream, tiles, space, message):
    """P: K_c = l_c XOR s_c Delta, packed. secrets: s_c, S's shares."""
    classes = secrets.shape[0]
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        count, at, to = end - begin, begin // 64, end // 64
        labels, part = _draw_labels(client_stream, tile, classes, count, space), _packed(message, begin, end, classes * bits)
        for c in range(classes):
            _add_chosen(secrets[c, at:to], labels[classes], labels[c])
            pack(labels[c], count, bits, part[c * (count // 8) * bits : (c + 1) * (count // 8) * bits])


@kernel
def infer_branches(x, choice, lift, slopes, streams, tiles, rooms, message):
    """C: both branches' v for message 2, under the labels' sum and under that and Delta. streams, rooms: of the gate and of the labels."""
    bits, classes, (scratch, space) = lift.bits, choice.selectors.shape[0] + 1, rooms
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        count, at, to = end - begin, begin // 64, end // 64
        pads = _draw_pads(streams[0], tile, 2, count, gate.carry_bits(lift, slopes) > 0, scratch)
        labels = _draw_labels(streams[1], tile, classes, count, space)
        pad, delta, v = labels[0], labels[classes], scratch.work[:count]
        for c in range(1, classes):
            _add_chosen(choice.selectors[c - 1, at:to], labels[c], pad)
        share, beta, part = choice.share[at:to], choice.beta[at:to], _packed(message, begin, end, 2 * bits)
        for branch in range(2):
            gate.branch_value(x[begin:end], share if branch == 0 else ~share, beta, pads, lift, slopes, v)
            for p in range(count):
                v[p] ^= pad[p]
                pad[p] ^= delta[p]
            pack(v, count, bits, part[branch * (count // 8) * bits : (branch + 1) * (count // 8) * bits])


@kernel
def open_branches(choice, labels, sent, bits, tiles, space, message):
    """S: the v that its share names, packed as a gate takes it. labels, sent: the messages of P and C."""
    classes = choice.selectors.shape[0] + 1
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        count, at, to = end - begin, begin // 64, end // 64
        size, (label, v, other) = count // 8 * bits, space[: 3 * count].reshape(3, count)
        both, dealt = _packed(sent, begin, end, 2 * bits), _packed(labels, begin, end, classes * bits)
        unpack(both[:size], count, bits, v)
        unpack(both[size:], count, bits, other)
        for p in range(count):
            other[p] ^= v[p]
        _add_chosen(choice.share[at:to], other, v)
        for c in range(classes):
            unpack(dealt[c * size : (c + 1) * size], count, bits, label)
            if c == 0:
                for p in range(count):
                    v[p] ^= label[p]
            else:
                _add_chosen(choice.selectors[c - 1, at:to], label, v)
        pack(v, count, bits, _packed(message, begin, end, bits))
