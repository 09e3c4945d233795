# One sync at boot, for the platform's base image. It runs after 35 (homes are moved) and before 46
# (root's keys are copied to the users).
#
# The boot script sources this file, so it never exits or fails, changes no shell option, and defines no
# variable or function. `timeout` limits its time in any case.
if [ -x /opt/keysync/bin/keysync ]; then
    timeout 45 /opt/keysync/bin/keysync sync --wait 20 </dev/null || true
fi
