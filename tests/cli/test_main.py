"""The command line within this process: what it says, and its exit status."""

import contextlib
import errno
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import threepc
from threepc.cli import main
from threepc.errors import RunError
from threepc.transport.framing import PROTOCOL_VERSION


def test_run_in_threads(config, capsys, tmp_path):
    (tmp_path / "labels.json").write_text(json.dumps({"a.png": "dog", "b.png": 0}))
    arguments = [
        "run",
        config,
        "--input",
        "a.png",
        "b.png",
        "--transport",
        "memory",
        "--compare",
        "--batch",
        "2",
        "--labels",
        "labels.json",
    ]
    assert main.status([*arguments, "--report", "r.json", "--output", "out"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "small, the factory's own weights (no checkpoint given)" in lines
    rows = [line.split() for line in lines if line.startswith(("a.png", "b.png"))]
    assert [row[0] for row in rows] == ["a.png", "b.png"] and rows[0][1:3] == rows[0][3:5] and rows[0][5:7] == ["1", "dog"]
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["accuracy"] == 0.5 and report["argmax_equal"] and report["batch"] == 2
    assert np.load(tmp_path / "out" / "logits.npy").shape == (2, 2)


def test_labels_alone_are_revealed(config, capsys, tmp_path):
    arguments = [
        "run",
        config,
        "--input",
        "a.png",
        "--transport",
        "memory",
        "--reveal",
        "label",
        "--compare",
        "--output",
        ".",
        "--report",
        "r.json",
    ]
    assert main.status(arguments) == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["argmax_equal"] and "max_abs_error" not in report
    assert np.load(tmp_path / "labels.npy").tolist() == [report["results"][0]["label"]]
    assert "difference" not in capsys.readouterr().out


def test_the_32_bit_ring_is_calibrated_with_the_servers_images(config, capsys, tmp_path):
    np.save("real.npy", np.random.default_rng(0).normal(0, 1, (2, 3, 6, 7)))
    arguments = ["run", config, "--input", "a.png", "--transport", "memory", "--ring", "32", "--compare", "--report", "r.json"]
    assert main.status(arguments) == 0
    assert "ranges measured with artificial images (no calibration images given)" in capsys.readouterr().out
    assert main.status([*arguments, "--calibration", "real.npy", "b.png", "--drelu-window", "14:28", "--frac-bits", "10"]) == 0
    assert "artificial" not in capsys.readouterr().out
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["ring_bits"] == 32 and report["frac_bits"] == 10 and report["drelu_window"] == [14, 28]
    assert report["max_abs_error"] < 0.03 * report["max_abs_plain"]
    np.save("real.npy", np.full((1, 3, 6, 7), 1e5))
    assert main.status([*arguments, "--calibration", "real.npy"]) == 2
    assert "do not fit a ring of 32 bits" in capsys.readouterr().err


def test_inspect_predicts_what_a_run_costs(config, capsys, tmp_path):
    assert main.status(["spec", "uniform", "2x2", config, "--output", "spec.json"]) == 0
    assert main.status(["spec", "show", "spec.json", config]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["1", "4", "4x5", "24", "80", "30.00%", "2x2", "x", "4"] in rows
    for ring in ("64", "40"):
        common = [config, "--relu-spec", "spec.json", "--ring", ring, "--batch", "2"]
        assert main.status(["inspect", *common, "--json"]) == 0
        predicted = json.loads(capsys.readouterr().out)
        assert main.status(["run", *common, "--input", "a.png", "b.png", "--transport", "memory", "--report", "r.json"]) == 0
        capsys.readouterr()
        measured = json.loads((tmp_path / "r.json").read_text())
        assert predicted["bytes"] == measured["bytes"]
        assert predicted["links"] == {
            link: {phase: count["bytes"] for phase, count in phases.items()} for link, phases in measured["links"].items()
        }
        assert (predicted["relus"], predicted["drelus"]) == (measured["relus"], measured["drelus"]) == (160, 48)
        assert predicted["messages_online"] == measured["messages_online"]
        assert measured["relu_spec"] == "spec.json"


def test_inspect_prints_a_table(config, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main.status(["inspect", config]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80 and lines[0].split() == [
        "layer",
        "kind",
        "output",
        "DReLUs",
        "offline",
        "online",
        "msgs",
        "largest",
        "room",
    ]
    assert any(line.split()[:3] == ["1", "relu", "4x4x5"] for line in lines)
    assert "weights decide how many bits layers compare: a checkpoint may change bytes" in lines


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["--input", "none.png"], "none.png does not exist"),
        (["--input", "text.png"], "text.png is not an image that OpenCV can read"),
        (["--input", "."], ". is not a file"),
        (["--input", "wide.png"], "wide.png has 8x6 pixels, but the model takes exactly 7x6"),
        (["--input", "wide.npy"], "wide.npy has shape (3, 6, 8), but the model takes (C, H, W) = (3, 6, 7)"),
        (["--input", "nan.npy"], "nan.npy holds NaN"),
        (["--input", "far.npy"], "far.npy: size 20000 does not fit a ring of 48 bits"),
        (["--input", "a.png", "--labels", "none.json"], "none.json does not exist"),
        (["--input", "a.png", "--labels", "labels.json"], "labels.json has no entry 'a.png'"),
        (["--input", "a.png", "--ring", "47"], "'47' is not one of '64', '48', '40', '32', '28', '24': see 'threepc run --help'"),
        (["--input", "a.png", "--drelu-window", "x"], "'x' is not LO:HI"),
        (["--input", "a.png", "--drelu-window", "40:60"], "drelu-window 40:60: must be LO:HI with 0 <= LO < HI <= 46"),
        (["--input", "a.png", "--drelu-window", "2:10"], "drelu-window 2:10: nothing of it is left"),
        (["--input", "a.png", "--size", "0x4"], "'0x4' is not HxW"),
        (["--input", "a.png", "--relu-spec", "none.json"], "cannot read the relu spec none.json"),
        (["--input", "a.png", "--relu-spec", "labels.json"], "labels.json: 'version' is None"),
        (["--input", "a.png", "--report", "."], ". cannot be written"),
        (["--input", "a.png", "--report", "a.png/r.json"], "the folder a.png cannot be made"),
        (["--input", "a.png", "--phases", "separate", "--budget", "0.00001"], "--phases separate needs a --budget of at least 1 MB"),
        (["--input", "a.png", "--network", "lan", "--transport", "memory"], "a simulated network needs processes"),
        (["--input", "a.png", "--links", "server=1G", "--transport", "memory"], "links: a simulated network needs processes"),
        (["--input", "a.png", "--links", "server"], "'server' is not PARTY=RATE or PARTY=UP/DOWN, such as server=1G"),
        ([], "missing option '--input': see 'threepc run --help'"),
    ],
)
def test_bad_input_is_refused(config, refused, arguments, reason):
    Path("text.png").write_text("no image")
    Path("labels.json").write_text("{}")
    cv2.imwrite("wide.png", np.zeros((6, 8, 3), np.uint8))
    np.save("wide.npy", np.zeros((3, 6, 8), np.float32))
    np.save("nan.npy", np.full((3, 6, 7), np.nan))
    np.save("far.npy", np.full((3, 6, 7), 2e4))
    assert reason in refused("run", config, *arguments)


@pytest.mark.parametrize(
    "words, reason",
    [
        (["none.pth"], "checkpoint none.pth does not exist"),
        (["foreign.pth"], "checkpoint foreign.pth is for another model: 4 missing"),
        (["a.png"], "checkpoint a.png is not a PyTorch checkpoint"),
    ],
)
def test_a_checkpoint_of_something_else(config, refused, words, reason):
    torch.save({"other.weight": torch.zeros(3)}, "foreign.pth")
    assert reason in refused("run", config, *words, "--input", "a.png")


def test_a_config_of_something_else(config, refused):
    assert "module '1' uses torch.softmax, which has no secure protocol" in refused("inspect", config.replace("small", "unsupported"))
    assert "has no function nothing" in refused("inspect", config.replace("small", "nothing"))
    assert "unknown config nonsense" in refused("inspect", "nonsense")
    assert "mmcls has no config" in refused("inspect", "mmcls:resnet5")
    assert "config none.py does not exist" in refused("inspect", "none.py")


def test_all_that_stands_in_a_networks_way_is_told_in_a_line_each(config, capsys):
    assert main.status(["inspect", config.replace("small", "sorts")]) == 2
    first, *lines = capsys.readouterr().err.splitlines()
    assert first.startswith("threepc: 4 operations of 2 kinds cannot be computed securely; supported: conv2d")
    where = "which has no secure protocol: 2 times, in module '0', module '1'"
    assert lines == [f"  torch.sort, {where}", f"  torch.cumsum, {where}"]


def test_what_a_network_itself_raises(config, refused):
    said = refused("inspect", config.replace("small", "fails"))
    assert said.startswith("threepc: the network itself fails on a tensor of shape (1, 3, 6, 7): RuntimeError: mat1 and mat2")


def test_wrong_words(refused):
    assert "no such command 'rum'" in refused("rum").lower()
    assert refused("simulate") == "threepc: missing argument 'CONFIG': see 'threepc simulate --help'"
    assert "no such option" in refused("keygen", "--whatever").lower()
    assert "missing option '--deployment'" in refused("provider")


def test_the_version_of_the_program_and_of_the_protocol(capsys):
    assert main.status(["--version"]) == 0
    assert capsys.readouterr().out == f"threepc {threepc.__version__}, protocol version {PROTOCOL_VERSION}\n"


def test_keygen_overwrites_nothing(refused, tmp_path, capsys):
    assert main.status(["keygen", str(tmp_path / "keys")]) == 0
    assert "deployment.yaml" in capsys.readouterr().out
    assert (tmp_path / "keys" / "server.secret").stat().st_mode & 0o777 == 0o600
    assert "exists already and is not overwritten" in refused("keygen", str(tmp_path / "keys"))


def test_keygen_of_bad_words(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "the name of the folder is empty" in refused("keygen", "")
    assert "File name too long: choose another directory" in refused("keygen", "a" * 300)
    assert "is no name of a party" in refused("keygen", "keys", "--party", "a" * 300)
    assert "the address of the server: is 'tcp://h:0': write tcp://HOST:PORT" in refused("keygen", "keys", "--server", "tcp://h:0")
    assert not list(tmp_path.iterdir())


def test_keygen_for_hosts(tmp_path, capsys):
    words = ["--per-host", "--party", "server", "--party", "alice", "--server", "tcp://192.0.2.1:7001"]
    assert main.status(["keygen", str(tmp_path / "keys"), *words]) == 0
    assert capsys.readouterr().out.endswith(f"next: copy each folder in {tmp_path}/keys to its party's host, and there alone\n")
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["alice", "server"]


@pytest.mark.parametrize("name", ["server", "provider"])
def test_a_client_by_the_name_of_another_party(refused, tmp_path, name):
    assert main.status(["keygen", str(tmp_path / "keys")]) == 0
    line = refused("client", "--deployment", str(tmp_path / "keys"), "--name", name, "--input", "a.png")
    assert f"deployment.yaml: the {name} is not a client: name one that 'clients' lists (client)" in line


@pytest.mark.parametrize(
    "error, status, line",
    [
        (RunError("the server is gone"), 1, "threepc: the server is gone"),
        (ZeroDivisionError("division by zero"), 1, "threepc: unexpected ZeroDivisionError: division by zero; --debug shows the traceback"),
        (KeyboardInterrupt(), 130, "threepc: interrupted"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            1,
            "threepc: the disk that standard output or a file goes to is full (No space left on device); make room, and call it again",
        ),
        (
            OSError(errno.EDQUOT, "Disk quota exceeded", "a.npy"),
            1,
            "threepc: the disk of a.npy is full (Disk quota exceeded); make room, and call it again",
        ),
    ],
)
def test_failures_are_one_line_and_with_debug_a_traceback(config, monkeypatch, capsys, error, status, line):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("threepc.tasks.run.load_model", fail)
    monkeypatch.setenv("THREEPC_LOG", "CRITICAL")
    assert main.status(["run", config, "--input", "a.png"]) == status
    assert [shown for shown in capsys.readouterr().err.splitlines() if shown] == [line]  # click ends the line with ^C first
    assert main.status(["run", config, "--input", "a.png", "--debug"]) == status
    shown = capsys.readouterr().err.splitlines()
    assert any(text.startswith("Traceback") for text in shown) and shown[-1] == line


SWALLOWED = """
import ctypes, signal, time
from threepc.cli import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job, as tests may be, ignores it
def command(*_, **__):
    ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(signal.SIGINT))()
    time.sleep(60)

main.threepc.main = command
main.main([])
"""


def test_an_interruption_that_a_callback_swallows_is_sent_again():
    done = subprocess.run(
        [sys.executable, "-c", SWALLOWED], check=False, capture_output=True, text=True, timeout=30, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert (done.returncode, done.stderr) == (130, "threepc: interrupted\n")


def test_what_comes_of_an_interruption_is_told_as_one(config, monkeypatch, capsys):
    """A callback of a C library swallows it, and something fails for want of what the callback should have made."""

    def fail(*_, **__):
        with contextlib.suppress(KeyboardInterrupt):
            main._interrupt(signal.SIGINT, None)
        raise RuntimeError("no compiled object yet")

    monkeypatch.setattr(main, "_interruptions", [])
    monkeypatch.setattr("threepc.tasks.run.load_model", fail)
    assert main.status(["run", config, "--input", "a.png"]) == 130
    assert capsys.readouterr().err == "threepc: interrupted\n"


@pytest.mark.parametrize("command", main.COMMANDS)
def test_every_command_has_help(command, capsys):
    assert main.status([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"Usage: threepc {command}") and max(map(len, shown.splitlines())) <= 110


def test_the_command_line_starts_without_heavy_imports():
    heavy = "{'torch', 'numba', 'numpy', 'zmq', 'rich'}"
    program = f"import sys, threepc.cli.main; threepc.cli.main.status(['--help']); print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert all(f"  {command} " in done.stdout for command in main.COMMANDS)


def test_the_cleartext_twin(config, capsys, tmp_path):
    assert (
        main.status(["simulate", config, "--input", "a.png", "b.png", "--ring", "32", "--seed", "5", "--batch", "2", "--report", "r.json"])
        == 0
    )
    shown = capsys.readouterr().out
    assert "simulated" in shown and "megabytes" not in shown
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["simulated"] and report["max_abs_error"] < 0.01 * report["max_abs_plain"] and "bytes" not in report


def test_every_layer_is_compared(config, capsys):
    assert main.status(["run", config, "--input", "a.png", "--transport", "memory", "--layers"]) == 0
    shown = capsys.readouterr().out
    assert "Every layer computes what its fixed-point arithmetic says." in shown and "Layer that loses most against" in shown
    assert [line.split()[:2] for line in shown.splitlines() if line.startswith(("0 ", "1 ", "4 "))] == [
        ["0", "conv"],
        ["1", "relu"],
        ["4", "conv"],
    ]


def test_a_layer_at_fault_is_named(config, capsys):
    """Scales chosen with images far flatter than the client's: values overflow, `--compare` notices and says where it began."""
    np.save("flat.npy", np.full((1, 3, 6, 7), 1e-3))
    np.save("steep.npy", np.random.default_rng(0).choice([-3.9, 3.9], (1, 3, 6, 7)))
    arguments = ["run", config, "--input", "steep.npy", "--transport", "memory", "--compare", "--ring", "32", "--calibration", "flat.npy"]
    assert main.status([*arguments, "--frac-bits", "14", "--out-of-range", "warn"]) == 0
    shown = capsys.readouterr().out
    (name,) = re.findall(r"First layer that differs by more than its rounding: (\w+) \(all such layers: \*\)", shown)
    assert f"\n* {name} " in shown


def test_a_debug_seed_fixes_every_bit(config, capsys, refused, tmp_path):
    assert "--debug-seed: only within one process" in refused("run", config, "--input", "a.png", "--debug-seed", "7")
    assert "a simulated network needs processes" in refused(
        "run", config, "--input", "a.png", "--debug-seed", "7", "--transport", "memory", "--network", "lan"
    )
    for folder, seed in (("one", "7"), ("two", "7"), ("other", "8")):
        assert main.status(["run", config, "--input", "a.png", "--debug-seed", seed, "--transport", "memory", "--output", folder]) == 0
        captured = capsys.readouterr()
        assert "NOT PRIVATE" in captured.err and "not private" in captured.out
    one, two, other = ((tmp_path / folder / "logits.npy").read_bytes() for folder in ("one", "two", "other"))
    assert one == two != other


def test_the_doctor_says_a_line_for_each_thing(capsys, tmp_path):
    assert main.status(["doctor", "--deployment", str(tmp_path / "nowhere"), "--json"]) == 1
    captured = capsys.readouterr()
    findings = json.loads(captured.out)
    assert all(finding.keys() == {"what", "state", "found", "todo"} for finding in findings)
    assert captured.err.splitlines()[-1] == "threepc: wrong: deployment"
    assert main.status(["doctor"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:4]] == ["Python", "packages"]
