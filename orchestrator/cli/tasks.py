"""`saga tasks`: what sagas wait for people to do."""

from __future__ import annotations

import asyncio
import getpass
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.application import client_of, connection_options, settings_of
from orchestrator.cli.look import opened, waiting_option, when
from orchestrator.cli.output import give, json_option, say, table

if TYPE_CHECKING:
    from orchestrator.client import Client
    from orchestrator.visibility import Task


@click.group("tasks")
def tasks_command() -> None:
    """List, show, claim, hand on and complete what sagas wait for people to do.

    KEY names one of a saga's tasks; where it has only one open, it may be left out.
    """


@tasks_command.command("list")
@click.option("--assignee", help="Only those of this person.")
@click.option("--group", help="Only those that one of this group may claim.")
@click.option("--saga", "saga_id", help="Only those of this saga.")
@click.option("--overdue", is_flag=True, help="Only those that are due by now.")
@waiting_option
@connection_options
@json_option
def tasks_list_command(
    assignee: str | None,
    group: str | None,
    saga_id: str | None,
    overdue: bool,
    within: float,
    as_json: bool,
    **options: Any,
) -> None:
    """Lists open tasks: what is due first comes first."""
    with opened(settings_of(options), within) as visibility:
        found = visibility.tasks(saga_id)
    now_ms = time.time_ns() // 1_000_000
    tasks = [
        task
        for task in found
        if assignee in (None, task.assignee)
        and (group is None or (task.group == group and task.assignee is None))
        and not (overdue and (task.due_ms is None or task.due_ms > now_ms))
    ]
    if as_json:
        give({"tasks": [asdict(task) for task in tasks]})
    elif not tasks:
        say("there is no such task")
    else:
        rows = [(task.saga_id, task.key, task.title, _whose(task), _due(task, now_ms)) for task in tasks]
        table(rows, ("saga", "task", "title", "whose", "due (UTC)"))


@tasks_command.command("show")
@click.argument("saga_id")
@click.argument("key", default="")
@waiting_option
@connection_options
@json_option
def tasks_show_command(saga_id: str, key: str, within: float, as_json: bool, **options: Any) -> None:
    """Shows a task with its form."""
    with opened(settings_of(options), within) as visibility:
        found = visibility.tasks(saga_id)
    named = [task for task in found if key in ("", task.key)]
    if len(named) != 1:
        known = ", ".join(task.key for task in found) or "none"
        raise click.ClickException(f"which task of {saga_id!r}? Open: {known}")
    task = named[0]
    if as_json:
        give({"task": asdict(task)})
        return
    lines = {
        "task": f"{task.key} of {task.saga_id} ({task.saga_type})",
        "title": task.title,
        "": task.description,
        "whose": _whose(task),
        "opened": f"{when(task.opened_ms)} UTC",
        "due": _due(task, time.time_ns() // 1_000_000),
    }
    for name, value in lines.items():
        if value:
            click.echo(f"{name.ljust(8)} {value}")
    click.echo()
    required = task.form.get("required", ())
    rows = [
        (name, said.get("type") or "see --json", "" if name in required else "may be left out")
        for name, said in task.form.get("properties", {}).items()
    ]
    table(rows, ("field", "type", ""))
    say(f"saga tasks complete {task.saga_id} {task.key} --form '{{...}}'")


@tasks_command.command("claim")
@click.argument("saga_id")
@click.argument("key", default="")
@click.option("--by", help="Who claims it. Default: you.")
@connection_options
@json_option
def tasks_claim_command(saga_id: str, key: str, by: str | None, as_json: bool, **options: Any) -> None:
    """Makes a task yours, so that nobody else completes it."""
    who = by or getpass.getuser()
    _do(options, lambda client: client.claim_task(saga_id, key, by=who))
    _done(as_json, saga_id, key, "claimed", who)


@tasks_command.command("complete")
@click.argument("saga_id")
@click.argument("key", default="")
@click.option("--form", required=True, metavar="JSON", help="The form, filled in.")
@click.option("--by", help="Who completes it. Default: you.")
@connection_options
@json_option
def tasks_complete_command(saga_id: str, key: str, form: str, by: str | None, as_json: bool, **options: Any) -> None:
    """Fills in a task's form; the saga goes on with it. A form that does not fit changes nothing."""
    who = by or getpass.getuser()
    try:
        json.loads(form)
    except ValueError as error:
        raise click.UsageError(f"--form is no JSON: {error}") from None
    _do(options, lambda client: client.complete_task_raw(saga_id, key, form, by=who))
    _done(as_json, saga_id, key, "completed", who)


@tasks_command.command("reassign")
@click.argument("saga_id")
@click.argument("key", default="")
@click.option("--assignee", help="Whose it is to be.")
@click.option("--group", help="Or the group of whom one claims it.")
@click.option("--by", help="Who hands it on. Default: you.")
@connection_options
@json_option
def tasks_reassign_command(
    saga_id: str, key: str, assignee: str | None, group: str | None, by: str | None, as_json: bool, **options: Any
) -> None:
    """Hands a task on, whoever has it."""
    if not (assignee or group):
        raise click.UsageError("to whom? --assignee or --group")
    who = by or getpass.getuser()
    _do(options, lambda client: client.reassign_task(saga_id, key, assignee=assignee, group=group, by=who))
    _done(as_json, saga_id, key, "handed on", who)


def _do(options: dict[str, Any], act: Callable[[Client], Awaitable[None]]) -> None:
    async def run() -> None:
        async with client_of(settings_of(options)) as client:
            await act(client)

    asyncio.run(run())


def _done(as_json: bool, saga_id: str, key: str, what: str, who: str) -> None:
    if as_json:
        give({"saga_id": saga_id, "task": key, "done": what, "by": who})
    else:
        click.echo(f"{saga_id}: {key or 'its task'} is {what} by {who}")


def _whose(task: Task) -> str:
    return task.assignee or (f"one of {task.group}" if task.group else "")


def _due(task: Task, now_ms: int) -> str:
    if task.due_ms is None:
        return ""
    return when(task.due_ms)[:16] + (" overdue" if task.due_ms <= now_ms else "")
