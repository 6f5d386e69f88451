"""Secure three-party inference of PyTorch and MMLab networks: a client, a server and a crypto provider.

`local` runs all three parties on this machine, `Client` asks the parties of a deployment. Everything is loaded on first use, so that
`import threepc` needs neither torch nor numba.
"""

from importlib import import_module

from threepc.errors import InputError, RunError, ThreepcError

__all__ = ["Client", "InputError", "RunError", "ThreepcError", "local"]

_HOMES = {"Client": ".api", "local": ".api"}


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
