#!/bin/sh
# Makes the root file system in which the tests boot a real systemd, and prints where it is; does
# nothing, quickly, when it is there already. Needs root and the packages of `tools/setup.sh systemd`.
#
#   tools/rootfs.sh            of the release that apt is configured with
#   tools/rootfs.sh RELEASE    of another one that the same mirror has, such as trixie or sid, with
#                              what it takes to install keysync with the release's own Python
#
# It is made from the mirror that apt is configured with, so that nothing here names an address, and
# kept outside the checkout: 70 s and 210 MB, once for a machine.
#
# KEYSYNC_ROOTFS      where it is kept (default: /var/tmp/keysync-rootfs, with -RELEASE behind it
#                     when one is named)
# KEYSYNC_ROOTFS_AGE  days after which one with a named release is made anew (default: 7)
set -eu

release=${1:-}
ROOTFS=${KEYSYNC_ROOTFS:-/var/tmp/keysync-rootfs}${release:+-$release}
MAX_AGE=${KEYSYNC_ROOTFS_AGE:-7}
PACKAGES=systemd,systemd-sysv,dbus,procps,python3,openssh-server,openssh-client${release:+,python3-venv}
new=$ROOTFS.new

say() { printf '%s\n' "keysync: $*" >&2; }
die() { say "$*"; exit 1; }

# "SITE CODENAME" of the distribution's own archive: the first source with its main component that
# is neither its updates nor its security archive.
find_mirror() {
    codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
    apt-get indextargets --format '$(SITE) $(CODENAME) $(COMPONENT)' 'Created-By: Packages' |
        while read -r site name component; do
            if [ "$name $component" = "$codename main" ]; then
                printf '%s %s\n' "$site" "$name"
                break
            fi
        done
}

# sid moves, and is there to be tested as it is now.
is_too_old() {
    [ -n "$release" ] && [ -n "$(find "$ROOTFS/.keysync-made-of" -mtime "+$MAX_AGE" 2>/dev/null)" ]
}

remove_new() {
    rm -rf --one-file-system "$new"
}

[ "$(id -u)" -eq 0 ] || die 'the root file system for the systemd tests can only be made by root.'
exec 9>"$ROOTFS.lock"
flock 9
mirror=$(find_mirror)
[ -n "$mirror" ] || die 'apt names no mirror for this release, so no root file system can be made.'
suite=${release:-${mirror#* }}
made_of="$PACKAGES $suite"
if [ "$(cat "$ROOTFS/.keysync-made-of" 2>/dev/null)" != "$made_of" ] || is_too_old; then
    say "making $ROOTFS for the tests (about 70 s, once)"
    trap remove_new EXIT
    remove_new
    log=$(mktemp)
    # On Ubuntu some of these packages are in universe; elsewhere the name is merely ignored.
    debootstrap --variant=minbase --include="$PACKAGES" --components=main,universe \
        "$suite" "$new" "${mirror% *}" >"$log" 2>&1 9>&- ||
        { tail -n 20 "$log" >&2; rm -f "$log"; die 'debootstrap failed; its last words are above.'; }
    rm -f "$log"
    rm -rf "$new"/var/cache/apt/archives/*.deb "$new"/var/lib/apt/lists/*
    printf '%s\n' "$made_of" >"$new/.keysync-made-of"
    rm -rf --one-file-system "$ROOTFS"
    mv "$new" "$ROOTFS"
    trap - EXIT
fi
printf '%s\n' "$ROOTFS"
