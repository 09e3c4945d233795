"""Beside each key: where it works, and if not why not, from the agent's own report."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.account import StoredKey
from sandbox.console import Console
from sandbox.page.access import Access, KeyRow, key_rows, lingering, news
from sandbox.page.agent_status import AgentKey, AgentStatus, Held, Trouble, parse_status
from sandbox.page.key_text import read_key
from sandbox.page.live import Board, View, look
from sandbox.page.templates import fragment
from sandbox.platform import LiveInstance
from tests.support.machine import fingerprint, key_line

LINE = key_line("maria@laptop")
STORED = [StoredKey(7, 4711, LINE, "2024-05-01T10:00:00Z")]
HERE = LiveInstance(1, "C.1", "127.0.0.1", 22, "root", Path("/keys"), Path("/config.yaml"))
WELL = AgentStatus("2024-05-01T10:00:00Z", False, None, (), {}, ())
ERROR = Trouble("2024-05-01T10:00:00Z", "timeout", "no answer came.", "wait")


def _key(
    access: str,
    note: str = "",
    options: tuple[str, ...] = (),
    login: str = "yes",
    key_id: int | None = None,
) -> AgentKey:
    return AgentKey(1, access, fingerprint(LINE), "maria@laptop", note, options, login, key_id)


def _view(*keys: AgentKey, **said: object) -> View:
    status = replace(WELL, keys=keys, **said)  # type: ignore[arg-type]  # reason: fields of AgentStatus
    return View(HERE, (), keys, status)


def _access(view: View) -> Access:
    return key_rows(STORED, [view])[0].access[0]


def test_a_line_that_sshd_reads_makes_it_work() -> None:
    """Managed, pinned or not yet adopted: who holds the key gets in."""
    for access in ("managed", "pinned", "foreign"):
        assert _access(_view(_key(access))).state == "works"
    assert "does not manage yet" in _access(_view(_key("foreign"))).why


def test_a_line_beside_a_refused_entry_is_not_waited_for() -> None:
    """It works, but the agent will never take it over, nor take it away."""
    access = _access(_view(_key("foreign"), rejected={7: "a line break"}))
    assert access.state == "works"
    assert access.why.endswith("leaves alone, since it refuses this entry: a line break.")


def test_a_line_that_sshd_refuses_is_said_to_be_refused() -> None:
    """With the agent's note; it takes nothing from a good line beside it."""
    refused = _key("foreign", "sshd ignores this line: x", login="no")
    assert _access(_view(refused)) == Access(1, "C.1", "refused", "sshd ignores this line: x.")
    assert _access(_view(refused, _key("managed"))).state == "works"
    assert lingering([], [_view(replace(refused, access="managed"))]) == []


def test_what_only_sshd_can_say_is_shown_as_such() -> None:
    """A line for certain addresses, or for certificates, is no promise; a plain one is."""
    depends = _key("restricted", "expires at x", ("from",), "depends")
    assert _access(_view(depends)).state == "depends"
    assert "by the options from. Expires at x." in _access(_view(depends)).why
    signed = _key("restricted", "for certificates", ("cert-authority",), "certificates")
    assert _access(_view(signed)) == Access(1, "C.1", "certificates", "For certificates.")
    assert _access(_view(signed, depends)).state == "depends"
    assert _access(_view(signed, depends, _key("managed"))).state == "works"


def test_a_restricted_line_is_not_the_whole_way_in() -> None:
    """Its options are named; a plain line beside it wins."""
    only = _key("restricted", options=("command", "from"))
    assert _access(_view(only)).state == "restricted"
    assert "command, from" in _access(_view(only)).why
    assert _access(_view(only, _key("managed"))).state == "works"


def test_a_rejected_entry_says_why() -> None:
    """The agent's own reason, as a sentence; another entry's reason is not taken for it."""
    assert _access(_view(rejected={7: "a line break"})) == Access(
        1, "C.1", "rejected", "A line break."
    )
    assert _access(_view(rejected={8: "a line break"})).state == "pending"


def test_a_held_list_says_so() -> None:
    """With the reason and how often it was seen."""
    held = _access(_view(holds=(Held("empty_listing", 1, 3),)))
    assert held.state == "held"
    assert "the list is empty, seen in 1 of 3 polls" in held.why


def test_a_hold_for_one_user_says_whom_and_until_when() -> None:
    """G3: it concerns that user's instance alone."""
    until = "2024-05-01T10:05:00Z"
    mine = Held("would_lock_out", 2, 3, user="root", until=until)
    other = Held("would_lock_out", 1, 3, user="al")
    held = _access(_view(holds=(other, mine)))
    assert held.state == "held"
    assert held.why.endswith(
        "nobody could log in any more for root, seen in 2 of 3 polls, "
        "until 2024-05-01 10:05:00 UTC."
    )
    assert _access(_view(holds=(other,))).state == "pending"


def test_a_list_that_was_applied_after_all_is_not_waited_for() -> None:
    """After the third poll with an empty list the key is out, and the next poll adds nothing."""
    applied = Held("empty_listing", 3, 3, applied=True)
    removed = _access(_view(holds=(applied,)))
    assert removed.state == "removed"
    assert "applied a list without it: the list is empty, seen in 3 of 3" in removed.why
    assert _access(_view(holds=(applied, Held("no_valid_entry", 1, 3)))).state == "held"


def test_a_key_that_waits_for_confirmation_has_its_command() -> None:
    """G14: what to run on the machine, for this key alone; a screen reader hears it too."""
    other = _access(_view(waiting=frozenset({"SHA256:other"})))
    assert (other.state, other.command) == ("pending", "")
    waits = _access(_view(waiting=frozenset({fingerprint(LINE)})))
    assert (waits.state, waits.words) == ("waiting", "waiting for confirmation on the machine")
    assert waits.command == f"keysync sync --confirm-additions {fingerprint(LINE)}"
    assert _access(_view(_key("managed"), waiting=frozenset({fingerprint(LINE)}))).command == ""
    row = KeyRow(7, read_key(LINE), "2024-05-01T10:00:00Z", (Access(1, "C.1", "pending"),))
    assert news([row], [replace(row, access=(waits,))]) == [
        "maria@laptop: waiting for confirmation on the machine on C.1."
    ]


def test_a_pending_key_says_what_it_waits_for() -> None:
    """The next poll, or the end of what keeps the agent from polling."""
    assert "next poll adds it" in _access(_view()).why
    failing = _access(_view(failing=True, error=ERROR))
    assert failing.why == "The agent keeps what it had: No answer came."


def test_without_a_status_nothing_is_promised() -> None:
    """An agent that has not run is waited for; without any agent the key is just absent."""
    silent = View(HERE, (), (), None, "the agent has not run yet")
    assert _access(silent) == Access(1, "C.1", "pending", "Not there: the agent has not run yet.")
    alone = replace(silent, instance=replace(HERE, agent_config=None), problem="no agent runs here")
    assert _access(alone).state == "absent"


def test_a_deleted_key_that_still_works_is_shown_with_its_reason() -> None:
    """Held, restricted, or merely not polled yet; foreign keys are not the account's business."""
    cases = [
        (_view(_key("managed")), "pending", "next poll removes it"),
        (
            _view(_key("managed"), holds=(Held("would_lock_out", 2, 3),)),
            "held",
            "nobody could log in",
        ),
        (_view(_key("managed"), failing=True, error=ERROR), "pending", "No answer came."),
        (
            _view(_key("restricted", "deleted on the console, but …", ("from",), key_id=7)),
            "restricted",
            "Still authorized by a restricted line (from).",
        ),
    ]
    for view, state, why in cases:
        [found] = lingering([], [view])
        assert (found.state, found.fingerprint) == (state, fingerprint(LINE))
        assert why in found.why
        assert lingering(STORED, [view]) == []
    assert lingering([], [_view(_key("foreign"))]) == []
    assert lingering([], [_view(_key("restricted"))]) == []


def test_news_are_changes_of_state() -> None:
    """A screen reader hears what changed, not what is new on the list or still the same."""
    row = KeyRow(7, read_key(LINE), "2024-05-01T10:00:00Z", (Access(1, "C.1", "pending"),))
    works = replace(row, access=(Access(1, "C.1", "works"),))
    assert news([row], [works]) == ["maria@laptop: works on C.1."]
    assert news([row], [row]) == []
    assert news([], [row]) == []


def test_two_instances_of_one_label_are_told_apart() -> None:
    """What is known of the one is not taken for news of the other."""
    first, second = Access(1, "gpu", "works"), Access(2, "gpu", "pending")
    row = KeyRow(7, read_key(LINE), "2024-05-01T10:00:00Z", (first, second))
    assert news([row], [row]) == []
    changed = replace(row, access=(first, replace(second, state="works")))
    assert news([row], [changed]) == ["maria@laptop: works on gpu."]


def test_instances_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    """A console that runs for long does not keep what it saw of each."""
    with Console() as console:
        board = Board(console.world.platform)
        for at in range(3):
            number = console.world.platform.add_instance(f"C.{at}", keys_file=tmp_path / "keys")
            assert [view.instance.id for view in asyncio.run(board.views())] == [number]
            console.world.platform.remove_instance(number)
        assert asyncio.run(board.views()) == []
        assert board._seen == {}  # noqa: SLF001  # reason: memory has no other sign


def test_the_page_shows_command_and_hold() -> None:
    """G14: the command beside the key, to be copied; who is held until when in the panel."""
    hold = Held("would_lock_out", 2, 3, "root", "2024-05-01T10:05:00Z")
    view = _view(waiting=frozenset({fingerprint(LINE)}), holds=(hold,))
    still = _view(replace(_key("managed"), fingerprint="SHA256:gone"))
    left = lingering(STORED, [still])
    page = fragment("_ssh.html", rows=key_rows(STORED, [view]), lingering=left, is_team=False)
    assert "waiting for confirmation on the machine" in page
    command = f"keysync sync --confirm-additions {fingerprint(LINE)}"
    assert f'<code id="confirm-7-1">{command}</code>' in page
    assert 'data-copy="#confirm-7-1"' in page
    assert "data-lingering" in page
    panel = fragment("_instance.html", view=view)
    assert "for root, seen in 2 of 3 polls, until 2024-05-01 10:05:00 UTC." in panel
    assert "1 key, each" not in panel
    assert "keysync sync --confirm-additions all" in panel
    fragment("_instance.html", view=View(HERE, (), (), None, "the agent has not run yet"))


def _report(**others: object) -> dict[str, object]:
    """What `keysync status --json` prints, as far as the page reads it."""
    key = {
        "line": 3,
        "access": "managed",
        "fingerprint": "SHA256:x",
        "comment": "c",
        "note": None,
        "options": [],
        "login": "yes",
        "key_id": 7,
    }
    return {
        "last_success": None,
        "failing": False,
        "last_error": None,
        "held": None,
        "rejected": [{"key_id": 5, "detail": "why"}, {"key_id": None, "detail": "?"}],
        "targets": [{"path": "/keys", "keys": [key]}, {"path": "/other", "keys": [key, key]}],
        **others,
    }


def test_a_report_is_read_for_its_file_alone() -> None:
    """An agent may look after several files."""
    status = parse_status(_report(), Path("/keys"))
    assert (status.rejected, len(status.keys)) == ({5: "why"}, 1)


def test_holds_are_read_in_both_forms() -> None:
    """One object or null for all users, or a list with an object per user; applied ones hold
    nothing any more.
    """
    one = {"reason": "empty_listing", "seen": 3, "needed": 3, "applied": True}
    per_user = {**one, "user": "al", "seen": 1, "until": "2024-05-01T10:05:00Z", "applied": False}
    for found, holds in (
        (None, ()),
        ([], ()),
        (one, (Held("empty_listing", 3, 3, applied=True),)),
        ([per_user], (Held("empty_listing", 1, 3, "al", "2024-05-01T10:05:00Z"),)),
        ([{**one, "user": None, "until": None}], (Held("empty_listing", 3, 3, applied=True),)),
    ):
        status = parse_status(_report(held=found), Path("/keys"))
        assert status.holds == holds
        assert status.held == tuple(hold for hold in holds if not hold.applied)


def test_waiting_keys_are_read_where_they_are_reported() -> None:
    """G14: by fingerprint; an agent that reports none has none."""
    waiting = {
        "fingerprint": "SHA256:x",
        "key_type": "t",
        "comment": "c",
        "key_id": 7,
        "since": "s",
    }
    for found, fingerprints in (([waiting], {"SHA256:x"}), ([], set()), (None, set())):
        assert parse_status(_report(waiting=found), Path("/keys")).waiting == fingerprints
    assert parse_status(_report(), Path("/keys")).waiting == frozenset()


@pytest.mark.parametrize("content", [None, "- a list", "state_dir: [", "state_dir: 5"])
def test_an_unreadable_configuration_is_said(tmp_path: Path, content: str | None) -> None:
    """An instance that is being taken down, or set up wrongly, does not break the page."""
    configuration = tmp_path / "config.yaml"
    if content is not None:
        configuration.write_text(content)
    view = asyncio.run(look(replace(HERE, agent_config=configuration)))
    assert view.problem == "the agent's configuration cannot be read"


def test_an_agent_that_says_nonsense_is_quoted(tmp_path: Path) -> None:
    """A configuration that the agent itself refuses: its own words are on the page, beside what
    it still knows from its state.
    """
    configuration = tmp_path / "config.yaml"
    configuration.write_text(f"state_dir: {tmp_path}\nnonsense: 1\n")
    (tmp_path / "state.json").write_text("{}")
    view = asyncio.run(look(replace(HERE, agent_config=configuration)))
    assert view.status is not None
    assert view.status.keys == ()
