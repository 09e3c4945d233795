#!/bin/sh
# Runs the unit and integration suites with every supported Python that is on this machine, each in
# a virtual environment of its own outside the checkout, made from requirements/dev.lock.
#
#   tools/pythons.sh                 all of 3.10 to 3.13 that are found in PATH or under pyenv
#   tools/pythons.sh 3.10 3.13       only these
#   PYTEST_ARGS='-x -k pace'         more words for pytest
#   KEYSYNC_VENVS=DIR                where the environments are kept (default: the user's cache)
#
# Prints one line for each; ends with 1 when one of them failed, or when none was found.
set -u

cd -- "$(dirname -- "$0")/.." || exit 1
SUITES="tests/core tests/providers tests/adapters tests/network tests/cli tests/service tests/setup"
venvs=${KEYSYNC_VENVS:-${XDG_CACHE_HOME:-$HOME/.cache}/keysync-venvs}
log=$(mktemp -d) || exit 1
trap 'rm -rf "$log"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# An interpreter of this version that runs: a pyenv shim may stand for one that is not chosen.
find_python() {
    for found in "$(command -v "python$1")" \
        "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do
        if [ -x "$found" ] && "$found" -c 'import ensurepip, venv' 2>/dev/null; then
            "$found" -c 'import sys; print(sys.executable)'
            return
        fi
    done
}

# Made anew when the lock, the interpreter or the place of the checkout has changed.
make_venv() {
    stamp=$({ pwd; "$1" -VV; cat requirements/dev.lock pyproject.toml; } | cksum)
    [ "$stamp" = "$(cat "$2/.keysync" 2>/dev/null)" ] && return
    "$1" -m venv --clear "$2" &&
        "$2/bin/python" -m pip --disable-pip-version-check --no-input -q \
            install --no-deps --require-hashes -r requirements/dev.lock &&
        "$2/bin/python" -m pip --disable-pip-version-check --no-input -q \
            install --no-deps --no-build-isolation -e . &&
        printf '%s\n' "$stamp" >"$2/.keysync"
}

suites() {
    for suite in $SUITES tests/test_*.py; do
        # pytest calls a folder without tests an error.
        if [ -f "$suite" ] || ls "$suite"/test_*.py >/dev/null 2>&1; then echo "$suite"; fi
    done
}

worst=0
ran=0
[ $# -gt 0 ] || set -- 3.10 3.11 3.12 3.13
for version in "$@"; do
    python=$(find_python "$version")
    if [ -z "$python" ]; then
        echo "Python $version: not on this machine"
        continue
    fi
    ran=$((ran + 1))
    venv=$venvs/$version
    if ! make_venv "$python" "$venv" >"$log/$version" 2>&1; then
        cat "$log/$version"
        echo "Python $version: its virtual environment could not be made (above)"
        worst=1
        continue
    fi
    # shellcheck disable=SC2046,SC2086  # lists of words
    if "$venv/bin/python" -m pytest -q -p no:cacheprovider ${PYTEST_ARGS:-} $(suites) \
        >"$log/$version" 2>&1; then
        :
    else
        cat "$log/$version"
        worst=1
    fi
    echo "Python $("$venv/bin/python" -c 'import platform; print(platform.python_version())'): $(tail -n 1 "$log/$version")"
done
if [ "$ran" -eq 0 ]; then
    echo "none of the supported versions of Python was found" >&2
    exit 1
fi
exit "$worst"
