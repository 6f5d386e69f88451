"""Reads checkpoints of mmcls, mmsegmentation and plain PyTorch without unpickling anything but tensors and plain containers."""

import pickle
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from threepc.errors import InputError

NAMES_SHOWN = 3


def load_checkpoint(module: nn.Module, path: str | Path, ignore: Collection[str] = ()) -> dict[str, Any]:
    """Load the checkpoint at `path` into `module`; every parameter and buffer must be there, with its shape, and no others.

    path: a state dict, or a dict that holds one under "state_dict" (as MMLab saves it). Names may start with "module." (as
        DistributedDataParallel saves them).
    ignore: prefixes of names that may be there although the module does not have them, such as "auxiliary_head.".
    Returns the checkpoint's "meta" (MMLab: CLASSES, PALETTE, ...), or {}.
    Raises InputError: missing or unreadable file, one that needs other classes to be unpickled, or one of another model.
    """
    checkpoint = _read(Path(path))
    state = checkpoint.get("state_dict", checkpoint)
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"checkpoint {path} holds no state dict of tensors; save it with mmcv's save_checkpoint or torch.save(model.state_dict(), ...)")
    state = {name.removeprefix("module."): value for name, value in state.items()}
    own = module.state_dict()
    unexpected = [name for name in state if name not in own and not name.startswith(tuple(ignore))]
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    reshaped = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    differences = [_count(missing, "missing"), _count(unexpected, "unexpected"), _count(reshaped, "of another shape")]
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
        raise InputError(f"checkpoint {path} does not exist")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)  # a file that is no checkpoint, which is refused below
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported global" in str(error) or "GLOBAL" in str(error):
            raise InputError(
                f"checkpoint {path} holds other Python objects than tensors and plain containers, which threepc does not unpickle; "
                "save its state_dict alone, where you trust it"
            ) from error
        raise InputError(f"checkpoint {path} is not a PyTorch checkpoint") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise InputError(f"checkpoint {path} is damaged or not a PyTorch checkpoint") from error
    if not isinstance(checkpoint, Mapping):
        raise InputError(f"checkpoint {path} holds a {type(checkpoint).__name__}, not a state dict")
    return checkpoint


def _count(names: list[str], what: str) -> str:
    if not names:
        return ""
    more = ", ..." if len(names) > NAMES_SHOWN else ""
    return f"{len(names)} {what} ({', '.join(names[:NAMES_SHOWN])}{more})"
