"""The Python API: all three parties on this machine around a torch module, or each where it belongs: server, provider and client of a deployment."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from PIL import Image
from rich.console import Console

from threepc.choices import LABEL
from threepc.console import Display
from threepc.errors import InputError, typed
from threepc.files import local_path
from threepc.graph.outputs import structured
from threepc.images.card import ModelCard, Preprocessing, Sliding
from threepc.images.read import check_range
from threepc.images.sliding import check_logits, image_logits, windows_of
from threepc.model.served import each
from threepc.party import one_host
from threepc.party.batches import infer_all
from threepc.party.deployment import load
from threepc.party.memory import DEFAULT_MEMORY, check_batch
from threepc.party.record import Record, report
from threepc.tasks.client import Client
from threepc.tasks.provide import Background, Steering, Watching
from threepc.tasks.provide import provide as serve_as_provider

if TYPE_CHECKING:
    import torch

    from threepc.graph.relu_spec import ReluSpec
    from threepc.model.assemble import Assembled
    from threepc.tasks.models import GivenModel

__all__ = ["Client", "SecureModel", "local", "provide", "serve"]


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
        fixed = 1 if public.card.sliding else 3  # dimensions that are the example's
        if (
            not isinstance(images, torch.Tensor)
            or images.dim() != 4
            or tuple(images.shape[1 : 1 + fixed]) != public.graph.input.shape[:fixed]
        ):
            what = tuple(images.shape) if isinstance(images, torch.Tensor) else type(images).__name__
            wanted = f"(N, {', '.join([*map(str, public.graph.input.shape[:fixed]), *'HW'[: 3 - fixed]])})"
            raise InputError(f"images must be a tensor of shape {wanted}, not {what}{_conversion(images)}")
        check_batch(public, len(images), DEFAULT_MEMORY, "the client")  # before they are converted
        pixels = _real_numbers(images, "images")
        check_range(pixels, public.card, self._out_of_range, _warn)
        if public.card.sliding is None:
            outputs = self._infer([pixels], separate)
        else:
            height, width = pixels.shape[2:]
            sliding = replace(public.card.sliding, scale=(max(height, width), min(height, width)))  # which leaves the images as they are
            sliding.check(public.card.preprocessing)
            check_logits(public.graph.output.shape[0], (height, width))
            windows = windows_of(pixels, sliding, public.card.preprocessing.size)
            (found,) = self._infer(windows, separate)
            found = found.reshape(*windows.shape[:2], *found.shape[1:])
            card = replace(public.card, sliding=sliding)
            outputs = (np.stack([image_logits(found[:, index], card, sliding, (height, width)) for index in range(len(pixels))]),)
        return structured(public.graph, [_as_tensor(*output, images) for output in zip(outputs, public.reveals, self._ranks, strict=True)])

    def _infer(self, batches: Iterable[np.ndarray], separate: bool) -> tuple[np.ndarray, ...]:
        """The outputs for images (N, C, H, W), a batch at a time."""
        with self._one_at_a_time:
            outputs, self._record = infer_all(partial(self._parties.infer, separate=separate), self._assembled.public, batches)
            self._images = len(each(outputs)[0])
        return each(outputs)

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
        kind = f"a tensor of {tensor.dtype}, {tensor.layout}" if isinstance(tensor, torch.Tensor) else typed(tensor)
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
    relu_messages: str = "4",
    stride: tuple[int, int] | None = None,
    out_of_range: str = "refuse",
    allow_error: bool = False,
    threads: int = 1,
    timeout: float = 120.0,
    budget: int | None = None,
) -> Iterator[SecureModel]:
    """Client, server and provider on this machine, around a torch module or an ONNX file: a demonstration and a test bed, not privacy.

    example_input: a float tensor (N, C, H, W); N is free later. relu_spec: a relu spec or its file. ring: 64, 48, 40, 32, 28 or 24 bits.
    transport: "ipc" or "tcp" for three processes, "memory" for threads of this one. network: a simulated one, "lan", "lan10", "wan" or
    "wan352"; links: simulated rates of the parties' hosts, such as "server=1G,client=20M/100M". drelu_window: (LO, HI), the bits that decide a sign. reveal: "logits" or "label"; of several
    outputs one for each, "logits,label", or for some, "NAME=label", names as "1" or "boxes.0". calibration: images (N, C, H, W)
    of the model owner's that the layers' ranges are measured with, by default example_input; margin: bits by which values may be larger.
    stride: (down, across) in pixels, where windows of the example's size shall slide over images of any size: the module gives a map of logits (K, h, w)
    for each, which is resized to the window; where they overlap they are averaged, and (N, K, H, W) comes out. One window of all N images is asked for at a time.
    relu_messages: "4"; "2" for fewer online messages and more bytes, "6" the other way round; "auto" by layer, as network and links say,
    "auto-online" as they do for the online phase alone. out_of_range: "refuse" inputs of more than twice these images' size, or "warn" and go on. allow_error: go on where results will be off by more than a tenth of
    the largest, too. threads: of each party. timeout: seconds that a party waits for another. budget: bytes that may be dealt ahead.

    Gives a `SecureModel`. Raises InputError, naming the layer, for a module with unsupported operations and for a spec of another one.
    """
    from torch.utils._pytree import tree_leaves

    from threepc.graph.modes import evaluating
    from threepc.model.assemble import Settings, assemble, warn_of_error
    from threepc.model.onnx_file import load as load_onnx

    name = Path(model).stem if isinstance(model, str | Path) else type(model).__name__
    if isinstance(model, str | Path):
        model, _ = load_onnx(local_path(model))
    card, scales = _card_and_scales(name, example_input, calibration, ring)
    if stride is not None:
        fitted = replace(card.preprocessing, resize="fit")
        card = replace(card, preprocessing=fitted, segmentation=True, sliding=Sliding(fitted.size, stride))
    settings = Settings(ring, None, drelu_window, relu_spec, reveal, scales, margin, relu_messages, network, links)
    assembled = assemble(model, example_input, card, settings)
    warn_of_error(assembled, allow_error, lambda line: warnings.warn(line, stacklevel=5))  # the caller, behind the context manager's frame
    with evaluating(model):
        ranks = [tensor.dim() for tensor in tree_leaves(model(example_input[:1]))]
    with Display().stage("starting client, server and provider") as progress:
        opened = one_host.open_parties(
            assembled.served, transport, network, progress, threads=threads, timeout=timeout, budget=budget, links=links
        )
    with opened as parties:
        yield SecureModel(assembled, parties, ranks, out_of_range)


def _card_and_scales(name: str, example_input: object, calibration: torch.Tensor | None, ring: int) -> tuple[ModelCard, np.ndarray]:
    """What clients are told of a module that was given with an example of its input, and the images that choose its scales."""
    import torch

    from threepc.plan.precision import NARROW

    if not isinstance(example_input, torch.Tensor) or example_input.dim() != 4 or not example_input.is_floating_point():
        raise InputError("example_input must be a float tensor (N, C, H, W)")
    height, width = example_input.shape[2:]
    channels = 1 if example_input.shape[1] == 1 else 3
    card = ModelCard(name, Preprocessing((height, width), (0.0,) * channels, (1.0,) * channels))
    scales = _real_numbers(example_input if calibration is None else calibration, "calibration")
    if not scales.any() and ring > NARROW:
        scales = np.random.default_rng(0).standard_normal(scales.shape)  # a shape without numbers: those of most networks' inputs
    else:
        limit = 2 * max(float(np.abs(scales).max(initial=0)), float(example_input.abs().max()))
        card = replace(card, input_limit=limit if 0 < limit < np.inf else None)
    if ring <= NARROW and not scales.any():
        raise InputError(f"a ring of {ring} bits chooses scales with images: give some as calibration, or as example_input")
    return card, scales


def serve(  # noqa: PLR0913 - what users may choose; all but the first two by name
    model: torch.nn.Module | str | Path,
    deployment: str | Path,
    *,
    checkpoint: str | Path | None = None,
    example_input: torch.Tensor | None = None,
    relu_spec: ReluSpec | str | Path | None = None,
    calibration: torch.Tensor | Sequence[str | Path] | None = None,
    margin: int = 2,
    allow_error: bool = False,
    threads: int = 1,
    grace: float = 30.0,
    background: bool = False,
) -> Any:
    """Serve a model to the clients of a deployment, as `threepc server` does: with server.secret beside deployment.yaml, until interrupted.

    model: a torch module, or what CONFIG names on the command line, an ONNX file among others; checkpoint: weights for CONFIG. A module
    says by its attribute `model_card` how images become inputs; example_input, a float tensor (N, C, H, W), stands in for one, and then
    clients send ready inputs. relu_spec, calibration, margin, allow_error: as `local` has them; calibration of a CONFIG: image files. threads: of this
    party. grace: seconds that inferences have to end when it is told to stop. Ring, window and what is revealed are the deployment's.

    background: serve in a thread, and return once clients are answered: a context manager with `address` and `close`, which leaves
    logging as it is (logger "threepc"). Otherwise every session and inference is a line on standard output. Raises InputError, naming file
    or layer, for keys, models and addresses, and outside of the main thread unless background.
    """
    from threepc.tasks.models import ModelOptions
    from threepc.tasks.serve import ServerOptions
    from threepc.tasks.serve import serve as serve_as_server

    chosen: GivenModel | ModelOptions
    if isinstance(model, str | Path):
        if example_input is not None or hasattr(calibration, "detach"):
            raise InputError("a model that is named knows its input: give image files as calibration, and no example_input")
        files = tuple(map(Path, calibration or ()))
        chosen = ModelOptions(
            str(model), None if checkpoint is None else Path(checkpoint), relu_spec, None, files, margin, allow_error=allow_error
        )
    else:
        given = _given(model, load(deployment).ring, example_input, cast("torch.Tensor | None", calibration), relu_spec, margin)
        chosen = replace(given, allow_error=allow_error)

    def run(watching: Watching, display: Display, steering: Steering | None) -> None:
        serve_as_server(ServerOptions(chosen, Path(deployment), threads, watching), display, steering)

    return _started(run, grace, background)


def _given(
    model: torch.nn.Module,
    ring: int,
    example_input: object,
    calibration: torch.Tensor | None,
    relu_spec: ReluSpec | str | Path | None,
    margin: int,
) -> GivenModel:
    from threepc.model.load import LoadedModel
    from threepc.tasks.models import GivenModel

    card = getattr(model, "model_card", None)
    inputs: np.ndarray | tuple[()] = () if calibration is None else _real_numbers(calibration, "calibration")
    if example_input is None and not isinstance(card, ModelCard):
        raise InputError("give an example_input (N, C, H, W), or set the module's attribute model_card to a threepc.card.ModelCard")
    if not isinstance(card, ModelCard):
        card, inputs = _card_and_scales(type(model).__name__, example_input, calibration, ring)
        if (channels := cast("torch.Tensor", example_input).shape[1]) not in (1, 3):
            raise InputError(f"example_input: a network that is served takes images of 1 or 3 channels, not of {channels}")
    return GivenModel(LoadedModel(model, card, "the module's own weights", random_weights=False), relu_spec, inputs, margin)


def provide(deployment: str | Path, *, threads: int = 1, grace: float = 30.0, background: bool = False) -> Any:
    """Deal randomness to the clients and the server of a deployment, as `threepc provider` does; the rest as `serve`. It needs no torch."""

    def run(watching: Watching, display: Display, steering: Steering | None) -> None:
        serve_as_provider(deployment, threads, watching, display, steering)

    return _started(run, grace, background)


def _started(run: Callable[[Watching, Display, Steering | None], None], grace: float, background: bool) -> Background | None:
    if background:
        watching, silent = Watching(log_format=None, grace=grace), Display(Console(quiet=True), notes_apart=True)
        return Background(lambda steering: run(watching, silent, steering))
    if threading.current_thread() is not threading.main_thread():
        raise InputError("signals end a party that serves, and only the main thread hears them: serve with background=True in another one")
    run(Watching(grace=grace), Display(), None)
    return None
