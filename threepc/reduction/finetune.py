"""Finetuning a network with block ReLUs, by mmcls's and mmsegmentation's own training loops.

Everything that a config says about training holds: schedule, augmentation, evaluation, hooks, distributed training through MMLab's
launchers. Only two things differ from their tools/train.py: block ReLUs are put in by name before training, and the starting
checkpoint is read without unpickling code. Block ReLUs have no parameters, so checkpoints fit the plain network and the same spec.
"""

from __future__ import annotations

import logging
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from logging.handlers import MemoryHandler
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn

from threepc.console import Display
from threepc.errors import InputError, RunError, ThreepcError
from threepc.files import check_writable
from threepc.graph.block_relu import apply_spec
from threepc.graph.relu_spec import ReluSpec, save
from threepc.mmlab.build import ClassifierLogits, SegmentorLogits
from threepc.mmlab.checkpoint import load_checkpoint
from threepc.mmlab.compat import import_mmlab, known_warnings_silenced
from threepc.mmlab.configs import read_config
from threepc.mmlab.pipeline import classifier_preprocessing, segmentor_preprocessing

# Backbones with max-pooling in the stem, and their twins with average pooling (threepc.mmlab.backbones).
AVERAGE_POOLING = {"ResNet": "ResNetAvgPool", "ResNetV1c": "ResNetV1cAvgPool"}


@dataclass(frozen=True)
class Finetuned:
    """What a run leaves in its folder: `threepc run config checkpoint --relu-spec spec` runs it."""

    config: Path
    checkpoint: Path
    spec: Path | None


def finetune(  # noqa: PLR0913 - each is an option of MMLab's training, given by name
    config: str,
    checkpoint: str | Path | None,
    spec: ReluSpec | None,
    folder: str | Path,
    *,
    average_pool: bool = False,
    options: dict[str, Any] | None = None,
    seed: int = 0,
    device: str = "cpu",
    launcher: str = "none",
    validate: bool = True,
    resume_from: str | Path | None = None,
) -> Finetuned:
    """Train the network of `config` from `checkpoint` with the block ReLUs of `spec`; with None the plain ReLUs stay.

    Parameters: `config` "mmcls:NAME", "mmseg:NAME" or a file; `folder` gets checkpoints, logs, the config as trained and the spec;
    `average_pool` replaces the stem's max-pooling by average pooling (the config in `folder` says so); `options` override the
    config, {"runner.max_epochs": 5}; `device` "cpu" or "cuda"; `launcher` "none", "pytorch", "slurm" or "mpi" as MMLab's;
    `resume_from` a checkpoint of an earlier run of this kind, with optimizer and epoch.

    Raises InputError for a config, checkpoint or spec of another model, a dataset that is not there, and for whatever keeps the training from
    its first step, which leaves the folder as it was; RunError where training fails later.
    """
    folder = Path(folder)
    check_writable(folder, is_directory=True)
    if resume_from is not None and not Path(resume_from).is_file():
        raise InputError(f"the checkpoint {resume_from} to go on from does not exist")
    import_mmlab()
    from mmcv.runner import get_dist_info, init_dist

    settings = read_config(config)
    with _refusing(config):
        settings.merge_from_dict(options or {})
        kind = settings.model.get("type")
    if kind not in _TASKS:
        raise InputError(f"{config}: model type {kind!r} cannot be trained (known: {', '.join(_TASKS)})")
    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise InputError(f"device '{device}' is not at hand (cpu, or cuda where there is a GPU)")
    # What MMLab asks of torch's loaders always, and torch refuses, or warns of, without workers or GPU.
    if settings.data.get("workers_per_gpu") == 0:
        settings.data.persistent_workers = False
    if device == "cpu":
        settings.data.pin_memory = False
    if average_pool:
        _use_average_pooling(settings, config)
    settings.update(
        work_dir=str(folder),
        seed=seed,
        device=device,
        gpu_ids=range(1),
        load_from=None,
        resume_from=None if resume_from is None else str(resume_from),
    )
    if launcher != "none":
        init_dist(launcher, **settings.get("dist_params", {"backend": "nccl"}))
        settings.gpu_ids = range(get_dist_info()[1])
    first = get_dist_info()[0] == 0
    with _refusing(config):
        model = _TASKS[kind](settings, config, checkpoint, spec, launcher != "none")
    name = Path(config).stem if Path(config).suffix else config.partition(":")[2]
    result = Finetuned(folder / f"{name}.py", folder / "latest.pth", None if spec is None else folder / "relu_spec.json")

    def describe_run() -> None:
        if first:
            folder.mkdir(parents=True, exist_ok=True)
            settings.dump(str(result.config))
            if spec is not None and result.spec is not None:
                save(spec, result.spec)

    with _Beginning(folder, model.log_name, describe_run) as beginning:
        model.train_with(settings, launcher != "none", validate, beginning)
    if first:
        _keep_latest(folder, result.checkpoint)
    return result


@contextmanager
def _refusing(config: str) -> Iterator[None]:
    """Errors of MMLab's builders: they are those of the config."""
    try:
        yield
    except ThreepcError:
        raise
    except Exception as error:
        raise InputError(f"{config} cannot be trained as it is: {_told(error)}") from error


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


class _Beginning:
    """The time until the first step of a training. MMLab's log is held back; without a first step it is dropped, and the folder is as it was."""

    def __init__(self, folder: Path, log_name: str, describe_run: Callable[[], None]) -> None:
        from mmcv.utils import get_logger

        self._folder, self._describe_run, self._log = folder, describe_run, get_logger(log_name)
        self._missing = [place for place in (folder, *folder.parents) if not place.exists()]
        self._before = set() if self._missing else set(folder.iterdir())
        self._said, self._handlers = MemoryHandler(1 << 20, logging.CRITICAL + 1), list(self._log.handlers)
        self._waiting = ExitStack()
        self.over = False

    def __enter__(self) -> Self:
        self._log.handlers = [self._said]
        self._waiting.enter_context(Display().stage("preparing the training"))
        return self

    def end(self) -> None:
        """The first step is about to be made."""
        self.over = True
        self._describe_run()
        self._release()
        for record in self._said.buffer:
            self._log.handle(record)

    def _release(self) -> None:
        self._waiting.close()
        self._log.handlers = self._handlers

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.over:
            return
        self._release()
        if kind is not None and self._missing:
            shutil.rmtree(self._missing[-1], ignore_errors=True)
        elif kind is not None:
            for path in set(self._folder.iterdir()) - self._before:
                path.unlink()


def _use_average_pooling(settings: Any, config: str) -> None:
    backbone = settings.model.backbone
    if backbone.type not in AVERAGE_POOLING and backbone.type not in AVERAGE_POOLING.values():
        raise InputError(
            f"{config}: the backbone {backbone.type} has no max-pooling that threepc can replace (known: {', '.join(AVERAGE_POOLING)})"
        )
    backbone.type = AVERAGE_POOLING.get(backbone.type, backbone.type)
    imports = list(settings.get("custom_imports", {}).get("imports", ()))
    settings.custom_imports = {"imports": [*dict.fromkeys([*imports, "threepc.mmlab.backbones"])]}
    import threepc.mmlab.backbones  # noqa: F401 - registers the types


class _Task(ABC):
    """A model of one of the two packages, with its start and its training loop."""

    logits: Callable[[Any], nn.Module]
    log_name: str

    @abstractmethod
    def set_random_seed(self, seed: int) -> None: ...

    @abstractmethod
    def build(self, settings: Any) -> Any: ...

    @abstractmethod
    def shape(self, settings: Any) -> tuple[int, int, int]: ...

    @abstractmethod
    def build_dataset(self, settings: Any) -> Any: ...

    @abstractmethod
    def train(self, *arguments: Any, **named: Any) -> None: ...

    def __init__(self, settings: Any, config: str, checkpoint: str | Path | None, spec: ReluSpec | None, distributed: bool) -> None:
        from mmcv.cnn.utils import revert_sync_batchnorm

        self.config = config
        self.set_random_seed(settings.seed)
        with known_warnings_silenced():
            self.model = self.build(settings)
        if not distributed:
            self.model = revert_sync_batchnorm(self.model)
        # The config may name pretrained parts to download; a checkpoint takes their place.
        try:
            if checkpoint is None:
                self.model.init_weights()
            else:
                load_checkpoint(self.model, checkpoint, ignore=("auxiliary_head.",))
        except OSError as error:
            raise InputError(f"{config} starts from pretrained weights that cannot be had ({error}): give a checkpoint instead") from None
        if spec is not None:
            example = torch.zeros(1, *self.shape(settings))
            apply_spec(self.model, spec, example, lambda model, images: self.logits(model)(images))

    def train_with(self, settings: Any, distributed: bool, validate: bool, beginning: _Beginning) -> None:
        try:
            datasets = [self.build_dataset(settings.data.train)]
        except (OSError, RuntimeError) as error:
            raise InputError(f"{self.config}: the training set cannot be read ({' '.join(str(error).split())})") from None
        if not len(datasets[0]):
            raise InputError(f"{self.config}: the training set is empty")
        meta = {"CLASSES": datasets[0].CLASSES, "seed": settings.seed, "config": settings.pretty_text}
        if getattr(datasets[0], "PALETTE", None) is not None:
            meta["PALETTE"] = datasets[0].PALETTE
        stamp = time.strftime("%Y%m%d_%H%M%S")
        step = self.model.train_step

        def first_step(*arguments: Any, **named: Any) -> Any:
            beginning.end()
            self.model.train_step = step
            return step(*arguments, **named)

        self.model.train_step = first_step
        try:
            with known_warnings_silenced():
                self.train(self.model, datasets, settings, distributed=distributed, validate=validate, timestamp=stamp, meta=meta)
        except Exception as error:
            if not beginning.over:
                raise InputError(f"{self.config} cannot be trained as it is: {_told(error)}") from error
            raise RunError(f"training stopped: {_told(error)}") from error


class _Classification(_Task):
    log_name = "mmcls"
    logits = staticmethod(ClassifierLogits)

    def set_random_seed(self, seed: int) -> None:
        from mmcls.apis import set_random_seed

        set_random_seed(seed)

    def build(self, settings: Any) -> nn.Module:
        from mmcls.models import build_classifier

        return build_classifier(settings.model)

    def shape(self, settings: Any) -> tuple[int, int, int]:
        return classifier_preprocessing(settings, settings.model.backbone.get("in_channels", 3)).shape

    def build_dataset(self, settings: Any) -> Any:
        from mmcls.datasets import build_dataset

        return build_dataset(settings)

    def train(self, *arguments: Any, **named: Any) -> None:
        from mmcls.apis import train_model

        train_model(*arguments, device=arguments[2].device, **named)


class _Segmentation(_Task):
    log_name = "mmseg"
    logits = staticmethod(SegmentorLogits)

    def set_random_seed(self, seed: int) -> None:
        from mmseg.apis import set_random_seed

        set_random_seed(seed)

    def build(self, settings: Any) -> nn.Module:
        from mmseg.models import build_segmentor

        return build_segmentor(settings.model, train_cfg=settings.get("train_cfg"), test_cfg=settings.get("test_cfg"))

    def shape(self, settings: Any) -> tuple[int, int, int]:
        return segmentor_preprocessing(settings).shape

    def build_dataset(self, settings: Any) -> Any:
        from mmseg.datasets import build_dataset

        return build_dataset(settings)

    def train(self, *arguments: Any, **named: Any) -> None:
        from mmseg.apis import train_segmentor

        train_segmentor(*arguments, **named)


_TASKS = {"ImageClassifier": _Classification, "EncoderDecoder": _Segmentation}


def _keep_latest(folder: Path, latest: Path) -> None:
    # mmcv links latest.pth to the last checkpoint: a file of its own survives copying the folder, and clearing the others.
    if latest.is_symlink():
        temporary = latest.with_suffix(".tmp")
        shutil.copyfile(latest, temporary)
        temporary.replace(latest)
    if not latest.exists():
        raise RunError(f"training left no checkpoint in {folder}: set checkpoint_config.interval to at most the number of epochs")
