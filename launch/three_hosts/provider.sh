#!/usr/bin/env bash
# The provider's host: launch/three_hosts/provider.sh KEYS, the folder with deployment.yaml, *.public and provider.secret.
# Runs until SIGINT or SIGTERM; SIGHUP reads the clients again. Server and provider may start in any order.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
"$root/launch/setup.sh"
export GLIBC_TUNABLES=${GLIBC_TUNABLES-glibc.malloc.hugetlb=1} # large arrays in huge pages
exec "$root/.venv/bin/threepc" provider --deployment "${1:?which folder holds the keys?}" "${@:2}"
