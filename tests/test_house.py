"""The house: which room may import from which. Every import of the package is read; none runs upwards, and no two modules need each other."""

import ast
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS = (
    ("errors",),
    ("choices",),
    ("files", "ring", "console"),
    ("kernels",),
    ("prf",),
    ("transport", "images"),
    ("graph",),
    ("protocol", "mmlab"),
    ("plan",),
    ("model",),
    ("party", "reduction"),
    ("tasks", "tensors"),
    ("api", "card"),
    ("benchmarks",),
    ("",),
    ("cli",),
    ("__main__",),
)
"""Rooms, lowest floor first; "" is threepc/__init__.py. A room imports from itself and from floors below it, never from its neighbours."""

EXCEPTIONS = {("threepc.cli.bench", "benchmarks.command")}
"""By name, because the harness is beside the package and not in it."""


def floor(room: str) -> int:
    """The floor of a room. Raises StopIteration for one that the order does not name."""
    return next(level for level, rooms in enumerate(FLOORS) if room in rooms)


def room(module: str) -> str:
    """The room that a module is in: the first name below `threepc`, or `benchmarks`."""
    first, *rest = module.split(".")
    return first if first == "benchmarks" else rest[0] if rest else ""


def name_of(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules() -> dict[str, str]:
    """Module -> source text, of the package and of the benchmarks."""
    paths = (path for package in ("threepc", "benchmarks") for path in sorted((ROOT / package).rglob("*.py")))
    return {name_of(path.relative_to(ROOT)): path.read_text() for path in paths}


def imported(module: str, text: str, known: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """The modules that a module imports anywhere in its text, and whether it does so as it is loaded itself."""
    tree = ast.parse(text)
    at_once = {id(node) for node in _loaded(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports relatively: name the module whole"
            targets = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for target in targets:
            if target.split(".")[0] in ("threepc", "benchmarks"):
                yield target if target in known else target.rpartition(".")[0], id(node) in at_once


def _loaded(node: ast.AST) -> Iterator[ast.AST]:
    """What runs when a module is loaded: not the bodies of functions, nor what only a type checker sees."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _loaded(child)


def upward(sources: dict[str, str]) -> list[str]:
    """The imports that do not run downwards."""
    return [
        f"{module} -> {target}"
        for module, text in sources.items()
        for target, _ in imported(module, text, sources)
        if room(module) != room(target) and floor(room(target)) >= floor(room(module)) and (module, target) not in EXCEPTIONS
    ]


def circle(sources: dict[str, str]) -> list[str]:
    """Modules that need each other to be loaded; empty where there are none."""
    arrows = {module: {target for target, at_once in imported(module, text, sources) if at_once} for module, text in sources.items()}
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_imports_run_downwards():
    assert upward(modules()) == []


def test_no_circle():
    assert circle(modules()) == []


def test_every_room_has_its_floor_and_every_floor_its_rooms():
    rooms = {room(module) for module in modules()}
    assert rooms == {name for names in FLOORS for name in names}


@pytest.mark.parametrize("line", ["from threepc.party import session", "import threepc.cli.main", "from threepc.api import local"])
def test_a_turned_arrow_is_seen(line):
    """The order holds because these fail: the same tree with one import more."""
    sources = modules()
    sources["threepc.kernels.gate"] += f"\n\ndef _late():\n    {line}\n"
    assert len(upward(sources)) == 1


def test_neighbours_do_not_import_each_other():
    sources = modules()
    sources["threepc.transport.meter"] += "\nfrom threepc.images.card import ModelCard\n"
    assert upward(sources) == ["threepc.transport.meter -> threepc.images.card"]


def test_a_circle_is_seen():
    sources = modules()
    sources["threepc.kernels.packing"] += "\nfrom threepc.kernels import runs\n"
    assert {"threepc.kernels.packing", "threepc.kernels.runs"} <= set(circle(sources))
