"""What `threepc tune` prints."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from threepc.console import megabytes, new_table, print_table, say
from threepc.tasks.tune import CONFIDENCE, Tried, Tuning


def show(tuning: Tuning) -> None:
    """A row for each setting that was tried; the cheapest that holds, what that is worth, and how to use it."""
    timed = [f"s on {tuning.options.network}"] if tuning.options.network != "none" else []
    columns = ("ring", "fraction", "signs from bits", "offline", "online", "msgs", *timed, "lost", "error", "")
    table = new_table(*columns, right=("ring", "fraction", "offline", "online", "msgs", *timed, "lost", "error"))
    for tried in tuning.tried:
        mark = "cheapest that holds" if tried is tuning.best else "default" if tried is tuning.tried[0] else ""
        table.add_row(str(tried.ring), str(tried.fraction), _signs(tried), *_cells(tried, tuning, bool(timed)), mark)
    print_table(table)
    say("offline, online: megabytes of one image over all links; msgs: one-way messages online")
    say("lost: labels that differ from plaintext PyTorch's; > where a setting was left before the last image")
    say("error: largest difference of an output, as a part of plaintext's largest; labels may hold where it is large")
    if tuning.best is not None:
        say()
        for line in _verdict(tuning, tuning.best):
            say(line)


def _signs(tried: Tried) -> str:
    return "all that matter" if tried.window is None else f"{tried.window[0]} to {tried.window[1] - 1}"


def _cells(tried: Tried, tuning: Tuning, timed: bool) -> list[str]:
    if tried.refused is not None:
        return ["", "", "", *([""] if timed else []), "does not fit", ""]
    seconds = [f"{tried.seconds:.2f}"] if timed else []
    lost = f"{'> ' * (tried.images < tuning.images)}{tried.lost:.3g} of {tuning.images}"
    return [megabytes(tried.offline), megabytes(tried.online), str(tried.messages), *seconds, lost, f"{tried.error:.2%}"]


def _verdict(tuning: Tuning, best: Tried) -> Iterator[str]:
    default, size, count, loss = tuning.tried[0], megabytes(best.offline + best.online), tuning.images, tuning.options.loss
    instead = f" instead of {megabytes(default.offline + default.online)} by default" if best is not default and not default.refused else ""
    yield f"{tuning.model}: {best.ring}-bit ring, {best.fraction} fractional bits, signs from bits: {_signs(best)}; {size} MB an image{instead}"
    yield f"holds on the {count} image{'s' * (count > 1)} given: {best.lost:.3g} of {count} labels lost, a share of {loss:.3g} is allowed"
    if tuning.share_at_most is not None and tuning.share_at_most > loss:
        needed = f"; {tuning.images_needed:,} images without a lost label would show {loss:.3g}" if tuning.images_needed else ""
        yield f"of all such images this shows a share of at most {tuning.share_at_most:.2g} ({CONFIDENCE:.0%} confidence){needed}"
    window = "" if best.window is None else f", drelu_window: [{best.window[0]}, {best.window[1]}]"
    yield ""
    yield shlex.join(tuning.command)
    yield f"deployment.yaml: ring: {best.ring}, frac_bits: {best.fraction}{window}"
