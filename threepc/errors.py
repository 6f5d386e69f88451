"""The two ways a command can fail: the user's input (exit status 2) or the run itself (exit status 1)."""


class ThreepcError(Exception):
    """Base of all errors that threepc raises on purpose; the message is one line for the user."""

    exit_status = 1


class InputError(ThreepcError):
    """Bad input: a file, an option, a model or a value. Nothing has been sent when it is raised."""

    exit_status = 2


class RunError(ThreepcError):
    """A run that failed: a party that disagrees, disappears, or breaks the protocol.

    kind: for counts, in a word: "silent" (no answer in time), "lost" (the connection ended), "ended by peer" (it said why), "stopped" (this
    party is being stopped), else "refused".
    """

    def __init__(self, message: str, kind: str = "refused") -> None:
        super().__init__(message)
        self.kind = kind
