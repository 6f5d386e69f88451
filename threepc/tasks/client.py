"""The client of a deployment, from Python."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import warnings
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
from PIL import Image

from threepc.errors import InputError, RunError, ThreepcError, typed
from threepc.graph.outputs import structured
from threepc.images.card import ModelCard
from threepc.images.read import check_range, load_images, read_image
from threepc.images.sliding import check_logits, image_inputs, image_logits
from threepc.model.served import each
from threepc.party import three_hosts
from threepc.party.batches import infer_all
from threepc.party.deployment import load
from threepc.party.memory import MAX_BATCH
from threepc.party.pool import MOST_IN_FLIGHT, Gathering, SessionPool, in_order, shares
from threepc.party.record import report
from threepc.party.session import MOST_AHEAD

_Image = str | Path | Image.Image
Images = _Image | Sequence[_Image] | np.ndarray


@dataclass(frozen=True)
class Asked:
    """Inputs (N, C, H, W) of one image, or ready ones. size: (H, W) of the image, where the inputs are windows that slide over it."""

    inputs: np.ndarray
    size: tuple[int, int] | None = None

    def answer(self, outputs: Sequence[np.ndarray], card: ModelCard) -> list[np.ndarray]:
        """The network's outputs for these inputs; of windows their averages at the image's size (1, K, H, W)."""
        if self.size is None or card.sliding is None:
            return list(outputs)
        return [image_logits(outputs[0], card, card.sliding, self.size)[None]]


def asked_of(images: Images, card: ModelCard, shape: tuple[int, ...]) -> list[Asked]:
    """Inputs of whatever `Client.predict` takes. Raises InputError for anything else, with the conversion to use."""
    if hasattr(images, "detach") or (isinstance(images, np.ndarray) and images.shape[1:] != shape):
        advice = "image files, PIL images (of uint8 pixels (H, W, 3): PIL.Image.fromarray(pixels)), or ready inputs as a numpy array"
        what = f"{typed(images)} of shape {tuple(images.shape)}"  # type: ignore[union-attr]  # a tensor or an array
        raise InputError(f"images must be {advice} (N, {', '.join(map(str, shape))}), not {what}")
    if isinstance(images, np.ndarray):
        return [Asked(np.atleast_1d(images))]
    grey, asked = card.preprocessing.channels == 1, []
    for image in [images] if isinstance(images, str | Path | Image.Image) else images:
        if isinstance(image, Image.Image):
            pixels = np.asarray(image.convert("L" if grey else "RGB"))
            asked.append(_asked(pixels if grey else pixels[:, :, ::-1], card))
        elif isinstance(image, str | Path) and card.sliding and Path(image).suffix.lower() != ".npy":
            asked.append(_asked(read_image(image, card.preprocessing.channels), card, str(image)))
        elif isinstance(image, str | Path):
            asked.append(Asked(load_images([image], card.preprocessing, shape)))
        else:
            raise InputError(f"images must be image files, PIL images or one numpy array of ready inputs, not {typed(image)}")
    if not asked:
        raise InputError("no image given")
    return asked


def _asked(pixels: np.ndarray, card: ModelCard, source: str = "the image") -> Asked:
    return Asked(image_inputs(pixels, card, source), (pixels.shape[0], pixels.shape[1]) if card.sliding else None)


def _warn(line: str) -> None:
    warnings.warn(line, stacklevel=4)


class Client:
    """A client of a deployment's server. As a context manager it keeps its sessions for all its predictions.

    deployment: a deployment.yaml or its folder. name: of the client's key files beside it. out_of_range: "refuse" images that are larger
    than the server's model is made for, or "warn" and go on. retries: how often a batch is asked for again, in a new session with new keys,
    after a party was lost, silent or being stopped; what a party refuses is never tried again. model: NAME or
    NAME@FINGERPRINT of one of the server's models, by default its first. cache: keep the server's masked weights on disk for later sessions.
    in_flight: inferences at once at most, each in a session of its own; the server may allow fewer. batch: images that are asked for together
    where several predictions wait, each at most `patience` seconds for the others. precompute: so many inferences, over all sessions, are
    prepared before their images are there, as far as the parties' budgets go, so that an image takes its online phase alone; each then has
    `batch` images, and black ones, which count as the others do, where fewer are asked for. Raises InputError for a malformed file.
    """

    def __init__(  # noqa: PLR0913 - what users may choose; all but the first four by name
        self,
        deployment: str | Path,
        name: str = "client",
        threads: int = 1,
        out_of_range: str = "refuse",
        *,
        retries: int = 1,
        model: str = "",
        cache: bool = True,
        in_flight: int = 4,
        batch: int = 1,
        patience: float = 0.02,
        precompute: int = 0,
    ) -> None:
        if not 1 <= in_flight <= MOST_IN_FLIGHT or not 1 <= batch <= MAX_BATCH or not 0 <= patience <= threading.TIMEOUT_MAX:
            raise InputError(f"in_flight is from 1 to {MOST_IN_FLIGHT}, batch from 1 to {MAX_BATCH}, and patience is seconds from 0 on")
        if not 0 <= precompute <= MOST_AHEAD:
            raise InputError(f"precompute is from 0 to {MOST_AHEAD}")
        self._precompute = precompute
        self._cache, self._in_flight, self._batch, self._patience = cache, in_flight, batch, patience
        self._out_of_range, self._retries, self._model = out_of_range, retries, model
        self._deployment, self._name, self._threads = load(deployment), name, threads
        self._deployment.key_pair(name)
        self._pool: SessionPool | None = None
        self._gathering: Gathering | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._entered, self._users = False, 0
        self._lock, self._opening = threading.RLock(), threading.Lock()
        self.report: dict[str, Any] | None = None
        """What the last prediction cost, of this thread or another; where several were asked for together, all of them."""
        self.card: ModelCard | None = None
        """What the server says of its model, once there was a session."""

    def predict(self, images: Images) -> Any:
        """Outputs for image files and PIL images, or for ready inputs (N, C, H, W). Threads may call it, `in_flight` of them run at once.

        Returns float64 logits (N, K), or (N, K, h, w) of a segmentation; int64 classes (N,) or (N, h, w) where only these are revealed.
        Of a network with several outputs the tuples, lists and dicts that it returns, with such arrays in them. Where windows slide over the
        images (`card.sliding`), `batch` of these are asked for at a time, and their averages (N, K, H, W) come at the images' own, common size.
        More images than fit in memory at once are asked for in parts. Raises InputError for unsuitable images, which leave a session as it
        is; RunError when a party cannot be reached, disagrees or fails.
        """
        with self._used():
            try:
                asked = self._inputs(images)
                if len({image.size for image in asked}) > 1:
                    raise InputError(
                        "windows slide over these images, and the logits are of each image's own size: ask for one size at a time"
                    )
                answers = self._infer(asked)
                return structured(self._open()[0].model.graph, [_together(outputs) for outputs in zip(*answers, strict=True)])
            except InputError:
                raise
            except BaseException:
                with self._lock:
                    if self._users == 1:
                        self.close()
                raise

    async def predict_async(self, images: Images) -> Any:
        """As `predict`, while the event loop goes on: `in_flight` inferences at once, others wait, and of these `batch` are asked for together."""
        with self._used():
            with self._lock:
                if self._executor is None:
                    self._executor = ThreadPoolExecutor(self._in_flight * self._batch, "predict")
                asked = self._executor.submit(self.predict, images)
            try:
                return await asyncio.wrap_future(asked)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if asked.cancelled() and task is not None and not task.cancelling():  # by `close`, not by who awaits it
                    raise RunError("this client was closed") from None
                raise

    def prepare(self) -> None:
        """Open the sessions, and wait until the inferences that `precompute` says are prepared: what is asked for next takes its online phase.

        As they are used others are prepared in their place, each used once and in this process alone. Use the client as a context manager;
        else there is nothing that stays. Raises what `predict` raises, and RunError where a party's budget does not hold so many.
        """
        with self._used():
            self._open()[0].prepare()

    def map(self, images: Iterable[_Image | np.ndarray], in_flight: int | None = None, batch: int = 1) -> Answers:
        """The outputs for each image, in their order, as an iterator: of each what `predict` gives for it, without its first dimension.

        images: files, PIL images and ready inputs (C, H, W), which are taken as answers are: at most twice `in_flight` times `batch` ahead.
        in_flight: inferences at once, by default and at most what the client was made with. batch: images of each. What is wrong with an image
        is raised at its place, InputError or RunError, and the next call of `next` gives the next answer.
        """
        at_once = self._in_flight if in_flight is None else in_flight
        if not 1 <= at_once <= self._in_flight or not 1 <= batch <= MAX_BATCH:
            raise InputError(f"in_flight is from 1 to {self._in_flight}, as this client was made, and batch from 1 to {MAX_BATCH}")
        return Answers(self._answers(images, at_once, batch))

    def _answers(self, images: Iterable[_Image | np.ndarray], at_once: int, batch: int) -> Iterator[list[Any]]:
        with self._used():
            yield from in_order(self._answer_each, _chunks(images, batch), at_once)

    def _answer_each(self, images: list[_Image | np.ndarray]) -> list[Any]:
        """For each image its output, or what to raise in its place."""
        answers: list[Any] = [None] * len(images)
        asked: list[Asked] = []
        good: list[int] = []
        for place, image in enumerate(images):
            try:
                asked += self._inputs(image[None] if isinstance(image, np.ndarray) else [image])
                good.append(place)
            except ThreepcError as error:
                answers[place] = error
        try:
            found = self._infer(asked) if asked else []
        except ThreepcError as error:
            if isinstance(error, InputError) and len(images) > 1:  # nothing was sent: only one of them may be bad
                return [self._answer_each([image])[0] for image in images]
            for place in good:
                answers[place] = error
            return answers
        for outputs, place in zip(found, good, strict=True):
            answers[place] = structured(self._open()[0].model.graph, [output[0] for output in outputs])
        return answers

    def _inputs(self, images: Images) -> list[Asked]:
        model = self._open()[0].model
        asked = asked_of(images, model.card, model.graph.input.shape)
        for image in asked:
            check_range(image.inputs, model.card, self._out_of_range, _warn)
            if image.size is not None:
                check_logits(model.graph.output.shape[0], image.size)
        return asked

    def _infer(self, asked: Sequence[Asked]) -> list[list[np.ndarray]]:
        """For each image its outputs one by one, each (1, ...), or (N, ...) of ready inputs."""
        pool, gathering = self._open()
        card, pixels = pool.model.card, _together([image.inputs for image in asked])
        size = max(min(pool.first.largest_batch, self._batch if card.sliding else MAX_BATCH), 1)
        parts = [pixels[start : start + size] for start in range(0, max(len(pixels), 1), size)]
        outputs, record = infer_all(gathering.infer, pool.model, parts)
        self.report = report(pool.model, record, len(pixels), None, pool.setup_links, pool.first.setup_seconds)
        ends = np.cumsum([len(image.inputs) for image in asked])[:-1]
        of_each = zip(*(np.split(output, ends) for output in each(outputs)), strict=True)
        return [image.answer(own, card) for image, own in zip(asked, of_each, strict=True)]

    def close(self) -> None:
        """End the sessions, if there are any; what still runs in other threads ends with an error."""
        with self._lock:
            pool, self._pool = self._pool, None
            gathering, self._gathering = self._gathering, None
            executor, self._executor = self._executor, None
        if gathering is not None:
            gathering.close()
        if pool is not None:
            pool.close()
        if executor is not None:
            executor.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Self:
        self._entered = True
        return self

    def __exit__(self, *_: object) -> None:
        self._entered = False
        self.close()

    @contextlib.contextmanager
    def _used(self) -> Iterator[None]:
        """While somebody asks; the last one ends the sessions, unless they are kept."""
        with self._lock:
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._entered and not self._users:
                    self.close()

    def _open(self) -> tuple[SessionPool, Gathering]:
        """The sessions, opened where there are none. Raises RunError where nobody asks any more: what was opened then nobody would end."""
        with self._opening:
            with self._lock:
                self._check_wanted()
                pool, gathering = self._pool, self._gathering
            if pool is None or gathering is None:
                connect = three_hosts.sessions_of(
                    self._deployment,
                    self._name,
                    self._threads,
                    model=self._model,
                    cache=self._cache,
                    ahead=shares(self._precompute, self._in_flight),
                    batch=self._batch,
                )
                pool = SessionPool(connect, self._in_flight, self._retries, reopens=True)
                gathering = Gathering(pool, self._batch, self._patience)
                with self._lock, contextlib.ExitStack() as unless_wanted:
                    unless_wanted.callback(pool.close)
                    self._check_wanted()
                    self._pool, self._gathering, self.card = pool, gathering, pool.model.card
                    unless_wanted.pop_all()
            return pool, gathering

    def _check_wanted(self) -> None:
        if not self._entered and not self._users:
            raise RunError("this client was closed")


class Answers(Iterator[Any]):
    """What `Client.map` gives: an iterator that goes on behind what it raised. `close` gives its sessions back before its end."""

    def __init__(self, answered: Iterator[list[Any]]) -> None:
        """answered: several answers, or errors in their place, at a time."""
        self._answered, self._now = answered, deque[Any]()

    def __next__(self) -> Any:
        while not self._now:
            self._now.extend(next(self._answered))
        answer = self._now.popleft()
        if isinstance(answer, ThreepcError):
            raise answer
        return answer

    def close(self) -> None:
        """Ask for no more."""
        self._now.clear()
        cast("Generator[list[Any]]", self._answered).close()


def _together(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays (N, ...) as one, which a single one is already."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _chunks(images: Iterable[_Image | np.ndarray], size: int) -> Iterator[list[_Image | np.ndarray]]:
    taken = iter(images)
    while chunk := list(itertools.islice(taken, size)):
        yield chunk
