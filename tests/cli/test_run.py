"""`threepc run` alone, what programs read, and what a shell completes."""

import json
import subprocess
import sys
from pathlib import Path

from threepc.cli import main
from threepc.cli.run import demonstration


def test_run_alone_is_the_demonstration(refused, monkeypatch, tmp_path):
    words = demonstration()
    images = words[3 : words.index("--labels")]
    labels = json.loads(Path(words[words.index("--labels") + 1]).read_text())
    assert sorted(Path(image).name for image in images) == sorted(labels) and all(Path(word).exists() for word in (*words[:2], *images))
    asked = []
    monkeypatch.setattr("threepc.cli.run._show", lambda *_: None)
    monkeypatch.setattr("threepc.tasks.run.run", lambda options, _: asked.append(options))
    assert main.status(["run"]) == 0
    assert list(map(str, asked[0].images)) == images and asked[0].compare and asked[0].batch == 10
    monkeypatch.setattr("threepc.cli.run.demonstration", lambda: demonstration(tmp_path))
    assert "the demonstration is not installed with threepc" in refused("run")


def test_json_is_all_that_standard_output_has(config, capsys, tmp_path):
    for command, way in (("run", ["--transport", "memory", "--compare"]), ("simulate", [])):
        assert main.status([command, config, "--input", "a.png", *way, "--json", "--report", "r.json"]) == 0
        captured = capsys.readouterr()
        assert json.loads(captured.out) == json.loads((tmp_path / "r.json").read_text())
        assert "ReLUs an image" in captured.err
    talks = config.replace(":small", ":talks")
    for command, said in (
        (["run", talks, "--input", "a.png", "--transport", "memory", "--compare"], "here I am"),
        (["inspect", talks], "I am made"),
    ):
        assert main.status([*command, "--json"]) == 0
        captured = capsys.readouterr()
        assert json.loads(captured.out)["model"] == "small" and f"{said}\n" in captured.err
    assert main.status(["spec", "uniform", "2x2", config, "--output", "spec.json"]) == 0
    capsys.readouterr()
    assert main.status(["spec", "show", "spec.json", config, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["layer"] == "1"


def test_clients_as_json(capsys, tmp_path):
    assert main.status(["keygen", str(tmp_path / "keys")]) == 0
    capsys.readouterr()
    assert main.status(["clients", "list", "--deployment", str(tmp_path / "keys"), "--json"]) == 0
    (fact,) = json.loads(capsys.readouterr().out)
    public = (tmp_path / "keys" / "client.public").read_text().strip()
    assert fact == {"name": "client", "public_key": public, "limit": None, "images": {}}


def test_a_shell_completes_commands_and_options():
    environment = {"PYTHONPATH": ":".join(sys.path), "_THREEPC_COMPLETE": "bash_complete"}
    for words, wanted in (
        ("threepc re", {"plain,report", "plain,report-run"}),
        ("threepc doctor --d", {"plain,--deployment", "plain,--debug"}),
    ):
        environment |= {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        done = subprocess.run([sys.executable, "-m", "threepc"], capture_output=True, text=True, check=False, env=environment)
        assert set(done.stdout.split()) == wanted


def test_results_that_nobody_should_rely_on_are_refused_before_any_party_starts(config, refused, monkeypatch, capsys):
    monkeypatch.setattr("threepc.plan.error.REFUSED", -1.0)
    monkeypatch.setattr("threepc.plan.error.Expected.exceeds", lambda *_: True)
    assert "--allow-error" in refused("run", config, "--input", "a.png", "--transport", "memory")
    capsys.readouterr()
    assert main.status(["inspect", config]) == 0 and "run and server refuse this" in capsys.readouterr().out
    for words in (["run", "--transport", "memory", "--allow-error"], ["simulate"]):
        assert main.status([words[0], config, "--input", "a.png", *words[1:]]) == 0
        assert "results will be off by" in capsys.readouterr().err
