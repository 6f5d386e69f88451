"""Sums over the patches of a feature map, and bits of patches spread over their pixels.

`owner` (pixels,) int32 names the patch of every pixel of one image, patches 0..patches-1; the images of a batch follow one another.
"""
import numpy as np

from .options import kernel


@kernel
def sum_patches(x, shift, cut, owner, patches, out):
    """out[image * patches + owner[p]] = sum of the bits shift..cut-1 of x over the patch's pixels; x and out: cut words, out is padded."""
    word, pixels = out.dtype.type, owner.shape[0]
    mask = word(~np.uint64(0) >> np.uint64(64 - cut))
    out[:] = word(0)
    for image in range(x.shape[0] // pixels):
        for p in range(pixels):
            out[image * patches + owner[p]] += word((x[image * pixels + p] & mask) >> word(shift))


@kernel
def spread_bits(planes, owner, patches, images, out):
    """out: planes of pixels, each with its patch's bit in `planes`; what pads the last word is zero."""
    pixels = owner.shape[0]
    total = images * pixels
    image, p = 0, 0
    for j in range(out.shape[0]):
        word = np.uint64(0)
        if p + 64 <= pixels:
            # within one image, without a branch a pixel: gathered by the vector
            first = image * patches
            for i in range(64):
                patch = np.uint64(first + owner[p + i])
                word |= ((planes[patch >> np.uint64(6)] >> (patch & np.uint64(63))) & np.uint64(1)) << np.uint64(i)
            p += 64
            if p == pixels:
                image, p = image + 1, 0
        else:
            for i in range(min(64, total - 64 * j)):
                patch = np.uint64(image * patches + owner[p])
                word |= ((planes[patch >> np.uint64(6)] >> (patch & np.uint64(63))) & np.uint64(1)) << np.uint64(i)
                p += 1
                if p == pixels:
                    image, p = image + 1, 0
        out[j] = word
