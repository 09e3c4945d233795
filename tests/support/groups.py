"""Which tests one worker of pytest-xdist runs, one after the other."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

# By the beginning of a path. All else is free: it makes its own users, ports, folders and mounts.
GROUPS = {
    "systemd/": "nspawn",  # one machine at a time, and one installation of the program for all
    "systems/": "nspawn",
    "install/": "install",  # one installation from the wheel, from which all machines start
    "clients/": "clients",  # the client keeps what it learned about the provider in one home
    "browser/": "browser",  # one Chromium at a time
    "adapters/test_sshd_config.py": "sshd",  # looks for the sshd that listens, and starts one
}


class Groups(LoadScopeScheduling):  # type: ignore[misc]  # reason: mypy sees no types in pytest-xdist
    """Each group to one worker, all other tests one by one to whoever is free.

    Not `--dist loadgroup`: pytest-xdist 3.8 marks the tests of a group in an attribute that pytest
    9.2 has no more, so it would run each by itself, and say nothing.
    """

    def _split_scope(self, nodeid: str) -> str:
        name = nodeid.partition("tests/")[2]
        return next((group for path, group in GROUPS.items() if name.startswith(path)), nodeid)
