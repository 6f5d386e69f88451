"""Bad input is answered before anything is started: one line that says what is wrong, exit status 2, and nothing made."""

import errno
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from threepc.cli import main

RUN = ["run", "{config}", "--input", "a.png", "--transport", "memory"]


def everything(folder: Path) -> dict[str, bytes | None]:
    """The files of a folder with their contents, and what else is in it."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*") if "__pycache__" not in path.parts}


@pytest.mark.parametrize(
    "arguments, reason",
    [
        ([*RUN, "--budget", "nan"], "'nan' is not a number"),
        ([*RUN, "--budget", "inf"], "'--budget': inf is not in the range 0<x<=1000000.0"),
        ([*RUN, "--budget", "1e300"], "'--budget': 1e+300 is not in the range"),
        ([*RUN, "--timeout", "nan"], "'nan' is not a number"),
        ([*RUN, "--timeout", "inf"], "'--timeout': inf is not in the range"),
        ([*RUN, "--report", "pipe"], "pipe cannot be written"),
        ([*RUN, "--report", "new/deeper/r.json", "--labels", "none.json"], "none.json"),
        ([*RUN, "--output", "new", "--relu-spec", "none.json"], "none.json"),
        ([*RUN, "--output", "a.png/out"], "the folder a.png/out cannot be made: "),
        ([*RUN, "--report", "x" * 300], "cannot be written: File name too long"),
        (["evaluate", "{config}", "--results", "new", "--images", "0"], "'0' is neither a number of images from 1 on nor 'all'"),
        (["evaluate", "{config}", "--results", "new"], "small names no dataset"),
        (["spec", "uniform", "999x999", "{config}", "--output", "new/s.json"], "larger than every map of this network: at most 4x5"),
        (["spec", "uniform", "5x6", "{config}", "--output", "new/s.json"], "the patch 5x6 is larger than every map of this network"),
        (["spec", "uniform", "2x2", "{config}", "--output", "pipe"], "pipe cannot be written"),
        (["run", "https://a.b/net.onnx", "--input", "a.png"], "https://a.b/net.onnx is an address on the net; threepc downloads nothing"),
        (["run", "{config}", "https://a.b/net.pth", "--input", "a.png"], "https://a.b/net.pth is an address on the net"),
        (["run", "{config}", "--input", "https://a.b/a.png"], "https://a.b/a.png is an address on the net"),
        (["knapsack", "none", "--output", "new/s.json", "--ratio", "nan"], "'nan' is not a number"),
        (["knapsack", "none", "--output", "new/s.json", "--ratio", "0.5"], "none is no folder of a distortion run"),
        (["distortion", "{config}", "--output", "new", "--input", "a.png", "--backend", "ray"], "the backend ray is not installed"),
        (["distortion", "{config}", "--output", "new", "--input", "a.png", "--skip-dominated", "inf"], "inf is not in the range"),
        (
            ["report", "--run", "one.json", "--output", "new/page.html"],
            "one.json is no report of threepc run or evaluate: it has no 'model'",
        ),
        (
            ["report", "--run", "odd.json", "--output", "new/page.html"],
            "odd.json is no report of threepc run or evaluate: its 'images' is 'x'",
        ),
        (["report", "--run", "none.json", "--output", "new/page.html"], "none.json"),
        (["report", "--output", "new/page.html"], "a report needs at least one relu spec, run report or distortion folder"),
        (["bench", "--only", "growth", "--case", "nope", "--output", "new"], "--case nope: no case of growth has that in its name"),
    ],
)
def test_one_line_and_nothing_made(config, refused, tmp_path, arguments, reason):
    os.mkfifo("pipe")
    Path("one.json").write_text('{"a": 1}')
    Path("odd.json").write_text('{"model": "m", "images": "x"}')
    before = everything(tmp_path)
    assert reason in refused(*(word.format(config=config) for word in arguments))
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    "code, reason",
    [
        ("def net(): raise RuntimeError('one line\\nand another')", "the factory net raised RuntimeError: one line and another"),
        ("import sys\ndef net(): sys.exit(3)", "the factory net raised SystemExit: 3"),
        ("raise SystemExit(7)", "cannot be imported: SystemExit: 7"),
        ("raise ValueError('one\\ntwo')", "cannot be imported: ValueError: one two"),
    ],
)
def test_a_factory_that_raises(config, refused, tmp_path, code, reason):
    name = f"raising_{tmp_path.name}"
    Path(f"{name}.py").write_text(code)
    assert reason in refused("inspect", f"{name}:net")


def test_a_config_that_ends_the_program(refused, tmp_path):
    (tmp_path / "ending.py").write_text("raise SystemExit(7)")
    assert "cannot be read: SystemExit: 7" in refused("inspect", str(tmp_path / "ending.py"))


def test_a_disk_without_room_is_noticed_before(config, refused, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    before = everything(tmp_path)
    assert "new/r.json cannot be written: the disk has no room left" in refused("run", config, "--input", "a.png", "--report", "new/r.json")
    assert everything(tmp_path) == before


def test_a_disk_that_is_full_at_the_end_is_a_failed_run(config, capsys, tmp_path, monkeypatch):
    def full(self, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", full)
    assert main.status(["run", config, "--input", "a.png", "--transport", "memory", "--report", "r.json"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "threepc: cannot write r.json: No space left on device"
    assert not [path for path in tmp_path.iterdir() if "r.json" in path.name]


def test_a_report_on_what_evaluate_writes(config, capsys, tmp_path):
    """What is refused above is no more than what neither command writes."""
    for name, words in (("run", []), ("simulate", [])):
        arguments = [name, config, "--input", "a.png", *(["--transport", "memory"] if name == "run" else []), *words]
        assert main.status([*arguments, "--report", f"{name}.json"]) == 0
    assert main.status(["report", "--run", "run.json", "simulate.json", "--output", "page.html"]) == 0
    assert json.loads((tmp_path / "run.json").read_text())["model"] in (tmp_path / "page.html").read_text()
