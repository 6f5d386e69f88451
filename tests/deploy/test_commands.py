"""What documents, units, images and manifests tell people and machines to run exists: commands, options, files, targets."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from threepc.cli import main

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNITS = sorted(DEPLOY.glob("systemd/*.service"))
MANIFESTS = sorted(DEPLOY.glob("kubernetes/*.yaml"))
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()


OBSERVE = 9464
"""The port of the pages for probes and for Prometheus."""


def joined(text: str) -> str:
    """Text whose lines go on after a backslash, in one line each."""
    return re.sub(r"\\\n\s*#?\s*", " ", text)


def in_text(text: str) -> Iterator[list[str]]:
    """`threepc` command lines in a document's code, a script or a comment."""
    for line in re.findall(
        r"(?:^|[\s`/#=&'])threepc ((?:keygen|clients|compile|server|provider|client)(?![:\w-])[^\n`'#|;)&]*)", joined(text)
    ):
        words = shlex.split(line)
        yield words[: next((i for i, word in enumerate(words) if "..." in word), len(words))]


def in_compose() -> Iterator[list[str]]:
    for service in COMPOSE["services"].values():
        yield [*service.get("entrypoint", ["threepc"])[1:], *service.get("command", [])]


def in_manifests() -> Iterator[list[str]]:
    for path in MANIFESTS:
        for document in yaml.safe_load_all(path.read_text()):
            if document["kind"] == "Deployment":
                yield from (container["args"] for container in document["spec"]["template"]["spec"]["containers"])


def in_dockerfile() -> Iterator[list[str]]:
    yield from (json.loads(words) for words in re.findall(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE))


TEXTS = [ROOT / "docs/deployment.md", *UNITS, DEPLOY / "compose.yaml", *sorted(ROOT.glob("launch/three_hosts/*"))]
LINES = [line for path in TEXTS for line in in_text(path.read_text())] + [*in_compose(), *in_manifests(), *in_dockerfile()]


def unknown(words: list[str]) -> list[str]:
    """What of a command line the program does not know: its command, or options."""
    if words[0] not in main.COMMANDS:
        return words[:1]
    command = main.threepc.get_command(click.Context(main.threepc), words[0])
    if isinstance(command, click.Group):
        if len(words) == 1:
            return []
        if words[1] not in command.commands:
            return words[1:2]
        command = command.commands[words[1]]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
    return [word for word in words if word.startswith("-") and word not in known]


def test_there_are_command_lines():
    assert {words[0] for words in LINES} == {"keygen", "clients", "compile", "server", "provider", "client"} and len(LINES) > 15


@pytest.mark.parametrize("words", LINES, ids=" ".join)
def test_command_lines_exist(words):
    assert unknown(words) == []


@pytest.mark.parametrize(
    "line, wrong", [("serve x", ["serve"]), ("keygen keys --per-party", ["--per-party"]), ("clients drop bob", ["drop"]), ("clients", [])]
)
def test_a_wrong_command_line_is_seen(line, wrong):
    assert unknown(line.split()) == wrong


def test_files_that_are_named_exist():
    named = [
        path
        for text in [DOCKERFILE, *(path.read_text() for path in DEPLOY.rglob("*") if path.is_file())]
        for path in re.findall(r"(?<![\w/.])(?:/opt/threepc/)?((?:deploy|docs|launch|examples)/[\w/.-]+\w)", text)
    ]
    assert len(named) > 10
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_files_of_compose_exist():
    places = re.findall(r":-(\.\./[\w/.]+)\}", (DEPLOY / "compose.yaml").read_text())
    assert len(places) == 2 and all((DEPLOY / place).exists() for place in places)
    digits = ROOT / "examples/digits"
    server = COMPOSE["services"]["server"]["command"]
    for word in (server[1], server[2]):
        (name,) = re.findall(r":-/model/([\w.]+)\}", word)
        assert (digits / name).exists()


def test_targets_exist():
    targets = set(re.findall(r"^FROM \S+ AS (\w[\w-]*)$", DOCKERFILE, re.MULTILINE))
    asked = {service["build"]["target"] for service in COMPOSE["services"].values()}
    asked |= set(re.findall(r"--target (\w+)", DOCKERFILE + (ROOT / "docs/deployment.md").read_text()))
    assert asked == {"server", "provider", "client"} <= targets
    assert set(re.findall(r"--from=(\w[\w-]*)", DOCKERFILE)) <= targets


def test_ports_are_the_same_everywhere():
    ports = {"server": "7001", "provider": "7002"}
    for role, port in ports.items():
        stage = DOCKERFILE.split(f" AS {role}\n")[1].split("FROM ")[0]
        assert re.findall(r"EXPOSE (\d+)", stage) == [port]
        documents = {d["kind"]: d for d in yaml.safe_load_all((DEPLOY / f"kubernetes/{role}.yaml").read_text())}
        (container,) = documents["Deployment"]["spec"]["template"]["spec"]["containers"]
        assert [each["containerPort"] for each in container["ports"]] == [int(port), OBSERVE] and f"0.0.0.0:{OBSERVE}" in container["args"]
        assert [each["port"] for each in documents["Service"]["spec"]["ports"]] == [int(port)]
        open_to_all, monitored = documents["NetworkPolicy"]["spec"]["ingress"]
        assert open_to_all == {"ports": [{"protocol": "TCP", "port": int(port)}]}
        assert monitored["ports"] == [{"protocol": "TCP", "port": OBSERVE}] and monitored["from"]
        assert f'"--observe", "{OBSERVE}"' in DOCKERFILE and f'CMD ["threepc", "status", "{OBSERVE}"]' in stage
        assert COMPOSE["services"][role]["command"][-2:] == ["--observe", str(OBSERVE)]
    assert "--server tcp://server:7001 --provider tcp://provider:7002" in joined((DEPLOY / "compose.yaml").read_text())
