"""The messages of errors that users may see, read from the source, and the lists of them in docs/errors.md.

A list stands between `<!-- messages of PLACE... -->` and `<!-- end -->`, under a heading that tells what its messages have in common: their cause,
and the cure. A place is a file, or a folder with a / behind it: all its files that are named nowhere. A new message asks for
`python -m tests.generated`, a new folder with messages for a place.
"""

import ast
import re
from collections.abc import Container, Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/errors.md"

STATUS = {"InputError": 2, "BadParameter": 2, "UsageError": 2, "fail": 2, "wrong": 2, "unfit": 2, "RunError": 1}
"""What makes an error -> the exit status."""
TEXT = {"wrong": 1, "unfit": 2}
"""Which argument holds the text, where it is not the first."""

LIST = re.compile(r"(<!-- messages of ([^>]*) -->\n).*?(<!-- end -->)", re.DOTALL)


def template(node: ast.expr) -> str:
    """A message as far as its source tells it: {name} for what a name stands for, … for what is computed, a/b for a choice."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(template, node.values))
    if isinstance(node, ast.FormattedValue):
        value = node.value
        name = value.attr if isinstance(value, ast.Attribute) else value.id if isinstance(value, ast.Name) else ""
        return f"{{{name.strip('_')}}}" if name else "…"
    if isinstance(node, ast.BinOp):
        return template(node.left) + template(node.right)
    if isinstance(node, ast.IfExp):
        return f"{template(node.body)}/{template(node.orelse)}"
    return "…"


def messages(source: str) -> Iterator[tuple[int, str]]:
    """(exit status, message) of every error that a module makes, in its order. A text that comes whole from elsewhere is none of its own."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    for call in sorted(calls, key=lambda node: (node.lineno, node.col_offset)):
        made_by = call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id if isinstance(call.func, ast.Name) else ""
        place = TEXT.get(made_by, 0)
        if made_by in STATUS and len(call.args) > place:
            text = " ".join(template(call.args[place]).split())
            if re.search(r"\w\w", re.sub(r"\{\w+\}", "", text)):
                yield STATUS[made_by], text


def by_file() -> dict[str, list[tuple[int, str]]]:
    """File of the package -> its messages, of files that have any."""
    found = {path.relative_to(ROOT).as_posix(): list(messages(path.read_text())) for path in sorted((ROOT / "threepc").rglob("*.py"))}
    return {path: texts for path, texts in found.items() if texts}


def places(page: str) -> list[str]:
    """The files and folders whose messages a page lists, in its order."""
    return [place for match in LIST.finditer(page) for place in match[2].split()]


def in_place(place: str, named: Container[str], known: Iterable[str]) -> list[str]:
    """The files with messages that a place stands for. named: all places of the page."""
    if place.endswith("/"):
        return [file for file in known if file.rpartition("/")[0] == place[:-1] and file not in named]
    return [place] if place in known else []


def written(page: str, known: dict[str, list[tuple[int, str]]]) -> str:
    """The page with its lists made anew."""
    named = set(places(page))

    def made(match: re.Match[str]) -> str:
        texts = [pair for place in match[2].split() for file in in_place(place, named, known) for pair in known[file]]
        lists = []
        for status, name in ((2, "Exit status 2, `InputError`"), (1, "Exit status 1, `RunError`")):
            own = dict.fromkeys(text for number, text in texts if number == status)
            lists += [f"{name}:\n\n" + "".join(f"- {_code(text)}\n" for text in own)] if own else []
        return f"{match[1]}\n{chr(10).join(lists)}\n{match[3]}"

    return LIST.sub(made, page)


def _code(text: str) -> str:
    return f"`` {text} ``" if "`" in text else f"`{text}`"
