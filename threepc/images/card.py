"""What a client must know of a model besides its Graph: how images become input, and what the outputs mean. Public, JSON, no weights.

The server reads it from the model's config and sends it in the handshake; the client does not trust it, so every value is checked.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from threepc.errors import InputError
from threepc.files import parse_json

LARGEST_SIDE = 1 << 14
MOST_CLASSES = 1 << 16
LONGEST_TEXT = 1000
MOST_WINDOWS = 1 << 12
MOST_WINDOW_PIXELS = 1 << 25
"""Of all windows of one image together."""
LARGEST_NUMBER = 1e9
"""Of means and deviations, in the units of 8-bit pixels; no deviation is below its reciprocal."""

RESIZE_RULES = ("exact", "stretch", "short_edge", "fit", "centre")
INTERPOLATIONS = {
    "cv2": ("nearest", "bilinear", "bicubic", "area", "lanczos"),
    "pillow": ("nearest", "bilinear", "bicubic", "box", "lanczos", "hamming"),
}


def _require(condition: bool, key: str, requirement: str) -> None:
    if not condition:
        raise InputError(f"model card: {key} must be {requirement}")


def _is_number(value: Any, least: float = -LARGEST_NUMBER) -> bool:
    return type(value) in (int, float) and least <= value <= LARGEST_NUMBER


def is_text(value: Any) -> bool:
    """Whether `value` is a text that can be shown to people as it is: not too long, and nothing that steers a terminal."""
    return type(value) is str and len(value) <= LONGEST_TEXT and value.isprintable()


@dataclass(frozen=True)
class Preprocessing:
    """How an image file becomes one input of the network: resize, crop or pad, order of channels, (pixel - mean) / std.

    size: (H, W) of the input in pixels.
    mean, std: per channel, in the units of 8-bit pixels (0 to 255) and in the network's order of channels; one of each for a
        network of grey images, three for colours.
    to_rgb: a colour network takes red first (False: blue first, as OpenCV reads).
    resize: "exact" - the image must have exactly the input's size;
            "stretch" - resize to the input's size, whatever the aspect ratio; or to `stretched`, and cut `size` out of the centre;
            "short_edge" - resize the shorter edge to `short_edge` pixels, keep the aspect ratio, cut `size` out of the centre;
            "fit" - keep the aspect ratio, make it as large as fits, pad at the right and at the bottom with zeros (after normalisation);
            "centre" - cut s / (s + `crop_padding`) of the shorter edge out of the centre, for both sides s of `size`, and resize that to `size`.
    interpolation, backend: of the resize; backend "cv2" or "pillow", whose "bilinear" are not the same when an image shrinks.
    stretched: (H, W) in pixels, or () where nothing is cut off.
    multiple: of this many pixels each side of an image that is fitted is made, by a second resize; it divides both sides of `size`.
    """

    size: tuple[int, int]
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    to_rgb: bool = True
    resize: str = "exact"
    short_edge: int = 0
    interpolation: str = "bilinear"
    backend: str = "cv2"
    stretched: tuple[int, int] | tuple[()] = ()
    crop_padding: int = 0
    multiple: int = 1

    def __post_init__(self) -> None:
        for key in ("size", "mean", "std", "stretched"):
            value = getattr(self, key)
            _require(type(value) in (list, tuple), key, "a list of numbers")
            object.__setattr__(self, key, tuple(value))
        sides = f"two integers from 1 to {LARGEST_SIDE}"
        _require(len(self.size) == 2 and all(type(s) is int and 1 <= s <= LARGEST_SIDE for s in self.size), "size", sides)
        _require(len(self.mean) in (1, 3) and all(map(_is_number, self.mean)), "mean", "one or three finite numbers")
        positive = len(self.std) == len(self.mean) and all(_is_number(s, 1 / LARGEST_NUMBER) for s in self.std)
        _require(positive, "std", "as many positive numbers as mean has")
        _require(type(self.to_rgb) is bool, "to_rgb", "true or false")
        _require(self.resize in RESIZE_RULES, "resize", f"one of {', '.join(RESIZE_RULES)}")
        self._check_rule()
        _require(self.backend in tuple(INTERPOLATIONS), "backend", "cv2 or pillow")
        allowed = INTERPOLATIONS[self.backend]
        _require(self.interpolation in allowed, "interpolation", f"one of {', '.join(allowed)}")

    def _check_rule(self) -> None:
        """What belongs to one way to resize alone."""
        if self.resize == "short_edge":
            needed = f"an integer from the larger side of size to {LARGEST_SIDE}"
            _require(type(self.short_edge) is int and max(self.size) <= self.short_edge <= LARGEST_SIDE, "short_edge", needed)
        else:
            _require(type(self.short_edge) is int and self.short_edge == 0, "short_edge", "0 unless resize is short_edge")
        if self.stretched:
            pairs = zip(self.size, self.stretched, strict=False)
            holds = len(self.stretched) == 2 and all(type(long) is int and side <= long <= LARGEST_SIDE for side, long in pairs)
            _require(holds, "stretched", f"two integers from the sides of size to {LARGEST_SIDE}")
            _require(self.resize == "stretch", "stretched", "empty unless resize is stretch")
        _require(
            type(self.crop_padding) is int and 0 <= self.crop_padding <= LARGEST_SIDE,
            "crop_padding",
            f"an integer from 0 to {LARGEST_SIDE}",
        )
        _require(self.resize == "centre" or self.crop_padding == 0, "crop_padding", "0 unless resize is centre")
        _require(type(self.multiple) is int and self.multiple >= 1, "multiple", "a positive integer")
        _require(self.multiple == 1 or self.resize == "fit", "multiple", "1 unless resize is fit")
        _require(not any(side % self.multiple for side in self.size), "multiple", "a divisor of both sides of size")

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for colours."""
        return len(self.mean)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one input."""
        return (self.channels, *self.size)

    @property
    def largest_input(self) -> float:
        """The largest absolute value that pixels of 0 to 255 become."""
        return max(max(abs(mean), abs(255 - mean)) / std for mean, std in zip(self.mean, self.std, strict=True))

    def with_size(self, size: tuple[int, int]) -> "Preprocessing":
        """The same for another input size (H, W); what is cut out grows or shrinks along, and keeps its share of the image."""
        new, old = max(size), max(self.size)
        stretched = self.stretched and (_grown(self.stretched[0], size[0], self.size[0]), _grown(self.stretched[1], size[1], self.size[1]))
        short_edge, padding = _grown(self.short_edge, new, old), round(self.crop_padding * new / old)
        return dataclasses.replace(self, size=size, short_edge=short_edge, stretched=stretched, crop_padding=padding)


def _grown(length: int, new: int, old: int) -> int:
    """length * new / old, rounded up."""
    return -(-length * new // old)


@dataclass(frozen=True)
class Sliding:
    """Windows that slide over an image, each an input of a segmentation network; their logits are averaged where they overlap.

    scale: pixels, the long side and the short side within which an image is first resized, keeping its aspect ratio.
    stride: pixels from one window to the next, (down, across); the last windows are moved back to the image's edge.
    """

    scale: tuple[int, int]
    stride: tuple[int, int]

    def __post_init__(self) -> None:
        for key in ("scale", "stride"):
            value = getattr(self, key)
            fits = type(value) in (list, tuple) and len(value) == 2 and all(type(v) is int and 1 <= v <= LARGEST_SIDE for v in value)
            _require(fits, f"sliding: {key}", f"two integers from 1 to {LARGEST_SIDE}")
            object.__setattr__(self, key, tuple(value))

    def resized_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(H, W) that an image of `size` is resized to; rounds as mmcv does."""
        factor = min(max(self.scale) / max(size), min(self.scale) / min(size))
        return max(1, int(size[0] * factor + 0.5)), max(1, int(size[1] * factor + 0.5))

    def counts(self, size: Sequence[int], window: tuple[int, int]) -> tuple[int, int]:
        """How many windows of `window` (H, W) lie below each other and beside each other over an image resized to `size` (H, W)."""
        down, across = (max(0, own - side + step - 1) // step + 1 for own, side, step in zip(size, window, self.stride, strict=True))
        return down, across

    def most(self, window: tuple[int, int]) -> int:
        """How many windows an image has at most."""
        return max(math.prod(self.counts(size, window)) for size in (self.scale, self.scale[::-1]))

    def check(self, preprocessing: Preprocessing) -> None:
        """Raise InputError where windows of the input's size cannot slide so, or would be too many."""
        window = preprocessing.size
        _require(preprocessing.resize == "fit" and preprocessing.multiple == 1, "sliding", "null unless resize is fit, in any multiple")
        _require(all(step <= side for step, side in zip(self.stride, window, strict=True)), "sliding: stride", "at most the sides of size")
        most = self.most(window)
        limits = f"such that an image has at most {MOST_WINDOWS} windows, with {MOST_WINDOW_PIXELS} pixels together"
        _require(most <= MOST_WINDOWS and most * math.prod(window) <= MOST_WINDOW_PIXELS, "sliding", limits)


@dataclass(frozen=True)
class ModelCard:
    """What the client is told of a model.

    name: for people.
    preprocessing: how images become inputs.
    classes: the names of the output's channels, or () where they are unknown.
    segmentation: the output is a map of logits (K, h, w) that the client resizes to the image; otherwise one logit per class.
    align_corners: of that resize, as in `torch.nn.functional.interpolate`.
    palette: red, green, blue (0 to 255) of each class, or () where unknown.
    input_limit: the largest absolute value of an input, normalised, that the model's scales are made for; None where that is unknown.
    expected_error: how far results will be off, as a part of the largest one, that the server expects; None where that is unknown.
    expected_images: what it expects that from, for people, such as "3 artificial images".
    multi_label: an image has any number of the classes, each that the sigmoid of its own logit says; otherwise it has one.
    sliding: how windows of the input's size slide over the images of a segmentation; None where an input shows a whole image.
    """

    name: str
    preprocessing: Preprocessing
    classes: tuple[str, ...] = ()
    segmentation: bool = False
    align_corners: bool = False
    palette: tuple[tuple[int, int, int], ...] = ()
    input_limit: float | None = None
    multi_label: bool = False
    expected_error: float | None = None
    expected_images: str = ""
    sliding: Sliding | None = None

    def __post_init__(self) -> None:
        _require(is_text(self.name), "name", f"a printable text of at most {LONGEST_TEXT} characters")
        _require(type(self.preprocessing) is Preprocessing, "preprocessing", "an object")
        for key in ("segmentation", "align_corners", "multi_label"):
            _require(type(getattr(self, key)) is bool, key, "true or false")
        for key in ("classes", "palette"):
            value = getattr(self, key)
            _require(type(value) in (list, tuple) and len(value) <= MOST_CLASSES, key, f"a list of at most {MOST_CLASSES} entries")
            object.__setattr__(self, key, tuple(tuple(v) if type(v) is list else v for v in value))
        _require(all(map(is_text, self.classes)), "classes", f"printable texts of at most {LONGEST_TEXT} characters")
        colours = all(type(p) is tuple and len(p) == 3 and all(type(v) is int and 0 <= v <= 255 for v in p) for p in self.palette)
        _require(colours, "palette", "[red, green, blue] from 0 to 255 for each class")
        limit = self.input_limit
        _require(limit is None or (_is_number(limit) and limit > 0), "input_limit", "a positive number or null")
        error, images = self.expected_error, self.expected_images
        _require(error is None or (_is_number(error) and error >= 0), "expected_error", "a number of at least 0, or null")
        _require(images == "" or is_text(images), "expected_images", f"a printable text of at most {LONGEST_TEXT} characters")
        if self.sliding is not None:
            _require(type(self.sliding) is Sliding, "sliding", "an object or null")
            _require(self.segmentation, "sliding", "null unless segmentation is true")
            self.sliding.check(self.preprocessing)

    def with_size(self, size: tuple[int, int]) -> "ModelCard":
        """The same for another input size (H, W), in which an input shows a whole image."""
        return dataclasses.replace(self, preprocessing=self.preprocessing.with_size(size), sliding=None)

    def class_name(self, index: int) -> str:
        """The name of class `index`, or "class 7" where names are unknown."""
        return self.classes[index] if 0 <= index < len(self.classes) else f"class {index}"

    def to_json(self) -> str:
        """Canonical JSON text: equal cards give equal texts. What came to cards later is left out where it says nothing."""
        fields = dataclasses.asdict(self)
        for kind, part in ((ModelCard, fields), (Preprocessing, fields["preprocessing"])):
            for field in dataclasses.fields(kind):
                if field.name in _LATER[kind] and part[field.name] == field.default:
                    del part[field.name]
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "ModelCard":
        """Read a card from an untrusted source; InputError names the key that is wrong."""
        fields = _exact_keys(parse_json(text, "model card"), cls, "model card")
        fields["preprocessing"] = Preprocessing(**_exact_keys(fields["preprocessing"], Preprocessing, "model card: preprocessing"))
        if fields.get("sliding") is not None:
            fields["sliding"] = Sliding(**_exact_keys(fields["sliding"], Sliding, "model card: sliding"))
        return cls(**fields)


_LATER: dict[type, tuple[str, ...]] = {
    ModelCard: ("input_limit", "multi_label", "expected_error", "expected_images", "sliding"),
    Preprocessing: ("stretched", "crop_padding", "multiple"),
    Sliding: (),
}
"""Keys that cards without them, of earlier versions, may lack."""


def _exact_keys(data: Any, kind: type, where: str) -> dict[str, Any]:
    keys = {field.name for field in dataclasses.fields(kind)}
    if type(data) is not dict or not keys - set(_LATER[kind]) <= set(data) <= keys:
        raise InputError(f"{where}: must be a JSON object with exactly the keys {', '.join(sorted(keys))}")
    return dict(data)
