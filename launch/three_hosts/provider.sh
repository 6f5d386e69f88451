#!/usr/bin/env bash
# The provider's host: launch/three_hosts/provider.sh KEYS, the folder with deployment.yaml, *.public and provider.secret.
# First of the three to start. Runs until SIGINT or SIGTERM.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
"$root/launch/setup.sh"
exec "$root/.venv/bin/threepc" provider --deployment "${1:?which folder holds the keys?}" "${@:2}"
