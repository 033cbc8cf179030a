"""`saga locks`: who holds a key, who waits for it, and handing it on where its holder will not come to an end."""

from __future__ import annotations

import asyncio
import getpass
import json
import uuid
from typing import Any

import click

from orchestrator.cli.application import client_of, connection_options, settings_of
from orchestrator.cli.output import give, json_option
from orchestrator.errors import SagaNotFound
from orchestrator.model.locks import BREAK, HELD, saga_of


@click.group("locks")
def locks_command() -> None:
    """Look at locks and break them; `saga list --type saga.lock --status RUNNING` lists all that are held."""


@locks_command.command("show")
@click.argument("key")
@connection_options
@json_option
def locks_show_command(key: str, as_json: bool, **options: Any) -> None:
    """Says which saga holds KEY, and which ones wait for it, the longest first."""

    async def act() -> dict[str, Any]:
        async with client_of(settings_of(options)) as client:
            try:
                held: dict[str, Any] = json.loads(await client.query_raw(saga_of(key), HELD))
            except SagaNotFound:
                held = {"holder": "", "waiting": []}
            return held

    held = asyncio.run(act())
    if as_json:
        give({"key": key, **held})
        return
    click.echo(f"{key}: held by {held['holder']}" if held["holder"] else f"{key}: nobody holds it")
    for saga_id in held["waiting"]:
        click.echo(f"  {saga_id} waits")


@locks_command.command("release")
@click.argument("key")
@click.option("--reason", default="", help="Why, for the lock's history.")
@connection_options
@json_option
def locks_release_command(key: str, reason: str, as_json: bool, **options: Any) -> None:
    """Takes KEY from the saga that holds it, and gives it to the one that has waited longest.

    The former holder does not notice, and goes on as if it held the key.
    """
    by = getpass.getuser()
    payload = json.dumps({"by": by, "reason": reason}).encode()

    async def act() -> str:
        async with client_of(settings_of(options)) as client:
            update = await client.start_update_raw(
                str(uuid.uuid4()), saga_of(key), BREAK, payload, lambda was: str(json.loads(was))
            )
            return await update.result()

    holder = asyncio.run(act())
    if as_json:
        give({"key": key, "taken_from": holder})
    else:
        click.echo(f"{key}: taken from {holder}" if holder else f"{key}: nobody held it")
