#!/bin/sh
# keysync's onstart script: installs keysync in any container and starts it. It runs at every start
# of the container, is safe to repeat, and never fails the container's start.
#
# KEYSYNC_SOURCE  what pip installs: a wheel's path or address, or git+https://... of the repository
# VAST_API_KEY    an API key with the permission user_read; needed at the first start only, since
#                 it is copied to /etc/keysync/api_key
# Set both as environment variables of the template.

keysync_say() { printf 'keysync: %s\n' "$*"; }

keysync_get() {
    [ ! -x /opt/keysync/bin/keysync ] || return 0
    if [ -z "${KEYSYNC_SOURCE:-}" ]; then
        keysync_say 'KEYSYNC_SOURCE is not set, so there is nothing to install; set it in the template'
        return 1
    fi
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
        keysync_say 'installing python3-venv'
        apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y \
            install --no-install-recommends python3-venv >/dev/null || return 1
    fi
    keysync_say "installing ${KEYSYNC_SOURCE##*@}" # what is before an @ may be a token
    # Only a whole installation gets the name; one that was interrupted is made anew.
    rm -rf /opt/keysync && python3 -m venv /opt/keysync &&
        /opt/keysync/bin/pip install -q --disable-pip-version-check "$KEYSYNC_SOURCE"
}

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
    keysync_say 'starting the agent; its log is /var/log/keysync.log'
    mkdir -p /run /var/log
    nohup flock -n /run/keysync-run.lock sh -c \
        'while [ -e /etc/keysync/config.yaml ] && ! /opt/keysync/bin/keysync run; do sleep 5; done' \
        </dev/null >>/var/log/keysync.log 2>&1 &
}

keysync_run || true
