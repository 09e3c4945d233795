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
from sandbox.platform import LiveInstance
from tests.support.machine import fingerprint, key_line

LINE = key_line("maria@laptop")
STORED = [StoredKey(7, 4711, LINE, "2024-05-01T10:00:00Z")]
HERE = LiveInstance(1, "C.1", "127.0.0.1", 22, "root", Path("/keys"), Path("/config.yaml"))
WELL = AgentStatus("2024-05-01T10:00:00Z", False, None, None, {}, ())
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
    held = _access(_view(held=Held("empty_listing", 1, 3)))
    assert held.state == "held"
    assert "the list is empty, seen in 1 of 3 polls in a row" in held.why


def test_a_pending_key_says_what_it_waits_for() -> None:
    """The next poll, or the end of what keeps the agent from polling."""
    assert "next poll brings it" in _access(_view()).why
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
        (_view(_key("managed"), held=Held("would_lock_out", 2, 3)), "held", "nobody could log in"),
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


def test_a_report_is_read_for_its_file_alone() -> None:
    """An agent may look after several files; a hold that was applied holds nothing any more."""
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
    report = {
        "last_success": None,
        "failing": False,
        "last_error": None,
        "held": {"reason": "empty_listing", "seen": 3, "needed": 3, "applied": True},
        "rejected": [{"key_id": 5, "detail": "why"}, {"key_id": None, "detail": "?"}],
        "targets": [{"path": "/keys", "keys": [key]}, {"path": "/other", "keys": [key, key]}],
    }
    status = parse_status(report, Path("/keys"))
    assert (status.held, status.rejected, len(status.keys)) == (None, {5: "why"}, 1)


@pytest.mark.parametrize("content", [None, "- a list", "state_dir: [", "state_dir: 5"])
def test_an_unreadable_configuration_is_said(tmp_path: Path, content: str | None) -> None:
    """An instance that is being taken down, or set up wrongly, does not break the page."""
    configuration = tmp_path / "config.yaml"
    if content is not None:
        configuration.write_text(content)
    view = asyncio.run(look(replace(HERE, agent_config=configuration)))
    assert view.problem == "the agent's configuration cannot be read"


def test_an_agent_that_says_nonsense_is_quoted(tmp_path: Path) -> None:
    """A configuration that the agent itself refuses: its own words are on the page."""
    configuration = tmp_path / "config.yaml"
    configuration.write_text(f"state_dir: {tmp_path}\nnonsense: 1\n")
    (tmp_path / "state.json").write_text("{}")
    view = asyncio.run(look(replace(HERE, agent_config=configuration)))
    assert view.status is None
    assert "could not be read" in view.problem
    assert "nonsense" in view.problem
