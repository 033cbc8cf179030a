"""`saga schedule`: which words make which request, and what is shown."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from cli_client import take_requests
from click.testing import CliRunner, Result

from orchestrator import cli
from orchestrator.cli import schedule
from orchestrator.schedules.schedule import (
    Counts,
    Overlap,
    Schedule,
    ScheduleDescription,
    ScheduledRun,
)
from orchestrator.schedules.times import Calendar, Interval, ScheduleSpec

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SALES = Schedule(saga_type="Report", input="north", spec=ScheduleSpec(crons=("30 9 * * *",), time_zone="Europe/Berlin"))
TOLD = ScheduleDescription(
    id="sales",
    schedule=SALES.model_copy(update={"remaining_actions": 7}),
    paused=True,
    note="the ledger is moved",
    running=[ScheduledRun(id="sales-b", at=NOON, started=NOON)],
    waiting=[NOON],
    recent=[ScheduledRun(id="sales-a", at=NOON, started=NOON, ended=NOON, outcome="failed", error="NoData: no sales")],
    next_times=[NOON, NOON.replace(hour=13)],
    counts=Counts(started=2, failed=1),
)


class Asked:
    """Notes what a client is asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.schedules = self

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def note(*arguments: Any, **options: Any) -> Any:
            self.calls.append((name, *arguments, *([options] if options else [])))
            return {"describe": TOLD, "trigger": "sales-x", "backfill": 3}.get(name)

        return note


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    asked = Asked()
    take_requests(monkeypatch, schedule, asked)
    return asked


def run(*words: str) -> Result:
    return CliRunner().invoke(cli.saga, ["schedule", *words])


def test_a_schedule_is_created(asked: Asked) -> None:
    words = ["--cron", "30 9 * * *", "--time-zone", "Europe/Berlin", "--input", '"north"']
    assert run("create", "sales", "Report", *words).output == "sales: created\n"
    assert asked.calls == [("create_raw", "sales", SALES, {"paused": False, "note": ""})]


def test_with_everything(asked: Asked) -> None:
    times = ["--every", "60", "--every", "0.5", "--calendar", "hour=9 weekday=MON", "--exclude", "month=12 hour=*"]
    bounds = ["--jitter", "5", "--from", "2026-01-01", "--until", "2026-12-31T18:00:00"]
    rest = ["--overlap", "buffer_one", "--catch-up-window", "3600", "--pause-on-failure", "--remaining", "3"]
    said = run("create", "sales", "Report", *times, *bounds, *rest, "--paused", "--note", "not yet", "--json")
    assert json.loads(said.output) == {"id": "sales", "done": "created"}
    spec = ScheduleSpec(
        intervals=(Interval(every=60), Interval(every=0.5)),
        calendars=(Calendar(hour="9", weekday="MON"),),
        exclude=(Calendar(month="12", hour="*"),),
        jitter=5,
        start=datetime(2026, 1, 1, tzinfo=UTC),
        end=datetime(2026, 12, 31, 18, tzinfo=UTC),
    )
    expected = Schedule(
        saga_type="Report",
        spec=spec,
        overlap=Overlap.BUFFER_ONE,
        catch_up_window=3_600,
        pause_on_failure=True,
        remaining_actions=3,
    )
    assert asked.calls == [("create_raw", "sales", expected, {"paused": True, "note": "not yet"})]


def test_only_what_is_given_is_changed(asked: Asked) -> None:
    run("update", "sales", "--overlap", "SKIP", "--go-on-after-failure", "--input", "7")
    run("update", "sales", "--every", "60")
    assert asked.calls == [
        ("update_raw", "sales", {"overlap": "SKIP", "pause_on_failure": False, "input": 7}),
        ("update_raw", "sales", {"spec": {"intervals": [{"every": 60.0}]}}),
    ]


def test_what_else_is_asked_for(asked: Asked) -> None:
    assert run("pause", "sales", "--note", "holidays").output == "sales: paused\n"
    assert run("resume", "sales").output == "sales: resumed\n"
    assert run("trigger", "sales", "--overlap", "ALLOW_ALL").output == "sales-x\n"
    assert run("trigger", "sales", "--json").output == '{"id": "sales", "saga_id": "sales-x"}\n'
    assert run("backfill", "sales", "--from", "2026-01-01", "--until", "2026-01-02").output == "sales: 3 times\n"
    assert run("delete", "sales", "--reason", "old").output == "sales: deleted\n"
    assert asked.calls == [
        ("pause", "sales", "holidays"),
        ("resume", "sales", ""),
        ("trigger", "sales", Overlap.ALLOW_ALL),
        ("trigger", "sales", None),
        ("backfill", "sales", datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC), Overlap.BUFFER_ALL),
        ("delete", "sales", {"reason": "old"}),
    ]


def test_it_is_shown(asked: Asked) -> None:
    assert run("show", "sales").output.splitlines() == [
        "schedule sales",
        "status   paused",
        "note     the ledger is moved",
        'starts   Report  "north"',
        "when     30 9 * * * (Europe/Berlin), 7 times more",
        "overlap  SKIP",
        "next     2026-03-01 12:00:00, 2026-03-01 13:00:00",
        "waiting  2026-03-01 12:00:00",
        "so far   2 started, 1 failed, 0 skipped, 0 missed",
        "",
        "id                started (UTC)        why",
        "sales-a  failed   2026-03-01 12:00:00  NoData: no sales",
        "sales-b  running  2026-03-01 12:00:00",
    ]
    assert json.loads(run("show", "sales", "--json").output) == TOLD.model_dump(mode="json")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("create", "sales", "Report", "--cron", "61 * * * *"), "no cron line"),
        (("create", "sales", "Report", "--every", "0"), "at least 0.001"),
        (("create", "sales", "Report", "--every", "60", "--time-zone", "Mars/Olympus"), "no time zone"),
        (("create", "sales", "Report", "--calendar", "9 o'clock"), "is no calendar"),
        (("create", "sales", "Report", "--calendar", "hours=9"), "not permitted"),
        (("create", "sales", "Report", "--every", "60", "--input", "{"), "not JSON"),
        (("create", "sales", "tests.shop_world:Greeting", "--every", "60", "--input", "7"), "no input of Greeting"),
        (("update", "sales"), "nothing to change"),
        (("trigger", "sales", "--overlap", "PERHAPS"), "PERHAPS"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sent(asked: Asked, words: tuple[str, ...], why: str) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert why in result.output
    assert asked.calls == []
