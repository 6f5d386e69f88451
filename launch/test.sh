#!/usr/bin/env bash
# Runs the tests, in an environment made first if need be. Arguments go to pytest, as seen from the repository root:
#   launch/test.sh                          all of them: what has to pass before a change is merged
#   launch/test.sh --fast                   what to run on every save: one to one and a half minutes on two cores, once the kernels are compiled
#   launch/test.sh tests/graph -k relu      those of a room, or of a name
# --fast touches every room: kernels against their definitions, protocols with their transcripts, import of graphs, framing, sessions in
# threads, the command line, the house. It leaves out processes and hosts, peers that attack, wait or die, the launch scripts, the benchmarks,
# MMLab's networks in full size, training, and kernels of other processors (tests/conftest.py has the list); properties are tried on fewer cases.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
"$root/launch/setup.sh"
cd "$root"
exec .venv/bin/python -m pytest "$@"
