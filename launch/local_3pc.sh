#!/usr/bin/env bash
# Client, server and provider on this machine, in an environment made first if need be. Arguments are those of `threepc run`;
# without any, ten handwritten digits that the network has not seen are classified privately and compared with plaintext PyTorch.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
"$root/launch/setup.sh"
exec "$root/.venv/bin/threepc" run "$@"
