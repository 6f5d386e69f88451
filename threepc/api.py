"""The Python API: all three parties on this machine around a torch module, and the client of a deployment."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from PIL import Image

from threepc.choices import LABEL
from threepc.errors import InputError
from threepc.graph.outputs import structured
from threepc.images.card import ModelCard, Preprocessing
from threepc.images.read import check_range, load_images, preprocess
from threepc.model.served import each
from threepc.party import one_host, three_hosts
from threepc.party.batches import infer_all
from threepc.party.deployment import load
from threepc.party.record import Record, report
from threepc.party.retrying import RetryingClient

if TYPE_CHECKING:
    import torch

    from threepc.graph.relu_spec import ReluSpec
    from threepc.model.assemble import Assembled


class SecureModel:
    """A torch module that three parties evaluate; call it as the module. Made by `local`."""

    def __init__(
        self, assembled: Assembled, parties: one_host.ThreeProcesses | one_host.ThreeThreads, ranks: list[int], out_of_range: str
    ) -> None:
        self._assembled, self._parties, self._ranks, self._out_of_range = assembled, parties, ranks, out_of_range
        self._record: Record | None = None
        self._images = 0
        self._one_at_a_time = threading.Lock()

    def __call__(self, images: torch.Tensor, separate: bool = False) -> Any:
        """What the module gives for images (N, C, H, W): logits of the module's own shape, or int64 classes where only these are revealed.

        A module that returns tuples, lists or dicts of tensors is given back as it: a namedtuple as a tuple, an OrderedDict as a dict. separate: finish the offline phase before the online one begins. Threads may call it; one inference runs at a time. Raises
        InputError, after which other images may be asked for: for a wrong shape, for NaN, for numbers beyond twice those of the example,
        unless these are to be warned of, and for numbers that the ring cannot hold. Raises RunError when a party fails; that is the end.
        """
        import torch

        public = self._assembled.public
        if not isinstance(images, torch.Tensor) or images.dim() != 4 or tuple(images.shape[1:]) != public.graph.input.shape:
            what = tuple(images.shape) if isinstance(images, torch.Tensor) else type(images).__name__
            wanted = f"(N, {', '.join(map(str, public.graph.input.shape))})"
            raise InputError(f"images must be a tensor of shape {wanted}, not {what}{_conversion(images)}")
        pixels = _real_numbers(images, "images")
        check_range(pixels, public.card, self._out_of_range, _warn)
        with self._one_at_a_time:
            decoded, self._record = self._parties.infer(pixels, separate)
            self._images = len(images)
        outputs = each(public.network_outputs(decoded))
        return structured(public.graph, [_as_tensor(*output, images) for output in zip(outputs, public.reveals, self._ranks, strict=True)])

    @property
    def report(self) -> dict[str, Any]:
        """What the last call cost, as `threepc run --report` writes it. Raises InputError before the first call."""
        if self._record is None:
            raise InputError("there is no report before the first inference")
        assembled, parties = self._assembled, self._parties
        return report(assembled.public, self._record, self._images, assembled.spec_source, parties.setup_links, parties.setup_seconds)


def _as_tensor(output: np.ndarray, what: str, rank: int, images: torch.Tensor) -> torch.Tensor:
    """One output as the module gives it for such images: of its rank, where it is no label."""
    import torch

    if what == LABEL:
        return torch.from_numpy(output).to(images.device)
    tensor = torch.from_numpy(output.reshape(*output.shape, *(1,) * (rank - output.ndim)))
    return tensor.to(images.device, images.dtype if images.is_floating_point() else torch.float32)


def _real_numbers(tensor: object, what: str) -> np.ndarray:
    """A tensor's numbers as float32. Raises InputError for what is no tensor of real numbers."""
    import torch

    if not isinstance(tensor, torch.Tensor) or tensor.is_complex() or tensor.layout != torch.strided or tensor.is_meta:
        kind = f"a tensor of {tensor.dtype}, {tensor.layout}" if isinstance(tensor, torch.Tensor) else f"a {type(tensor).__name__}"
        raise InputError(f"{what} must be a dense tensor of real numbers, not {kind}")
    numbers: np.ndarray = tensor.detach().to("cpu", torch.float32).numpy()
    return numbers


def _conversion(images: object) -> str:
    """How to make a tensor (N, C, H, W) of something that is none, to end a refusal with."""
    if isinstance(images, Image.Image):
        return ": convert it with torch.from_numpy(numpy.array(image)).permute(2, 0, 1)[None].float(), and normalise it"
    made = "torch.from_numpy(images)" if isinstance(images, np.ndarray) else "images"
    shape: tuple[int, ...] = tuple(getattr(images, "shape", ()))
    if len(shape) in (3, 4) and shape[-1] in (1, 3) and shape[-3] not in (1, 3):
        order = "permute(2, 0, 1)[None]" if len(shape) == 3 else "permute(0, 3, 1, 2)"
        return f": convert it with {made}.{order}.float(), and normalise it as the module expects"
    return f": convert it with {made}" if isinstance(images, np.ndarray) else ""


def _warn(line: str) -> None:
    warnings.warn(line, stacklevel=4)


@contextmanager
def local(  # noqa: PLR0913 - what users may choose; all but the first five by name
    model: torch.nn.Module | str | Path,
    example_input: torch.Tensor,
    relu_spec: ReluSpec | str | Path | None = None,
    ring: int = 48,
    transport: str = "ipc",
    *,
    network: str = "none",
    links: str = "",
    drelu_window: tuple[int, int] | None = None,
    reveal: str = "logits",
    calibration: torch.Tensor | None = None,
    margin: int = 2,
    out_of_range: str = "refuse",
    threads: int = 1,
    timeout: float = 120.0,
    budget: int | None = None,
) -> Iterator[SecureModel]:
    """Client, server and provider on this machine, around a torch module or an ONNX file: a demonstration and a test bed, not privacy.

    example_input: a float tensor (N, C, H, W); N is free later. relu_spec: a relu spec or its file. ring: 64, 48, 40 or 32 bits.
    transport: "ipc" or "tcp" for three processes, "memory" for threads of this one. network: a simulated one, "lan", "lan10", "wan" or
    "wan352"; links: simulated rates of the parties' hosts, such as "server=1G,client=20M/100M". drelu_window: (LO, HI), the bits that decide a sign. reveal: "logits" or "label"; of several
    outputs one for each, "logits,label", or for some, "NAME=label", names as "1" or "boxes.0". calibration: images (N, C, H, W)
    of the model owner's that the layers' ranges are measured with, by default example_input; margin: bits by which values may be larger.
    out_of_range: "refuse" inputs of more than twice these images' size, or "warn" and go on. threads: of each party. timeout:
    seconds that a party waits for another. budget: bytes that may be dealt ahead.

    Gives a `SecureModel`. Raises InputError, naming the layer, for a module with unsupported operations and for a spec of another one.
    """
    import torch
    from torch.utils._pytree import tree_leaves

    from threepc.graph.modes import evaluating
    from threepc.model.assemble import Settings, assemble
    from threepc.model.onnx_file import load as load_onnx
    from threepc.plan.calibration import NARROWEST

    name = Path(model).stem if isinstance(model, str | Path) else type(model).__name__
    if isinstance(model, str | Path):
        model, _ = load_onnx(Path(model))
    if not isinstance(example_input, torch.Tensor) or example_input.dim() != 4 or not example_input.is_floating_point():
        raise InputError("example_input must be a float tensor (N, C, H, W)")
    height, width = example_input.shape[2:]
    card = ModelCard(name, Preprocessing((height, width), (0.0,) * 3, (1.0,) * 3))
    scales = _real_numbers(example_input if calibration is None else calibration, "calibration")
    if not scales.any() and ring != NARROWEST:
        scales = np.random.default_rng(0).standard_normal(scales.shape)  # a shape without numbers: those of most networks' inputs
    else:
        limit = 2 * max(float(np.abs(scales).max(initial=0)), float(example_input.abs().max()))
        card = replace(card, input_limit=limit if 0 < limit < np.inf else None)
    if ring == NARROWEST and not scales.any():
        raise InputError("a ring of 32 bits chooses scales with images: give some as calibration, or as example_input")
    assembled = assemble(model, example_input, card, Settings(ring, None, drelu_window, relu_spec, reveal, scales, margin))
    with evaluating(model):
        ranks = [tensor.dim() for tensor in tree_leaves(model(example_input[:1]))]
    with one_host.open_parties(
        assembled.served, transport, network, threads=threads, timeout=timeout, budget=budget, links=links
    ) as parties:
        yield SecureModel(assembled, parties, ranks, out_of_range)


_Images = str | Path | Image.Image


def _pixels(images: _Images | Sequence[_Images] | np.ndarray, preprocessing: Preprocessing, shape: tuple[int, ...]) -> np.ndarray:
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

    def predict(self, images: _Images | Sequence[_Images] | np.ndarray) -> Any:
        """Outputs for image files and PIL images, or for ready inputs (N, C, H, W). Threads may call it; one prediction runs at a time.

        Returns float64 logits (N, K), or (N, K, h, w) of a segmentation; int64 classes (N,) or (N, h, w) where only these are revealed.
        Of a network with several outputs the tuples, lists and dicts that it returns, with such arrays in them.
        More images than fit in memory at once are asked for in parts. Raises InputError for unsuitable images, which leave a session as it
        is; RunError when a party cannot be reached, disagrees or fails.
        """
        with self._one_at_a_time:
            return self._predict(images)

    def _predict(self, images: _Images | Sequence[_Images] | np.ndarray) -> Any:
        try:
            client = self._open()
            session = client.session
            pixels = _pixels(images, session.model.card.preprocessing, session.model.graph.input.shape)
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
