#!/bin/sh
# Writes requirements/*.lock from pyproject.toml: exact versions with hashes, for every supported
# Python on Linux, and no address of an index. Extras stay named, as in coverage[toml]: otherwise pip
# asks for the newest version of such a library, which has no hash here.
#
# Versions that are in the locks already are kept where they still fit; UPGRADE=1 takes the newest.
set -eu

cd -- "$(dirname -- "$0")/.."
UV_VERSION=0.13.9
PYTHON=${PYTHON:-python3}
tool=.venv-lock

printf '%s\n' "keysync: resolving with uv $UV_VERSION" >&2
if [ "$("$tool/bin/uv" --version 2>/dev/null | cut -d' ' -f2)" != "$UV_VERSION" ]; then
    "$PYTHON" -m venv --clear "$tool"
    "$tool/bin/python" -m pip --disable-pip-version-check --no-input -q install "uv==$UV_VERSION"
fi

lock() {
    out=$1
    shift
    "$tool/bin/uv" pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-strip-extras \
        --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' \
        ${UPGRADE:+--upgrade} "$@" --output-file "$out" >/dev/null
    if grep -nE '://|^ *(-i|-f|--(extra-)?index-url|--find-links)' "$out"; then
        printf '%s\n' "keysync: $out names an address (above); it must not." >&2
        exit 1
    fi
}

lock requirements/runtime.lock pyproject.toml
# The same versions in all three: the tests run on what users get.
lock requirements/dev.lock pyproject.toml --group dev --constraint requirements/runtime.lock
lock requirements/build.lock --group build --constraint requirements/dev.lock
lock requirements/audit.lock --group audit
lock requirements/clients.lock --group clients
