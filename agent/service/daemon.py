"""The agent that runs by itself: one job on a schedule, signals, and word to the service manager.

APScheduler runs the one job in a thread; its every other decision is taken in the main thread,
which waits for signals and for the job's end, and once a second looks after what a schedule cannot
know: a clock that was set, a machine that slept, a replaced API key, the watchdog.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import queue
import random
import signal
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, JobExecutionEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from agent import __version__, events
from agent.adapters.clock import present
from agent.adapters.credential import sources_signature
from agent.adapters.heartbeat import Heartbeat, process_start, write_heartbeat
from agent.adapters.sd_notify import Notifier
from agent.adapters.signals import Inbox
from agent.config import Config
from agent.core.pace import Outcome
from agent.core.times import Moment
from agent.errors import EXIT_OK, ConfigInvalid
from agent.log import Emit
from agent.service.contest import ContestFilter
from agent.service.streak import StreakFilter
from agent.service.sync import Request, Syncer
from agent.service.turn import Turn, pace_of, where

_JOB = "sync"
_TICK_SECONDS = 1.0
_OVERDUE_SECONDS = 2.0
_SPACING_SECONDS = 1.2  # the API takes about one request a second from one address
_LOCK_SECONDS = 20.0  # a `keysync sync` by hand goes first; the next poll comes soon
_PATIENCE_SECONDS = _LOCK_SECONDS + 60.0  # for the lock, and for slow disks
_FINISH_SECONDS = 3.0
_BREAK_OFF_SECONDS = 1.0
_LEAVE_SECONDS = 4.5
_SUMMARY_SECONDS = 900.0
_ENDING = (signal.SIGTERM, signal.SIGINT)
_SIGNALS = (*_ENDING, signal.SIGHUP, signal.SIGUSR1)


class Daemon:
    """Polls until it is told to stop. `load` reads the configuration anew and may raise.

    A sync that lasts `patience` seconds longer than its request may is stuck.
    """

    def __init__(
        self,
        load: Callable[[], Config],
        environment: Mapping[str, str],
        emit: Emit,
        patience: float = _PATIENCE_SECONDS,
    ) -> None:
        self._load = load
        self._environment = environment
        self._emit = emit
        self._streaks = StreakFilter(self._emit_when_planned)
        self._emit_news = ContestFilter(self._streaks)
        self._patience = patience
        self._notifier = Notifier(environment)
        self._tick_seconds = min(_TICK_SECONDS, (self._notifier.watchdog_seconds or math.inf) / 4)
        self._config = load()
        self._scheduler = _scheduler()
        self._scheduler.add_listener(self._job_ended, EVENT_JOB_EXECUTED | EVENT_JOB_ERROR)
        # Written by the job's thread:
        self._syncer = self._make_syncer(self._config)
        self._started: float | None = None  # monotonic time at which the running sync began
        self._unplanned: events.SyncTrouble | events.AgentFailed | None = None
        self._turns: queue.SimpleQueue[Turn] = queue.SimpleQueue()
        # The main thread's own:
        self._due = math.inf  # time of the next sync by the clock that goes on in a suspend
        self._last_ended = -math.inf  # monotonic
        self._again = False
        self._trigger = "poll"
        self._ready = False
        self._failures = 0
        self._refused_with: object = None
        self._old_config_stays = False
        self._polls = _Polls(present())
        self._heartbeat = self._first_heartbeat()

    def run(self) -> int:
        """Runs in the foreground until SIGTERM or SIGINT; gives the exit code."""
        with Inbox(_SIGNALS) as self._inbox:
            config = self._config
            self._emit(events.AgentStarted(os.getpid(), config.poll_interval, _count(config)))
            self._beat()
            self._scheduler.start()
            self._schedule(0.0)
            try:
                reason = self._until_told_to_stop()
                self._beat(stopped=present(), stop_reason=reason)
            finally:
                self._stop()
            self._emit_planned(None)
            self._emit(events.AgentStopped(reason))
        return EXIT_OK

    # ---- the main thread ----

    def _until_told_to_stop(self) -> str:
        while True:
            for number in self._inbox.wait(self._tick_seconds):
                if number in _ENDING:
                    return number.name
                if number == signal.SIGHUP:
                    self._reload()
                else:
                    self._sync_now()
            while not self._turns.empty():
                self._plan_next(self._turns.get())
            self._tick()

    def _tick(self) -> None:
        if self._started is None and _time() > self._due + _OVERDUE_SECONDS:
            self._submit(0.0)  # the wall clock, by which the scheduler waits, was set back
        if self._refused_with is not None and self._refused_with != self._signature(self._config):
            self._refused_with = None
            self._sync_now()
        if not self._is_stuck():
            self._notifier.alive()

    def _is_stuck(self) -> bool:
        """Whether a sync lasts, or is overdue, so long that the watchdog shall end the process."""
        started = self._started
        waiting = _time() - self._due if started is None else time.monotonic() - started
        return waiting > self._limit()

    def _limit(self) -> float:
        return self._patience + self._config.api_timeout

    def _sync_now(self) -> None:
        """A sync that begins from now on; while one runs, one more after it."""
        self._trigger = "signal"
        if self._started is not None:
            self._again = True
        else:
            self._schedule(max(0.0, self._last_ended + _SPACING_SECONDS - time.monotonic()))

    def _reload(self) -> None:
        """Takes the configuration anew; a wrong one is reported and the old one stays."""
        self._notifier.reloading()
        try:
            self._config = self._load()
        except ConfigInvalid as error:
            self._old_config_stays = True
            self._emit(events.ConfigRejected(error.message, error.hint))
            self._tell_reloaded(f"configuration rejected, the old one stays: {error.message}")
            return
        self._old_config_stays = False
        self._emit(events.ConfigReloaded(self._config.poll_interval, _count(self._config)))
        self._tell_reloaded("configuration reloaded")
        self._sync_now()

    def _tell_reloaded(self, status: str) -> None:
        if self._ready:  # otherwise the first attempt says it
            self._notifier.ready(status)

    def _plan_next(self, turn: Turn) -> None:
        """The job has ended: plans the next one, and says how it went."""
        self._started = None
        self._last_ended = time.monotonic()
        refused = turn.outcome is Outcome.REFUSED
        self._refused_with = turn.signature if refused else None
        self._failures = 0 if turn.outcome is Outcome.ANSWERED else self._failures + 1
        self._trigger = "poll"
        pace = pace_of(self._config)
        delay = pace.delay(turn.outcome, self._failures, turn.retry_after, random.uniform)
        self._schedule(delay)
        if self._again:
            self._again = False
            self._sync_now()
        delay = max(0.0, self._due - _time())
        self._emit_planned(delay)
        self._summarize(turn)
        self._tell(turn.summary(delay))
        self._beat(
            last_cycle=present(),
            next_poll=present().after(delay),
            result=turn.result,
            kind=turn.kind,
            failing_since=self._streaks.failing_since,
        )

    def _emit_planned(self, next_poll: float | None) -> None:
        """A failure's line was kept back until it is known when the next poll is."""
        event, self._unplanned = self._unplanned, None
        if event is not None:
            seconds = None if next_poll is None else round(next_poll)
            self._emit(dataclasses.replace(event, next_poll_s=seconds))

    def _summarize(self, turn: Turn) -> None:
        """Every quarter of an hour one line says that polls go on, since unchanged ones do not."""
        self._polls.count(turn)
        now = present()
        if now.seconds - self._polls.since.seconds >= _SUMMARY_SECONDS:
            self._emit(self._polls.summary())
            self._polls = _Polls(now)

    def _first_heartbeat(self) -> Heartbeat:
        now = present()
        pid = os.getpid()
        interval = self._config.poll_interval
        start = process_start(pid) or 0
        return Heartbeat(__version__, pid, start, interval, self._limit(), now, next_poll=now)

    def _beat(self, **changes: Any) -> None:
        """Leaves word for `keysync status`."""
        self._heartbeat = dataclasses.replace(
            self._heartbeat,
            interval_s=self._config.poll_interval,
            patience_s=self._limit(),
            **changes,
        )
        write_heartbeat(self._config.state_dir, self._heartbeat)

    def _tell(self, status: str) -> None:
        if self._old_config_stays:
            status += "; the configuration on disk is wrong, the earlier one is in use"
        if self._ready:
            self._notifier.status(status)
        else:
            self._notifier.ready(status)
        self._ready = True

    def _stop(self) -> None:
        """Lets a running sync finish; one that waits for the network is broken off."""
        self._notifier.stopping()
        # Whatever else a sync hangs in, the process leaves: a key file is whole at any time (G7).
        leave = threading.Timer(_LEAVE_SECONDS, os._exit, [EXIT_OK])
        leave.daemon = True
        leave.start()
        self._scheduler.pause()
        if not self._job_ends_within(_FINISH_SECONDS):
            self._syncer.close()
            self._job_ends_within(_BREAK_OFF_SECONDS)
        self._scheduler.shutdown(wait=False)
        self._syncer.close()

    def _job_ends_within(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while self._started is not None and self._turns.empty():
            left = end - time.monotonic()
            if left <= 0:
                return False
            self._inbox.wait(left)
        return True

    def _schedule(self, seconds: float) -> None:
        """Plans the next sync so many seconds from now; it replaces the one that was planned."""
        self._due = _time() + seconds
        self._submit(seconds)

    def _submit(self, seconds: float) -> None:
        self._scheduler.add_job(
            self._job,
            "date",
            run_date=datetime.now(timezone.utc) + timedelta(seconds=seconds),
            id=_JOB,
            replace_existing=True,
            max_instances=1,
            coalesce=True,
            misfire_grace_time=None,
        )

    # ---- the job's thread ----

    def _job(self) -> Turn:
        """One sync; nothing that happens in it ends the daemon."""
        self._started = time.monotonic()
        config = self._config
        try:
            signature = self._signature(config)
            request = Request(trigger=self._trigger)
            return Turn(config, signature, self._syncer_for(config).sync(request))
        except Exception as error:  # noqa: BLE001  # reason: the one boundary of the daemon's job
            self._emit_news(events.AgentFailed(type(error).__name__, where(error)))
            return Turn(config)

    def _emit_when_planned(self, event: events.Event) -> None:
        if isinstance(event, events.SyncTrouble | events.AgentFailed):
            self._unplanned = event
        else:
            self._emit(event)

    def _job_ended(self, event: JobExecutionEvent) -> None:
        """Comes after APScheduler has freed the job's place; before, the next would be refused."""
        self._turns.put(event.retval or Turn(self._config))
        self._inbox.wake()

    def _syncer_for(self, config: Config) -> Syncer:
        """The one that keeps the connection, made anew after a reload."""
        if self._syncer.config is not config:
            self._syncer.close()
            self._syncer = self._make_syncer(config)
        return self._syncer

    def _make_syncer(self, config: Config) -> Syncer:
        return Syncer(config, self._environment, self._emit_news, _LOCK_SECONDS)

    def _signature(self, config: Config) -> object:
        return sources_signature(config.api_key_file, self._environment)


@dataclasses.dataclass(slots=True)
class _Polls:
    """The cycles since the last summary."""

    since: Moment
    polls: int = 0
    failed: int = 0
    changed: int = 0

    def count(self, turn: Turn) -> None:
        self.polls += 1
        self.failed += turn.result in ("failed", "held")
        self.changed += turn.result == "changed"

    def summary(self) -> events.PollsSummarized:
        return events.PollsSummarized(self.polls, self.failed, self.changed, self.since.at)


def _count(config: Config) -> int | None:
    """How many targets are configured; None when they are found anew in each cycle."""
    return None if config.targets is None else len(config.targets)


def _scheduler() -> BackgroundScheduler:
    # A job that is wanted while it begins is refused with a warning; that one is as good.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    return BackgroundScheduler(
        executors={"default": ThreadPoolExecutor(1)}, timezone=timezone.utc, daemon=True
    )


def _time() -> float:
    """Seconds on a clock that nobody sets and that goes on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
