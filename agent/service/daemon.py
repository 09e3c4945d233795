"""`keysync run`: syncs on a schedule until it is told to stop.

APScheduler runs one job, the sync, in a thread. The main thread decides everything else: it waits
for signals and for the end of the job, and once a second handles what a schedule does not know: a
clock that was set, a machine that was suspended, a replaced API key, the watchdog.
"""

from __future__ import annotations

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

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, JobExecutionEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from agent import daemon_events
from agent.adapters.credential import sources_signature
from agent.adapters.sd_notify import Notifier
from agent.adapters.signals import Inbox
from agent.config import Config
from agent.core.backoff import Outcome
from agent.core.results import Trigger
from agent.errors import EXIT_OK, ConfigInvalid
from agent.log import Emit
from agent.service.contest import ContestFilter
from agent.service.cycle import Request, Syncer
from agent.service.log_dedup import StreakFilter
from agent.service.poll import PollResult, pace_of, where
from agent.service.reporter import Reporter

_JOB = "sync"
_TICK_SECONDS = 1.0
_OVERDUE_SECONDS = 2.0
_SPACING_SECONDS = 1.2  # the API allows about one request per second from one address
_LOCK_SECONDS = 20.0  # a manual `keysync sync` goes first; the next poll comes soon
_PATIENCE_SECONDS = _LOCK_SECONDS + 60.0  # for the lock, and for slow disks
_FINISH_SECONDS = 3.0
_BREAK_OFF_SECONDS = 1.0
_LEAVE_SECONDS = 4.5
_ENDING = (signal.SIGTERM, signal.SIGINT)
_SIGNALS = (*_ENDING, signal.SIGHUP, signal.SIGUSR1)


class Daemon:
    """Polls until it is told to stop. `load` reads the configuration and may raise ConfigInvalid.

    A sync is stuck when it lasts `patience` seconds longer than its request may.
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
        self._config = load()
        notifier = Notifier(environment)
        self._tick_seconds = min(_TICK_SECONDS, (notifier.watchdog_seconds or math.inf) / 4)
        self._reporter = Reporter(self._config, patience, notifier, emit)
        self._streaks = StreakFilter(self._reporter.keep_until_planned)
        self._emit_news = ContestFilter(self._streaks)
        self._scheduler = _scheduler()
        self._scheduler.add_listener(self._job_ended, EVENT_JOB_EXECUTED | EVENT_JOB_ERROR)
        # Written by the job's thread:
        self._syncer = self._make_syncer(self._config)
        self._started: float | None = None  # monotonic time at which the running sync began
        self._results: queue.SimpleQueue[PollResult] = queue.SimpleQueue()
        # Used by the main thread only:
        self._due = math.inf  # time of the next sync, see _time()
        self._last_ended = -math.inf  # monotonic
        self._again = False
        self._trigger = Trigger.POLL
        self._failures = 0
        self._polled_with: object = None  # signature of the files of the API key

    def run(self) -> int:
        """Runs in the foreground until SIGTERM or SIGINT. Returns the exit code."""
        with Inbox(_SIGNALS) as self._inbox:
            self._reporter.started()
            self._scheduler.start()
            self._schedule(0.0)
            try:
                reason = self._until_told_to_stop()
                self._reporter.told_to_stop(reason)
            finally:
                self._stop()
            self._reporter.stopped(reason)
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
            while not self._results.empty():
                self._plan_next(self._results.get())
            self._tick()

    def _tick(self) -> None:
        if self._started is None and _time() > self._due + _OVERDUE_SECONDS:
            self._submit(0.0)  # the wall clock, which the scheduler uses, was set back
        if self._polled_with is not None and self._polled_with != self._signature(self._config):
            self._polled_with = None
            self._sync_now()
        if not self._is_stuck():
            self._reporter.alive()

    def _is_stuck(self) -> bool:
        """Whether a sync lasts, or is overdue, so long that the watchdog should end the process."""
        started = self._started
        waiting = _time() - self._due if started is None else time.monotonic() - started
        return waiting > self._reporter.limit

    def _sync_now(self) -> None:
        """Starts a sync; while one is running, starts another one after it."""
        self._trigger = Trigger.SIGNAL
        if self._started is not None:
            self._again = True
        else:
            self._schedule(max(0.0, self._last_ended + _SPACING_SECONDS - time.monotonic()))

    def _reload(self) -> None:
        """Reads the configuration again; an invalid one is reported and not used."""
        self._reporter.reloading()
        try:
            self._config = self._load()
        except ConfigInvalid as error:
            self._reporter.reload_failed(error)
            return
        self._reporter.reloaded(self._config)
        self._sync_now()

    def _plan_next(self, poll: PollResult) -> None:
        """The job has ended: plans the next one and reports."""
        self._started = None
        self._last_ended = time.monotonic()
        self._polled_with = poll.signature
        self._failures = 0 if poll.outcome is Outcome.ANSWERED else self._failures + 1
        self._trigger = Trigger.POLL
        pace = pace_of(self._config)
        delay = pace.delay(poll.outcome, self._failures, poll.retry_after, random.uniform)
        self._schedule(delay)
        if self._again:
            self._again = False
            self._sync_now()
        delay = max(0.0, self._due - _time())
        self._reporter.poll_ended(poll, delay, self._streaks.failing_since)

    def _stop(self) -> None:
        """Lets a running sync finish; one that waits for the network is cancelled."""
        self._reporter.stopping()
        # Whatever else a sync hangs in, the process exits: writes are atomic (G7).
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
        while self._started is not None and self._results.empty():
            left = end - time.monotonic()
            if left <= 0:
                return False
            self._inbox.wait(left)
        return True

    def _schedule(self, seconds: float) -> None:
        """Plans the next sync in so many seconds, in place of the one planned before."""
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

    def _job(self) -> PollResult:
        """One sync; no exception in it ends the daemon."""
        self._started = time.monotonic()
        config = self._config
        try:
            signature = self._signature(config)
            request = Request(trigger=self._trigger)
            return PollResult(signature, self._syncer_for(config).sync(request))
        except Exception as error:  # noqa: BLE001  # reason: the one boundary of the daemon's job
            self._emit_news(
                daemon_events.AgentFailed(kind=type(error).__name__, where=where(error))
            )
            return PollResult()

    def _job_ended(self, event: JobExecutionEvent) -> None:
        """Called when APScheduler accepts the next job; before, it would refuse it."""
        self._results.put(event.retval or PollResult())
        self._inbox.wake()

    def _syncer_for(self, config: Config) -> Syncer:
        """The Syncer, which keeps the connection; a new one after a reload."""
        if self._syncer.config is not config:
            self._syncer.close()
            self._syncer = self._make_syncer(config)
        return self._syncer

    def _make_syncer(self, config: Config) -> Syncer:
        return Syncer(config, self._environment, self._emit_news, _LOCK_SECONDS)

    def _signature(self, config: Config) -> object:
        return sources_signature(config.api_key_file, self._environment)


def _scheduler() -> BackgroundScheduler:
    # A job submitted while it is starting is refused with a warning; the starting one will do.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    return BackgroundScheduler(
        executors={"default": ThreadPoolExecutor(1)}, timezone=timezone.utc, daemon=True
    )


def _time() -> float:
    """Seconds on a clock that cannot be set and that runs while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
