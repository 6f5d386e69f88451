"""The models of a server: one that the command line names, or those of a models.yaml, which is read again when it changes."""

from __future__ import annotations

import dataclasses
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from threepc.console import Display
from threepc.errors import InputError
from threepc.graph.relu_spec import ReluSpec
from threepc.model.assemble import Settings, assemble_loaded, introduction, warn_of_error
from threepc.model.load import LoadedModel, load_model
from threepc.model.served import ServedModel
from threepc.party import strict_yaml
from threepc.party.deployment import Deployment
from threepc.party.key_files import read_text
from threepc.party.offered import Offer, OfferedModel
from threepc.party.session import log
from threepc.party.warmup import warm_up_for
from threepc.plan.calibration import MARGIN_BITS

_SIZE = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class ModelOptions:
    """One model to serve. name: what clients call it, None for its own; the rest as `threepc server` has it."""

    config: str
    checkpoint: Path | None = None
    relu_spec: ReluSpec | Path | str | None = None
    size: tuple[int, int] | None = None
    calibration: tuple[Path, ...] = ()
    margin: int = MARGIN_BITS
    name: str | None = None
    allow_error: bool = False

    def load(self, deployment: Deployment, display: Display) -> ServedModel:
        """Raises InputError for files, model and spec."""
        with display.stage(f"loading {self.name or 'the model'}"):
            loaded = load_model(self.config, self.checkpoint, size=self.size)
        served = _served(loaded, self, deployment, display)
        if self.name is None:
            return served
        card = dataclasses.replace(served.public.card, name=self.name)
        return dataclasses.replace(served, public=dataclasses.replace(served.public, card=card))


@dataclass(frozen=True)
class GivenModel:
    """A torch module that the program has already; the rest as `ModelOptions`. calibration: inputs (N, C, H, W), () for artificial ones."""

    loaded: LoadedModel
    relu_spec: ReluSpec | Path | str | None = None
    calibration: tuple[()] | np.ndarray = ()
    margin: int = MARGIN_BITS
    allow_error: bool = False

    def load(self, deployment: Deployment, display: Display) -> ServedModel:
        """As `ModelOptions.load`."""
        return _served(self.loaded, self, deployment, display)


def _served(loaded: LoadedModel, chosen: ModelOptions | GivenModel, deployment: Deployment, display: Display) -> ServedModel:
    given = chosen.relu_spec, deployment.reveal, chosen.calibration, chosen.margin
    links = deployment.relu_messages, deployment.network, deployment.links
    most = deployment.budgets.provider  # what cannot lie ahead, nobody prepares
    settings = Settings(deployment.ring, deployment.frac_bits, deployment.drelu_window, *given, *links, most_dealt=most)
    with display.stage("importing the network") as tell:
        assembled = assemble_loaded(loaded, settings, tell)
    for line in introduction(assembled, loaded, settings):
        display.note(line)
    warn_of_error(assembled, chosen.allow_error, display.warn)
    with display.stage("preparing kernels") as progress:
        warm_up_for(assembled.public, progress)
    return assembled.served


def read_models(path: Path) -> list[ModelOptions]:
    """The models of a models.yaml, paths in it relative to its folder. Raises InputError with file, key, what is wrong and the fix."""
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputError(f"{path}: cannot be read: {reason}") from None
    top = strict_yaml.read(path, text)
    listed = top.take("models")
    if not isinstance(listed, list) or not listed:
        raise top.wrong("models", "must be a list of models, '- config: CONFIG' each")
    models = [_model(strict_yaml.Section(path, f"models[{number}].", entry)) for number, entry in enumerate(listed)]
    top.finish()
    return models


def _model(section: strict_yaml.Section) -> ModelOptions:
    folder = section.path.parent

    def text(key: str, pattern: re.Pattern[str], cure: str, default: Any = None) -> Any:
        value = section.take(key, default)
        if value is not None and not (isinstance(value, str) and pattern.fullmatch(value)):
            raise section.unfit(key, value, cure)
        return value

    any_text = re.compile(r".+")
    files = {key: text(key, any_text, "write the name of a file") for key in ("checkpoint", "relu_spec")}
    checkpoint, relu_spec = (file and folder / file for file in files.values())
    size = text("size", _SIZE, "write HxW in pixels, such as 224x224")
    height, _, width = (size or "").partition("x")
    calibration = section.take("calibration", [])
    if not isinstance(calibration, list) or not all(isinstance(file, str) for file in calibration):
        raise section.unfit("calibration", calibration, "write a list of image files")
    margin = section.integer("margin", 0, 16)
    allow_error = section.take("allow_error", False)
    if not isinstance(allow_error, bool):
        raise section.unfit("allow_error", allow_error, "write true or false")
    config = text("config", any_text, "write CONFIG as `threepc server` takes it", ...)
    model = ModelOptions(
        config=str(folder / config) if (folder / config).is_file() else config,
        checkpoint=checkpoint,
        relu_spec=relu_spec,
        size=(int(height), int(width)) if size else None,
        calibration=tuple(folder / file for file in calibration),
        margin=MARGIN_BITS if margin is None else margin,
        allow_error=allow_error,
        name=text("name", _NAME, "write 1 to 64 letters, digits, '.', '-' and '_', a letter or digit first"),
    )
    section.finish()
    return model


class Models:
    """What is offered of a models.yaml: looks whether it or a file that it names has changed, and then adds and withdraws models."""

    def __init__(self, path: Path, load: Callable[[ModelOptions], ServedModel]) -> None:
        """Read it, and load every model. Raises InputError for the first that is wrong."""
        self._path, self._load = path, load
        self._held = {self._stamp(options): OfferedModel(load(options)) for options in read_models(path)}
        self._seen = self._stamp_of(path)
        self._work: threading.Thread | None = None

    @property
    def offered(self) -> Iterable[OfferedModel]:
        """In the file's order."""
        return self._held.values()

    def look(self, offer: Offer, asked: bool = False) -> None:
        """Load in a thread of its own what has come, if something changed or if `asked`; sessions go on with what they have."""
        if self._work is not None and self._work.is_alive():
            return
        seen = self._stamp_of(self._path)
        if seen != self._seen or asked:
            self._seen = seen
            self._work = threading.Thread(target=self._change, args=(offer,), name="models", daemon=True)
            self._work.start()

    def _change(self, offer: Offer) -> None:
        try:
            wanted = {self._stamp(options): options for options in read_models(self._path)}
            held = {key: self._held.get(key) or OfferedModel(self._load(options)) for key, options in wanted.items()}
            offer.set(held.values())
        except InputError as error:
            log.warning("the models stay as they were: %s", error)
            return
        for old, new, what in ((self._held, held, "withdrawn; its sessions go on"), (held, self._held, "offered")):
            for key in old.keys() - new.keys():
                log.info("model %s: %s", old[key].public.called, what)
        self._held = held

    def _stamp(self, options: ModelOptions) -> tuple[object, ...]:
        """What makes a model another one: its options, and time, size and place of its files."""
        spec = options.relu_spec if isinstance(options.relu_spec, Path) else None
        files = [Path(options.config), *filter(None, (options.checkpoint, spec)), *options.calibration]
        return options, *map(self._stamp_of, files)

    @staticmethod
    def _stamp_of(path: Path) -> tuple[int, ...]:
        try:
            status = path.stat()
        except OSError:
            return ()
        return status.st_mtime_ns, status.st_size, status.st_ino
