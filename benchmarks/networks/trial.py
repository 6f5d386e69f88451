"""One network: imported, and run by three parties in one process against plaintext PyTorch. `python -m benchmarks.networks.trial` is the child.

The child prints a JSON object for each stage as soon as it is done, so that what a crash or a time limit cuts off is the rest alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.networks.catalogue import Candidate
from benchmarks.store import Entry
from threepc.api import local
from threepc.errors import ThreepcError
from threepc.graph.importer import import_module
from threepc.model.load import LoadedModel, load_model
from threepc.plan.calibration import default_images

CALIBRATION_IMAGES = 6
"""Artificial ones; the image that is run is another one."""
PRECISION = {48: 0.005, 32: 0.03}
"""What part of the largest logit a result may be off, by ring: classes whose margin is smaller may change."""


def run(candidate: Candidate, rings: tuple[int, ...], limit: float) -> Entry:
    """Try a network in a process of its own. rings: bits. limit: seconds for all of it.

    Gives what the child has told: `input`, `outputs`, `relus`; for each ring an entry under "48" and the like; `refused` lines where it
    does not import; `failed`, in a line, where the child died or ran out of time.
    """
    command = [sys.executable, "-m", "benchmarks.networks.trial", candidate.config, str(candidate.side or 0), *map(str, rings)]
    entry: Entry = {"case": candidate.config}
    with tempfile.TemporaryFile("w+") as errors:
        try:
            told = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, text=True, timeout=limit, check=False)
            output, failure = told.stdout, f"exit status {told.returncode}" if told.returncode else ""
        except subprocess.TimeoutExpired as error:
            output, failure = (error.stdout or b"").decode(), f"not done in {limit:g} s"
        errors.seek(0)
        last = (errors.read().strip().splitlines() or [""])[-1]
    for line in output.splitlines():
        if line.startswith("{"):
            entry |= json.loads(line)
    return entry | ({"failed": f"{failure}: {last[:300]}".rstrip(": ")} if failure else {})


def attempt(candidate: Candidate, rings: tuple[int, ...], tell: Callable[[Entry], None]) -> None:
    """All stages of one network, in this process. Raises whatever it raises but what threepc refuses."""
    with ExitStack() as stack:
        began = time.perf_counter()
        try:
            loaded = stack.enter_context(_loaded(candidate))
            _, weights = import_module(loaded.module, torch.zeros(loaded.example_shape))
        except ThreepcError as error:
            tell({"refused": getattr(error, "lines", (str(error),))})
            return
        parameters = sum(part.size for arrays in weights.values() for part in arrays.values())
        tell({"input": list(loaded.example_shape[1:]), "parameters": parameters, "import_seconds": time.perf_counter() - began})
        images = default_images(loaded.preprocessing, CALIBRATION_IMAGES + 1, seed=1)
        for ring in rings:
            try:
                tell({str(ring): _secure(loaded, images, ring)})
            except ThreepcError as error:
                tell({str(ring): {"refused": getattr(error, "lines", (str(error),))}})


def _secure(loaded: LoadedModel, images: np.ndarray, ring: int) -> Entry:
    calibration, image = torch.from_numpy(images[1:]), torch.from_numpy(images[:1])
    with torch.no_grad():
        plain = _flat(loaded.module(image))
    with ExitStack() as stack:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            secure = stack.enter_context(
                local(loaded.module, image, ring=ring, transport="memory", calibration=calibration, out_of_range="warn", allow_error=True)
            )
        outputs = _flat(secure(image))
        seconds = [secure.report["seconds"]["total"]]
        if seconds[0] < 20:
            secure(image)
            seconds.append(secure.report["seconds"]["total"])
        report = secure.report
    errors = [float((ours - theirs).abs().max() / theirs.abs().max()) for ours, theirs in zip(outputs, plain, strict=True)]
    return {
        "error": max(errors),
        "told": any("results will be off" in str(warning.message) for warning in told),
        "argmax": min(_agreement(ours, theirs, PRECISION[ring]) for ours, theirs in zip(outputs, plain, strict=True)),
        "largest": max(float(each.abs().max()) for each in plain),
        "seconds": min(seconds),
        "bytes": report["bytes"]["total"],
        "messages": report["messages_online"],
        "relus": report["relus"],
    }


def _flat(outputs: Any) -> list[torch.Tensor]:
    """The tensors of a structure, in order."""
    if isinstance(outputs, torch.Tensor):
        return [outputs.double()]
    return [each for part in (outputs.values() if isinstance(outputs, dict) else outputs) for each in _flat(part)]


def _agreement(ours: torch.Tensor, theirs: torch.Tensor, precision: float) -> float:
    """The part of the places whose two largest logits differ by more than the precision, in plaintext, that get plaintext's class."""
    if theirs.dim() < 2 or theirs.shape[1] < 2:
        return 1.0
    best = theirs.topk(2, dim=1).values
    clear = best[:, 0] - best[:, 1] > precision * theirs.abs().max()
    return float((ours.argmax(1) == theirs.argmax(1))[clear].double().mean()) if clear.any() else 1.0


@contextmanager
def _loaded(candidate: Candidate) -> Iterator[LoadedModel]:
    """The network with seeded random weights; of "onnx:CONFIG@OPSET", CONFIG's network by way of an ONNX file of that opset."""
    size = None if candidate.side is None else (candidate.side,) * 2
    if candidate.source != "onnx":
        yield load_model(candidate.config, size=size)
        return
    config, _, opset = candidate.title.rpartition("@")
    original = load_model(config, size=size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(original.module, (torch.zeros(original.example_shape),), str(path), dynamo=False, opset_version=int(opset))
        path.with_suffix(".card.json").write_text(replace(original.card, name=candidate.config).to_json())
        yield load_model(str(path))


if __name__ == "__main__":
    torch.set_num_threads(1)
    attempt(
        Candidate(sys.argv[1], int(sys.argv[2]) or None), tuple(map(int, sys.argv[3:])), lambda entry: print(json.dumps(entry), flush=True)
    )
