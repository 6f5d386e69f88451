"""Where the tensors stand in what a module returns, from torch's own description of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from threepc.errors import InputError
from threepc.graph.outputs import check_path

# A namedtuple comes back as a tuple, an OrderedDict as a dict.
_CONTAINERS = {"tuple": "tuple", "namedtuple": "tuple", "list": "list", "dict": "dict", "OrderedDict": "dict"}


def paths(spec: Any) -> Iterator[list[list[Any]]]:
    """The path to every leaf of a pytree's description, in its order, as outputs.py has them. Raises InputError for other containers."""
    if spec.is_leaf():
        yield []
        return
    kind = getattr(spec.type, "__name__", "")
    container = _CONTAINERS.get(kind) if getattr(spec.type, "__module__", "") in ("builtins", "collections") else None
    if container is None or not spec.num_children:
        what = f"an empty {container}" if container else f"a {kind}"
        raise InputError(f"the model returns {what}; it must return a tensor, or tuples, lists and dicts of tensors")
    for key, child in zip(spec.context if container == "dict" else range(spec.num_children), spec.children(), strict=True):
        for path in paths(child):
            found = [[container, key], *path]
            try:
                check_path(found)
            except InputError as error:
                raise InputError(f"the model returns a {container} with the key {key!r:.80}: the way to an output {error}") from None
            yield found
