"""How one poll ended: its outcome, which decides when the next one starts, and a summary."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from agent.config import Config
from agent.core.backoff import Outcome, Pace
from agent.core.results import Result
from agent.errors import AnswerUnusable, CredentialRejected, TemporaryFailure
from agent.service.report import SyncReport, counted

_BUSY = "busy"  # the state's lock was held
_NO_USABLE_ANSWER = (TemporaryFailure.exit_code, AnswerUnusable.exit_code)


@dataclass(frozen=True, slots=True)
class PollResult:
    """`report` is None when an internal error ended the sync.

    `signature` identifies the content of the files in which the API key was looked for.
    """

    signature: object = None
    report: SyncReport | None = None

    @property
    def outcome(self) -> Outcome:
        """How the API responded; a failed target says nothing about that."""
        if self.report and self.report.problem and self.report.problem.kind == _BUSY:
            return Outcome.ANSWERED  # the API was not asked
        if self.report is None or self.report.exit_code in _NO_USABLE_ANSWER:
            return Outcome.FAILED
        if self.report.exit_code == CredentialRejected.exit_code:
            return Outcome.REFUSED
        return Outcome.ANSWERED

    @property
    def result(self) -> Result:
        """How the cycle ended; an internal error counts as a failure."""
        return self.report.result if self.report else Result.FAILED

    @property
    def kind(self) -> str | None:
        """The kind of its problem; None without one."""
        if self.report is None:
            return "unexpected_error"
        return self.report.problem.kind if self.report.problem else None

    @property
    def retry_after(self) -> float | None:
        """Seconds that the API asked to wait; None when it did not."""
        return self.report.problem.retry_after if self.report and self.report.problem else None

    def summary(self, delay: float) -> str:
        """One line for `systemctl status`; the next poll starts in `delay` seconds."""
        if self.report is None:
            how = "failed: unexpected error, see the log"
        elif self.report.problem:
            how = f"{self.report.result}: {self.report.problem.message.rstrip('.')}"
        else:
            shut = ", ".join(self.report.no_way_in)
            keys = self.report.listing.keys if self.report.listing else 0
            files = counted(len(self.report.targets), "key file")
            how = f"in sync: {counted(keys, 'listed key')}, {files}"
            how = f"nobody can log in as {shut}" if shut else how
        return f"{how}; next poll in {delay:.0f} s"


def pace_of(config: Config) -> Pace:
    """The configured intervals."""
    return Pace(config.poll_interval, config.poll_jitter, config.poll_max_backoff)


def where(error: Exception) -> str:
    """The innermost line of keysync's own code in the traceback of `error`, empty if there is none.

    The exception's text is left out, because it could hold a secret (G10).
    """
    own = [
        f"{frame.filename.rpartition('/agent/')[2]}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
        if "/agent/" in frame.filename
    ]
    return own[-1] if own else ""
