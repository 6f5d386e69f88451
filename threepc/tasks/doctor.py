"""`threepc doctor`: whether this host, and the parties of a deployment, have what threepc needs; for each thing a line, and what to do. No torch."""

from __future__ import annotations

import errno
import importlib.util
import os
import platform
import shutil
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from threepc.console import Display
from threepc.errors import EXTRAS, InputError, RunError, ThreepcError
from threepc.kernels import keystream, options
from threepc.party.allocator import HUGE_PAGES, glibc_version
from threepc.party.deployment import ONE_USER, Deployment, Party, load
from threepc.party.key_files import LISTENING
from threepc.party.memory import DEFAULT_MEMORY
from threepc.party.three_hosts import ask_version
from threepc.prf import instructions_agree
from threepc.transport.addresses import check_ipc_free, ipc_path
from threepc.transport.framing import PROTOCOL_VERSION

OLDEST, NEWEST = (3, 11), (3, 13)
"""Versions of Python that numba and torch support."""
PACKAGES = ("numpy", "numba", "pyzmq", "cryptography", "opencv-python-headless", "pillow")
ANSWER_S = 5.0
"""So long a party of the deployment has to answer."""
_LEAST_DISK = 2 * 10**9
"""Bytes that kernels of all rings, kept weights of a few models and reports take."""
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@dataclass(frozen=True)
class Finding:
    """What was looked at, whether it is "ok", "so-so" (it works, worse than it could) or "wrong", what is there, and what to do ("" for nothing)."""

    what: str
    state: str
    found: str
    todo: str = ""


def examine(path: Path | None, name: str, display: Display) -> list[Finding]:
    """Everything of this host and, where a deployment is given, of its files and parties. name: of the client whose keys are used.

    Nothing is changed, no key is shown, and no session is begun.
    """
    with display.stage("looking at this host"):
        found = [_python(), _packages(), *_extras(), _processor(), _aes(), _kernels(), _memory(DEFAULT_MEMORY), _allocator()]
        found.append(_disk(Path(options.cache_directory() or Path.home())))
    if path is None:
        return found
    try:
        deployment = load(path)
    except InputError as error:
        return [*found, _wrong("deployment", error)]
    clients = "any client of this user" if deployment.is_unix else f"{len(deployment.clients)} client(s)"
    facts = f"{deployment.ring}-bit ring, {clients}, server at {deployment.server.address}"
    found.append(Finding("deployment", "ok", f"{deployment.path}: {facts}, provider at {deployment.provider.address}"))
    if deployment.budgets.memory != DEFAULT_MEMORY:
        found = [finding for finding in found if finding.what != "memory"] + [_memory(deployment.budgets.memory)]
    found += _keys(deployment)
    found += _ports(deployment)
    return [*found, *_parties(deployment, name, display)]


def _wrong(what: str, error: ThreepcError) -> Finding:
    """A finding from an error, whose text ends with the cure."""
    found, _, todo = str(error).rpartition(": ")
    return Finding(what, "wrong", found or todo, todo if found else "")


# This host


def _python() -> Finding:
    here = sys.version_info[:2]
    state, todo = ("ok", "") if OLDEST <= here <= NEWEST else ("wrong", "install Python 3.11 to 3.13")
    if sys.platform != "linux":
        state, todo = "wrong", "threepc runs on Linux"
    return Finding("Python", state, f"{platform.python_version()} on {platform.system()} {platform.machine()}", todo)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _packages() -> Finding:
    """The base."""
    versions = {package: _version(package) for package in PACKAGES}
    missing = [package for package, known in versions.items() if not known]
    found = ", ".join(f"{package} {known}" for package, known in versions.items() if known)
    return Finding("packages", "so-so" if missing else "ok", found, f"pip install {' '.join(missing)}" if missing else "")


def _extras() -> Iterator[Finding]:
    """What is there of each extra. None of them is missed by a client, so none is wrong."""
    for extra in dict.fromkeys(EXTRAS.values()):
        packages = [package for package, home in EXTRAS.items() if home == extra]
        missing = [package for package in packages if importlib.util.find_spec(package) is None]
        found = "installed" if not missing else f"not installed: {', '.join(missing)}"
        yield Finding(f"extra [{extra}]", "ok", found, f"pip install 'threepc[{extra}]' where it is wanted" if missing else "")


def _processor() -> Finding:
    features = options.cpu_features()
    names = {"AVX-512": options.has_avx512(), "IFMA": options.has_ifma(), "VAES": "vaes" in features, "AES": "aes" in features}
    names = {"AVX2": "avx2" in features} | names
    found = f"{len(os.sched_getaffinity(0))} core(s), vectors of {options.vector_bits()} bits, {', '.join(n for n, has in names.items() if has)}"
    if "avx512ifma" in features and not options.has_ifma():
        return Finding("processor", "so-so", f"{found}; IFMA is switched off", "unset THREEPC_NO_IFMA")
    slow = options.vector_bits() < 256
    return Finding("processor", "so-so" if slow else "ok", found, "expect a fraction of the published speed" if slow else "")


def _aes() -> Finding:
    if not keystream.has_instructions():
        return Finding("AES", "so-so", "the processor has no AES instructions: the library draws all masks", "expect more processor time")
    if instructions_agree():
        return Finding("AES", "ok", "the processor's instructions draw what the library draws")
    todo = "report this processor; until then the library draws all masks, which is right but slower"
    return Finding("AES", "wrong", "the processor's instructions differ from the library", todo)


def _kernels() -> Finding:
    directory = options.cache_directory()
    if directory is None:
        return Finding("kernels", "wrong", "compiled anew in every process", "set THREEPC_CACHE to a folder that you own, of mode 0700")
    compiled = list(Path(directory).rglob("*.nbc"))
    if not compiled:
        return Finding(
            "kernels", "so-so", f"none compiled yet in {directory}", "run 'threepc compile' before the first image is waited for"
        )
    size = sum(path.stat().st_size for path in compiled)
    return Finding("kernels", "ok", f"{len(compiled)} compiled, {size / 1e6:.0f} MB in {directory}")


def _memory(wanted: int) -> Finding:
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = 1024 * int(fields["MemAvailable"].split()[0])
    found = f"{free / 1e9:.1f} GB available; an inference may take {wanted / 1e9:.1f} GB"
    enough = free >= wanted
    return Finding(
        "memory", "ok" if enough else "so-so", found, "" if enough else "lower budgets.memory in deployment.yaml, or free memory"
    )


def _allocator() -> Finding:
    if not (known := glibc_version()):
        return Finding(
            "allocator",
            "so-so",
            "another C library than glibc: large arrays are faulted in anew for every layer",
            "use a system with glibc",
        )
    said = _HUGE_PAGES.read_text() if _HUGE_PAGES.exists() else "[never]"
    found = f"glibc {known}: parties keep freed memory while they are busy"
    if "[madvise]" in said and HUGE_PAGES not in os.environ.get("GLIBC_TUNABLES", ""):
        return Finding(
            "allocator", "ok", f"{found}; not in huge pages", f"set GLIBC_TUNABLES={HUGE_PAGES} where a party is started, for a few percent"
        )
    return Finding("allocator", "ok", f"{found}{', which this system has no huge pages for' if '[never]' in said else ', in huge pages'}")


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    state, todo = ("ok", "") if free >= _LEAST_DISK else ("so-so", "free some, or set THREEPC_CACHE to another disk")
    return Finding("disk", state, f"{free / 1e9:.1f} GB free for {folder}", todo)


# A deployment


def _keys(deployment: Deployment) -> Iterator[Finding]:
    """Every secret key beside deployment.yaml, and the folder."""
    if deployment.is_unix:
        todo = "in earnest give each party its own host and keys: 'threepc keygen DIR --per-host'"
        yield Finding("keys", "so-so", f"there are none: {ONE_USER}", todo)
        return
    folder = deployment.path.parent
    if stat.S_IMODE(folder.stat().st_mode) & 0o022:
        yield Finding("keys", "wrong", f"other users may write to {folder}, and exchange keys", f"run 'chmod go-w {folder}'")
    names = sorted(path.stem for path in folder.glob("*.secret"))
    for name in names:
        try:
            deployment.key_pair(name)
        except InputError as error:
            yield _wrong(f"key of {name}", error)
        else:
            yield Finding(f"key of {name}", "ok", "its owner alone may read it, and deployment.yaml lists it")
    if not names and not os.environ.get("CREDENTIALS_DIRECTORY"):
        yield Finding("keys", "wrong", f"no secret key in {folder}", "copy that of this host's party here, and no other")
    if len({*LISTENING} & {*names}) == 2:
        yield Finding("keys", "so-so", "server's and provider's secret keys lie together", "in earnest leave each on its own host alone")


def _ports(deployment: Deployment) -> Iterator[Finding]:
    """Whether a party whose key is here could listen, or does."""
    for role, party in (("server", deployment.server), ("provider", deployment.provider)):
        if deployment.is_unix:
            yield _socket(role, party)
        elif (deployment.path.parent / f"{role}.secret").exists():
            yield _port(role, party)


def _socket(role: str, party: Party) -> Finding:
    path = ipc_path(party.address)
    try:
        check_ipc_free(path)
    except InputError as error:
        if path.is_socket():
            return Finding(f"socket of {role}", "ok", f"{path} is in use: by the {role}, if it answers below")
        return _wrong(f"socket of {role}", error)
    return Finding(f"socket of {role}", "ok", f"{path} is free, and no other user may enter its folder")


def _port(role: str, party: Party) -> Finding:
    host, _, port = party.listen.removeprefix("tcp://").rpartition(":")
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return Finding(f"port of {role}", "ok", f"{party.listen} is in use: by the {role}, if it answers below")
        return Finding(
            f"port of {role}", "wrong", f"{party.listen}: {error.strerror}", f"correct 'listen' of the {role} in deployment.yaml"
        )
    return Finding(f"port of {role}", "ok", f"{party.listen} is free")


def _parties(deployment: Deployment, name: str, display: Display) -> Iterator[Finding]:
    """Whether the others answer, accept the key of this host's party, and speak its version."""
    here = {path.stem for path in deployment.path.parent.glob("*.secret")}
    own = name if name in here or deployment.is_unix else "server"
    if own not in here and not deployment.is_unix:
        return
    for role in LISTENING if own == name else ("provider",):
        with display.stage(f"asking the {role}"):
            yield _party(role, partial(ask_version, deployment, own, role, ANSWER_S))


def _party(role: str, ask: Callable[[], int]) -> Finding:
    try:
        return Finding(role, "ok", f"answers, lets this host's party in, and speaks its protocol version {ask()}")
    except InputError as error:
        return _wrong(role, error)
    except RunError as error:
        return Finding(
            role,
            "wrong",
            str(error),
            f"start 'threepc {role}' there, or read its log; this host speaks protocol version {PROTOCOL_VERSION}",
        )
