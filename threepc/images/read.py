"""From image files to the network's input, on the client: OpenCV and numpy, no torch, no MMLab.

Gives what the test pipelines of mmcls and mmsegmentation give for the same config.
"""

import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from threepc.choices import OUT_OF_RANGE
from threepc.errors import InputError
from threepc.files import local_path, read_json
from threepc.images.card import ModelCard, Preprocessing

_CV2_INTERPOLATION = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}


def load_images(paths: Sequence[str | Path], preprocessing: Preprocessing, shape: Sequence[int] | None = None) -> np.ndarray:
    """Read image files, or `.npy` arrays of ready inputs, as one batch.

    paths: image files of any format that OpenCV reads, or `.npy` files with numbers of shape (C, H, W) or (N, C, H, W), which are
        taken as they are. Pickled objects in a `.npy` are refused.
    shape: (C, H, W) that the network takes; by default what `preprocessing` makes.
    Returns float32 (N, C, H, W), C-contiguous, finite, in the order of `paths`.
    Raises InputError naming the file: missing, unreadable, of a shape that the model does not take, or with NaN or infinity in it.
    """
    shape = tuple(shape or preprocessing.shape)
    if shape != preprocessing.shape:
        raise InputError(f"the model takes inputs of shape {shape}, but its preprocessing makes {preprocessing.shape}")
    if not paths:
        raise InputError("no image given")
    return np.concatenate([_load(local_path(path), preprocessing, shape) for path in paths])


def check_range(images: np.ndarray, card: ModelCard, out_of_range: str, warn: Callable[[str], None], what: str = "the input") -> None:
    """Hold inputs (N, C, H, W), real numbers, against the largest that the card's model is made for.

    out_of_range: "refuse" to raise InputError where they are larger, naming `what`; "warn" to say it and go on. NaN and infinity pass:
    whoever encodes the inputs refuses them.
    """
    if out_of_range not in OUT_OF_RANGE:
        raise InputError(f"out-of-range: must be one of {', '.join(OUT_OF_RANGE)}, not {out_of_range}")
    largest, limit = float(np.abs(images).max(initial=0.0)), card.input_limit
    if limit is None or not limit < largest < np.inf:
        return
    line = f"{what} holds values up to {largest:.5g}; the scales of {card.name} are made for inputs up to {limit:.5g}"
    if out_of_range == "refuse":
        raise InputError(f"{line}: normalise them as the model expects, have it calibrated with such inputs, or go on by out-of-range warn")
    warn(f"{line}: the result may be wrong")


def read_image(path: str | Path, channels: int = 3) -> np.ndarray:
    """An image file as uint8 pixels: (H, W, 3) blue first, or (H, W) for `channels` = 1. Raises InputError naming the file."""
    path = local_path(path)
    image = _decode(path, cv2.IMREAD_COLOR if channels == 3 else cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise InputError(f"{path} is not an image that OpenCV can read (PNG, JPEG, BMP, TIFF, WebP ...), or it is damaged")
    return image


def preprocess(image: np.ndarray, preprocessing: Preprocessing, source: str = "the image") -> np.ndarray:
    """One image, as `read_image` gives it, to float32 (C, H, W).

    Raises InputError naming `source` where the model wants an exact size and the image does not have it.
    """
    if preprocessing.resize == "exact" and image.shape[:2] != preprocessing.size:
        have, (height, width) = f"{image.shape[1]}x{image.shape[0]}", preprocessing.size
        raise InputError(f"{source} has {have} pixels, but the model takes exactly {width}x{height} (width x height); resize it first")
    if preprocessing.resize == "centre":
        image = _centre(image, *(side / (side + preprocessing.crop_padding) * min(image.shape[:2]) for side in preprocessing.size))
    for size in _sizes(image.shape[:2], preprocessing):
        image = _resize(image, size, preprocessing)
    if preprocessing.resize != "fit":
        image = _centre(image, *preprocessing.size)
    if image.ndim == 2:
        image = image[:, :, None]
    elif preprocessing.to_rgb:
        image = image[:, :, ::-1]
    normalised = (image - np.array(preprocessing.mean)) * (1 / np.array(preprocessing.std))
    out = np.zeros(preprocessing.shape, np.float32)  # larger than the image only where resize is "fit"
    out[:, : image.shape[0], : image.shape[1]] = normalised.transpose(2, 0, 1)
    return out


def _centre(image: np.ndarray, height: float, width: float) -> np.ndarray:
    """The centre of an image, cut as mmcls does, which drops fractions of a pixel."""
    spans = []
    for size, wanted in zip(image.shape[:2], (height, width), strict=True):
        first = max(0, round((size - wanted) / 2))
        spans.append(slice(first, max(first, int(min(size, first + wanted) - 1)) + 1))
    return image[spans[0], spans[1]]


def resized_size(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int]:
    """(H, W) that an image of `size` (H, W) is resized to, before any cropping or padding."""
    return _sizes(size, preprocessing)[-1]


def _sizes(size: tuple[int, int], preprocessing: Preprocessing) -> list[tuple[int, int]]:
    """The sizes (H, W) that an image of `size` is resized to, one after the other; before any padding, and before cropping to the input's size."""
    height, width = size
    if preprocessing.resize == "short_edge":  # rounds as mmcls does
        short = preprocessing.short_edge
        return [(int(short * height / width), short) if width < height else (short, int(short * width / height))]
    if preprocessing.resize == "fit":  # rounds as mmcv does
        scale = min(preprocessing.size[0] / height, preprocessing.size[1] / width)
        fitted, multiple = (max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))), preprocessing.multiple
        return [fitted, (-(-fitted[0] // multiple) * multiple, -(-fitted[1] // multiple) * multiple)]
    return [preprocessing.stretched or preprocessing.size]


def load_labels(path: str | Path, images: Sequence[str | Path], card: ModelCard) -> list[int]:
    """The true class of each image, from a JSON object: file name without folder to class index or class name.

    Returns one index per entry of `images`, in their order.
    Raises InputError: no such file, not such an object, an image that is not in it, a class that the model does not have.
    """
    path = Path(path)
    _require_file(path)
    labels = read_json(path, "the labels")
    if type(labels) is not dict:
        raise InputError(f"{path} must be a JSON object: image file name to class index or class name")
    indices = []
    for image in images:
        label = labels.get(Path(image).name)
        if label is None:
            raise InputError(f"{path} has no entry {Path(image).name!r}")
        if label in card.classes:
            label = card.classes.index(label)
        if type(label) is not int or label < 0 or (card.classes and label >= len(card.classes)):
            raise InputError(f"{path}: {label!r} of {Path(image).name!r} is no class of {card.name}")
        indices.append(label)
    return indices


def _load(path: Path, preprocessing: Preprocessing, shape: tuple[int, ...]) -> np.ndarray:
    if path.suffix.lower() == ".npy":
        return _load_array(path, shape)
    return preprocess(read_image(path, preprocessing.channels), preprocessing, str(path))[None]


def _load_array(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    _require_file(path)
    try:
        array = np.load(path, allow_pickle=False)
    except (MemoryError, OverflowError) as error:
        raise InputError(f"{path} says that it holds more than memory does, or is damaged ({error})") from None
    except Exception as error:  # noqa: BLE001 - numpy reads the header as Python: a damaged one may raise whatever its tokenizer and parser do
        raise InputError(f"{path} is not a .npy file of numbers ({' '.join(str(error).split())})") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise InputError(f"{path} does not hold one array of real numbers")
    if array.shape[-3:] != shape or array.ndim not in (3, 4) or array.size == 0:
        raise InputError(f"{path} has shape {array.shape}, but the model takes (C, H, W) = {shape} or a batch of these (N, C, H, W)")
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, and is refused with the others
        array = array.astype(np.float32).reshape(-1, *shape)
    if not np.isfinite(array).all():
        raise InputError(f"{path} holds NaN, infinity or numbers beyond 32-bit floats")
    return array


def _decode(path: Path, flag: int) -> np.ndarray | None:
    """The pixels, or None; quietly, where OpenCV and libpng would write about damaged files to standard error."""
    data = _read(path)
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        _check_header(path, data)
        return cv2.imdecode(np.frombuffer(data, np.uint8), flag) if data else None
    except (cv2.error, OSError, SyntaxError, ValueError):
        return None
    finally:
        cv2.utils.logging.setLogLevel(level)


def _check_header(path: Path, data: bytes) -> None:
    """What Pillow finds before the pixels: raises InputError for too many of them, and Pillow's own errors for a PNG that is damaged."""
    is_png, moves = data.startswith(b"\x89PNG"), False
    try:
        with warnings.catch_warnings(action="ignore"):  # of a large image, which is the user's own, and of odd tags
            image = Image.open(io.BytesIO(data))
            moves = image.format in ("GIF", "PNG", "WEBP") and getattr(image, "is_animated", False)
            if is_png:
                image.verify()
    except Image.DecompressionBombError:
        raise InputError(f"{path} is too large: an image may have {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels; make it smaller") from None
    except Exception:
        if is_png:
            raise
        # another format is OpenCV's to judge
    if moves:
        raise InputError(f"{path} is an animation of several images: save the one that is meant as a file of its own")


def _read(path: Path) -> bytes:
    _require_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def _require_file(path: Path) -> None:
    if not path.exists():
        raise InputError(f"{path} does not exist")
    if not path.is_file():
        raise InputError(f"{path} is not a file")


def _resize(image: np.ndarray, size: tuple[int, int], preprocessing: Preprocessing) -> np.ndarray:
    if image.shape[:2] == size:
        return image
    if preprocessing.backend == "pillow":
        resampling = Image.Resampling[preprocessing.interpolation.upper()]
        return np.asarray(Image.fromarray(image).resize(size[::-1], resampling))
    return cv2.resize(image, size[::-1], interpolation=_CV2_INTERPOLATION[preprocessing.interpolation])
