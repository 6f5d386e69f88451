"""What a mutation is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """changes: (text that stands exactly once in the file, what takes its place). tests: what is run, in this order."""

    name: str
    file: str
    changes: tuple[tuple[str, str], ...]
    tests: tuple[str, ...]

    def applied(self, text: str) -> str:
        """The file's text with the mutation. Raises AssertionError where a place is missing or not unique."""
        for old, new in self.changes:
            assert text.count(old) == 1, f"{self.name}: {old!r} stands {text.count(old)} times in {self.file}"
            text = text.replace(old, new)
        return text


def mutation(name: str, file: str, *changes: tuple[str, str], tests: tuple[str, ...]) -> Mutation:
    """A mutation of one file."""
    return Mutation(name, file, changes, tests)
