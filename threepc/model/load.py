"""CONFIG and CHECKPOINT of the command line, as one torch module with all that a client must know of it.

CONFIG is one of

- `mmcls:NAME` or `mmseg:NAME`, a config that ships with those packages;
- `timm:NAME` or `torchvision:NAME`, a network of those packages, with the preprocessing that they state for it;
- the path of an MMLab config file;
- the path of an ONNX file, `NAME.onnx`, which holds its own weights; `NAME.card.json` beside it may say how images become its input;
- `package.module:factory`, any function without arguments that returns a torch module of one input, images (N, C, H, W), and one
  output. The module may say how images become its input and what its outputs mean by an attribute `model_card`, a `ModelCard`;
  without one, threepc assumes what most networks for ImageNet take: 224 x 224 pixels, red first, ImageNet's mean and deviation.

All but ONNX run the Python code that they name: a CONFIG is trusted code of whoever operates the server. Checkpoints and ONNX files are
not code, and are not trusted.
"""

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from threepc.errors import InputError, typed
from threepc.files import local_path
from threepc.graph.modes import require_traceable
from threepc.images.card import ModelCard, Preprocessing
from threepc.mmlab.build import build
from threepc.mmlab.checkpoint import load_checkpoint
from threepc.mmlab.configs import PACKAGES, read_config, suggestions
from threepc.model import onnx_file, packages

IMAGENET = Preprocessing(
    size=(224, 224), mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), to_rgb=True, resize="short_edge", short_edge=256
)
_FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class LoadedModel:
    """A network ready for import, and what the client is told of it.

    module: in evaluation mode, float32, images (N, C, H, W) to one tensor: logits (N, K), or (N, K, h, w) for segmentation.
    weights_source: where the weights come from, for people. random_weights: there was no checkpoint, the weights are the seeded random
    initialisation, or what a factory made of them. assumed_card: nothing was said of its preprocessing.
    """

    module: nn.Module
    card: ModelCard
    weights_source: str
    random_weights: bool
    assumed_card: bool = False

    @property
    def card_advice(self) -> str:
        """How to say how images become input."""
        beside = "write a ModelCard's JSON to a file NAME.card.json beside it"
        return (
            beside
            if isinstance(self.module, onnx_file.OnnxNetwork)
            else "set the module's attribute model_card to a threepc.card.ModelCard"
        )

    @property
    def name(self) -> str:
        """CONFIG, for people: packaged name, file name without folder and suffix, or factory."""
        return self.card.name

    @property
    def preprocessing(self) -> Preprocessing:
        """How images become input; the client applies it with `threepc.images.read.load_images`."""
        return self.card.preprocessing

    @property
    def example_shape(self) -> tuple[int, int, int, int]:
        """(1, C, H, W), for `threepc.graph.importer.import_module`."""
        return (1, *self.preprocessing.shape)


def load_model(config: str, checkpoint: str | Path | None = None, seed: int = 0, size: tuple[int, int] | None = None) -> LoadedModel:
    """Load the network that CONFIG names, with the weights of CHECKPOINT, or seeded random ones without.

    seed: of the random weights; the same seed gives the same weights.
    size: (H, W) of the input in pixels where it shall not be the config's own.
    Raises InputError: unknown config (with the nearest names), unsupported model or preprocessing, missing, unsafe or foreign checkpoint.
    """
    local_path(config)
    assumed, source = False, "seeded random weights (no checkpoint given)" if checkpoint is None else "weights of the checkpoint"
    if config.partition(":")[0] in PACKAGES or Path(config).suffix in (".py", ".json", ".yaml", ".yml"):
        name = config if config.partition(":")[0] in PACKAGES else Path(config).stem
        module, card = build(read_config(config), name, checkpoint, seed, size)
    elif config.partition(":")[0] in packages.PACKAGES:
        module, card = packages.build(config, checkpoint, seed, size)
    elif Path(config).suffix == ".onnx":
        module, card, assumed = _load_onnx(Path(config), checkpoint, size)
        return LoadedModel(module, card, "the weights of the file", random_weights=False, assumed_card=assumed)
    elif _FACTORY.fullmatch(config):
        module, card = _call_factory(config, checkpoint, seed)
        assumed = getattr(module, "model_card", None) is None
        source = "the factory's own weights (no checkpoint given)" if checkpoint is None else source
        if size is not None:
            card = card.with_size(size)
    else:
        hint = (
            suggestions(config)
            or "; it is mmcls:NAME, mmseg:NAME, timm:NAME, torchvision:NAME, the path of an MMLab config or an ONNX file, or package.module:factory"
        )
        raise InputError(f"unknown config {config}{hint}")
    return LoadedModel(module, card, source, checkpoint is None, assumed)


def _load_onnx(path: Path, checkpoint: str | Path | None, size: tuple[int, int] | None) -> tuple[nn.Module, ModelCard, bool]:
    """The network, its card, and whether that is assumed."""
    if checkpoint is not None:
        raise InputError(f"{path} holds its own weights: give no checkpoint with it")
    module, (channels, *sides) = onnx_file.load(path)
    card = onnx_file.card_of(path)
    assumed = card is None
    if card is None:
        grey = replace(IMAGENET, mean=(114.5,), std=(57.6,))  # the averages of the three colours
        height, width = (side or chosen for side, chosen in zip(sides, size or IMAGENET.size, strict=True))
        card = ModelCard(path.stem, (grey if channels == 1 else IMAGENET).with_size((height, width)))
    elif size is not None:
        card = card.with_size(size)
    wanted = [side or have for side, have in zip((channels, *sides), card.preprocessing.shape, strict=True)]
    if card.preprocessing.shape != tuple(wanted) or size not in (None, card.preprocessing.size):
        says = ", ".join(str(side or "any") for side in (channels, *sides))
        raise InputError(
            f"{path} takes inputs (C, H, W) of ({says}), not {(card.preprocessing.channels, *(size or card.preprocessing.size))}"
        )
    return module, card, assumed


def _call_factory(config: str, checkpoint: str | Path | None, seed: int) -> tuple[nn.Module, ModelCard]:
    factory = _find_factory(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            module = factory()
        except (Exception, SystemExit) as error:  # foreign code runs here
            raise InputError(f"{config}: the factory {config.partition(':')[2]} raised {_told(error)}") from error
    if not isinstance(module, nn.Module):
        raise InputError(f"{config} returned {typed(module)}, not a torch module")
    require_traceable(module, f"what {config} returned")
    if checkpoint is not None:
        load_checkpoint(module, checkpoint)
    card = getattr(module, "model_card", None) or ModelCard(config, IMAGENET)
    if not isinstance(card, ModelCard):
        raise InputError(f"{config}: its attribute model_card must be a threepc.card.ModelCard")
    return module.eval().requires_grad_(False), card


def _find_factory(config: str) -> Callable[[], nn.Module]:
    module_name, _, function_name = config.partition(":")
    try:
        with _importing_from_here():
            module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # foreign code runs here
        raise InputError(f"{config}: module {module_name} cannot be imported: {_told(error)}") from error
    factory: Callable[[], nn.Module] | None = getattr(module, function_name, None)
    if not callable(factory):
        raise InputError(f"{config}: module {module_name} has no function {function_name}")
    return factory


def _told(error: BaseException) -> str:
    """An error of somebody else's code in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


@contextmanager
def _importing_from_here() -> Iterator[None]:
    """A module in the current folder is found too, but never before an installed one."""
    sys.path.append(str(Path.cwd()))
    try:
        yield
    finally:
        sys.path.pop()
