"""The `threepc` command: finds the subcommand, and turns every failure into one line and an exit status."""

from __future__ import annotations

import errno
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from importlib import import_module
from types import FrameType

import click

from threepc.errors import EXTRAS, InputError, ThreepcError, missing

COMMANDS = {
    "run": "threepc.cli.run",
    "keygen": "threepc.cli.parties",
    "clients": "threepc.cli.parties",
    "compile": "threepc.cli.parties",
    "server": "threepc.cli.parties",
    "provider": "threepc.cli.parties",
    "client": "threepc.cli.parties",
    "status": "threepc.cli.parties",
    "doctor": "threepc.cli.doctor",
    "inspect": "threepc.cli.inspect",
    "simulate": "threepc.cli.run",
    "tune": "threepc.cli.tune",
    "evaluate": "threepc.cli.evaluate",
    "distortion": "threepc.cli.reduction",
    "knapsack": "threepc.cli.reduction",
    "finetune": "threepc.cli.reduction",
    "spec": "threepc.cli.reduction",
    "report": "threepc.cli.reduction",
    "report-run": "threepc.cli.report_run",
    "bench": "threepc.cli.bench",
}
"""Subcommand -> its module, in the order of the help."""


class Commands(click.Group):
    """The subcommands; a module is imported when its command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of COMMANDS."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command, its module imported; None where there is none of the name."""
        if name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(COMMANDS[name]), name.replace("-", "_"))
        return command


def _show_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from threepc import __version__
    from threepc.transport.framing import PROTOCOL_VERSION

    click.echo(f"threepc {__version__}, protocol version {PROTOCOL_VERSION}")
    ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the versions and exit.")
def threepc() -> None:
    """Secure three-party inference: a client's images, a server's network, and a provider that helps both and sees neither."""


_interruptions: list[int] = []
"""Signals that asked this process to end."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 the run failed, 2 bad input, 130 interrupted."""
    for number in (signal.SIGINT, signal.SIGTERM):  # alike: everything started is ended and cleared away
        if signal.getsignal(number) is not signal.SIG_IGN:  # a shell's background job hears no Ctrl-C
            signal.signal(number, _interrupt)
    sys.unraisablehook = _tell_or_interrupt_again
    try:
        sys.exit(status(arguments))
    except KeyboardInterrupt:  # once more, while the first was told
        sys.exit(130)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _interruptions.append(number)
    signal.default_int_handler(number, frame)


def _tell_or_interrupt_again(unraisable: sys.UnraisableHookArgs) -> None:
    """Python's own hook, but for an interruption within a callback of a C library, which ends nothing there: it is sent once more."""
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
        return
    again = threading.Timer(0.1, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT])
    again.daemon = True
    again.start()


def status(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit status. Errors are one line on standard error (a refused network has one for each kind of operation), with --debug after a traceback."""
    settings = {"debug": False}
    try:
        threepc.main(arguments, prog_name="threepc", standalone_mode=False, obj=settings)
        return 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "threepc"
        message = error.format_message().rstrip(".")
        return _fail(f"{message[:1].lower()}{message[1:]}: see '{command} --help'", 2, settings)
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted", 130, settings)
    except ThreepcError as error:
        message, *details = error.lines if isinstance(error, InputError) else (str(error),)
        return _fail(message, error.exit_status, settings, details)
    except BrokenPipeError:
        return 1
    except Exception as error:  # noqa: BLE001 - whatever it is, the user gets a line
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            place = f"of {error.filename}" if error.filename else "that standard output or a file goes to"
            return _fail(f"the disk {place} is full ({error.strerror}); make room, and call it again", 1, settings)
        package = str(error.name).partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        if package in EXTRAS:
            return _fail(str(missing(package)), InputError.exit_status, settings)
        return _fail(f"unexpected {type(error).__name__}: {error}; --debug shows the traceback", 1, settings)


def _fail(message: str, exit_status: int, settings: dict[str, bool], details: Sequence[str] = ()) -> int:
    if _interruptions:  # whatever came of it
        message, exit_status, details = "interrupted", 130, ()
    if settings["debug"]:
        traceback.print_exc()
    for start, line in (("threepc: ", message), *(("  ", detail) for detail in details)):
        click.echo(f"{start}{' '.join(line.split())}", err=True)
    return exit_status


if __name__ == "__main__":
    main()
