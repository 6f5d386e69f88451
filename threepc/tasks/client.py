"""The client of a deployment, from Python."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from threepc.errors import InputError
from threepc.graph.outputs import structured
from threepc.images.card import ModelCard, Preprocessing
from threepc.images.read import check_range, load_images, preprocess
from threepc.model.served import each
from threepc.party import three_hosts
from threepc.party.batches import infer_all
from threepc.party.deployment import load
from threepc.party.record import report
from threepc.party.retrying import RetryingClient

_Image = str | Path | Image.Image
Images = _Image | Sequence[_Image] | np.ndarray


def pixels_of(images: Images, preprocessing: Preprocessing, shape: tuple[int, ...]) -> np.ndarray:
    """Inputs (N, C, H, W) of whatever `Client.predict` takes. Raises InputError for anything else, with the conversion to use."""
    if hasattr(images, "detach") or (isinstance(images, np.ndarray) and images.shape[1:] != shape):
        advice = "image files, PIL images (of uint8 pixels (H, W, 3): PIL.Image.fromarray(pixels)), or ready inputs as a numpy array"
        what = f"{type(images).__name__} of shape {tuple(images.shape)}"  # type: ignore[union-attr]  # a tensor or an array
        raise InputError(f"images must be {advice} (N, {', '.join(map(str, shape))}), not a {what}")
    if isinstance(images, np.ndarray):
        return images
    parts = []
    for image in [images] if isinstance(images, str | Path | Image.Image) else images:
        if isinstance(image, Image.Image):
            grey = preprocessing.channels == 1
            pixels = np.asarray(image.convert("L" if grey else "RGB"))
            parts.append(preprocess(pixels if grey else pixels[:, :, ::-1], preprocessing)[None])
        elif isinstance(image, str | Path):
            parts.append(load_images([image], preprocessing, shape))
        else:
            raise InputError(f"images must be image files, PIL images or one numpy array of ready inputs, not a {type(image).__name__}")
    if not parts:
        raise InputError("no image given")
    return np.concatenate(parts)


def _warn(line: str) -> None:
    warnings.warn(line, stacklevel=4)


class Client:
    """A client of a deployment's server. As a context manager it keeps one session for all its predictions.

    deployment: a deployment.yaml or its folder. name: of the client's key files beside it. out_of_range: "refuse" images that are larger
    than the server's model is made for, or "warn" and go on. retries: how often a batch is asked for again, in a new session with new keys,
    after a party was lost, silent or being stopped; what a party refuses is never tried again. model: NAME or
    NAME@FINGERPRINT of one of the server's models, by default its first. cache: keep the server's masked weights on disk for later sessions.
    Raises InputError for a malformed file.
    """

    def __init__(
        self,
        deployment: str | Path,
        name: str = "client",
        threads: int = 1,
        out_of_range: str = "refuse",
        *,
        retries: int = 1,
        model: str = "",
        cache: bool = True,
    ) -> None:
        self._cache = cache
        self._out_of_range, self._retries, self._model = out_of_range, retries, model
        self._deployment, self._name, self._threads = load(deployment), name, threads
        self._deployment.key_pair(name)
        self._session: RetryingClient | None = None
        self._entered = False
        self._one_at_a_time = threading.RLock()
        self.report: dict[str, Any] | None = None
        """What the last prediction cost."""
        self.card: ModelCard | None = None
        """What the server says of its model, once there was a session."""

    def predict(self, images: Images) -> Any:
        """Outputs for image files and PIL images, or for ready inputs (N, C, H, W). Threads may call it; one prediction runs at a time.

        Returns float64 logits (N, K), or (N, K, h, w) of a segmentation; int64 classes (N,) or (N, h, w) where only these are revealed.
        Of a network with several outputs the tuples, lists and dicts that it returns, with such arrays in them.
        More images than fit in memory at once are asked for in parts. Raises InputError for unsuitable images, which leave a session as it
        is; RunError when a party cannot be reached, disagrees or fails.
        """
        with self._one_at_a_time:
            return self._predict(images)

    def _predict(self, images: Images) -> Any:
        try:
            client = self._open()
            session = client.session
            pixels = pixels_of(images, session.model.card.preprocessing, session.model.graph.input.shape)
            check_range(pixels, session.model.card, self._out_of_range, _warn)
            size = max(session.largest_batch, 1)
            pixels = np.atleast_1d(pixels)
            parts = [pixels[start : start + size] for start in range(0, max(len(pixels), 1), size)]
            outputs, record = infer_all(client.infer, session.model, parts)
            session = client.session
            self.report = report(session.model, record, len(pixels), None, session.setup_links, session.setup_seconds)
            return structured(session.model.graph, each(outputs))
        except InputError:
            raise
        except BaseException:
            self.close()
            raise
        finally:
            if not self._entered:
                self.close()

    def close(self) -> None:
        """End the session, if there is one."""
        with self._one_at_a_time:
            session, self._session = self._session, None
            if session is not None:
                session.close()

    def __enter__(self) -> Self:
        self._entered = True
        return self

    def __exit__(self, *_: object) -> None:
        self._entered = False
        self.close()

    def _open(self) -> RetryingClient:
        if self._session is None:
            connect = partial(three_hosts.open_client, self._deployment, self._name, self._threads, model=self._model, cache=self._cache)
            self._session = RetryingClient(connect, self._retries, reopens=True)
            self.card = self._session.session.model.card
        return self._session
