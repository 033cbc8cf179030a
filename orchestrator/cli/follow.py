"""`saga follow`."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from orchestrator.cli.application import client_of, connection_options, settings_of


@click.command("follow")
@click.argument("saga_id")
@click.argument("stream")
@connection_options
def follow_command(saga_id: str, stream: str, **options: Any) -> None:
    """Prints what a saga has published on STREAM and what it publishes, a line of JSON each, until it has ended."""

    async def run() -> None:
        async with client_of(settings_of(options)) as client:
            async for value in client.follow_raw(saga_id, stream):
                click.echo(value.decode())

    asyncio.run(run())
