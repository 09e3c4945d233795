#!/bin/sh
# Fills dist/ with what a release is made of: wheel, source archive, software bill of materials and
# the checksums of all three. The same commit gives the same bytes, whoever makes it and when; the
# libraries' licences in the bill are those that .venv's Python sees.
#
# Needs .venv and .venv-audit (tools/setup.sh venv audit).
set -eu

cd -- "$(dirname -- "$0")/.."
umask 022
say() { printf '%s\n' "keysync: $*" >&2; }

# The commit's time is the time of everything; without git, the build backend's own fixed one.
if commit=$(git log -1 --format='%ct %h' 2>/dev/null); then
    export SOURCE_DATE_EPOCH="${commit% *}"
    [ -z "$(git status --porcelain)" ] ||
        say "the files differ from commit ${commit#* }: this is good for a try, not for a release."
fi
rm -rf dist
mkdir dist
# The wheel is made from the source archive, so both are known to be whole.
.venv/bin/python -m build --no-isolation --outdir dist . >dist/build.log 2>&1 ||
    { cat dist/build.log >&2; exit 1; }
rm dist/build.log
wheel=$(echo dist/keysync-*.whl)
.venv-audit/bin/python tools/sbom.py "$wheel"
(cd dist && sha256sum -- * >SHA256SUMS)
cat dist/SHA256SUMS
say "for container/onstart.sh: KEYSYNC_SOURCE=<where ${wheel#dist/} will be>, and"
say "KEYSYNC_SHA256=$(sha256sum <"$wheel" | cut -d' ' -f1)"
