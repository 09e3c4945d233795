"""G10 where install and uninstall really do their work: no mark in what they print or start."""

from __future__ import annotations

import pytest

from sandbox.console import Console
from tests.install.support import API_KEY, STATE, TAG, keysync, set_key_file, variables
from tests.support.machine import key_line
from tests.support.marks import PRIVATE_KEY, PRIVATE_TEXT, leaks, marked_keys
from tests.support.own_machine import OwnMachine

pytestmark = pytest.mark.attack

KEYS = marked_keys("laptop", "gone", "foreign")
# Stands in the place of every program that install may start, and tells what it was told.
RECORDER = """\
#!/bin/sh
cat /proc/$$/cmdline /proc/$$/environ | tr '\\0' '\\n' >>/tmp/told
test "${0##*/}" = sshd && exec /usr/sbin/sshd.real "$@"
exit 0
"""
STARTED = ("systemctl", "systemd-analyze", "supervisorctl", "useradd", "userdel")


def test_install_and_uninstall(machine: OwnMachine, console: Console) -> None:
    """G10: from the first dry run to the removal, at debug level, by both log formats; the key is
    in the file that install makes for it, and nowhere else.
    """
    key = console.api_key
    console.add_key(key_line("laptop"))
    tagged = f"{key_line('gone')} {TAG.decode()}"
    lines = (key_line("foreign"), tagged, *PRIVATE_KEY.splitlines(), "")
    set_key_file(machine, "\n".join(lines).encode())
    machine.run("mv", "/usr/sbin/sshd", "/usr/sbin/sshd.real")
    for name in ("/usr/sbin/sshd", *(f"/usr/local/bin/{name}" for name in STARTED)):
        machine.write(name, RECORDER, 0o755)
    told = machine.path("/tmp/told")
    told.touch()
    environment = {**variables(console), "CONTAINER_API_KEY": key}
    flags = ("--log-level", "debug", "--log-format")
    for words in (
        ("install", "--dry-run"),
        ("install",),
        ("install",),
        ("status",),
        ("config", "show"),
        ("sync", "--json"),
        ("uninstall", "--dry-run", "--yes"),
        ("uninstall", "--restore-original", "--yes"),
    ):
        for style in ("json", "console") if words[0] != "uninstall" else ("json",):
            done = keysync(machine, *flags, style, *words, environment=environment)
            assert leaks(done.text, *KEYS, api_key=key) == [], words
        if words == ("sync", "--json"):
            assert machine.path(API_KEY).read_text().strip() == key
            state = machine.path(f"{STATE}/state.json").read_text()
            assert leaks(state, *KEYS, api_key=key) == []
            journal = machine.path(f"{STATE}/journal.jsonl").read_text()
            assert leaks(journal, api_key=key) == []
    seen = told.read_text()
    assert "\n-T\n" in seen
    assert leaks(seen, api_key=key) == []
    assert PRIVATE_TEXT in machine.path("/root/.ssh/authorized_keys").read_text()
