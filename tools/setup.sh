#!/bin/sh
# Makes ready what the make verbs need; does nothing, quickly, when it is ready already.
#
#   tools/setup.sh venv        the virtual environment .venv, exactly as requirements/dev.lock says
#   tools/setup.sh ssh venv    also sshd, ssh and ssh-keygen
#   tools/setup.sh faults      strace, gcc and faketime, for the tests of failing disks and jumping clocks;
#                              skipped when not root
#   tools/setup.sh browser     Chromium and a font, for the tests of the Keys page; skipped when not root
#   tools/setup.sh systemd     what boots a real systemd for the tests (tools/rootfs.sh); only as
#                              root, since nobody else can, and those tests are skipped then
#   tools/setup.sh audit       the virtual environment .venv-audit, exactly as requirements/audit.lock
#                              says: pip-audit and cyclonedx-bom
#   tools/setup.sh clients     the virtual environment .venv-clients, as requirements/clients.lock says:
#                              the provider's own client and schemathesis
#   tools/setup.sh wheels      .wheels: what requirements/runtime.lock and build.lock name, for tests
#                              that install without network; needs venv
#
# PYTHON names the interpreter to build .venv from (default: python3; 3.10 or newer).
# Missing Debian packages are installed when root; otherwise one sentence says what to run.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
PYTHON=${PYTHON:-python3}
POLICY=/usr/sbin/policy-rc.d
policy_is_ours=
packages=
USAGE="usage: tools/setup.sh [ssh] [faults] [systemd] [browser] [venv] [audit] [clients] [wheels]"

say() { printf '%s\n' "keysync: $*" >&2; }
die() { say "$*"; exit 1; }
need() { packages="$packages $1"; }

remove_policy() {
    if [ -n "$policy_is_ours" ]; then rm -f "$POLICY"; policy_is_ours=; fi
}
trap remove_policy EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# --- what is missing ---------------------------------------------------------------------------

check_python() {
    command -v "$PYTHON" >/dev/null 2>&1 ||
        die "$PYTHON is not installed; install Python 3.10 or newer, or name one with 'make PYTHON=...'."
    version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])') ||
        die "$PYTHON does not run; name another Python 3.10 or newer with 'make PYTHON=...'."
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        die "Python 3.10 or newer is needed and $PYTHON is $version; name a newer one with 'make PYTHON=...'."
    # Debian leaves ensurepip out of its python3 package; without it venv makes no pip.
    "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || need "python$version-venv"
}

check_ssh() {
    [ -x /usr/sbin/sshd ] || need openssh-server
    if ! command -v ssh >/dev/null 2>&1 || ! command -v ssh-keygen >/dev/null 2>&1; then
        need openssh-client
    fi
}

check_faults() {
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then return; fi
    command -v faketime >/dev/null 2>&1 || need faketime
    command -v strace >/dev/null 2>&1 || need strace
    if ! command -v gcc >/dev/null 2>&1 || [ ! -e /usr/include/stdio.h ]; then need gcc; need libc6-dev; fi
}

check_browser() {
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then return; fi
    [ -x /usr/bin/chromium ] || need chromium
    [ -d /usr/share/fonts/truetype/dejavu ] || need fonts-dejavu-core
}

check_systemd() {
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then return; fi
    command -v systemd-nspawn >/dev/null 2>&1 || need systemd-container
    command -v debootstrap >/dev/null 2>&1 || need debootstrap
}

make_rootfs() {
    if command -v systemd-nspawn >/dev/null 2>&1 && [ "$(id -u)" -eq 0 ]; then
        "$root/tools/rootfs.sh" >/dev/null
    fi
}

# --- Debian packages ---------------------------------------------------------------------------

install_packages() {
    packages=${packages# }
    command -v apt-get >/dev/null 2>&1 ||
        die "missing: $packages (Debian's names); install them with this system's package manager."
    [ "$(id -u)" -eq 0 ] ||
        die "missing: $packages; run 'apt-get update && apt-get install -y --no-install-recommends $packages' as root, then try again."
    say "installing Debian packages: $packages"
    # The tests and the demo start their own sshd on loopback; the packaged service stays down.
    if [ ! -e "$POLICY" ]; then
        policy_is_ours=yes
        printf '#!/bin/sh\nexit 101\n' >"$POLICY"
        chmod 755 "$POLICY"
    fi
    export DEBIAN_FRONTEND=noninteractive
    quiet apt-get -q update
    # shellcheck disable=SC2086  # a list of package names, to be split
    quiet apt-get -q -y -o DPkg::Lock::Timeout=300 \
        install --no-install-recommends $packages
    remove_policy
    case " $packages " in
    *" openssh-server "*)
        say "openssh-server was not started; where systemd runs, it will be at the next boot ('systemctl disable ssh' prevents that)." ;;
    esac
}

# Runs a command and shows its output only when it fails.
quiet() {
    log=$(mktemp)
    if "$@" >"$log" 2>&1 </dev/null; then
        rm -f "$log"
    else
        cat "$log" >&2
        rm -f "$log"
        die "'$*' failed; its output is above."
    fi
}

# --- the virtual environment -------------------------------------------------------------------

pip() {
    quiet "${venv:-.venv}/bin/python" -m pip --disable-pip-version-check --no-input -q "$@"
}

# Two stamps inside .venv hold the checksums of what it was made from: a new lock, another
# interpreter or a moved checkout makes it anew, a changed pyproject.toml installs keysync again.
make_venv() {
    cd -- "$root"
    libraries=$({ pwd; "$PYTHON" -VV; command -v "$PYTHON"; cat requirements/dev.lock; } | cksum)
    project=$(cksum <pyproject.toml)
    if [ "$libraries" != "$(stamp libraries)" ]; then
        say "making .venv with Python $version from requirements/dev.lock (downloads about 120 MB the first time)"
        quiet "$PYTHON" -m venv --clear .venv
        # --no-deps: the lock names everything, and old pips take an extra's newest version instead.
        pip install --no-deps --require-hashes -r requirements/dev.lock
        printf '%s\n' "$libraries" >.venv/.keysync-libraries
    fi
    if [ "$project" != "$(stamp project)" ]; then
        pip install --no-deps --no-build-isolation -e .
        printf '%s\n' "$project" >.venv/.keysync-project
    fi
}

stamp() { cat ".venv/.keysync-$1" 2>/dev/null || :; }

# .venv-NAME: tools that bring libraries which keysync must be tested without.
make_tools_venv() {
    cd -- "$root"
    venv=.venv-$1
    made_of=$({ pwd; "$PYTHON" -VV; command -v "$PYTHON"; cat "requirements/$1.lock"; } | cksum)
    if [ "$made_of" != "$(cat "$venv/.keysync-made-of" 2>/dev/null)" ]; then
        say "making $venv with Python $version from requirements/$1.lock (once)"
        quiet "$PYTHON" -m venv --clear "$venv"
        pip install --no-deps --require-hashes --only-binary :all: -r "requirements/$1.lock"
        printf '%s\n' "$made_of" >"$venv/.keysync-made-of"
    fi
    venv=
}

make_wheels() {
    cd -- "$root"
    locks='requirements/runtime.lock requirements/build.lock'
    # shellcheck disable=SC2086  # two names
    made_of=$({ .venv/bin/python -VV; cat $locks; } | cksum)
    if [ "$made_of" != "$(cat .wheels/made-of 2>/dev/null)" ]; then
        say "downloading the wheels that the installation tests use to .wheels"
        rm -rf .wheels .wheels.new
        pip download --require-hashes --only-binary :all: --no-deps -d .wheels.new \
            -r requirements/runtime.lock -r requirements/build.lock
        printf '%s\n' "$made_of" >.wheels.new/made-of
        mv .wheels.new .wheels
    fi
}

# --- main --------------------------------------------------------------------------------------

[ $# -gt 0 ] || die "$USAGE"
for part in "$@"; do
    case $part in
    venv | audit | clients) check_python ;;
    ssh) check_ssh ;;
    faults) check_faults ;;
    browser) check_browser ;;
    systemd) check_systemd ;;
    wheels) ;;
    *) die "$USAGE" ;;
    esac
done
[ -z "$packages" ] || install_packages
for part in "$@"; do
    case $part in
    venv) make_venv ;;
    audit | clients) make_tools_venv "$part" ;;
    wheels) make_wheels ;;
    systemd) make_rootfs ;;
    esac
done
