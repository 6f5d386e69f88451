"""Units, containers and pods run with as little as they can, and a secret key is in none of them."""

import fnmatch
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from threepc.party.allocator import HUGE_PAGES

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "deploy/systemd").glob("*.service"))
MANIFESTS = sorted((ROOT / "deploy/kubernetes").glob("*.yaml"))
DOCKERFILE = re.sub(r"\\\n\s*", " ", (ROOT / "Dockerfile").read_text())

HARDENED = {
    "CapabilityBoundingSet": "",
    "DynamicUser": "yes",
    "LimitCORE": "0",
    "LockPersonality": "yes",
    "NoNewPrivileges": "yes",
    "PrivateDevices": "yes",
    "PrivateTmp": "yes",
    "ProtectControlGroups": "yes",
    "ProtectHome": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    "ProtectSystem": "strict",
    "Restart": "on-failure",
    "RestartPreventExitStatus": "2",
    "RestrictNamespaces": "yes",
    "RestrictSUIDSGID": "yes",
    "SystemCallArchitectures": "native",
    "UMask": "0077",
}


def settings(unit: str) -> dict[str, list[str]]:
    """Key -> its values, of all sections of a unit."""
    values: dict[str, list[str]] = {}
    for line in unit.splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            values.setdefault(key, []).append(value)
    return values


def test_there_is_a_unit_for_each_party_that_listens():
    assert [unit.stem for unit in UNITS] == ["threepc-provider", "threepc-server"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_units_are_hardened(unit):
    text = unit.read_text()
    values, role = settings(text), unit.stem.removeprefix("threepc-")
    assert {key: values.get(key) for key in HARDENED} == {key: [value] for key, value in HARDENED.items()}
    assert values["LoadCredential"] == [f"{role}.secret:/etc/threepc/{role}.secret"]
    assert (
        values["ExecStart"][0].startswith(f"/opt/threepc/.venv/bin/threepc {role} ")
        and "--deployment /etc/threepc" in values["ExecStart"][0]
    )
    assert values["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert values["SystemCallFilter"] == ["@system-service", "~@privileged"]
    assert "MemoryDenyWriteExecute" not in values and "numba compiles" in text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed here")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_understands_the_units(unit, tmp_path):
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/threepc/.venv/bin/threepc", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def documents(path: Path, kind: str) -> list[dict]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document["kind"] == kind]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_pods_are_closed(path):
    (deployment,) = documents(path, "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    assert deployment["spec"]["replicas"] == 1 and pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert f"--uid {pod['securityContext']['runAsUser']} " in DOCKERFILE and f"--gid {pod['securityContext']['fsGroup']} " in DOCKERFILE
    closed = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert all(container["securityContext"] == closed for container in [*pod["initContainers"], *pod["containers"]])
    (container,) = pod["containers"]
    pages = {probe: container[f"{probe}Probe"]["httpGet"] for probe in ("startup", "readiness", "liveness")}
    assert pages == {probe: {"path": "/healthz" if probe == "liveness" else "/readyz", "port": "observe"} for probe in pages}


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_a_pod_s_secret_key_is_a_secret(path):
    (deployment,) = documents(path, "Deployment")
    pod, role = deployment["spec"]["template"]["spec"], path.stem
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    (container,) = pod["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(mounts) == set(volumes)
    assert volumes["secret-key"]["secret"] == {"secretName": "secret-key", "defaultMode": 0o440}
    assert {"name": "CREDENTIALS_DIRECTORY", "value": mounts["secret-key"]} in container["env"]
    text = path.read_text()
    assert f"create secret generic secret-key --from-file={role}.secret" in text
    assert ".secret" not in re.findall(r"create configmap .*", text)[0] and not documents(path, "Secret")


def test_containers_of_compose_are_closed():
    compose = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
    for name, service in compose["services"].items():
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]
        assert service["networks"] == ["threepc"] and "ports" not in service
        assert f"../keys/{name}:/keys:ro" in service["volumes"]  # its own keys, and no other's


def test_what_the_server_counts_outlives_its_container():
    (deployment,) = documents(ROOT / "deploy/kubernetes/server.yaml", "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (place,) = [variable["value"] for variable in container["env"] if variable["name"] == "STATE_DIRECTORY"]
    (mount,) = [mount for mount in container["volumeMounts"] if mount["mountPath"] == place]
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == mount["name"]]
    claims = [claim["metadata"]["name"] for claim in documents(ROOT / "deploy/kubernetes/server.yaml", "PersistentVolumeClaim")]
    assert not mount.get("readOnly") and volume["persistentVolumeClaim"] == {"claimName": mount["name"]} and mount["name"] in claims
    compose = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
    server = compose["services"]["server"]
    place = server["environment"]["STATE_DIRECTORY"]
    (name,) = [volume.removesuffix(f":{place}") for volume in server["volumes"] if volume.endswith(f":{place}")]
    assert name in compose["volumes"] and f" {place}" in DOCKERFILE  # made there, so that it belongs to the user of the containers


def copied() -> list[str]:
    """The paths of the checkout that the Dockerfile copies."""
    lines = re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
    return [path for line in lines for path in line.split()[:-1]]


def fits(name: str, pattern: str) -> bool:
    """Whether a pattern of .dockerignore names a file, or a folder that it is in."""
    anywhere = pattern.removeprefix("**/")
    places = [name, *map(str, list(Path(name).parents)[:-1])]
    return any(fnmatch.fnmatch(place, pattern) or (anywhere != pattern and fnmatch.fnmatch(Path(place).name, anywhere)) for place in places)


def sent(path: str) -> bool:
    """Whether a file of the checkout goes to the builder: the last pattern that fits decides."""
    goes = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and line[0] != "#" and fits(path, line.lstrip("!")):
            goes = line.startswith("!")
    return goes


def test_images_hold_nothing_secret():
    assert copied() and not {".", "./", "*"} & set(copied())
    files = [str(file.relative_to(ROOT)) for path in copied() for file in [ROOT / path, *(ROOT / path).rglob("*.py")] if file.is_file()]
    assert "threepc/cli/main.py" in files and all(map(sent, files))
    for secret in (
        "keys/server/server.secret",
        "server.secret",
        "threepc/server.secret",
        ".git/config",
        ".env",
        "examples/a.pth",
        "threepc/__pycache__/x.pyc",
    ):
        assert not sent(secret), secret
    assert not re.search(r"^(ARG|ENV) .*(SECRET|TOKEN|PASSWORD)", DOCKERFILE, re.MULTILINE | re.IGNORECASE)


@pytest.mark.parametrize("stage", ["provider", "client", "server"])
def test_images_run_as_nobody_in_particular(stage):
    text = DOCKERFILE.split(f" AS {stage}\n")[1].split("FROM ")[0]
    assert re.findall(r"^USER (\S+)$", text, re.MULTILINE) == ["10001"] and "HEALTHCHECK" in text


def test_large_arrays_lie_in_huge_pages_wherever_a_party_is_started():
    said = f"GLIBC_TUNABLES={HUGE_PAGES}"
    runtime = DOCKERFILE.split(" AS runtime\n")[1].split("FROM ")[0]
    assert re.search(rf"^ENV .*{said}$", runtime, re.MULTILINE)
    assert all(settings(unit.read_text())["Environment"][0].endswith(said) for unit in UNITS)
    for script in (ROOT / "launch/three_hosts").glob("*.sh"):
        assert f"\nexport {said.replace('=', '=${GLIBC_TUNABLES-', 1)}}} #" in script.read_text(), script


def names(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


def test_what_images_install_is_pinned():
    pinned = {line.partition("==")[0] for line in names(ROOT / "launch/constraints.txt")}
    wanted = [*names(ROOT / "deploy/requirements.txt"), *names(ROOT / "deploy/requirements-client.txt")]
    assert set(wanted) <= pinned and len(wanted) == 16


PROGRAM = """
import importlib.metadata, sys

allowed = {{name.lower() for name in {allowed!r}}} | {{"threepc"}}
homes = importlib.metadata.packages_distributions()

class Refusing:
    def find_spec(self, name, path=None, target=None):
        homes_of = homes.get(name.partition(".")[0])
        if homes_of and not allowed & {{home.lower() for home in homes_of}}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refusing())
import {modules}
from threepc.cli.main import status
sys.exit(status({words!r}))
"""


@pytest.mark.parametrize(
    "lists, modules, command",
    [
        (["requirements.txt"], "threepc.tasks.provide, threepc.tasks.compile, threepc.tasks.keys, prometheus_client", "provider"),
        (["requirements.txt", "requirements-client.txt"], "threepc.tasks.ask, threepc.cli.show_run, threepc.images.segmentation", "client"),
    ],
)
def test_an_image_s_packages_are_enough(lists, modules, command):
    allowed = [name for each in lists for name in names(ROOT / "deploy" / each)]
    program = PROGRAM.format(
        allowed=allowed, modules=modules, words=[command, "--deployment", "/nowhere", *(["--input", "a"] if command == "client" else [])]
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 2 and "/nowhere: cannot be read: No such file or directory" in done.stderr
