"""The documents: links lead somewhere, what they name exists, and what the package reads from its environment is described."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests import test_house as house
from threepc.card import ModelCard
from threepc.cli import main

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    p.relative_to(ROOT) for pattern in ("*.md", "docs/**/*.md", "examples/*/*.md", "benchmarks/*.md") for p in ROOT.glob(pattern)
)
ENVIRONMENT = "docs/environment.md"


def links(text: str) -> Iterator[str]:
    """Targets of a document's links and pictures that are no addresses, code apart."""
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", prose) + re.findall(r"^\[[^\]]+\]:\s*(\S+)", prose, re.MULTILINE)
    return (target for target in targets if not re.match(r"[a-z]+:", target))


def anchor(heading: str) -> str:
    """The anchor that a heading gets on the usual pages."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def missing_links(document: Path) -> list[str]:
    """The links of a document (relative to ROOT) that lead nowhere."""
    missing = []
    for target in links((ROOT / document).read_text()):
        path, _, fragment = target.partition("#")
        found = (ROOT / document).parent / path if path else ROOT / document
        headings = re.findall(r"^#+ (.*)", found.read_text(), re.MULTILINE) if fragment and found.is_file() else []
        if not found.exists() or (fragment and fragment not in map(anchor, headings)):
            missing.append(target)
    return missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_links_lead_somewhere(document):
    assert missing_links(document) == []


def test_a_broken_link_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.test_docs.ROOT", tmp_path)
    (tmp_path / "a.md").write_text("# One two\n[x](b.md) [y](#one-two) [z](#three) `[c](d)` [w](https://e)\n\n[r]: f.md\n")
    assert missing_links(Path("a.md")) == ["b.md", "#three", "f.md"]


# Names: `path/to/file.py`, `path/to/file.py:function`, `path/to/file.py:Class.method`

NAMED = re.compile(r"`([\w./-]+\.(?:py|sh|json|md|toml|cfg|yaml|txt))(?::([\w.]+))?`")


def defined(path: Path) -> set[str]:
    """Functions, classes, their methods and fields, and module variables of a Python file, as `name` or `Class.name`."""

    def names(body: list[ast.stmt], prefix: str) -> Iterator[str]:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from names(node.body, f"{prefix}{node.name}.")
            for target in node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []:
                yield from (prefix + name.id for name in ast.walk(target) if isinstance(name, ast.Name))

    return set(names(ast.parse(path.read_text()).body, ""))


def missing_names(text: str) -> list[str]:
    """Files and functions that a document names in backticks and that there are not. A bare file name may be anywhere."""
    missing = []
    for name, function in NAMED.findall(text):
        path = ROOT / name
        known = path.exists() if "/" in name else any(ROOT.glob(f"*/{name}")) or any(ROOT.rglob(name))
        if not known or (function and function not in defined(path)):
            missing.append(f"{name}:{function}" if function else name)
    return missing


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if str(d) in ("README.md", "CONTRIBUTING.md") or d.parts[0] == "docs"], ids=str)
def test_what_is_named_exists(document):
    assert missing_names((ROOT / document).read_text()) == []


def test_a_name_that_is_gone_is_seen():
    text = "`threepc/prf.py` `threepc/prf.py:Keystream.source` `threepc/prf.py:gone` `threepc/gone.py` `gone.sh` `deployment.yaml`"
    assert missing_names(text) == ["threepc/prf.py:gone", "threepc/gone.py", "gone.sh"]


# The picture of the rooms


def drawn_rooms(text: str) -> dict[str, set[str]]:
    """Room -> the rooms that its arrows point to, of the first Mermaid picture; `threepc` itself is ""."""
    (picture,) = re.findall(r"```mermaid\nflowchart.*?\n(.*?)```", text, re.DOTALL)
    names = {name: label.partition(":")[0].strip() for name, label in re.findall(r'(\w+)\["(.*?)"\]', picture)}
    names = {name: {"threepc": "", "main": "__main__"}.get(label, label) for name, label in names.items()}
    arrows: dict[str, set[str]] = {room: set() for room in names.values()}
    for above, below in re.findall(r'^\s*(\w+)(?:\[".*?"\])? --> (\w+)', picture, re.MULTILINE):
        arrows[names[above]].add(names[below])
    return arrows


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_pictures_have_no_semicolon(document):
    """Mermaid takes one for the end of a line."""
    for picture in re.findall(r"```mermaid\n(.*?)```", (ROOT / document).read_text(), re.DOTALL):
        assert ";" not in picture


def below(room: str, arrows: dict[str, set[str]]) -> set[str]:
    """All rooms that arrows lead to from a room."""
    return arrows[room].union(*(below(other, arrows) for other in arrows[room]))


def test_the_picture_of_the_rooms_is_the_house():
    sources, drawn = house.modules(), drawn_rooms((ROOT / "docs/architecture.md").read_text())
    imports: dict[str, set[str]] = {house.room(module): set() for module in sources}
    for module, text in sources.items():
        imports[house.room(module)] |= {house.room(target) for target, _ in house.imported(module, text, sources)} - {house.room(module)}
    imports["cli"].discard("benchmarks")  # beside the package: an exception that test_house.py names
    assert set(drawn) == set(imports), "draw every room of the house in docs/architecture.md"
    for room, targets in drawn.items():
        assert targets <= imports[room], f"no module of {room} imports this any more"
        assert imports[room] <= below(room, drawn), f"{room} imports this: draw an arrow in docs/architecture.md"


# Environment variables


def environment_read(text: str) -> set[str]:
    """Variables that a module reads from its environment, also by a name that it gives to one."""
    tree, read = ast.parse(text), set()
    constants = {
        node.targets[0].id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Constant)
    }
    environ = lambda node: isinstance(node, ast.Attribute) and node.attr == "environ"
    for node in ast.walk(tree):
        keys = []
        if isinstance(node, ast.Subscript) and environ(node.value):
            keys = [node.slice]
        elif (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and (environ(node.func.value) or node.func.attr == "getenv")
        ):
            keys = node.args[:1]
        elif isinstance(node, ast.Compare) and any(map(environ, node.comparators)):
            keys = [node.left]
        for key in keys:
            name = key.value if isinstance(key, ast.Constant) else constants.get(key.id) if isinstance(key, ast.Name) else None
            assert isinstance(name, str), f"a variable of the environment whose name is not plain: {ast.unparse(node)}"
            read.add(name)
    return read


def test_every_variable_that_is_read_is_described():
    described = set(re.findall(r"^\| (.*?) \|", (ROOT / ENVIRONMENT).read_text(), re.MULTILINE))
    described = {name for cell in described for name in re.findall(r"`(\w+)`", cell)}
    read = {name for path in (ROOT / "threepc").rglob("*.py") for name in environment_read(path.read_text())}
    assert read <= described, "describe it in docs/environment.md"
    assert {name for name in described if name.startswith("THREEPC_")} <= read, "described, but nothing reads it"


def test_ways_to_read_a_variable_are_seen():
    text = 'NAME = "D"\nos.environ["A"]\nos.environ.get("B")\nos.getenv("C")\nos.environ.get(NAME)\n"E" in os.environ\nos.environ.setdefault("F", "")'
    assert environment_read(text) == set("ABCDEF")
    with pytest.raises(AssertionError, match="not plain"):
        environment_read("os.environ[f()]")


# Commands


def commands(text: str) -> Iterator[list[str]]:
    """The words of every `threepc` command in a document's blocks of code, comments and continued lines apart."""
    for block in re.findall(r"```(?:bash)?\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = line.partition(" #")[0].split()
            if words[:1] == ["threepc"] or (words and words[0].endswith("local_3pc.sh")):
                yield words[1:] if words[0] == "threepc" else ["run", *words[1:]]


def unknown_options(words: list[str]) -> list[str]:
    """The options of a command that `threepc` does not have; the command itself where there is none of its name."""
    command: click.Command = main.threepc
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found, words = command.get_command(click.Context(command), words[0]), words[1:]
        if found is None:
            return ["no such command"]
        command = found
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    return [word for word in words if word.startswith("--") and word.partition("=")[0] not in known]


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_commands_have_options_that_there_are(document):
    for words in commands((ROOT / document).read_text()):
        assert unknown_options(words) == [], " ".join(words)


def test_an_option_that_is_gone_is_seen():
    text = "```bash\nthreepc run CONFIG \\\n    --gone --ring 32 # --comment\n```\n```\nthreepc clients gone\n./launch/local_3pc.sh --help --lost=1\n```\n"
    assert [unknown_options(words) for words in commands(text)] == [["--gone"], ["no such command"], ["--lost=1"]]


# The README's programs


def test_the_readme_s_factory_describes_its_model():
    (program,) = [p for p in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL) if "model_card" in p]
    names: dict = {}
    exec(compile(program, "README.md", "exec"), names)
    model = names["digits"]()
    card = model.model_card
    assert isinstance(card, ModelCard) and len(card.classes) == 10
    assert model(names["torch"].zeros(1, *card.preprocessing.shape)).shape == (1, 10)
