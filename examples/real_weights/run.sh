#!/usr/bin/env bash
# Trained networks on real photos, privately and in plaintext: EfficientNet-Lite0 names what is on twenty photos, MTCNN finds the faces.
# Makes an environment of its own in output/real_weights, from the package index, the first time. PYTHON=/path/to/python3.11 chooses the interpreter.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)
venv=$root/output/real_weights/.venv
output=$root/output/real_weights

if [[ ! -f $venv/ready ]]; then
    mkdir -p "$output"
    "${PYTHON:-python3.11}" -m venv --clear "$venv"
    pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint "$root/launch/constraints.txt")
    "${pip[@]}" setuptools wheel torch torchvision requests tqdm
    "${pip[@]}" --no-build-isolation --editable "$root[server]"
    "${pip[@]}" --requirement "$here/requirements.txt"
    "${pip[@]}" --no-deps facenet-pytorch==2.6.0 # it asks for a torch of 2024, and needs none
    touch "$venv/ready"
fi

cd "$here"
mapfile -t photos < <("$venv/bin/python" photos.py)
"$venv/bin/python" -m threepc run lite0:lite0 --input "${photos[@]}" --compare --report "$output/classes.json" "$@"
"$venv/bin/python" - "$output/classes.json" <<'END'
import json
import sys

with open(sys.argv[1]) as file:
    report = json.load(file)
results = report["results"]
same = sum(result["label"] == result["plain_label"] for result in results)
print(f"The secure class is plaintext's on {same} of {len(results)} photos.")
sys.exit(same != len(results))
END
"$venv/bin/python" faces.py
