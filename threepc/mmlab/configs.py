"""Finds and reads MMLab config files: those that ship with mmcls and mmsegmentation by name, any other by path.

A config is a Python program that runs when it is read: it is trusted code of whoever operates the server, never something a client sent.
"""

import contextlib
import difflib
import importlib.util
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from threepc.errors import InputError, missing
from threepc.mmlab.compat import import_mmlab

PACKAGES = ("mmcls", "mmseg")


def packaged(name: str) -> str:
    """The file of a config that ships with mmcls or mmsegmentation.

    name: "mmcls:NAME" or "mmseg:NAME", NAME being the file's name without folder and ".py". Also made for configs of one's own, which can
    inherit from these with `_base_ = packaged("mmcls:resnet50_8xb32_in1k")` wherever the packages are installed.
    Raises InputError with the nearest names where there is none such.
    """
    package, _, stem = name.partition(":")
    if package not in PACKAGES:
        raise InputError(f"{name}: a packaged config is mmcls:NAME or mmseg:NAME")
    files = _packaged_files(package)
    if stem not in files:
        raise InputError(f"{package} has no config {stem!r}{did_you_mean(stem, {known: f'{package}:{known}' for known in files})}")
    return str(files[stem])


def suggestions(name: str) -> str:
    """For messages about an unknown config: "; did you mean ...?" with the nearest of all packaged names, or ""."""
    return did_you_mean(name, {stem: f"{package}:{stem}" for package in PACKAGES for stem in _packaged_files(package)})


def did_you_mean(word: str, known: Mapping[str, str]) -> str:
    """The text "; did you mean A or B or C?" with the values of `known` whose keys are nearest to `word`, or "" where none is near."""
    near = [known[match] for match in difflib.get_close_matches(word, known, n=3)]
    return f"; did you mean {' or '.join(near)}?" if near else ""


def read_config(config: str) -> Any:
    """Read a packaged config ("mmcls:NAME", "mmseg:NAME") or a config file, with all that it inherits. It runs: see above.

    Returns an `mmcv.Config`. Raises InputError where the file is missing, not a config, or fails when run.
    """
    path = packaged(config) if config.partition(":")[0] in PACKAGES else config
    if not Path(path).is_file():
        raise InputError(f"config {path} does not exist{suggestions(Path(path).stem)}")
    import_mmlab()
    import mmcv

    search_path = list(sys.path)
    try:
        read = mmcv.Config.fromfile(path)
        if "model" not in read:
            raise InputError(f"config {config} is no MMLab config of a network: it has no `model`")
        return read
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # a config runs arbitrary code, so anything may come of it
        _close_leftovers(error)
        raise InputError(f"config {config} cannot be read: {type(error).__name__}: {_one_line(error)}") from error
    finally:
        sys.path[:] = search_path  # mmcv leaves its temporary folder there when a config fails


def _close_leftovers(error: BaseException) -> None:
    """mmcv leaves a temporary file open when a config fails, which would complain on standard error when it is collected."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        leftover = frame.f_locals.get("temp_config_file")
        if leftover is not None:
            with contextlib.suppress(FileNotFoundError):  # its folder is gone already
                leftover.close()


def _packaged_files(package: str) -> dict[str, Path]:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise missing(package)
    root = Path(spec.origin).parent / ".mim" / "configs"
    return {path.stem: path for path in sorted(root.rglob("*.py")) if "_base_" not in path.parts}


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
