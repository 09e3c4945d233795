#!/bin/sh
# keysync's onstart script: installs keysync in any container and starts it. It runs at every start
# of the container, is safe to repeat, and never fails the container's start.
#
# KEYSYNC_SOURCE  where keysync's wheel is: its address or path
# KEYSYNC_SHA256  the wheel's SHA-256; nothing else is installed. The wheel holds the hashes of all
#                 libraries, so this one number stands for everything that root will run
# VAST_API_KEY    an API key with the permission user_read; needed at the first start only, since
#                 it is copied to /etc/keysync/api_key
# Set them as environment variables of the template.

keysync_say() { printf 'keysync: %s\n' "$*"; }

keysync_get() {
    [ ! -x /opt/keysync/bin/keysync ] || return 0
    if [ -z "${KEYSYNC_SOURCE:-}" ] || [ -z "${KEYSYNC_SHA256:-}" ]; then
        keysync_say 'KEYSYNC_SOURCE or KEYSYNC_SHA256 is not set; set both in the template'
        return 1
    fi
    if ! python3 -I -c 'import ensurepip, venv' 2>/dev/null; then
        keysync_say 'installing python3-venv'
        apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y \
            install --no-install-recommends python3-venv >/dev/null || return 1
    fi
    keysync_say "installing ${KEYSYNC_SOURCE##*@}" # what is before an @ may be a token
    (keysync_install)
}

# The program itself comes last: an installation that was interrupted has none, and is made anew.
keysync_install() {
    umask 022 # nobody else may write what root runs
    case $KEYSYNC_SOURCE in /*) KEYSYNC_SOURCE=file://$KEYSYNC_SOURCE ;; esac
    here=/opt/keysync/wheel
    rm -rf /opt/keysync && python3 -I -m venv /opt/keysync &&
        keysync_pip download --require-hashes --no-deps -d $here \
            "$KEYSYNC_SOURCE#sha256=$KEYSYNC_SHA256" &&
        python3 -I -m zipfile -e $here/*.whl $here/open &&
        keysync_pip install --require-hashes --only-binary :all: \
            -r $here/open/agent/share/runtime.lock &&
        keysync_pip install --no-index --no-deps $here/*.whl && rm -r $here
}

# Everywhere isolated (-I): no PYTHONPATH of the account decides what root runs.
keysync_pip() { /opt/keysync/bin/python -I -m pip -q --disable-pip-version-check "$@"; }

keysync_kept() {
    [ -e /etc/systemd/system/keysync.service ] || [ -e /etc/supervisor/conf.d/keysync.conf ]
}

keysync_run() {
    keysync_get || { keysync_say 'could not be installed; see above'; return; }
    /opt/keysync/bin/keysync install </dev/null ||
        keysync_say 'the first sync did not go well; see above. The agent goes on trying.'
    keysync_kept && return
    # Nothing else keeps the agent here: it is started anew until it ends well, as after SIGTERM, or
    # is uninstalled. The lock lets one such loop run at a time.
    mkdir -p /run /var/log
    if ! flock -n /run/keysync-run.lock true; then
        keysync_say 'the agent is already running; its log is /var/log/keysync.log'
        return
    fi
    keysync_say 'starting the agent; its log is /var/log/keysync.log'
    nohup flock -n /run/keysync-run.lock sh -c \
        'while [ -e /etc/keysync/config.yaml ] && ! /opt/keysync/bin/keysync run; do sleep 5; done' \
        </dev/null >>/var/log/keysync.log 2>&1 &
}

keysync_run || true
