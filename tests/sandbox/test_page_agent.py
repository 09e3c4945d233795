"""What a real agent says of lines that sshd refuses, of pins, and of keys that were deleted."""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import Request

from sandbox.console import Console
from sandbox.page.access import Access, key_rows, lingering
from sandbox.page.live import Board, View, look
from sandbox.page.page import NewValue, Page
from sandbox.page.sections.api_keys import ApiKeySection
from sandbox.page.security import Gate
from sandbox.platform import LiveInstance
from sandbox.users import current_user
from tests.support.machine import Machine, fingerprint, key_line

_DSA = b"".join(struct.pack(">I", len(f)) + f for f in (b"ssh-dss", b"p", b"q", b"g", b"y"))
_DSA_LINE = f"ssh-dss {base64.b64encode(_DSA).decode()} old@desk"


@pytest.fixture
def console() -> Iterator[Console]:
    with Console() as running:
        yield running


@pytest.fixture
def machine(tmp_path: Path, console: Console) -> Machine:
    made = Machine(tmp_path, console.url)
    made.set_api_key(console.api_key)
    return made


def _sync(machine: Machine) -> View:
    done = machine.process("sync")
    assert done.code == 0, done.stderr
    here = LiveInstance(1, "C.1", "127.0.0.1", 22, current_user(), machine.key_file, machine.config)
    view = asyncio.run(look(here))
    assert view.problem == ""
    return view


def _access(console: Console, view: View) -> Access:
    [row] = key_rows(console.account.stored(), [view])
    return row.access[0]


@pytest.mark.parametrize(
    ("line", "state", "why"),
    [
        (_DSA_LINE, "refused", "sshd accepts no DSA keys."),
        (f'expiry-time="20200101" {key_line("x")}', "refused", "Expired at 20"),
        (f"cert-authority {key_line('x')}", "certificates", "For certificates that this key"),
        (f'from="10.0.0.1" {key_line("x")}', "depends", "by the options from."),
        (f"restrict {key_line('x')}", "restricted", "Only with its owner's options: restrict."),
    ],
)
def test_the_owners_line_is_judged_as_sshd_does(
    console: Console, machine: Machine, line: str, state: str, why: str
) -> None:
    """Never "works": the key is on the account's list, and its only line is its owner's."""
    words = line.split()
    console.add_key(" ".join(words[-3:]))
    console.add_key(key_line("keeps the list usable"))
    machine.key_file.write_text(f"{line}\n")
    view = _sync(machine)
    row = key_rows(console.account.stored(), [view])[0]
    assert row.access[0].state == state
    assert why in row.access[0].why


def test_a_dsa_line_is_refused_without_an_agent_too(console: Console, tmp_path: Path) -> None:
    """By the page's own reading."""
    console.add_key(_DSA_LINE)
    file = tmp_path / "authorized_keys"
    file.write_text(f"{_DSA_LINE}\n")
    here = LiveInstance(1, "C.1", "127.0.0.1", 22, current_user(), file, None)
    assert _access(console, asyncio.run(look(here))).state == "refused"


def test_a_pinned_key_is_shown_as_pinned(console: Console, machine: Machine) -> None:
    """In the file, as working, and after its deletion as what still lets in, and why."""
    machine.options = f"pins:\n  - {key_line('pin')}\n"
    machine.configure()
    key_id = console.add_key(key_line("pin"))
    console.add_key(key_line("other"))
    view = _sync(machine)
    pinned = [key for key in view.keys if key.access == "pinned"]
    assert [key.fingerprint for key in pinned] == [fingerprint(key_line("pin"))]
    assert "pinned" in [line.access for line in view.lines]
    assert key_rows(console.account.stored(), [view])[0].access[0].state == "works"
    console.delete_key(key_id)
    [still] = lingering(console.account.stored(), [_sync(machine)])
    assert (still.name, still.state) == ("pin", "pinned")
    assert still.why == "Pinned in the agent's configuration."


def test_a_value_is_not_lost_while_the_agent_is_asked(console: Console, machine: Machine) -> None:
    """It is shown once: who goes away before the answer has not seen it, and finds it again."""
    console.add_key(key_line("x"))
    _sync(machine)
    world = console.world
    world.platform.add_instance("C.1", keys_file=machine.key_file, agent_config=machine.config)
    page = Page(world, Board(world.platform), Gate(world.sessions))
    session, token = world.sessions.begin(world.account.user_id, "a browser", "127.0.0.1")
    cookie = (b"cookie", f"keys_session_80={token}".encode())
    request = Request({"type": "http", "headers": [cookie], "server": ("127.0.0.1", 80)})
    location = page.keep_value(NewValue(session.id, "mine", "the value", False))

    async def go_away() -> None:
        shown = asyncio.create_task(ApiKeySection(page).show(request, location))
        await asyncio.sleep(0)  # it runs up to its first wait, which is for the agent
        assert not shown.done()
        shown.cancel()
        with pytest.raises(asyncio.CancelledError):
            await shown

    asyncio.run(go_away())
    assert page.take_value(page.gate.visitor(request), location) is not None
