"""`saga schedule`: sagas that are started at given times."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator.cli.application import connection_options, settings_of
from orchestrator.cli.look import opened, waiting_option
from orchestrator.cli.operate import send
from orchestrator.cli.output import give, json_option, table
from orchestrator.cli.start import checked, read_input

if TYPE_CHECKING:
    from orchestrator.client import Client
    from orchestrator.schedules.schedule import ScheduleDescription, ScheduledRun
    from orchestrator.visibility import Run

F = TypeVar("F", bound=Callable[..., Any])

_OVERLAPS = ("SKIP", "BUFFER_ONE", "BUFFER_ALL", "CANCEL_OTHER", "TERMINATE_OTHER", "ALLOW_ALL")
_overlap = click.option("--overlap", type=click.Choice(_OVERLAPS, case_sensitive=False), help="While one is under way.")
_time = click.DateTime(("%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d"))


def _schedule_options(command: F) -> F:
    for option in (
        click.option("--cron", "crons", multiple=True, metavar="LINE", help='"30 9 * * MON-FRI"; may be repeated.'),
        click.option("--every", multiple=True, type=float, metavar="SECONDS", help="Since 1970; may be repeated."),
        click.option(
            "--calendar", "calendars", multiple=True, metavar="FIELDS", help='"hour=9 day=1-7 weekday=MON"; midnight.'
        ),
        click.option("--exclude", multiple=True, metavar="FIELDS", help="Likewise, what is left out."),
        click.option("--time-zone", metavar="NAME", help="Such as Europe/Berlin. Default: UTC."),
        click.option("--jitter", type=float, metavar="SECONDS", help="Delay each time by up to so long."),
        click.option("--from", "start", type=_time, metavar="TIME", help="Not before, in UTC."),
        click.option("--until", "end", type=_time, metavar="TIME", help="Not after, in UTC."),
        click.option("--input", "given", metavar="JSON", help="Or @FILE, or - for standard input."),
        _overlap,
        click.option("--catch-up-window", type=float, metavar="SECONDS", help="For what an outage let pass: a year."),
        click.option("--pause-on-failure/--go-on-after-failure", default=None),
        click.option("--remaining", "remaining_actions", type=int, metavar="N", help="So many times."),
    ):
        command = option(command)
    return command


@click.group("schedule")
def schedule_command() -> None:
    """Starts sagas at given times. A schedule is a saga itself, `schedule:ID`: whatever tells of sagas tells of it."""


@schedule_command.command("create")
@click.argument("id")
@click.argument("saga", metavar="TYPE|MODULE:CLASS")
@_schedule_options
@click.option("--paused", is_flag=True, help="Begin paused.")
@click.option("--note", default="")
@connection_options
@json_option
def create_command(id: str, saga: str, paused: bool, note: str, as_json: bool, **options: Any) -> None:
    """Has a saga started at each time: by the name of its type, or by MODULE:CLASS, which checks the input."""
    from orchestrator.schedules.schedule import Schedule

    spec, changes = _given(options)
    saga_type, payload = checked(saga, read_input(options.pop("given") or "null"))
    try:
        schedule = Schedule.read({"saga_type": saga_type, "input": json.loads(payload), "spec": spec, **changes})
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    send(options, lambda client: client.schedules.create_raw(id, schedule, paused=paused, note=note))
    _done(as_json, id, "created")


@schedule_command.command("update")
@click.argument("id")
@_schedule_options
@connection_options
@json_option
def update_command(id: str, as_json: bool, **options: Any) -> None:
    """Changes what is given. Of when it is due all is given anew: --cron, --time-zone and so on together."""
    spec, changes = _given(options)
    given = options.pop("given")
    if given is not None:
        changes["input"] = json.loads(read_input(given))
    if spec:
        changes["spec"] = spec
    if not changes:
        raise click.UsageError("nothing to change is given")
    send(options, lambda client: client.schedules.update_raw(id, changes))
    _done(as_json, id, "updated")


@schedule_command.command("list")
@click.option("--all", "ended", is_flag=True, help="Also those that have ended or were deleted.")
@waiting_option
@connection_options
@json_option
def list_command(ended: bool, within: float, as_json: bool, **options: Any) -> None:
    """Lists schedules. `saga list --where "schedule = 'ID'"` lists what one has started."""
    from orchestrator.schedules.schedule import ID_PREFIX, SCHEDULE_TYPE

    only = f"type = '{SCHEDULE_TYPE}' and status != 'CONTINUED_AS_NEW'"
    with opened(settings_of(options), within) as visibility:
        runs = visibility.find(only if ended else f"{only} and ended is null", None, 1_000)
    rows = [(run.saga_id.removeprefix(ID_PREFIX), *_listed(run)) for run in runs]
    if as_json:
        names = ("id", "status", "action", "spec")
        give({"schedules": [dict(zip(names, row, strict=True)) for row in rows]})
    else:
        table(rows, ("id", "status", "starts", "when"))


def _listed(run: Run) -> tuple[str, str, str]:
    paused = run.status == "RUNNING" and run.attributes.get("paused")
    return "paused" if paused else run.status.lower(), str(run.attributes.get("action", "")), run.summary or ""


@schedule_command.command("show")
@click.argument("id")
@connection_options
@json_option
def show_command(id: str, as_json: bool, **options: Any) -> None:
    """Shows a schedule: what it is, how it stands, what it started last, and its next times."""
    described = _ask(options, lambda client: client.schedules.describe(id))
    if as_json:
        give(described.model_dump(mode="json"))
    else:
        _print(described)


@schedule_command.command("pause")
@click.argument("id")
@click.option("--note", default="")
@connection_options
@json_option
def pause_command(id: str, note: str, as_json: bool, **options: Any) -> None:
    """No time counts until it is resumed. What it started goes on."""
    send(options, lambda client: client.schedules.pause(id, note))
    _done(as_json, id, "paused")


@schedule_command.command("resume")
@click.argument("id")
@click.option("--note", default="")
@connection_options
@json_option
def resume_command(id: str, note: str, as_json: bool, **options: Any) -> None:
    """Times count again from now on."""
    send(options, lambda client: client.schedules.resume(id, note))
    _done(as_json, id, "resumed")


@schedule_command.command("trigger")
@click.argument("id")
@_overlap
@connection_options
@json_option
def trigger_command(id: str, overlap: str | None, as_json: bool, **options: Any) -> None:
    """Acts now, also while it is paused."""
    from orchestrator.schedules.schedule import Overlap

    how = None if overlap is None else Overlap(overlap)
    saga_id = _ask(options, lambda client: client.schedules.trigger(id, how))
    if as_json:
        give({"id": id, "saga_id": saga_id})
    else:
        click.echo(saga_id)


@schedule_command.command("backfill")
@click.argument("id")
@click.option("--from", "start", type=_time, required=True, metavar="TIME", help="In UTC, itself included.")
@click.option("--until", "end", type=_time, required=True, metavar="TIME", help="Likewise.")
@_overlap
@connection_options
@json_option
def backfill_command(
    id: str, start: datetime, end: datetime, overlap: str | None, as_json: bool, **options: Any
) -> None:
    """Acts for times that are over, one after the other unless --overlap says otherwise."""
    from orchestrator.schedules.schedule import Overlap

    span = (start.replace(tzinfo=UTC), end.replace(tzinfo=UTC))
    times = _ask(options, lambda client: client.schedules.backfill(id, *span, Overlap(overlap or "BUFFER_ALL")))
    if as_json:
        give({"id": id, "times": times})
    else:
        click.echo(f"{id}: {times} times")


@schedule_command.command("delete")
@click.argument("id")
@click.option("--reason", default="")
@connection_options
@json_option
def delete_command(id: str, reason: str, as_json: bool, **options: Any) -> None:
    """Ends a schedule. What it started goes on."""
    send(options, lambda client: client.schedules.delete(id, reason=reason))
    _done(as_json, id, "deleted")


def _ask(options: dict[str, Any], question: Callable[[Client], Any]) -> Any:
    told: list[Any] = []

    async def act(client: Client) -> None:
        told.append(await question(client))

    send(options, act)
    return told[0]


def _given(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """When it is due, and what holds besides, as JSON; taken out of the options."""
    spec: dict[str, Any] = {name: options.pop(name) for name in ("time_zone", "jitter")}
    spec |= {name: None if (at := options.pop(name)) is None else f"{at.isoformat()}Z" for name in ("start", "end")}
    spec["crons"] = list(options.pop("crons"))
    spec["intervals"] = [{"every": every} for every in options.pop("every")]
    spec |= {name: [_fields(text) for text in options.pop(name)] for name in ("calendars", "exclude")}
    names = ("overlap", "catch_up_window", "pause_on_failure", "remaining_actions")
    rest = {name: options.pop(name) for name in names}
    return (
        {name: value for name, value in spec.items() if value not in (None, [])},
        {name: value for name, value in rest.items() if value is not None},
    )


def _fields(text: str) -> dict[str, str]:
    """`hour=9 weekday=MON-FRI` by name."""
    pairs = [part.partition("=") for part in text.split()]
    wrong = next((name for name, equals, _ in pairs if not equals), None)
    if wrong is not None or not pairs:
        raise click.UsageError(f"{text!r} is no calendar: say it such as 'hour=9 minute=30 weekday=MON-FRI'")
    return {name: value for name, _, value in pairs}


def _done(as_json: bool, id: str, what: str) -> None:
    if as_json:
        give({"id": id, "done": what})
    else:
        click.echo(f"{id}: {what}")


def _print(described: ScheduleDescription) -> None:
    schedule, counts = described.schedule, described.counts
    limits = "" if schedule.remaining_actions is None else f", {schedule.remaining_actions} times more"
    lines = [
        ("schedule", described.id),
        ("status", "ended" if described.ended else "paused" if described.paused else "running"),
        ("note", described.note),
        ("starts", f"{schedule.saga_type}  {json.dumps(schedule.input)}"),
        ("when", schedule.spec.words + limits),
        ("overlap", str(schedule.overlap)),
        ("next", ", ".join(_when(at) for at in described.next_times[:3]) or "never"),
        ("waiting", ", ".join(_when(at) for at in described.waiting[:3])),
        (
            "so far",
            f"{counts.started} started, {counts.failed} failed, {counts.skipped} skipped, {counts.missed} missed",
        ),
    ]
    for name, value in lines:
        if value:
            click.echo(f"{name.ljust(8)} {value}")
    runs: Sequence[ScheduledRun] = [*described.recent, *described.running]
    if runs:
        click.echo()
        table(
            [(run.id, run.outcome, _when(run.started), run.error) for run in runs], ("id", "", "started (UTC)", "why")
        )


def _when(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")
