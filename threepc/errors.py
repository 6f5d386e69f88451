"""The two ways a command can fail: the user's input (exit status 2) or the run itself (exit status 1)."""

from collections.abc import Sequence

KINDS = ("silent", "lost", "ended by peer", "stopped", "refused")
"""Of failed runs, in a word, see `RunError`."""


class ThreepcError(Exception):
    """Base of all errors that threepc raises on purpose; the message is one line for the user."""

    exit_status = 1


class InputError(ThreepcError):
    """Bad input: a file, an option, a model or a value. Nothing has been sent when it is raised.

    details: lines below the message, where one line cannot say it all; they are part of the error's text.
    """

    exit_status = 2

    def __init__(self, message: str, details: Sequence[str] = ()) -> None:
        super().__init__("\n  ".join([message, *details]))
        self.lines = (message, *details)


class RunError(ThreepcError):
    """A run that failed: a party that disagrees, disappears, or breaks the protocol.

    kind: for counts, in a word: "silent" (no answer in time), "lost" (the connection ended), "ended by peer" (it said why), "stopped" (this
    party is being stopped), else "refused". cause: where a peer ended the session, the kind of what it says was the reason.
    """

    def __init__(self, message: str, kind: str = "refused", cause: str = "") -> None:
        super().__init__(message)
        self.kind, self.cause = kind, cause

    @property
    def may_pass(self) -> bool:
        """Whether a new session may fare better: somebody was lost, silent or being stopped, and nobody refused anything."""
        return (self.cause or self.kind) in ("silent", "lost", "stopped")


def typed(value: object) -> str:
    """The type of a value, with its article, for a message that refuses it."""
    name = type(value).__name__
    return f"{'an' if name.lower().startswith(('a', 'e', 'i', 'o', 'nd')) else 'a'} {name}"


EXTRAS = {
    "torch": "server",
    "mmcls": "mmlab",
    "mmseg": "mmlab",
    "mmcv": "mmlab",
    "scipy": "reduce",
    "joblib": "reduce",
    "matplotlib": "reduce",
    "onnx": "onnx",
    "timm": "timm",
    "torchvision": "timm",
    "safetensors": "timm",
    "prometheus_client": "observe",
    "jinja2": "report",
}
"""Package that some commands need -> the extra of threepc that installs it."""


def missing(package: str) -> InputError:
    """What to raise where a package of EXTRAS is not installed: a line that says how to install it."""
    install = f"pip install 'threepc[{EXTRAS[package]}]'"
    if package == "mmcv":  # it builds with old setuptools alone, so that no extra can name it
        install = f"MMCV_WITH_OPS=0 pip install --no-build-isolation 'setuptools<80' mmcv==1.7.2, then {install}"
    return InputError(f"the package {package} is needed for this and is not installed: {install}")
