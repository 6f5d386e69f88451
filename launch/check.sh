#!/usr/bin/env bash
# Looks at every file without running any: format and rules (ruff), types (mypy, strict). Changes nothing; pyproject.toml says what holds.
# `.venv/bin/ruff format . && .venv/bin/ruff check --fix .` mends most of what ruff finds.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
"$root/launch/setup.sh"
cd "$root"
status=0
.venv/bin/python -m ruff format --check . || status=1
.venv/bin/python -m ruff check . || status=1
.venv/bin/python -m mypy || status=1
exit "$status"
