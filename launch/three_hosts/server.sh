#!/usr/bin/env bash
# The server's host: launch/three_hosts/server.sh KEYS CONFIG [CHECKPOINT] [--relu-spec FILE], KEYS with server.secret.
# Runs until SIGINT or SIGTERM; SIGHUP reads the clients again. Server and provider may start in any order.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
"$root/launch/setup.sh"
export GLIBC_TUNABLES=${GLIBC_TUNABLES-glibc.malloc.hugetlb=1} # large arrays in huge pages
exec "$root/.venv/bin/threepc" server --deployment "${1:?which folder holds the keys?}" "${@:2}"
