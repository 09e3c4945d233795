"""The warnings of `keysync status`, one check at a time."""

from __future__ import annotations

from agent.adapters.files.atomic import Owner
from agent.config import Config
from agent.core.access import Access, Login
from agent.core.ledger import Ledger, WaitingKey
from agent.core.results import Origin
from agent.core.times import Moment
from agent.errors import TargetFailed
from agent.service.finding import Severity
from agent.service.locate import KeyFileLocation
from agent.service.status import KeyStatus, Status, TargetStatus
from agent.service.target_users import Skipped
from agent.service.verdict import exit_code, judge_status

NOW = Moment("2026-01-01T00:00:00Z", "boot", 1000.0)
SYNCED = Ledger(last_success=NOW)
KEY = KeyStatus(
    3, Access.MANAGED, "SHA256:a", "ssh-ed25519", "me", 1, "", Login.YES, is_way_in=True
)


def warnings_of(status: Status) -> list[tuple[str, str]]:
    """Text and fix of each; a warning fails no check."""
    findings = judge_status(status)
    assert exit_code(findings) == 0
    return [(one.text, one.fix) for one in findings if one.severity is Severity.WARNING]


def test_a_machine_full_of_files_that_cannot_be_searched() -> None:
    """R5, G12: the first ones are warnings, and the others are counted."""
    error = TargetFailed("not_a_file", "It is a symbolic link.", "Put a file in its place.")
    skipped = [
        Skipped(KeyFileLocation(f"u{at}", f"/u{at}", Owner(at, at)), error) for at in range(13)
    ]
    status = Status(NOW, Config(), SYNCED, (), skipped=tuple(skipped))
    texts = [text for text, _ in warnings_of(status)]
    assert texts[0] == (
        "a file of u0, who is no target, may hold a deleted key: It is a symbolic link."
    )
    assert len(texts) == 11
    assert texts[-1].startswith("3 more key files ")
    named = status.as_json()["skipped"]
    assert isinstance(named, list)
    assert len(named) == 13


def test_a_deleted_key_that_a_restricted_line_keeps() -> None:
    """R4: the warning names the line to remove."""
    kept = KEY._replace(
        access=Access.RESTRICTED, note="deleted on the console", still_authorized=True
    )
    status = Status(NOW, Config(), SYNCED, (TargetStatus("root", "/k", keys=(kept,)),))
    assert warnings_of(status) == [
        (
            "SHA256:a me can still log in as root: deleted on the console",
            "If it should not, remove line 3 of /k.",
        )
    ]


def test_a_retired_target() -> None:
    """R5: it is named until it is forgotten."""
    status = Status(NOW, Config(), SYNCED, (TargetStatus("al", "/k", Origin.RETIRED),))
    [(text, fix)] = warnings_of(status)
    assert text.startswith("/k of al is no longer a target; ")
    assert fix == "To end that: keysync forget /k"


def test_many_waiting_keys() -> None:
    """G12, G14: a line that lets a waiting key in is named; beyond a hundred keys are counted."""
    waiting = tuple(WaitingKey(f"SHA256:{at}", "t", "", at, NOW.at) for at in range(102))
    own = TargetStatus("root", "/k", keys=(KEY._replace(fingerprint="SHA256:1"),))
    status = Status(NOW, Config(), Ledger(last_success=NOW, waiting=waiting), (own,))
    found = warnings_of(status)
    assert found[0] == (
        "waits for confirmation: SHA256:0",
        "To let it in: keysync sync --confirm-additions SHA256:0",
    )
    assert found[1][0] == "waits for confirmation: SHA256:1; a line of /k lets it in now"
    assert len(found) == 101
    assert found[-1][0] == "waits for confirmation: 2 more keys"


def test_a_clock_that_is_wrong_where_nothing_can_be_stale() -> None:
    """G6, Incident 26: with max_staleness: null a success in the future is a warning."""
    future = Moment("2026-01-02T00:00:00Z", "boot", 5000.0)
    config = Config(policy_max_staleness=None)
    [(text, _)] = warnings_of(Status(NOW, config, Ledger(last_success=future), ()))
    assert text == "the clock is wrong: the last success lies in the future (2026-01-02T00:00:00Z)"
