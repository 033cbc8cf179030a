"""`saga cancel`, `saga signal`, `saga terminate`, `saga park`: what a person says to a saga."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.application import client_of, connection_options, settings_of
from orchestrator.cli.output import give, json_option
from orchestrator.cli.start import in_utc, start_options

if TYPE_CHECKING:
    from orchestrator.client import Client


def _send(options: dict[str, Any], act: Callable[[Client], Awaitable[None]]) -> None:
    async def run() -> None:
        async with client_of(settings_of(options)) as client:
            await act(client)

    asyncio.run(run())


def _done(as_json: bool, saga_id: str, what: str) -> None:
    if as_json:
        give({"saga_id": saga_id, "asked": what})
    else:
        click.echo(f"{saga_id}: {what} asked for; `saga show {saga_id}` tells what came of it")


@click.command("cancel")
@click.argument("saga_id")
@click.option("--reason", default="")
@connection_options
@json_option
def cancel_command(saga_id: str, reason: str, as_json: bool, **options: Any) -> None:
    """Stops a saga: its code may clean up, then what it did is undone."""
    _send(options, lambda client: client.cancel(saga_id, reason=reason, by=getpass.getuser()))
    _done(as_json, saga_id, "cancel")


@click.command("signal")
@click.argument("saga_id")
@click.argument("name")
@click.argument("value", default="null")
@connection_options
@json_option
def signal_command(saga_id: str, name: str, value: str, as_json: bool, **options: Any) -> None:
    """Tells a saga something: the signal's NAME, and its VALUE as JSON."""
    _send(options, lambda client: client.signal_raw(saga_id, name, value.encode()))
    _done(as_json, saga_id, f"signal {name}")


@click.command("reschedule")
@click.argument("saga_id")
@start_options
@connection_options
@json_option
def reschedule_command(
    saga_id: str, start_at: datetime | None, start_delay: float | None, as_json: bool, **options: Any
) -> None:
    """Moves the time at which a saga begins that was started with a delay, while it has not begun."""
    _send(
        options,
        lambda client: client.reschedule(
            saga_id, start_at=in_utc(start_at), start_delay=start_delay, by=getpass.getuser()
        ),
    )
    _done(as_json, saga_id, "another start")


@click.command("terminate")
@click.argument("saga_id")
@click.option("--reason", default="")
@connection_options
@json_option
def terminate_command(saga_id: str, reason: str, as_json: bool, **options: Any) -> None:
    """Ends a saga at once. Nothing is undone."""
    _send(options, lambda client: client.terminate(saga_id, reason=reason, by=getpass.getuser()))
    _done(as_json, saga_id, "terminate")


@click.command("move-version")
@click.argument("saga_id")
@click.option("--to", "version", type=click.IntRange(1), help="This version; the saga stays there.")
@click.option("--newest", is_flag=True, help="The newest that there is, now and later, as other sagas.")
@click.option("--reason", default="")
@connection_options
@json_option
def move_version_command(
    saga_id: str, version: int | None, newest: bool, reason: str, as_json: bool, **options: Any
) -> None:
    """Has a saga go on with another version of its code; one that is parked for its code is tried again."""
    if (version is None) != newest:
        raise click.UsageError("give --to VERSION, or --newest")
    _send(options, lambda client: client.move_version(saga_id, version or 0, reason=reason, by=getpass.getuser()))
    _done(as_json, saga_id, "move-version")


@click.command("park")
@click.argument("action", type=click.Choice(["retry", "skip", "set-result"]))
@click.argument("saga_id")
@click.option("--step", default=0, help="The step's number; without it whatever the saga is parked at.")
@click.option("--result", help="For set-result: the step's result as JSON.")
@click.option("--reason", default="")
@connection_options
@json_option
def park_command(
    action: str, saga_id: str, step: int, result: str | None, reason: str, as_json: bool, **options: Any
) -> None:
    """Decides about a parked saga: retry the step, skip it, or set its result."""
    if action == "set-result" and result is None:
        raise click.UsageError("set-result needs --result")
    payload = None if result is None else result.encode()

    async def act(client: Client) -> None:
        from orchestrator.model.messages import Override

        await client.unpark(saga_id, Override(action), step=step, payload=payload, reason=reason, by=getpass.getuser())

    _send(options, act)
    _done(as_json, saga_id, action)
