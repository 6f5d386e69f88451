"""All that stands in the way of a network's import, told at once: one line for each kind of operation, with its count and its modules."""

from dataclasses import dataclass, field

from threepc.errors import InputError
from threepc.graph.operations import SUPPORTED

MOST_NAMED = 3
"""Modules that are named in one line."""


class RefusedError(InputError):
    """One operation that is refused. operation: its name in torch; reason: what follows it; where: its module, for people."""

    def __init__(self, where: str, operation: str, reason: str) -> None:
        super().__init__(f"{where} uses {operation}, {reason}")
        self.where, self.operation, self.reason = where, operation, reason


class FollowsError(InputError):
    """An operation on the result of one that was refused, of which nothing can be said."""


@dataclass
class Refusals:
    """What was refused so far, and where: in order, by operation and reason."""

    found: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def add(self, error: RefusedError) -> None:
        """Note one more."""
        self.found.setdefault((error.operation, error.reason), []).append(error.where)

    def tell(self) -> None:
        """Raise InputError with all that was noted, if anything was: one line where it is one operation, else a line for each kind."""
        if not self.found:
            return
        unsupported = any(reason == NO_PROTOCOL for _, reason in self.found)
        known = f"; supported: {SUPPORTED}" if unsupported else ""
        places = list(self.found.values())
        if len(places) == 1 and len(places[0]) == 1:
            (operation, reason), where = next(iter(self.found)), places[0][0]
            raise InputError(f"{where} uses {operation}, {reason}{known}")
        count, kinds = sum(map(len, places)), len(places)
        lines = [f"{operation}, {reason}: {_places(where)}" for (operation, reason), where in self.found.items()]
        summary = f"{count} operations of {kinds} kind{'s' * (kinds > 1)} cannot be computed securely"
        raise InputError(summary + known, lines)


NO_PROTOCOL = "which has no secure protocol"


def _places(where: list[str]) -> str:
    names = list(dict.fromkeys(where))
    times = "once" if len(where) == 1 else f"{len(where)} times"
    more = len(names) - MOST_NAMED
    return f"{times}, in {', '.join(names[:MOST_NAMED])}" + (f" and {more} more" if more > 0 else "")
