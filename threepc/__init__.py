"""Secure three-party inference of PyTorch and MMLab networks: a client, a server and a crypto provider.

`local` runs all three parties on this machine; `serve` and `provide` are the server and the provider of a deployment, and `Client` asks them. Everything is loaded on first use, so that
`import threepc` needs neither torch nor numba.
"""

import importlib
import typing

from threepc.errors import InputError, RunError, ThreepcError

__version__ = "0.1.0"
__all__ = ["Client", "InputError", "RunError", "SecureModel", "ThreepcError", "__version__", "local", "provide", "serve"]

if typing.TYPE_CHECKING:
    from threepc.api import Client, SecureModel, local, provide, serve
else:

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module("threepc.api"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
