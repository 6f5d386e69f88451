#!/usr/bin/env bash
# Runs the tests, in an environment made first if need be.
# Arguments go to pytest, as seen from the repository root: launch/test.sh tests/graph -k relu
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
"$root/launch/setup.sh"
cd "$root"
exec .venv/bin/python -m pytest "$@"
