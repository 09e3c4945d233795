# One sync at boot, for the platform's base image. It comes after 35 (homes are moved) and before 46
# (root's keys are copied to the users).
#
# The boot script sources this file, so it never exits, never fails, changes no option of the shell
# and leaves no variable or function behind. `timeout` bounds it whatever happens.
if [ -x /opt/keysync/bin/keysync ]; then
    timeout 45 /opt/keysync/bin/keysync sync --wait 20 </dev/null || true
fi
