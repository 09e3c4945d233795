"""From users to key files."""

from __future__ import annotations

import pwd
from pathlib import Path

from agent.adapters.sshd_config import Sshd
from agent.config import Target
from agent.service.locate import locate
from sandbox.users import current_user


def test_while_sshd_cannot_be_asked_its_default_is_taken(tmp_path: Path) -> None:
    """Incidents 7 and 8: both of sshd's own files in the home the user has now, and why."""
    places = locate(Target(current_user()), Sshd(str(tmp_path)))
    home = pwd.getpwnam(current_user()).pw_dir
    assert [(location.path, location.main) for location in places] == [
        (f"{home}/.ssh/authorized_keys", True),
        (f"{home}/.ssh/authorized_keys2", False),
    ]
    assert {location.problem for location in places} == {"no sshd is installed"}


def test_a_target_with_a_path_needs_no_sshd(tmp_path: Path) -> None:
    """Configuration: the path is taken as it is."""
    [location] = locate(Target(current_user(), "/etc/keys"), Sshd(str(tmp_path)))
    assert (location.path, location.main, location.problem) == ("/etc/keys", True, None)
