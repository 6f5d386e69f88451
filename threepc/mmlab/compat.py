"""Imports mmcv, mmcls and mmsegmentation where two things that they want to import are missing.

mmcv 1.7 imports torchvision only to list the addresses of its pretrained models, and mmsegmentation imports `mmcv.ops`, mmcv's compiled
operations, only for losses and heads that ResNet, MobileNet and DeepLab do not use. Where one is absent, a placeholder stands in
for it while MMLab is imported: whatever is taken from it raises `InputError`, naming itself and the package to install, when it is
really called. Where they are installed (torchvision; mmcv-full), nothing is replaced. The placeholders are withdrawn afterwards, so
that nobody else takes the missing packages for present: torch, for one, looks for torchvision. A torchvision that was made for another
build of torch has no compiled operations; it is imported without them.

The packages are no longer maintained, and warn of that and of what does not concern inference; exactly the warnings listed here are
silenced, only while the packages are imported and their models built.
"""

import contextlib
import importlib
import importlib.util
import logging
import re
import sys
import types
import warnings
from collections.abc import Iterator

from threepc.errors import InputError, missing

MMLAB_MODULES = ("mmcls.models", "mmcls.datasets", "mmseg.models", "mmseg.datasets")

# (category, start of the message) as `warnings.filterwarnings` takes them, and whose it is
KNOWN_WARNINGS = (
    (UserWarning, "On January 1, 2023, MMCV will release v2.0.0"),  # mmcv
    (UserWarning, "Fail to import ``MultiScaleDeformableAttention``"),  # mmcv, where its compiled operations are absent
    (UserWarning, "Unnecessary conv bias before batch/instance norm"),  # mmcv, of VGG with batch norms
    (UserWarning, "For binary segmentation, we suggest using"),  # mmsegmentation, of trained heads of two classes
    (UserWarning, "In MMCV v1.4.4, we modified the default value of args"),  # mmcv, of its Hsigmoid
    (UserWarning, "Default ``avg_non_ignore`` is False"),  # mmsegmentation's losses, which are built with a model and never used
)


def import_mmlab() -> None:
    """Import mmcv and the models and datasets of mmcls and mmseg, once; a later `import` of them or of their parts finds them as usual.

    Raises InputError where one of the three is not installed.
    """
    if all(name in sys.modules for name in MMLAB_MODULES):
        return
    for package in ("mmcv", "mmcls", "mmseg"):
        if importlib.util.find_spec(package) is None:
            raise missing(package)
    with known_warnings_silenced():
        importlib.import_module("mmcv")
        import_torchvision()
        with _placeholder("torchvision", "torchvision", "torchvision"), _placeholder("mmcv.ops", "mmcv._ext", "mmcv-full"):
            for name in MMLAB_MODULES:
                importlib.import_module(name)


def import_torchvision() -> bool:
    """Import torchvision where it is installed, and say whether it is.

    Its compiled operations (non-maximum suppression and such, which no network of ours uses) do not load beside a torch of another build:
    PyPI has one build of torchvision, for CUDA, and many machines a torch for CPUs. It then fails to import, because it describes
    operations that are not there; these are declared here, without an implementation, so that the rest of it can be used.
    """
    if importlib.util.find_spec("torchvision") is None:
        return False
    import torch

    while True:
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Failed to load image Python extension", UserWarning)
                importlib.import_module("torchvision")
            return True
        except RuntimeError as error:
            missing = re.fullmatch(r"operator torchvision::(\w+) does not exist", str(error))
            if missing is None:
                raise
            torch.library.define(f"torchvision::{missing[1]}", "(Tensor boxes) -> Tensor")


@contextlib.contextmanager
def known_warnings_silenced() -> Iterator[None]:
    """While it lasts, the warnings of KNOWN_WARNINGS are not shown and not raised; all others are what they were."""
    with warnings.catch_warnings():
        for category, message in KNOWN_WARNINGS:
            warnings.filterwarnings("ignore", message, category)
        yield


@contextlib.contextmanager
def quiet(logger_name: str) -> Iterator[None]:
    """While it lasts, the named logger says nothing."""
    logger = logging.getLogger(logger_name)
    disabled, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = disabled


@contextlib.contextmanager
def _placeholder(name: str, needs: str, package: str) -> Iterator[None]:
    """While it lasts, module `name` is a placeholder, unless module `needs`, which the real one cannot do without, is installed."""
    if importlib.util.find_spec(needs) is not None:
        yield
        return
    module = types.ModuleType(name, f"Stands in for {name}, which is not installed.")
    vars(module)["__getattr__"] = lambda attribute: _absent(name, attribute, package)
    sys.modules[name] = module
    try:
        yield
    finally:
        del sys.modules[name]


def _absent(module: str, attribute: str, package: str) -> type:
    """A class that may be named and derived from, but raises InputError when called."""
    if attribute.startswith("__"):  # the import system and inspect look for these; they must see a plain module
        raise AttributeError(attribute)

    def refuse(*_: object, **__: object) -> None:
        raise InputError(f"this model calls {module}.{attribute}, which is not installed here; install {package}")

    return type(attribute, (), {"__init__": refuse, "__module__": module})
