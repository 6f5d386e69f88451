"""The distortion of every candidate patch of every ReLU channel, measured exactly or estimated, resumable and in parallel.

`measure` splits the work into parts of many passes each, hands them to joblib (loky, or Dask or Ray where workers share the folder),
and every worker writes its part itself: whatever is done is kept.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from joblib.externals.loky import get_reusable_executor
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from scipy.stats import spearmanr

from threepc.console import Display
from threepc.errors import InputError
from threepc.files import write_atomically
from threepc.graph.ir import Graph, Node, Weights
from threepc.graph.relu_spec import decisions, patch_counts, relu_nodes
from threepc.reduction import store
from threepc.reduction.candidates import candidates
from threepc.reduction.estimator import estimated_distortion
from threepc.reduction.exact import channel_distortion
from threepc.reduction.store import Distortion
from threepc.reduction.suffix import Suffix, TorchGraph, macs, suffix_macs

# Passes of the whole network that a part should be worth, so that computing its prefix anew weighs little.
PASSES_PER_PART = 40
# Bytes of activations held for the images that are worked on at once; on a GPU a share of its memory.
CPU_BYTES, GPU_SHARE = 1 << 30, 0.4
CHECK_PATCHES = 12
METHODS = ("exact", "estimate")


@dataclass(frozen=True)
class _Part:
    """Some channels of one ReLU, each with the indices of the candidates to measure; `cost` in whole passes of one image."""

    name: str
    layer: int
    work: tuple[tuple[int, tuple[int, ...]], ...]
    cost: float


@dataclass(frozen=True)
class _Setting:
    """What a worker needs to know apart from its part. `run` tells runs in one folder apart, one removed before the next."""

    folder: str
    run: str
    device: str
    tf32: bool


def measure(  # noqa: PLR0913 - each is an option of `threepc distortion`, given by name
    graph: Graph,
    weights: Weights,
    images: np.ndarray,
    folder: str | Path,
    *,
    model: str = "",
    method: str = "exact",
    jobs: int = 1,
    backend: str = "loky",
    scheduler: str | None = None,
    device: str = "cpu",
    tf32: bool = False,
    skip_dominated: float | None = None,
    check: int = 2,
    progress: bool = True,
) -> Distortion:
    """Measure or estimate what each candidate patch, put alone into one channel of one ReLU, does to the network's output.

    The distortion is the mean squared difference of the output over outputs and images. Candidates come from
    `candidates(height, width)` for each ReLU's map.

    Parameters: `images` (S, C, H, W) float32, preprocessed; `folder` keeps the run: called again with the same arguments it goes on
    where it stopped, and returns at once when done. `method` "exact", or "estimate", which also measures `check` channels of each
    layer (12 candidates each) exactly, scales each layer's estimate to them and reports the rank correlation. `jobs` processes of
    `backend` "loky", "dask" or "ray" (with `scheduler`, its address; workers must see `folder`). `device` "cpu" or "cuda"; `tf32`
    allows its shorter products. `skip_dominated` F, exact only: leave out candidates whose estimate is F times that of another one
    which costs no more.

    Raises InputError for unsuitable images, no ReLU, a backend that is not there, a folder of another run; RunError for a full disk.
    """
    _check(graph, images, method, skip_dominated, jobs, device)
    workers = _Workers(jobs, backend, scheduler)
    layers, path = list(relu_nodes(graph)), Path(folder)
    patches = [candidates(*node.shape[1:]) for node in layers]
    kinds = zip(layers, patches, strict=True)
    chosen = {"method": method, "tf32": tf32, "skip_dominated": skip_dominated, "check": check}
    manifest: dict[str, Any] = (
        {"version": store.VERSION, "model": model, "graph": graph.fingerprint()}
        | chosen
        | {
            "weights": store.content_hash(*(weights[name][key] for name in sorted(weights) for key in ("weight", "bias"))),
            "images": {"count": len(images), "sha256": store.content_hash(images)},
            "layers": [{"name": n.name, "kind": n.kind, "shape": list(n.shape), "patches": found.tolist()} for n, found in kinds],
        }
    )
    store.open_folder(path, manifest)
    write_atomically(path / "graph.json", graph.to_json().encode())
    if (path / "distortion.npz").exists():
        return store.load(path)
    if not (path / "inputs.npz").exists():
        arrays = {f"{key} {name}": value[key] for name, value in weights.items() for key in value}
        store.write_arrays(path / "inputs.npz", arrays | {"images": images})
    setting = _Setting(str(path.absolute()), f"{manifest['weights']} {manifest['images']['sha256']}", device, tf32)
    run = _Run(setting, graph, layers, patches, len(images), workers, progress)
    result = run.estimate(check) if method == "estimate" else run.exact(skip_dominated)
    store.write_arrays(path / "distortion.npz", result | {"power": np.array(_power(setting))})
    (path / "inputs.npz").unlink(missing_ok=True)
    _inputs.cache_clear()
    _suffix.cache_clear()
    return store.load(path)


def _check(graph: Graph, images: np.ndarray, method: str, skip_dominated: float | None, jobs: int, device: str) -> None:
    if method not in METHODS:
        raise InputError(f"unknown method '{method}' (known: {', '.join(METHODS)})")
    if images.ndim != 4 or len(images) == 0:
        raise InputError("the distortion needs at least one image: the dataset is empty")
    if images.shape[1:] != graph.input.shape or images.dtype != np.float32:
        raise InputError(f"images are {images.dtype} {images.shape[1:]}, the network takes float32 {graph.input.shape}")
    if not np.isfinite(images).all():
        raise InputError("an image holds values that are not finite")
    if skip_dominated is not None and (method != "exact" or not skip_dominated >= 1):
        raise InputError("skip-dominated is a factor of at least 1, for the exact method")
    if jobs < 1:
        raise InputError(f"{jobs} jobs: at least one is needed")
    if device.partition(":")[0] not in ("cpu", "cuda") or (device != "cpu" and not torch.cuda.is_available()):
        raise InputError(f"device '{device}' is not at hand (cpu, or cuda where there is a GPU)")
    if next(relu_nodes(graph), None) is None:
        raise InputError("this network has no ReLU")


@dataclass(frozen=True)
class _Workers:
    """Processes of one of joblib's backends."""

    jobs: int
    backend: str
    scheduler: str | None

    def __post_init__(self) -> None:
        needed = {"loky": "joblib", "dask": "distributed", "ray": "ray"}.get(self.backend)
        if needed is None:
            raise InputError(f"unknown backend '{self.backend}' (known: loky, dask, ray)")
        if importlib.util.find_spec(needed) is None:
            raise InputError(f"the backend {self.backend} is not installed ({needed} is missing)")

    @contextmanager
    def backend_ready(self) -> Iterator[None]:
        with ExitStack() as stack:
            if self.backend == "dask":
                from distributed import Client

                stack.enter_context(Client(self.scheduler) if self.scheduler else Client(n_workers=self.jobs, threads_per_worker=1))
            elif self.backend == "ray":
                import ray
                from ray.util.joblib import register_ray

                ray.init(address=self.scheduler, ignore_reinit_error=True)
                stack.callback(ray.shutdown)
                register_ray()
            stack.enter_context(joblib.parallel_config(backend=self.backend, n_jobs=self.jobs))
            try:
                yield
            except BaseException:  # loky's processes would outlive this one for a while
                if self.backend == "loky":
                    get_reusable_executor().shutdown(kill_workers=True)
                raise

    def run(self, tasks: list[Any]) -> Iterator[float]:
        """The results of joblib.delayed tasks as they end."""
        if not tasks:
            return
        with self.backend_ready():
            if joblib.Parallel()._backend.supports_return_generator:
                yield from joblib.Parallel(return_as="generator_unordered", batch_size=1)(tasks)
                return
            wave = 8 * self.jobs
            for start in range(0, len(tasks), wave):
                yield from joblib.Parallel(batch_size=1)(tasks[start : start + wave])


@dataclass(frozen=True)
class _Run:
    """One call of `measure`: plans parts, has the missing ones done, puts them together."""

    setting: _Setting
    graph: Graph
    layers: list[Node]
    patches: list[np.ndarray]
    samples: int
    workers: _Workers
    progress: bool

    def exact(self, skip_dominated: float | None) -> dict[str, np.ndarray]:
        wanted = [np.ones((node.shape[0], len(found)), dtype=bool) for node, found in zip(self.layers, self.patches, strict=True)]
        if skip_dominated is not None:
            wanted = self._not_dominated(skip_dominated)
        return self._result(self._measured("exact", wanted), math.nan)

    def _not_dominated(self, factor: float) -> list[np.ndarray]:
        # Kept in a file: parts are cut by it, and an estimate repeated on another device may differ in its last digits.
        file = self._file("wanted")
        arrays = store.read_arrays(file)
        if arrays is None:
            masks = [
                ~dominated(decisions(node.kind) * patch_counts(found, *node.shape[1:]), values, factor)
                for node, found, values in zip(self.layers, self.patches, self._estimate(), strict=True)
            ]
            arrays = {f"layer{index}": mask for index, mask in enumerate(masks)}
            store.write_arrays(file, arrays)
        return [arrays[f"layer{index}"] for index in range(len(self.layers))]

    def estimate(self, check: int) -> dict[str, np.ndarray]:
        wanted = []
        for node, found in zip(self.layers, self.patches, strict=True):
            mask = np.zeros((node.shape[0], len(found)), dtype=bool)
            channels, some = (
                np.unique(np.linspace(0, size - 1, count + 2)[1:-1].round().astype(int))
                for size, count in ((node.shape[0], check), (len(found), CHECK_PATCHES))
            )
            mask[np.ix_(channels, some)] = True
            mask[:, 0] = False
            wanted.append(mask)
        estimate, measured = self._estimate(), self._measured("check", wanted)
        pairs = [(guess[mask], truth[mask]) for guess, truth, mask in zip(estimate, measured, wanted, strict=True)]
        guesses, truths = (np.concatenate(column) for column in zip(*pairs, strict=True))
        constant = len(truths) < 2 or not np.ptp(guesses) or not np.ptp(truths)
        correlation = math.nan if constant else float(spearmanr(guesses, truths).statistic)
        return self._result([values * scale(*pair) for values, pair in zip(estimate, pairs, strict=True)], correlation)

    def _result(self, distortion: list[np.ndarray], correlation: float) -> dict[str, np.ndarray]:
        return {f"layer{index}": values for index, values in enumerate(distortion)} | {"rank_correlation": np.array(correlation)}

    def _estimate(self) -> list[np.ndarray]:
        # Few images at a time, so that little is lost when a run stops; the gradients kept are some sixteen copies of every map.
        step = max(1, min(8, self._memory() // (16 * self._map_bytes)))
        parts = [
            (f"estimate-{start:06d}-{min(start + step, self.samples):06d}", (start, min(start + step, self.samples)))
            for start in range(0, self.samples, step)
        ]
        tasks = [(name, joblib.delayed(_run_estimate)(self.setting, name, images), float(images[1] - images[0])) for name, images in parts]
        self._finish("estimating", tasks)
        arrays = [self._read(name) for name, _ in parts]
        return [np.sum([part[f"layer{index}"] for part in arrays], axis=0) / self.samples for index in range(len(self.layers))]

    def _measured(self, stage: str, wanted: list[np.ndarray]) -> list[np.ndarray]:
        total = max(1, sum(macs(self.graph, node) for node in self.graph.nodes))
        parts = []
        for layer, (node, mask) in enumerate(zip(self.layers, wanted, strict=True)):
            share = suffix_macs(self.graph, node.name) / total + 0.01  # the latter for what is no convolution
            parts += _parts(stage, layer, mask, share)
        at_once = [self._images_at_once(node) for node in self.layers]
        tasks = [(part.name, joblib.delayed(_run_part)(self.setting, part, at_once[part.layer]), part.cost) for part in parts]
        self._finish("measuring", tasks)
        distortion = [np.full(mask.shape, np.nan) for mask in wanted]
        for values in distortion:
            values[:, 0] = 0.0
        for part in parts:
            values = self._read(part.name)["errors"] / self.samples
            for (channel, some), row in zip(part.work, np.split(values, np.cumsum([len(some) for _, some in part.work])[:-1]), strict=True):
                distortion[part.layer][channel, list(some)] = row
        return distortion

    @property
    def _map_bytes(self) -> int:
        """One image's activations, every node's."""
        return 4 * sum(math.prod(node.shape) for node in self.graph.nodes)

    def _memory(self) -> int:
        device = self.setting.device
        return CPU_BYTES if device == "cpu" else int(GPU_SHARE * torch.cuda.get_device_properties(device).total_memory)

    def _images_at_once(self, relu: Node) -> int:
        """Images whose unchanged activations (in two layouts) and one channel's results of all candidates (with their hashes) fit."""
        results = 32 * math.prod(relu.shape[1:]) * len(candidates(*relu.shape[1:]))
        return max(1, min(self.samples, self._memory() // (2 * self._map_bytes + results)))

    def _file(self, name: str) -> Path:
        return Path(self.setting.folder, "parts", f"{name}.npz")

    def _read(self, name: str) -> dict[str, np.ndarray]:
        arrays = store.read_arrays(self._file(name))
        if arrays is None:
            raise InputError(f"{self._file(name)} disappeared or is damaged: remove it and run the command again")
        return arrays

    def _finish(self, label: str, tasks: list[tuple[str, Any, float]]) -> None:
        missing = [(name, task, cost) for name, task, cost in tasks if store.read_arrays(self._file(name)) is None]
        done = sum(cost for _, _, cost in tasks) - sum(cost for _, _, cost in missing)
        # Parts differ in length, so the bar counts what they cost; only then is the time left worth anything.
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:5.1f} %, time left"), TimeRemainingColumn())
        console, total = Console(stderr=True), sum(cost for _, _, cost in tasks)
        in_lines = Display(console).stage(label) if self.progress and not console.is_terminal else nullcontext(lambda _: None)
        in_bar = Progress(*columns, console=console, speed_estimate_period=600, disable=not self.progress or not console.is_terminal)
        with in_lines as tell, in_bar as bar:
            task = bar.add_task(label, total=total, completed=round(done))
            for cost in self.workers.run([task for _, task, _ in missing]):
                done += cost
                bar.advance(task, cost)
                tell(f"{done / total:.1%}")


def _parts(stage: str, layer: int, mask: np.ndarray, share: float) -> list[_Part]:
    parts: list[_Part] = []
    work: list[tuple[int, tuple[int, ...]]] = []
    cost = 0.0

    def close() -> None:
        parts.append(_Part(f"{stage}-{layer:04d}-{work[0][0]:05d}", layer, tuple(work), cost))

    for channel in np.flatnonzero(mask[:, 1:].any(axis=1)).tolist():
        some = tuple((np.flatnonzero(mask[channel, 1:]) + 1).tolist())
        work.append((channel, some))
        cost += share * len(some)
        if cost >= PASSES_PER_PART:
            close()
            work, cost = [], 0.0
    if work:
        close()
    return parts


def dominated(costs: np.ndarray, estimate: np.ndarray, factor: float) -> np.ndarray:
    """Candidates, (C, K), whose estimated distortion is more than `factor` times that of another one which costs no more."""
    cheapest = np.where(costs[None, :] <= costs[:, None], 0.0, np.inf)
    best = np.stack([(row + cheapest).min(axis=1) for row in estimate])
    return estimate > factor * best


def scale(guess: np.ndarray, truth: np.ndarray) -> float:
    """The factor (geometric mean of the ratios) that brings a layer's estimates to what was measured; 1 where nothing can be said."""
    usable = (guess > 0) & (truth > 0)
    return float(np.exp(np.log(truth[usable] / guess[usable]).mean())) if usable.any() else 1.0


@functools.lru_cache(maxsize=1)
def _inputs(setting: _Setting) -> tuple[TorchGraph, torch.Tensor, tuple[np.ndarray, ...]]:
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = setting.tf32
    arrays = store.read_arrays(Path(setting.folder, "inputs.npz"))
    if arrays is None:
        raise InputError(f"{setting.folder}/inputs.npz cannot be read: workers must see the run's folder")
    graph = store.read_graph(Path(setting.folder))
    images = torch.from_numpy(arrays.pop("images")).to(setting.device)
    weights: Weights = {}
    for key, value in arrays.items():
        kind, _, name = key.partition(" ")
        weights.setdefault(name, {})[kind] = value
    return TorchGraph(graph, weights, setting.device), images, tuple(candidates(*node.shape[1:]) for node in relu_nodes(graph))


@functools.lru_cache(maxsize=1)
def _suffix(setting: _Setting, layer: int, start: int, stop: int) -> Suffix:
    network, images, _ = _inputs(setting)
    return Suffix(network, list(relu_nodes(network.graph))[layer].name, images[start:stop])


def _run_part(setting: _Setting, part: _Part, at_once: int) -> float:
    _, images, patches = _inputs(setting)
    errors = [np.zeros(len(some)) for _, some in part.work]
    with torch.no_grad():
        for start in range(0, len(images), at_once):
            suffix = _suffix(setting, part.layer, start, min(start + at_once, len(images)))
            for index, (channel, some) in enumerate(part.work):
                errors[index] += channel_distortion(suffix, channel, patches[part.layer][list(some)])
    store.write_arrays(Path(setting.folder, "parts", f"{part.name}.npz"), {"errors": np.concatenate(errors)})
    return part.cost


def _run_estimate(setting: _Setting, name: str, images: tuple[int, int]) -> float:
    network, everything, patches = _inputs(setting)
    by_name = dict(zip((node.name for node in relu_nodes(network.graph)), patches, strict=True))
    sums = estimated_distortion(network, everything[slice(*images)], by_name)
    layers = {f"layer{index}": values for index, values in enumerate(sums.values())}
    store.write_arrays(Path(setting.folder, "parts", f"{name}.npz"), layers)
    return images[1] - images[0]


def _power(setting: _Setting) -> float:
    """Mean square of the network's output over the images."""
    network, images, _ = _inputs(setting)
    name = network.graph.output.name
    with torch.no_grad():
        squares = [network.forward(image[None], {name})[name].double().square().mean().item() for image in images]
    return float(np.mean(squares))
