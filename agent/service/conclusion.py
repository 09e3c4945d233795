"""How a cycle ended, derived from the results for its users and key files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agent.core.guards import Judgement
from agent.core.ledger import ALL_TARGETS, Hold
from agent.core.results import Result
from agent.errors import EXIT_HELD
from agent.service.report import Problem, TargetReport, sshd_not_asked
from agent.service.served_files import ServedFile
from agent.service.user_sync import UserResult


def holds_of(listing_judgement: Judgement, results: Sequence[UserResult]) -> dict[str, Hold]:
    """The holds to remember, by user, and the one of all targets (G3)."""
    judged = {ALL_TARGETS: listing_judgement} | {
        result.user: result.judgement for result in results
    }
    return {name: judgement.hold for name, judgement in judged.items() if judgement.hold}


def reports_of(
    results: Sequence[UserResult], files: Sequence[ServedFile]
) -> tuple[TargetReport, ...]:
    """All reports in the order of `files`: users are served in another one (G12)."""
    order = {(one.location.user, one.location.path): at for at, one in enumerate(files)}
    reports = (report for result in results for report in result.reports)
    return tuple(sorted(reports, key=lambda report: order[report.user, report.path]))


def problem_of(
    listing_judgement: Judgement,
    results: Sequence[UserResult],
    reports: Sequence[TargetReport],
    files: Sequence[ServedFile],
) -> Problem | None:
    """The worst problem, None without one.

    The order is: a listing held for everybody, a target that failed, users who are held, and sshd
    that could not be asked.
    """
    if listing_judgement.held:
        return Problem.of(listing_judgement.held)
    failed = next((report.problem for report in reports if report.problem), None)
    return failed or _held_users(results) or _sshd_not_asked(files)


def _held_users(results: Sequence[UserResult]) -> Problem | None:
    held = [result.judgement.held for result in results if result.judgement.held]
    if not held:
        return None
    users = ", ".join(sorted(one.user for one in held))
    return Problem.of(replace(held[0], message=f"No usable key would be left for {users}."))


def _sshd_not_asked(files: Sequence[ServedFile]) -> Problem | None:
    """A cycle is not in sync while it is uncertain which file sshd reads."""
    for location in (one.location for one in files):
        if location.problem:
            return sshd_not_asked(location.user, location.path, location.problem)
    return None


def result_of(problem: Problem | None, reports: Sequence[TargetReport]) -> Result:
    """The result of a cycle that ended with this problem."""
    if problem:
        return Result.HELD if problem.exit_code == EXIT_HELD else Result.FAILED
    changed = any(report.result is Result.CHANGED for report in reports)
    return Result.CHANGED if changed else Result.IN_SYNC
