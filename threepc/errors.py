"""The two ways a command can fail: the user's input (exit status 2) or the run itself (exit status 1)."""


class ThreepcError(Exception):
    """Base of all errors that threepc raises on purpose; the message is one line for the user."""

    exit_status = 1


class InputError(ThreepcError):
    """Bad input: a file, an option, a model or a value. Nothing has been sent when it is raised."""

    exit_status = 2


class RunError(ThreepcError):
    """A run that failed: a party that disagrees, disappears, or breaks the protocol."""
