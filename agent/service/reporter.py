"""Reports on the running daemon to the log, to systemd and to `keysync status`."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from agent import __version__, daemon_events, events
from agent.adapters.clock import present
from agent.adapters.heartbeat import (
    Heartbeat,
    agent_is_alive,
    process_start,
    read_heartbeat,
    write_heartbeat,
)
from agent.adapters.sd_notify import Notifier
from agent.config import Config
from agent.core.results import Result
from agent.core.times import Moment
from agent.errors import ConfigInvalid
from agent.log import Emit
from agent.service.poll import PollResult

_SUMMARY_SECONDS = 900.0


class Reporter:
    """Used by the daemon's main thread only, except for `keep_until_planned`.

    A sync may last `patience` seconds longer than its request.
    """

    def __init__(self, config: Config, patience: float, notifier: Notifier, emit: Emit) -> None:
        self._config = config
        self._patience = patience
        self._notifier = notifier
        self._emit = emit
        self._is_ready = False
        self._old_config_stays = False
        self._unplanned: events.SyncTrouble | daemon_events.AgentFailed | None = None
        self._counts = _PollCounts(present())
        self._heartbeat = self._first_heartbeat()

    @property
    def limit(self) -> float:
        """Seconds that a sync may last or be overdue before the daemon counts as stuck."""
        return self._patience + self._config.api_timeout

    def started(self) -> None:
        """The daemon has started; the first poll follows at once."""
        config = self._config
        self._emit(
            daemon_events.AgentStarted(
                pid=os.getpid(), interval_s=config.poll_interval, targets=_count(config)
            )
        )
        self._warn_of_another()
        self._beat()

    def _warn_of_another(self) -> None:
        """Two agents take turns through the lock, but both poll and overwrite agent.json."""
        other = read_heartbeat(self._config.state_dir)
        if other is None or other.pid == os.getpid():
            return
        if agent_is_alive(other):
            self._emit(
                daemon_events.AgentDoubled(
                    pid=other.pid,
                    message=f"Another agent (process {other.pid}) uses the same state_dir.",
                    hint="Stop one of them: keysync status shows only the one that polled last.",
                )
            )

    # ---- the configuration ----

    def reloading(self) -> None:
        """The configuration is about to be read again."""
        self._notifier.reloading()

    def reloaded(self, config: Config) -> None:
        """`config` is in use from now on."""
        self._config = config
        self._old_config_stays = False
        self._emit(
            daemon_events.ConfigReloaded(interval_s=config.poll_interval, targets=_count(config))
        )
        self._end_reload("configuration reloaded")

    def reload_failed(self, error: ConfigInvalid) -> None:
        """The new configuration is invalid; the earlier one stays in use."""
        self._old_config_stays = True
        self._emit(daemon_events.ConfigRejected(message=error.message, hint=error.hint))
        self._end_reload(f"configuration rejected, the earlier one is kept: {error.message}")

    def _end_reload(self, status: str) -> None:
        if self._is_ready:  # otherwise the first poll reports it
            self._notifier.ready(status)

    # ---- polls ----

    def keep_until_planned(self, event: events.Event) -> None:
        """Logs an event of a cycle; a failure waits until the time of the next poll is known."""
        if isinstance(event, events.SyncTrouble | daemon_events.AgentFailed):
            self._unplanned = event
        else:
            self._emit(event)

    def poll_ended(self, poll: PollResult, delay: float, failing_since: Moment | None) -> None:
        """A poll has ended; the next one starts in `delay` seconds."""
        self._emit_planned(delay)
        self._summarize(poll)
        self._notify_systemd(poll.summary(delay))
        self._beat(
            last_cycle=present(),
            next_poll=present().after(delay),
            result=poll.result,
            kind=poll.kind,
            failing_since=failing_since,
        )

    def _emit_planned(self, next_poll: float | None) -> None:
        event, self._unplanned = self._unplanned, None
        if event is not None:
            seconds = None if next_poll is None else round(next_poll)
            self._emit(event.replace(next_poll_s=seconds))

    def _summarize(self, poll: PollResult) -> None:
        """Logs every 15 minutes that polls go on, since unchanged ones have no line."""
        self._counts.add(poll)
        now = present()
        if now.seconds - self._counts.since.seconds >= _SUMMARY_SECONDS:
            self._emit(self._counts.summary())
            self._counts = _PollCounts(now)

    def _notify_systemd(self, status: str) -> None:
        if self._old_config_stays:
            status += "; the configuration on disk is invalid, the earlier one is in use"
        if self._is_ready:
            self._notifier.status(status)
        else:
            self._notifier.ready(status)
        self._is_ready = True

    # ---- liveness ----

    def alive(self) -> None:
        """Notifies the watchdog."""
        self._notifier.alive()

    def told_to_stop(self, reason: str) -> None:
        """The signal named `reason` arrived; a sync may still be running."""
        self._beat(stopped=present(), stop_reason=reason)

    def stopping(self) -> None:
        """The daemon is about to exit, after a signal or an error."""
        self._notifier.stopping()

    def stopped(self, reason: str) -> None:
        """Logs the last event."""
        self._emit_planned(None)
        self._emit(daemon_events.AgentStopped(reason=reason))

    def _first_heartbeat(self) -> Heartbeat:
        now, pid = present(), os.getpid()
        return Heartbeat(
            version=__version__,
            pid=pid,
            process_start=process_start(pid) or 0,
            interval_s=self._config.poll_interval,
            patience_s=self.limit,
            started=now,
            next_poll=now,
        )

    def _beat(self, **changes: Any) -> None:
        """Updates agent.json for `keysync status`."""
        self._heartbeat = self._heartbeat._replace(
            interval_s=self._config.poll_interval,
            patience_s=self.limit,
            **changes,
        )
        write_heartbeat(self._config.state_dir, self._heartbeat)


@dataclasses.dataclass(slots=True)
class _PollCounts:
    """The polls since the last summary."""

    since: Moment
    polls: int = 0
    failed: int = 0
    changed: int = 0

    def add(self, poll: PollResult) -> None:
        self.polls += 1
        self.failed += poll.result in (Result.FAILED, Result.HELD)
        self.changed += poll.result is Result.CHANGED

    def summary(self) -> daemon_events.PollsSummarized:
        return daemon_events.PollsSummarized(
            polls=self.polls, failed=self.failed, changed=self.changed, since=self.since.at
        )


def _count(config: Config) -> int | None:
    """The number of configured targets; None with `targets: auto`."""
    return None if config.targets is None else len(config.targets)
