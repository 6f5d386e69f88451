#!/usr/bin/env bash
# Makes .venv in the repository root, with all that threepc needs, from nothing but Python 3.11.
# Returns at once when it is there already. May be interrupted and called again at any time.
# PYTHON=/path/to/python3.11 chooses the interpreter.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/.venv
stamp=$venv/setup.stamp     # what was installed, and where: written last, so it exists only for a complete environment
installing=$venv/installing # exists while pip writes: found at the start, it means that pip was killed and may have left half a package
log=$venv/setup.log
constraints=$root/launch/constraints.txt

wanted() { # the environment depends on these files, and its scripts hold the absolute path
    echo "$root"
    cat "$root/setup.cfg" "$root/pyproject.toml" "$constraints" "$root/launch/setup.sh" | sha256sum
}

complete() { [[ -x $venv/bin/python && -f $stamp && $(<"$stamp") == "$(wanted)" ]]; }

fail() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

usable() { # an environment of this place (not one that was moved or copied) whose interpreter is still there
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 && grep -qF "$venv/bin/python" "$venv/bin/pip"
}

find_python() {
    local candidate without_venv= candidates=(python3.11 python3 python)
    [[ ${PYTHON:-} ]] && candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || continue
        if "$candidate" -c 'import venv, ensurepip' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
        without_venv=$candidate
    done
    if [[ $without_venv ]]; then
        fail "$without_venv is Python 3.11 but lacks the venv module; install it (Debian, Ubuntu: apt-get install python3.11-venv)"
    fi
    [[ ${PYTHON:-} ]] && fail "PYTHON=$PYTHON is not Python 3.11"
    fail "Python 3.11 not found; install it, or name it: PYTHON=/path/to/python3.11 $root/launch/setup.sh"
}

step() { # step NAME COMMAND...: one progress line, a dot for every package; on failure the step's name and the end of its output
    local name=$1 start=$SECONDS
    shift
    printf 'setup: %s .' "$name"
    : >"$log"
    if "$@" 2>&1 | tee -a "$log" | awk '/^(Collecting|Requirement|  *Downloading|Building|Installing)/ { printf "."; fflush() }'; then
        printf ' done (%d s)\n' $((SECONDS - start))
    else
        printf ' failed\n'
        tail -n 20 "$log" >&2
        fail "the step \"$name\" failed (above: the end of $log); mend the cause and call $root/launch/setup.sh again"
    fi
}

install() {
    local status=0
    touch "$installing"
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --constraint "$constraints" "$@" || status=$?
    ((status > 128)) || rm -f "$installing"
    return "$status"
}

# mmcv builds only with the setuptools of this environment; its compiled operations are not needed.
# Where somebody has put mmcv-full in its place, that is used.
install_mmcv() {
    compgen -G "$venv/lib/python3.11/site-packages/mmcv_full-*" >/dev/null && return
    MMCV_WITH_OPS=0 install --no-build-isolation mmcv
}

# An environment that installs but does not work is found here, not by the user.
check() {
    cd / && "$venv/bin/python" -c 'import cv2, numba, zmq, cryptography, torch; from threepc.mmlab import compat; compat.import_mmlab()'
}

if complete; then exit 0; fi
exec 9<"${BASH_SOURCE[0]}"
if ! flock --nonblock 9; then
    echo "setup: another setup is at work here, waiting for it"
    flock 9
fi
if complete; then exit 0; fi

trap 'echo; fail "interrupted; call it again to go on"' INT TERM HUP
unset PYTHONPATH PYTHONHOME
export PYTHONNOUSERSITE=1
echo "setup: making $venv; the first time this takes some minutes"
rm -f "$stamp"
if [[ -e $installing ]] || ! usable; then
    python=$(find_python)
    rm -rf "$venv"
    mkdir "$venv"
    step "virtual environment" "$python" -m venv "$venv"
fi
step "build tools" install setuptools wheel
# OpenCV before mmcv, which otherwise asks for the variant with a graphical interface
step "torch and OpenCV" install torch opencv-python-headless
step "mmcv" install_mmcv
step "threepc, MMLab and the rest" install --no-build-isolation --editable "$root[mmlab,test,dev]"
step "check" check
wanted >"$stamp.new"
mv "$stamp.new" "$stamp"
echo "setup: ready"
