"""`saga list` and `saga show`: what the journals say, followed into a file under the state directory."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.application import archive_of, connection_options, log_of, settings_of
from orchestrator.cli.cluster import described
from orchestrator.cli.output import give, json_option, say, table

if TYPE_CHECKING:
    from orchestrator.config import Settings
    from orchestrator.visibility import Details, Run, StepView, Visibility

FILE = "visibility.sqlite"
_VALUE_WIDTH = 100

waiting_option = click.option(
    "--within", default=60.0, show_default=True, metavar="SECONDS", help="For reading what is new in the journals."
)


@click.command("list")
@click.option("--status", help="Only this one, such as RUNNING, PARKED or COMPLETED.")
@click.option("--type", "saga_type", help="Only sagas of this type.")
@click.option("--version", type=int, help="Only sagas whose code is in this version.")
@click.option("--where", metavar="FILTER", help="Such as: customer = 'ann' and amount > 3")
@click.option("--order-by", metavar="NAMES", help="Such as: amount desc, started")
@click.option("--limit", default=50, show_default=True)
@waiting_option
@connection_options
@json_option
def list_command(
    status: str | None,
    saga_type: str | None,
    version: int | None,
    where: str | None,
    order_by: str | None,
    limit: int,
    within: float,
    as_json: bool,
    **options: Any,
) -> None:
    """Lists sagas, the latest first. A filter has search attributes, id, type, status, started, ended, error, ..."""
    if where or order_by:
        _find(settings_of(options), within, _filter(where, status, saga_type, version), order_by, limit, as_json)
        return
    with opened(settings_of(options), within) as visibility:
        page = visibility.list(status=status.upper() if status else None, type=saga_type, version=version, limit=limit)
        counts = visibility.counts(type=saga_type)
    if as_json:
        give({"sagas": [asdict(run) for run in page.runs], "counts": counts, "more": page.next is not None})
        return
    if not page.runs:
        say(_nothing(saga_type, counts))
        return
    rows = [
        (run.saga_id, run.saga_type, run.status, when(run.started_at_ms), _duration(run), _why(run))
        for run in page.runs
    ]
    table(rows, ("id", "type", "status", "started", "took", "why"))
    say(_sums(counts))
    if page.next is not None:
        say("there are more: raise --limit, or give --status or --type")


@click.command("versions")
@click.option("--type", "saga_type", help="Only of this type.")
@waiting_option
@connection_options
@json_option
def versions_command(saga_type: str | None, within: float, as_json: bool, **options: Any) -> None:
    """Counts sagas by the version of their code. One that has no open saga is drained: no worker needs it any more."""
    with opened(settings_of(options), within) as visibility:
        found = visibility.versions(type=saga_type)
    if as_json:
        give({"versions": [asdict(each) for each in found]})
        return
    rows = [
        (
            each.saga_type,
            each.version or "(none yet)",
            "pinned" if each.pinned else "",
            each.open,
            each.parked,
            each.total,
        )
        for each in found
    ]
    table(rows, ("type", "version", "", "open", "parked", "of"))


def _filter(where: str | None, status: str | None, saga_type: str | None, version: int | None) -> str | None:
    """All that is asked for as one filter."""
    parts = [f"({where})"] if where else []
    for name, value in (("status", status and status.upper()), ("type", saga_type)):
        if value:
            quoted = value.replace("'", "''")
            parts.append(f"{name} = '{quoted}'")
    if version is not None:
        parts.append(f"version = {version}")
    return " and ".join(parts) or None


def _find(
    settings: Settings, within: float, where: str | None, order_by: str | None, limit: int, as_json: bool
) -> None:
    with opened(settings, within) as visibility:
        runs, (number,) = visibility.find(where, order_by, limit), visibility.count(where).values()
    if as_json:
        give({"sagas": [asdict(run) for run in runs], "count": number, "more": number > len(runs)})
        return
    rows = [(run.saga_id, run.saga_type, run.status, when(run.started_at_ms), _told(run), _why(run)) for run in runs]
    table(rows, ("id", "type", "status", "started", "attributes", "why"))
    say(f"{len(runs)} of {number}")


def _told(run: Run) -> str:
    """What a saga tells of itself."""
    pairs = " ".join(f"{name}={_brief(value)}" for name, value in run.attributes.items())
    return shown("; ".join(part for part in (run.summary, pairs) if part).encode())


@click.command("count")
@click.option("--where", metavar="FILTER", help="Such as: customer = 'ann' and amount > 3")
@click.option("--group-by", metavar="NAME", help="Such as: status, type, or a search attribute.")
@waiting_option
@connection_options
@json_option
def count_command(where: str | None, group_by: str | None, within: float, as_json: bool, **options: Any) -> None:
    """Counts sagas, all or those of a filter, by the values of one name if asked."""
    with opened(settings_of(options), within) as visibility:
        counts = visibility.count(where, group_by)
    if as_json:
        give({"groups": [{"value": value, "count": number} for value, number in counts.items()]})
    elif group_by is None:
        click.echo(counts[None])
    else:
        table([("" if value is None else value, number) for value, number in counts.items()], (group_by, "count"))


@click.command("show")
@click.argument("saga_id")
@click.option("--run", "run_id", help="An earlier run of this id. Default: its latest.")
@click.option("--history", default=200, show_default=True, help="So many of the latest events.")
@waiting_option
@connection_options
@json_option
def show_command(saga_id: str, run_id: str | None, history: int, within: float, as_json: bool, **options: Any) -> None:
    """Shows a saga: how it stands, its steps, and its history with the newest event at the end."""
    with opened(settings_of(options), within) as visibility:
        details = visibility.show(saga_id, run_id, history=max(1, history))
    if details is None:
        what = f"there is no saga {saga_id!r}" if run_id is None else f"saga {saga_id!r} has no run {run_id!r}"
        hint = "`saga list` shows those that were started, `saga dead-letters list` what could not be"
        raise click.ClickException(f"{what} under this prefix; {hint}")
    if as_json:
        give(_as_json(details))
    else:
        _print(details)


@contextmanager
def opened(settings: Settings, within_s: float) -> Iterator[Visibility]:
    """The file, caught up with all journals. Raises `ConfigurationError`, `Disconnected`, `VisibilityStopped`."""
    from orchestrator.visibility import Visibility

    log, names = log_of(settings), settings.topic_names
    journal = described(log, names.journal)
    path = settings.state_directory / FILE
    with Visibility(path, log, names, journal.partitions, archive_of(settings, journal.topic_id)) as visibility:
        if not visibility.catch_up(within_s):
            say(f"not all was read within {within_s:g} s: what follows may be old; call again, it goes on from there")
        yield visibility


def when(at_ms: int) -> str:
    """A time in UTC, to the millisecond."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at_ms // 1000)) + f".{at_ms % 1000:03d}"


def shown(payload: bytes) -> str:
    """A payload for people: on one line, cut."""
    text = " ".join(payload.decode(errors="replace").split())
    return text if len(text) <= _VALUE_WIDTH else text[: _VALUE_WIDTH - 1] + "…"


def plain(payload: bytes) -> Any:
    """A payload for programs: what its JSON says or, where it is none, its text."""
    try:
        return json.loads(payload) if payload else None
    except (ValueError, RecursionError):  # what was refused may be nested as deep as somebody liked
        return payload.decode(errors="replace")


def _duration(run: Run) -> str:
    return "" if run.ended_at_ms is None else f"{(run.ended_at_ms - run.started_at_ms) / 1000:.2f} s"


def _sums(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(counts.items()))


def _nothing(saga_type: str | None, counts: dict[str, int]) -> str:
    """Of an empty list, given how many there are in each status without the filter for one."""
    if counts:
        return f"there is none with these filters; in all {_sums(counts)}"
    if saga_type is not None:
        return f"there is no saga of type {saga_type}"
    return "there is no saga yet; start one with `saga start`"


def _why(run: Run) -> str:
    if run.status == "WAITING_FOR_CODE":
        ways_out = f"start one that does, or `saga terminate {run.saga_id}`"
        version = f" in version {run.version}" if run.version else ""
        return f"no worker has the code of {run.saga_type}{version}; {ways_out}"
    return run.parked_reason or run.paused or ": ".join(part for part in (run.error_type, run.error_message) if part)


def _as_json(details: Details) -> dict[str, Any]:
    from orchestrator.visibility import event_data

    return {
        "saga": asdict(details.run),
        "previous_run": details.previous_run or None,
        "following": details.following or None,
        "published": {name: plain(value) for name, value in details.published.items()},
        "input": plain(details.input),
        "result": plain(details.result),
        "steps": [
            {**asdict(step), "payload": plain(step.payload), "result": plain(step.result)} for step in details.steps
        ],
        "history": [
            {
                "at_ms": entry.at_ms,
                "offset": entry.offset,
                "index": entry.index,
                "source": entry.source,
                "event": type(entry.event).__name__,
                "data": event_data(entry.event),
            }
            for entry in details.history
        ],
    }


def _print(details: Details) -> None:
    run = details.run
    lines = [
        ("saga", f"{run.saga_id}  ({run.saga_type}, version {run.version}{_pin(run)}, run {run.run})"),
        ("after", f"run {details.previous_run}, {details.following}" if details.previous_run else ""),
        ("status", run.status + (f", undone: {run.undone}" if run.undone and run.status != "COMPLETED" else "")),
        ("cause", run.cause or ""),
        ("why", _why(run)),
        ("summary", run.summary or ""),
        *(("task", f"{key}: {said.get('title', '')}, see `saga tasks`") for key, said in run.tasks.items()),
        ("told", " ".join(f"{name}={_brief(value)}" for name, value in (run.attributes | run.memo).items())),
        *(("stream", f"{name}: {shown(value)}") for name, value in details.published.items()),
        ("started", f"{when(run.started_at_ms)} UTC"),
        ("ended", f"{when(run.ended_at_ms)} UTC, after {_duration(run)}" if run.ended_at_ms else ""),
        ("input", shown(details.input)),
        ("result", shown(details.result)),
    ]
    for name, value in lines:
        if value:
            click.echo(f"{name.ljust(8)} {value}")
    if details.steps:
        click.echo()
        rows = [(s.sequence, _step_name(s), s.status, s.attempt or "", _undo(s), _step_note(s)) for s in details.steps]
        table(rows, ("step", "command", "status", "attempt", "undo", ""))
    click.echo()
    _print_history(details)
    if run.status == "PARKED":
        _print_detail(details)
        say(f"decide with `saga park retry {run.saga_id}`, or `skip`, or `set-result --result JSON`")


def _pin(run: Run) -> str:
    return " pinned" if run.pinned else ""


def _print_detail(details: Details) -> None:
    """The traceback or the difference that a saga itself is parked for, as it stands."""
    from orchestrator.model.events import SagaParked

    parked = [entry.event for entry in details.history if isinstance(entry.event, SagaParked)]
    if parked and parked[-1].detail and details.run.parked_reason == parked[-1].reason:
        click.echo()
        click.echo(f"{parked[-1].reason}:")
        click.echo(parked[-1].detail)


def _print_history(details: Details) -> None:
    from orchestrator.visibility import event_data

    run = details.run
    left_out = run.events - len(details.history)
    if left_out > 0:
        click.echo(f"({left_out} earlier events; --history {run.events} shows all)")
    rows = []
    for entry in details.history:
        data = {name: value for name, value in event_data(entry.event).items() if value is not None}
        text = shown(" ".join(f"{name}={_brief(value)}" for name, value in data.items()).encode())
        rows.append((when(entry.at_ms), f"{run.partition}:{entry.offset}", type(entry.event).__name__, text))
    table(rows, ("time (UTC)", "offset", "event", ""))


def _brief(value: Any) -> str:
    return str(value) if isinstance(value, str | int) else json.dumps(value, default=str)


def _step_name(step: StepView) -> str:
    name = f"{step.service}.{step.command}" if step.service else step.command or "(sleep)"
    return name + (" (pivot)" if step.pivot else "")


def _undo(step: StepView) -> str:
    return (step.undo_command or "") + (f", attempt {step.undo_attempt}" if step.undo_attempt else "")


def _step_note(step: StepView) -> str:
    if step.parked_reason:
        return f"parked: {step.parked_reason}"
    if step.held:
        return f"circuit open: {step.service} does not answer, nothing is sent until it does"
    return shown(step.result) or ": ".join(part for part in (step.error_type, step.error_message) if part)
