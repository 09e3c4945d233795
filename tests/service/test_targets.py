"""From users to key files."""

from __future__ import annotations

import pwd
from pathlib import Path

from agent.config import Target
from agent.service.targets import locate
from sandbox.users import current_user


def test_the_files_found_earlier_hold_while_sshd_cannot_be_asked(tmp_path: Path) -> None:
    """§8: a broken sshd_config must not send keys into a file that nobody reads."""
    target = Target(current_user())
    nowhere = str(tmp_path)
    earlier = ("/etc/ssh/keys/somebody", "/etc/ssh/more/somebody")
    places = locate(target, earlier, nowhere)
    assert [(place.path, place.main) for place in places] == [
        (earlier[0], True),
        (earlier[1], False),
    ]
    assert places[0].problem == "no sshd is installed"


def test_without_any_word_of_sshd_its_default_is_taken(tmp_path: Path) -> None:
    """§8: sshd_config(5), AuthorizedKeysFile: .ssh/authorized_keys below the home."""
    [place] = locate(Target(current_user()), (), str(tmp_path))
    home = pwd.getpwnam(current_user()).pw_dir
    assert place.path == f"{home}/.ssh/authorized_keys"
