"""Applies each mutation of the catalogue to a copy of the tree, runs the tests that should notice, and says which test did.

    python -m tests.mutations                       # all, some minutes each where a kernel changes
    python -m tests.mutations keys argmax           # those whose names contain one of these words
    python -m tests.mutations --markdown FILE       # the table as documents show it

Exit status: 0 where every mutation was caught, 1 where one survived.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.mutations.catalogue import MUTATIONS
from tests.mutations.mutation import Mutation

ROOT = Path(__file__).parents[2]
LONGEST = 900
"""Seconds that the tests of one mutation may take; a run that hangs for longer counts as caught by the clock."""


def tree(target: Path) -> None:
    """Copy what git tracks, and what is new and not ignored."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True
    )
    for name in filter(None, listing.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def tried(mutation: Mutation, target: Path) -> str:
    """The first test that fails under a mutation, "" where all pass. The copy is as before afterwards."""
    path = target / mutation.file
    original = path.read_text()
    path.write_text(mutation.applied(original))
    environment = os.environ | {"PYTHONPATH": str(target), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "-p", "no:cacheprovider", *mutation.tests]
    try:
        run = subprocess.run(command, cwd=target, env=environment, capture_output=True, text=True, timeout=LONGEST, check=False)
    except subprocess.TimeoutExpired:
        return f"no end within {LONGEST} s"
    finally:
        path.write_text(original)
    if run.returncode == 0:
        return ""
    if run.returncode != 1 and not (found := re.search(r"^(?:FAILED|ERROR) (\S+)", run.stdout, re.MULTILINE)):
        raise SystemExit(f"{mutation.name}: pytest ended with {run.returncode}\n{run.stdout[-2000:]}{run.stderr[-2000:]}")
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", run.stdout, re.MULTILINE)
    return found[1] if found else "an error outside of any test"


def main() -> int:
    """Run the wanted mutations; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*")
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    wanted = [m for m in MUTATIONS if not options.words or any(word in m.name for word in options.words)]
    rows, survivors = [], 0
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        target = Path(folder)
        tree(target)
        for number, mutation in enumerate(wanted, 1):
            began = time.monotonic()
            test = tried(mutation, target)
            survivors += not test
            print(f"[{number}/{len(wanted)}] {mutation.name}: {test or 'SURVIVED'} ({time.monotonic() - began:.0f} s)", flush=True)
            rows.append(f"| {mutation.name} | `{mutation.file}` | {f'`{test}`' if test else '**survived**'} |")
    print(f"{len(wanted) - survivors} of {len(wanted)} mutations caught")
    if options.markdown:
        options.markdown.write_text("| mutation | file | caught by |\n|---|---|---|\n" + "\n".join(rows) + "\n")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
