"""`threepc run` in a terminal: three processes over real sockets."""

import json
import os
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from threepc.cli.main import status
from threepc.cli.run import demonstration

REPOSITORY = Path(__file__).parents[2]
REPORT = {
    "model",
    "ring_bits",
    "frac_bits",
    "relu_spec",
    "images",
    "relus",
    "drelus",
    "seconds",
    "bytes",
    "links",
    "messages_online",
    "peak_rss_mb",
    "layers",
}


@pytest.fixture(scope="module")
def demo(threepc, workplace):
    """What `threepc run` without arguments runs, and its report; it writes a trace as well."""
    done = threepc("run", *demonstration(), "--report", "demo.json", "--trace", "trace.json")
    assert done.end() == 0, done.errors
    return done, json.loads((workplace / "demo.json").read_text())


def test_the_demo_classifies_ten_digits_as_plaintext_does(demo):
    done, report = demo
    rows = [line.split() for line in done.lines if line.startswith("digit_")]
    assert [row[:4] for row in rows] == [[f"digit_{digit}.png", *(str(digit),) * 3] for digit in range(10)]
    assert report["accuracy"] == 1.0 and report["argmax_equal"] is True
    assert report["max_abs_error"] < 0.005 * report["max_abs_plain"]


def test_a_trace_has_three_timelines(demo, workplace):
    assert demo[0].lines[-1] == "wrote demo.json, trace.json"
    events = json.loads((workplace / "trace.json").read_text())["traceEvents"]
    parties = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert sorted(parties.values()) == ["client", "provider", "server"]
    assert {parties[event["pid"]] for event in events if event.get("cat") == "layer"} == set(parties.values())


def test_the_demo_prints_seconds_and_megabytes(demo):
    done, report = demo
    for phase in ("offline", "online", "total"):
        assert f"{report['seconds'][phase]:.2f}" in done.output
        assert f"{report['bytes'][phase] / 1e6:.2f}" in done.output
    assert "Worst difference to plaintext" in done.output
    assert all(f"{link} " in done.output for link in ("client -> server", "server -> client", "provider -> server"))
    assert max(map(len, done.lines)) <= 100


def test_the_report_has_its_stable_names(demo):
    _, report = demo
    assert REPORT | {"max_abs_error", "argmax_equal", "plain_seconds"} <= set(report)
    assert set(report["seconds"]) == {"setup", "offline", "online", "total"} == set(report["bytes"])
    assert set(report["peak_rss_mb"]) == {"client", "server", "provider"}
    assert {"name", "kind", "seconds", "bytes", "messages"} <= set(report["layers"][0])
    assert (report["ring_bits"], report["frac_bits"], report["images"], report["relu_spec"]) == (48, 16, 10, None)
    assert (
        report["bytes"]["total"]
        == report["bytes"]["offline"] + report["bytes"]["online"]
        == sum(layer["bytes"] for layer in report["layers"])
    )


def test_the_demo_costs_what_inspect_predicts(demo, capsys):
    _, report = demo
    config = REPOSITORY / "examples" / "digits" / "resnet18_digits.py"
    inspected = []
    for checkpoint in ((), (config.with_suffix(".pth"),)):
        assert status(["inspect", *map(str, (config, *checkpoint)), "--batch", "10", "--json"]) == 0
        inspected.append(json.loads(capsys.readouterr().out))
    without, predicted = inspected
    assert predicted["bytes"] == report["bytes"]
    assert without["bytes"]["setup"] == report["bytes"]["setup"]
    # weights decide which bits layers compare, and with them bytes
    assert abs(without["bytes"]["total"] / report["bytes"]["total"] - 1) < 0.05
    assert predicted["messages_online"] == report["messages_online"] <= 215
    assert predicted["fingerprint"] == report["fingerprint"]
    assert [layer["bytes"]["total"] for layer in predicted["layers"]] == [layer["bytes"] for layer in report["layers"]]


def test_over_encrypted_tcp_with_batches_and_simulated_network(threepc, workplace, tmp_path):
    np.save(workplace / "three.npy", np.linspace(-2, 2, 720, dtype=np.float32).reshape(3, 3, 8, 10))
    report, output = tmp_path / "sub" / "report.json", tmp_path / "output"
    done = threepc(
        "run",
        "factories:small",
        "--input",
        "one.png",
        "two.png",
        "three.npy",
        "--batch",
        2,
        "--compare",
        "--transport",
        "tcp",
        "--network",
        "lan",
        "--phases",
        "separate",
        "--output",
        output,
        "--report",
        report,
    )
    assert done.end() == 0, done.errors
    assert "the factory's own weights (no checkpoint given)" in done.output
    assert [line.split()[0] for line in done.lines if ".png" in line or ".npy[" in line] == [
        "one.png",
        "two.png",
        "three.npy[0]",
        "three.npy[1]",
        "three.npy[2]",
    ]
    written = json.loads(report.read_text())
    assert written["images"] == 5 and written["max_abs_error"] < 0.005 * written["max_abs_plain"]
    assert np.load(output / "logits.npy").shape == (5, 4)


def test_a_segmentation_is_written_over_the_image(workplace, tmp_path, monkeypatch, capsys):
    """Within this process: the parties are its threads."""
    monkeypatch.chdir(workplace)
    cv2.imwrite("street.png", np.full((30, 20, 3), 200, np.uint8))
    words = ["--input", "street.png", "--output", str(tmp_path), "--compare", "--transport", "memory"]
    assert status(["run", "factories:segmenter", *words]) == 0
    classes = np.load(tmp_path / "street_classes.npy")
    assert classes.shape == (30, 20) and classes.max() < 3
    assert cv2.imread(str(tmp_path / "street_segmentation.png")).shape[0] >= 30
    assert "100.00%" in capsys.readouterr().out


@pytest.mark.parametrize("role", ["client", "provider"])
def test_a_party_that_is_killed_ends_the_run(threepc, monkeypatch, role):
    monkeypatch.setenv("THREEPC_LOG", "INFO")
    run = threepc("run", "factories:small", "--input", *["one.png"] * 100, "--network", "wan", "--timeout", 20)
    run.wait_for("1 image.s. in")
    workers = party_processes(run.process.pid)
    assert set(workers) == {"client", "server", "provider"}
    os.kill(workers[role], signal.SIGKILL)
    assert run.end() == 1
    assert run.errors[-1].startswith("threepc: ") and role in run.errors[-1]
    assert party_processes(run.process.pid) == {}


def test_an_interrupted_run_clears_up(threepc, monkeypatch, tmp_path):
    monkeypatch.setenv("THREEPC_LOG", "INFO")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    run = threepc("run", "factories:small", "--input", *["one.png"] * 100, "--network", "wan", "--timeout", 20)
    run.wait_for("1 image.s. in")
    workers = party_processes(run.process.pid)
    assert len(workers) == 3 and list(tmp_path.glob("threepc-*"))
    assert run.stop(signal.SIGTERM) == 130
    assert run.errors[-1] == "threepc: interrupted"
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers.values()) and not list(tmp_path.glob("threepc-*"))


def test_a_killed_run_leaves_neither_processes_nor_files(threepc, monkeypatch, tmp_path):
    """Nobody can tell the parties of a run that is killed with SIGKILL: they notice, and what was on the disk held no weights."""
    monkeypatch.setenv("THREEPC_LOG", "INFO")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    run = threepc("run", "factories:small", "--input", *["one.png"] * 1000, "--network", "wan", "--timeout", 600)
    run.wait_for("1 image.s. in")
    workers = party_processes(run.process.pid)
    assert len(workers) == 3
    left = [path for folder in tmp_path.glob("threepc-*") for path in folder.iterdir()]
    assert left and all(path.is_socket() for path in left)
    run.process.kill()
    run.process.wait()
    deadline = time.monotonic() + 60
    while (alive := [role for role, worker in workers.items() if is_alive(worker)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive and not list(tmp_path.glob("threepc-*"))


def is_alive(process: int) -> bool:
    """Whether a process is there and is no zombie, which whoever inherits it may leave for a while."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def party_processes(parent: int) -> dict[str, int]:
    """Process ids of a run's parties."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words, status = (folder / "cmdline").read_bytes().split(b"\0"), (folder / "status").read_text()
        except OSError:  # it has just ended
            continue
        if b"threepc.party.worker" in words and f"\nPPid:\t{parent}\n" in status:
            found[words[words.index(b"threepc.party.worker") + 1].decode()] = int(folder.name)
    return found
