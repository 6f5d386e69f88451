"""YAML that can be read in one way only, and errors that name file, key and cure."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Hashable
from pathlib import Path
from typing import Any, TypeVar

import yaml

from threepc.errors import InputError
from threepc.transport.addresses import is_tcp

_T = TypeVar("_T")


def read(path: Path, text: str) -> Section:
    """The mapping in `text`, the contents of `path`. Raises InputError for what is not one mapping of plain values with unique keys."""
    try:
        return Section(path, "", yaml.load(text, Loader=_StrictLoader))  # noqa: S506 - a SafeLoader, stricter
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise InputError(f"{path}: {line}{error.problem}: correct the YAML") from None
    except (yaml.YAMLError, RecursionError):
        raise InputError(f"{path}: is not YAML: correct it, or make a new one with 'threepc keygen DIR'") from None


class _StrictLoader(yaml.SafeLoader):
    """Plain values only: 1e30 is a number, 2020-13-45 a text, and a key that occurs twice is an error instead of the last one winning."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):  # what PyYAML raises for an explicit tag that does not fit
            raise yaml.constructor.ConstructorError(None, None, f"{_shown(node.value)} is no {node.tag}", node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str) or key in seen:
                problem = f"the key {_shown(key)} occurs twice" if isinstance(key, str) else f"{_shown(key)} is no key"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_DIGITS = "-+0123456789"
_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), _DIGITS)


class Section:
    """A mapping of the file that knows where it is, for errors. Each `take` and what builds on it raises InputError for a bad value."""

    def __init__(self, path: Path, prefix: str, values: object) -> None:
        self.path = path
        self._prefix = prefix
        if not isinstance(values, dict):
            what = prefix.rstrip(".") or "the file"
            raise InputError(f"{path}: {what} must be a mapping of keys to values, as in the file that 'threepc keygen DIR' writes")
        self._values = dict(values)

    def wrong(self, key: str, what: str) -> InputError:
        """The error that says `what` of a key."""
        return InputError(f"{self.path}: {self._prefix}{key}: {what}")

    def unfit(self, key: str, value: object, cure: str) -> InputError:
        """The error that shows a key's value, cut short where it is long, and says what to write instead."""
        return self.wrong(key, f"is {_shown(value)}: {cure}")

    def take(self, key: str, default: Any = ...) -> Any:
        """The value of a key, or `default`; without a default the key must be there."""
        if key not in self._values and default is ...:
            raise self.wrong(key, "is missing: add it, or make a new file with 'threepc keygen DIR'")
        return self._values.pop(key, default)

    def names(self) -> list[str]:
        """The keys that nobody has asked for yet."""
        return list(self._values)

    def section(self, key: str, required: bool = True) -> Section:
        """The mapping under a key, empty where it is missing and not required."""
        return Section(self.path, f"{self._prefix}{key}.", self.take(key, ... if required else {}))

    def choice(self, key: str, choices: tuple[_T, ...], default: _T) -> _T:
        """One of `choices`, of the same type."""
        value = self.take(key, default)
        for choice in choices:
            if value == choice and type(value) is type(choice):
                return choice
        raise self.unfit(key, value, f"choose one of {', '.join(map(str, choices))}")

    def integer(self, key: str, low: int, high: int) -> int | None:
        """A whole number from `low` to `high`, or None where the key is missing."""
        value = self.take(key, None)
        if value is None or (type(value) is int and low <= value <= high):
            return value
        raise self.unfit(key, value, f"write a whole number from {low} to {high}")

    def positive(self, key: str, default: float, most: int) -> float:
        """A number above 0, `most` at most."""
        value = self.take(key, default)
        if type(value) not in {int, float} or not 0 < value <= most:
            raise self.unfit(key, value, f"write a positive number, at most {most}")
        return float(value)

    def address(self, key: str, default: Any = ..., may_be_ipc: bool = False) -> str:
        """tcp://HOST:PORT with a port that others can be told; also ipc:///PATH where that may be."""
        return check_address(self.take(key, default), str(self.wrong(key, "")).removesuffix(": "), may_be_ipc)

    def finish(self) -> None:
        """Raises InputError for a key that nobody has asked for."""
        for key in self._values:
            raise self.wrong(key, "is not a key of this file: remove it or correct its name")


def check_address(value: object, what: str, may_be_ipc: bool = False) -> str:
    """`value`, if others can be told it: tcp://HOST:PORT with a port above 0, or ipc:///PATH where that may be.

    Raises InputError, beginning with `what`.
    """
    try:
        if isinstance(value, str) and (int(value.rpartition(":")[2]) if is_tcp(value) else may_be_ipc):
            return value
    except InputError:
        pass
    raise InputError(
        f"{what}: is {_shown(value)}: write tcp://HOST:PORT, HOST a name in ASCII, an IPv4 address or an IPv6 address in brackets, "
        f"PORT from 1 to 65535{', or ipc:///PATH for parties that are all on this host' if may_be_ipc else ''}"
    )


def _shown(value: object) -> str:
    return _REPR.repr(value)[:_SHOWN]


_SHOWN = 120
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 80
_REPR.maxlevel = 2
