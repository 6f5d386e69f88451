"""Reads checkpoints of mmcls, mmsegmentation and plain PyTorch without unpickling anything but tensors and plain containers."""

import pickle
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from threepc.errors import InputError, missing, typed

NAMES_SHOWN = 3
WRAPPERS = (
    "state_dict",
    "model",
    "model_state_dict",
    "net",
)  # under which MMLab, torchvision, PyTorch's tutorial and others save a state dict
PREFIXES = "module.", "_orig_mod.", "model."  # of names, by DistributedDataParallel, torch.compile and Lightning
# MMLab's checkpoints hold the best accuracy so far as a numpy number, in a pickle a constructor, a type and bytes: data, no code
_SCALAR = np._core.multiarray.scalar  # type: ignore[attr-defined]  # numpy has no public name for it
_NUMPY_SCALARS: list[Any] = [
    (_SCALAR, "numpy.core.multiarray.scalar"),  # as numpy 1 named it
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("float16", "float32", "float64", "int32", "int64", "bool")),
]


def load_checkpoint(module: nn.Module, path: str | Path, ignore: Collection[str] = ()) -> dict[str, Any]:
    """Load the checkpoint at `path` into `module`; every parameter and buffer must be there, with its shape, and no others.

    path: a state dict, or a dict that holds one under one of WRAPPERS, or a `.safetensors` file. Where all names start with one of
        PREFIXES and none of the module's does, they are taken without it.
    ignore: prefixes of names that may be there although the module does not have them, such as "auxiliary_head.".
    Returns the checkpoint's "meta" (MMLab: CLASSES, PALETTE, ...), or {}.
    Raises InputError: missing or unreadable file, one that needs other classes to be unpickled, or one of another model.
    """
    checkpoint = _read(Path(path))
    state = next((checkpoint[key] for key in WRAPPERS if isinstance(checkpoint.get(key), Mapping)), checkpoint)
    if not isinstance(state, Mapping) or not state or not all(_is_entry(name, value) for name, value in state.items()):
        how = "save it with mmcv's save_checkpoint or torch.save(model.state_dict(), ...)"
        raise InputError(f"checkpoint {path} holds no state dict of plain tensors; {how}")
    own = module.state_dict()
    foreign = [prefix for prefix in PREFIXES if not any(name.startswith(prefix) for name in own)]
    while prefix := next((prefix for prefix in foreign if all(name.startswith(prefix) for name in state)), None):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    unexpected = [name for name in state if name not in own and not name.startswith(tuple(ignore))]
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    reshaped = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    whole = [  # of a quantised network: integers that nothing would tell from weights
        name for name in own if name in state and own[name].is_floating_point() and not state[name].is_floating_point()
    ]
    differences = [
        _count(missing, "missing"),
        _count(unexpected, "unexpected"),
        _count(reshaped, "of another shape"),
        _count(whole, "integers instead of floats"),
    ]
    if any(differences):
        raise InputError(f"checkpoint {path} is for another model: {'; '.join(filter(None, differences))}")
    not_finite = [name for name in own if name in state and not torch.isfinite(state[name]).all()]
    if not_finite:
        raise InputError(f"checkpoint {path} holds NaN or infinity: {_count(not_finite, 'such tensors')}")
    module.load_state_dict({name: state[name] for name in own if name in state}, strict=False)
    meta = checkpoint.get("meta", {})
    return meta if isinstance(meta, dict) else {}


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise InputError(f"checkpoint {path} {'is not a file' if path.exists() else 'does not exist'}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        with warnings.catch_warnings():
            # said of files that are no checkpoints, which are refused below
            warnings.filterwarnings("ignore", "Detected pickle protocol|'torch.load' received a zip file", UserWarning)
            with torch.serialization.safe_globals(_NUMPY_SCALARS):
                checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported global" in str(error) or "GLOBAL" in str(error):
            raise InputError(
                f"checkpoint {path} holds other Python objects than tensors and plain containers, which threepc does not unpickle; "
                "save its state_dict alone, where you trust it"
            ) from error
        raise InputError(f"checkpoint {path} is not a PyTorch checkpoint") from error
    except Exception as error:  # of a damaged file torch raises whatever the damage leads to
        raise InputError(f"checkpoint {path} is damaged or not a PyTorch checkpoint") from error
    if not isinstance(checkpoint, Mapping):
        raise InputError(f"checkpoint {path} holds {typed(checkpoint)}, not a state dict")
    return checkpoint


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise missing("safetensors") from None
    try:
        tensors: Mapping[str, Any] = load_file(path)
        return tensors
    except Exception as error:  # of a damaged file
        raise InputError(f"checkpoint {path} is damaged or not a safetensors file") from error


def _is_entry(name: Any, value: Any) -> bool:
    if not isinstance(name, str) or not isinstance(value, torch.Tensor):
        return False
    return value.layout == torch.strided and not value.is_complex() and not value.is_quantized


def _count(names: list[str], what: str) -> str:
    if not names:
        return ""
    more = ", ..." if len(names) > NAMES_SHOWN else ""
    return f"{len(names)} {what} ({', '.join(names[:NAMES_SHOWN])}{more})"
