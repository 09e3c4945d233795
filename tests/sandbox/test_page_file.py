"""A key file whose owner means harm: it neither stops the console nor shows what is not theirs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.console import Console
from sandbox.page.key_file import read_key_file
from sandbox.users import current_user
from tests.sandbox.page_support import Visitor, words
from tests.support.machine import key_line

_NOT_SHOWN = "The file is not shown: "


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "authorized_keys"


@pytest.fixture
def visitor(file: Path) -> Iterator[Visitor]:
    """Somebody about to log in at a console with an instance that has this file."""
    with Console() as console:
        console.world.platform.add_instance("C.7", keys_file=file, ssh_user=current_user())
        arrived = Visitor(console)
        yield arrived
        arrived.close()


def test_a_fifo_does_not_stop_the_console(visitor: Visitor, file: Path) -> None:
    """Nobody ever writes to it, and the page comes all the same."""
    file.unlink()
    os.mkfifo(file)
    assert f"{_NOT_SHOWN}it is no regular file." in words(visitor.log_in())


def test_a_symbolic_link_is_not_followed(visitor: Visitor, file: Path) -> None:
    """What it leads to may be for root's eyes only."""
    secret = file.with_name("shadow")
    secret.write_text("root:secret\n")
    file.unlink()
    file.symlink_to(secret)
    said = words(visitor.log_in())
    assert _NOT_SHOWN in said
    assert "root:secret" not in said


def test_a_file_of_another_user_is_not_shown(file: Path) -> None:
    """Only the instance's user, root and the console itself may be its owner."""
    if os.geteuid() != 0:
        pytest.skip(reason="only root can give a file away")
    file.write_text("secret\n")
    os.chown(file, 65534, 65534)
    assert read_key_file(file, "root").lines == ()
    assert "another user" in read_key_file(file, "root").more
    assert read_key_file(file, "nobody").lines == ("secret",)
    assert "another user" in read_key_file(file, "no such user").more


@pytest.mark.parametrize("line", ["# x", "ssh-", "ssh-a AAAA"])
def test_a_huge_file_is_cut_short(visitor: Visitor, file: Path, line: str) -> None:
    """Its first lines, and how many more there are."""
    count = 800_000 // len(f"{line}\n")
    file.write_text(f"{line}\n" * count)
    said = words(visitor.log_in())
    assert f"and {count - 1000} more" in said
    assert "1000 foreign" in said
    assert "1001 foreign" not in said


@pytest.mark.timeout(60)  # a pattern that goes back and forth would need hours
@pytest.mark.parametrize("text", ["ssh-", "AAAA", "M "])
def test_a_huge_line_costs_no_time(visitor: Visitor, file: Path, text: str) -> None:
    """No pattern of the page goes back and forth over it."""
    file.write_text(text * (1_000_000 // len(text)))
    assert visitor.log_in().url.path == "/keys"


def test_more_than_a_mebibyte_is_not_read(file: Path) -> None:
    """However much there is; lines within the first one are counted."""
    file.write_text(f"{key_line('x')}\n" + "#\n" * 600_000)
    read = read_key_file(file, current_user())
    assert (len(read.lines), read.lines[0]) == (1000, key_line("x"))
    assert "in the first MiB, and what follows it" in read.more


def test_an_empty_file_has_no_lines(file: Path) -> None:
    """It has no blank one either."""
    file.write_bytes(b"")
    assert read_key_file(file, current_user()).lines == ()


def test_a_missing_file_has_no_lines(file: Path) -> None:
    """That is no trouble: the agent makes it."""
    assert read_key_file(file, current_user()).lines == ()
    assert read_key_file(file, current_user()).more == ""
