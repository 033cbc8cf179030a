"""Further runs of a saga: `saga restart`, `redrive`, `reset`, `fork`."""

from __future__ import annotations

from typing import Any

import click

from orchestrator.cli.application import connection_options
from orchestrator.cli.operate import operate, within_option
from orchestrator.cli.output import json_option


@click.command("restart")
@click.argument("saga_id")
@click.option("--input", "payload", help="Another input, as JSON; without it the one that it had.")
@click.option("--reason", default="")
@within_option
@connection_options
@json_option
def restart_command(
    saga_id: str, payload: str | None, reason: str, within: float, as_json: bool, **options: Any
) -> None:
    """Runs a saga that has ended again, from its beginning. Nothing of what it did is undone."""
    given = None if payload is None else payload.encode()
    operate("restart", lambda client: client.restart, saga_id, reason, within, as_json, options, payload=given)


@click.command("redrive")
@click.argument("saga_id")
@click.option("--input", "payload", help="Another input for one that has ended, as JSON.")
@click.option("--reason", default="")
@within_option
@connection_options
@json_option
def redrive_command(
    saga_id: str, payload: str | None, reason: str, within: float, as_json: bool, **options: Any
) -> None:
    """Has a saga that failed or is parked go on, with all results that still stand."""
    given = None if payload is None else payload.encode()
    operate("redrive", lambda client: client.redrive, saga_id, reason, within, as_json, options, payload=given)


@click.command("reset")
@click.argument("saga_id")
@click.option("--to", required=True, type=click.IntRange(1), help="The step from which on it is undone and done anew.")
@click.option("--reason", default="")
@within_option
@connection_options
@json_option
def reset_command(saga_id: str, to: int, reason: str, within: float, as_json: bool, **options: Any) -> None:
    """Undoes what a saga did from a step on, and has it go on from there with the results before."""
    operate("reset", lambda client: client.reset, saga_id, reason, within, as_json, options, to=to)


@click.command("fork")
@click.argument("saga_id")
@click.argument("new_id")
@click.option("--to", required=True, type=click.IntRange(1), help="The step that the new saga does first.")
@click.option("--reason", default="")
@within_option
@connection_options
@json_option
def fork_command(saga_id: str, new_id: str, to: int, reason: str, within: float, as_json: bool, **options: Any) -> None:
    """Starts the saga NEW_ID with the results of SAGA_ID's steps before some step; both go on."""
    what = f"fork {new_id}"
    operate(what, lambda client: client.fork, saga_id, reason, within, as_json, options, to=to, new_id=new_id)
