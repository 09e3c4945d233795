"""The checks of `keysync status` that find warnings, which change no exit code.

A new check is one function here that yields findings, and its line in WARNINGS; its test is in
tests/service/test_warnings.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from agent.core.results import Origin
from agent.service.finding import Finding, warning
from agent.service.report import MAX_SHOWN, counted, lost_state
from agent.service.status import Status

_MAX_SKIPPED = 10  # with a finding of its own


def _wrong_clock(status: Status) -> Iterator[Finding]:
    """Only if policy.max_staleness is off; otherwise it is a problem."""
    last = status.last_success
    if last and status.clock_is_wrong and not status.stale:
        text = f"the clock is wrong: the last success lies in the future ({last.at})"
        yield warning(text, "Set the clock (timedatectl, ntpdate).")


def _lost_states(status: Status) -> Iterator[Finding]:
    for path, at in status.lost_states:
        yield warning(lost_state(at), f"When that is done: rm {path}")


def _waiting(status: Status) -> Iterator[Finding]:
    """G14: keys that policy.additions: hold keeps out."""
    let_in = {
        key.fingerprint: target.path
        for target in status.targets
        for key in target.keys
        if key.is_accepted
    }
    for new in status.ledger.waiting[:MAX_SHOWN]:
        text = f"waits for confirmation: {new.fingerprint} {new.comment}".rstrip()
        if new.fingerprint in let_in:
            text += f"; a line of {let_in[new.fingerprint]} lets it in now"
        fix = f"To let it in: keysync sync --confirm-additions {new.fingerprint}"
        yield warning(text, fix)
    more = len(status.ledger.waiting) - MAX_SHOWN
    if more > 0:
        text = f"waits for confirmation: {counted(more, 'more key')}"
        yield warning(text, "To see them all: keysync status --json")


def _rejected(status: Status) -> Iterator[Finding]:
    """G2: entries on the console that cannot be used."""
    for entry in status.ledger.rejected:
        text = f"rejected: key {entry.key_id} on the console: {entry.detail} ({entry.reason})"
        yield warning(text, "Correct it on the console's Keys page.")


def _still_authorized(status: Status) -> Iterator[Finding]:
    """R4: deleted keys that a restricted line keeps."""
    for target in status.targets:
        for key in target.keys:
            if key.still_authorized:
                whose = f"{key.fingerprint} {key.comment}"
                text = f"{whose} can still log in as {target.user}: {key.note}"
                yield warning(text, f"If it should not, remove line {key.line} of {target.path}.")


def _disagreements(status: Status) -> Iterator[Finding]:
    for target in status.targets:
        if target.disagreement:
            yield warning(target.disagreement)


def _retired(status: Status) -> Iterator[Finding]:
    """R5: revocations still reach a former target."""
    for target in status.targets:
        if target.origin is Origin.RETIRED:
            text = f"{target.path} of {target.user} is no longer a target; "
            text += "keys deleted on the console are still removed from it"
            yield warning(text, f"To end that: keysync forget {target.path}")


def _forgotten(status: Status) -> Iterator[Finding]:
    """R5: copies of keysync's lines in files that are not served."""
    for location in status.forgotten:
        yield warning(
            f"{location.path} of {location.user}, who is no target, holds keys that keysync knows",
            "Deleted keys stay there: set targets: auto, or add the user to the targets.",
        )


def _skipped(status: Status) -> Iterator[Finding]:
    """R5: such a file may hold a deleted key."""
    for location, error in status.skipped[:_MAX_SKIPPED]:
        text = f"a file of {location.user}, who is no target, may hold a deleted key: "
        yield warning(text + error.message, error.hint)
    more = len(status.skipped) - _MAX_SKIPPED
    if more > 0:
        text = f"{more} more key files of accounts that are no target could not be searched"
        yield warning(text, "keysync status --json names them all.")


WARNINGS: tuple[Callable[[Status], Iterator[Finding]], ...] = (
    _wrong_clock,
    _lost_states,
    _waiting,
    _rejected,
    _still_authorized,
    _disagreements,
    _retired,
    _forgotten,
    _skipped,
)
