"""A run of chaos from the first broker to the verdict."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from orchestrator.broker import SHORT_LIVED, Cluster, start_cluster
from orchestrator.chaos.guard import Guard
from orchestrator.chaos.history import Histories, now_ms
from orchestrator.chaos.kept import (
    HISTORY,
    RUN,
    SETTINGS,
    Material,
    RecordFiles,
    command_of,
    write_material,
    write_settings,
)
from orchestrator.chaos.links import Links
from orchestrator.chaos.load import Load
from orchestrator.chaos.nemesis import Nemesis
from orchestrator.chaos.sagas import SERVICES
from orchestrator.chaos.schedule import draw
from orchestrator.chaos.system import ENDED_KEEP_MS, PARTITIONS, System
from orchestrator.chaos.tap import Tap
from orchestrator.chaos.verdict import PAGE, RAW, RESULT, Outcome, conclude
from orchestrator.demo.dump import evidence_topics
from orchestrator.errors import ConfigurationError
from orchestrator.log.base import AdminFailed
from orchestrator.participant.loop import SWITCH_INTERVAL_S
from orchestrator.simulation.merging import code_digest

LISTENER = "LINKED"
"""That of the worker whose network is struck."""
READY_WITHIN_S = 120.0
QUIET_S = 6.0
"""Nothing is written any more: for so long."""
QUIET_WITHIN_S = 180.0 + ENDED_KEEP_MS / 1000
"""The last sagas are forgotten meanwhile."""
SAY_EACH_S = 10.0
LEFT = (PAGE, RESULT, SETTINGS, HISTORY, RUN)
"""What stays of a run without a flaw for which no folder was named."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for. `folder`: where all evidence is kept; None: without what is large, unless there is a flaw."""

    minutes: float
    seed: int
    per_second: float = 85.0
    workers: int = 3
    brokers: int = 3
    folder: Path | None = None

    def __post_init__(self) -> None:
        if self.minutes <= 0 or self.per_second <= 0 or self.workers < 1 or self.brokers < 1:
            raise ConfigurationError("chaos needs some time, some sagas, one worker and one broker at least")

    @property
    def replication(self) -> int:
        return min(3, self.brokers)


class Chaos:
    """One run; `say` gets lines of progress."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self.plan = plan
        self._say = say
        self._folder = _make(plan.folder)
        self._settings = _settings(plan)
        write_settings(self._folder, self._settings)
        say(f"what is known of this run is kept in {self._folder}")
        self._histories = Histories(self._folder / HISTORY)
        self._began_ms = self._ended_ms = now_ms()
        self._system: System | None = None
        self._cut: dict[str, int] = {}
        self._journal_id = ""
        self._failed = ""
        self._lost: list[str] = []
        self._by_type: Counter[str] = Counter()

    def run(self) -> Outcome:
        """Everything. Raises `SagaError`, `BrokerUnavailable` where something cannot be started or brought back.

        What is known of the run then is kept as well, and can be judged.
        """
        interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        try:
            self._start()
        except BaseException as error:
            self._failed = _why(error)
            self._ended_ms = now_ms()
            self._say(f"it failed, and what there is of it is in {self._folder}")
            raise
        finally:
            sys.setswitchinterval(interval)
            write_material(self._folder, self._material())
        self._say("checking every invariant")
        outcome = conclude(self._folder)
        if not outcome.result["violations"] and self.plan.folder is None:
            _leave(self._folder, LEFT)
        return outcome

    def _start(self) -> None:
        plan = self.plan
        with ExitStack() as stack:
            stack.callback(self._histories.close)
            self._say(f"starting {plan.brokers} brokers")
            cluster = stack.enter_context(
                start_cluster(plan.brokers, listeners={LISTENER: "PLAINTEXT"}, proxied=[LISTENER], jvm=SHORT_LIVED)
            )
            self._run_on(cluster, stack)

    def _run_on(self, cluster: Cluster, stack: ExitStack) -> None:
        plan = self.plan
        links = Links(f"worker-{plan.workers}", cluster.advertised(LISTENER))
        links.start()
        stack.callback(links.close)
        guard = Guard()
        stack.callback(guard.close)
        system = self._system = System(cluster, self._folder, guard)
        system.prepare(plan.replication)
        kept = stack.enter_context(closing(RecordFiles(self._folder / RAW)))
        tap = Tap(system.log(), evidence_topics(system.names, SERVICES), PARTITIONS, kept.add)
        stack.callback(tap.close)
        tap.start()
        system.declare(plan.workers, plan.replication, {links.worker: links.servers})
        stack.callback(system.kill)
        system.start()
        asyncio.run(self._load(system, links))
        self._say("stopping workers and services")
        system.stop()
        self._say("reading every topic to its end")
        tap.finish()
        self._journal_id, self._cut = system.cut()
        self._ended_ms = now_ms()

    def _material(self) -> Material:
        """What is known of the run, however far it came."""
        system = self._system
        return Material(
            self._settings,
            self._began_ms,
            self._ended_ms,
            told=list(self._histories.told.values()),
            faults=self._histories.faults,
            kills=system.kills if system else [],
            damaged=[str(each.relative_to(self._folder)) for each in sorted(system.damaged)] if system else [],
            lost=self._lost,
            ended=dict(sorted(self._by_type.items())),
            cut=self._cut,
            journal_id=self._journal_id,
            failed=self._failed,
        )

    async def _load(self, system: System, links: Links) -> None:
        plan, seconds = self.plan, 60 * self.plan.minutes
        load = Load(system.servers, plan.seed, plan.per_second, self._histories)
        schedule = draw(plan.seed, seconds)
        await load.open()
        try:
            self._say("waiting for the first sagas")
            await self._first(load, system)
            self._say(f"{plan.per_second:g} sagas a second for {seconds:.0f} s, {len(schedule)} faults")
            self._began_ms, began = now_ms(), time.monotonic()
            nemesis = Nemesis(system, load, links, self._histories, lambda text: self._say(f"fault: {text}"))
            report = asyncio.create_task(self._report(load))
            async with asyncio.TaskGroup() as group:
                group.create_task(nemesis.strike(schedule, seconds))
                group.create_task(load.run(seconds))
            self._say(f"all healed, all heard after {time.monotonic() - began:.0f} s; waiting until nothing moves")
            report.cancel()
            await asyncio.to_thread(self._wait_until_quiet, system)
            system.check()
        finally:
            self._lost += load.lost
            self._by_type = load.ended
            await load.close()

    async def _first(self, load: Load, system: System) -> None:
        waiting = asyncio.create_task(load.first(READY_WITHIN_S))
        while not waiting.done():
            await asyncio.wait([waiting], timeout=0.5)
            system.check()
        await waiting

    async def _report(self, load: Load) -> None:
        while True:
            await asyncio.sleep(SAY_EACH_S)
            self._say(f"{load.started} sagas started, {sum(load.ended.values())} ended, {len(load.running)} under way")

    def _wait_until_quiet(self, system: System) -> None:
        """Until no topic that the checker reads grows any more."""
        names = system.names
        topics = [names.inbox, names.replies, names.internal, names.operations, names.journal]
        wanted = [
            (topic, partition) for topic in [*topics, *map(names.commands, SERVICES)] for partition in range(PARTITIONS)
        ]
        deadline = time.monotonic() + QUIET_WITHIN_S
        before, since = None, time.monotonic()
        with closing(system.log().admin()) as admin:
            while time.monotonic() - since < QUIET_S:
                time.sleep(0.5)
                try:
                    ends = admin.ends(wanted)
                except AdminFailed:
                    ends = None
                if ends is None or ends != before:
                    before, since = ends, time.monotonic()
                if time.monotonic() > deadline:
                    self._lost.append(f"C14: topics still grow {QUIET_WITHIN_S:.0f} s after the last result")
                    return


def _why(error: BaseException) -> str:
    """In a line, also where tasks that ran side by side failed."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_why(each) for each in error.exceptions)
    return " ".join(f"{type(error).__name__}: {error}".removesuffix(": ").split())


def _settings(plan: Plan) -> dict[str, Any]:
    settings = {
        "seed": plan.seed,
        "minutes": plan.minutes,
        "sagas_per_second": plan.per_second,
        "brokers": plan.brokers,
        "replication": plan.replication,
        "workers": plan.workers,
        "partitions": PARTITIONS,
        "version": version("saga-orchestrator"),
        "code": code_digest(),
    }
    return {**settings, "command": command_of(settings)}


def _make(folder: Path | None) -> Path:
    """Raises `ConfigurationError` where there is something in it already."""
    if folder is None:
        return Path(tempfile.mkdtemp(prefix="saga-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ConfigurationError(f"{folder} is not empty: name a new folder for what is kept of this run")
    return folder.resolve()


def _leave(folder: Path, names: Sequence[str]) -> None:
    """Deletes all in a folder but these files."""
    for each in folder.iterdir():
        if each.is_dir():
            shutil.rmtree(each, ignore_errors=True)
        elif each.name not in names:
            each.unlink()
