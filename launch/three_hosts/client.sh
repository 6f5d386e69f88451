#!/usr/bin/env bash
# A client's host: launch/three_hosts/client.sh KEYS --input IMAGE... [--output DIR], KEYS with client.secret.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
"$root/launch/setup.sh"
export GLIBC_TUNABLES=${GLIBC_TUNABLES-glibc.malloc.hugetlb=1} # large arrays in huge pages
exec "$root/.venv/bin/threepc" client --deployment "${1:?which folder holds the keys?}" "${@:2}"
