"""`saga start`."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator.cli.application import client_of, connection_options, load_definitions, settings_of
from orchestrator.cli.output import give, json_option, say

if TYPE_CHECKING:
    from orchestrator.config import Settings
    from orchestrator.saga import Saga

F = TypeVar("F", bound=Callable[..., Any])


def start_options(function: F) -> F:
    """When the saga begins."""
    at = click.option(
        "--start-at", type=click.DateTime(), metavar="TIME", help="Begin then: 2030-01-31T08:00:00, in UTC."
    )
    delay = click.option("--start-delay", type=float, metavar="SECONDS", help="Begin so much later.")
    return at(delay(function))


def in_utc(when: datetime | None) -> datetime | None:
    return None if when is None else when.replace(tzinfo=UTC)


@click.command("start")
@click.argument("saga", metavar="TYPE|MODULE:CLASS")
@click.option("--id", "saga_id", metavar="ID", help="Starting an id again starts nothing. Default: a random one.")
@click.option("--input", "given", default="null", metavar="JSON", help="Or @FILE, or - for standard input.")
@click.option("--wait", type=float, metavar="SECONDS", help="Wait so long for the end and show the result.")
@start_options
@connection_options
@json_option
def start_command(
    saga: str,
    saga_id: str | None,
    given: str,
    wait: float | None,
    start_at: datetime | None,
    start_delay: float | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Starts a saga: by the name of its type, or by MODULE:CLASS, which checks the input before it is sent.

    When this returns, Kafka has the start and the saga will run. With --wait the exit code is 0 only if it completed.
    """
    saga_type, payload = checked(saga, read_input(given))
    saga_id = saga_id or str(uuid.uuid4())
    result = asyncio.run(_start(settings_of(options), saga_type, saga_id, payload, wait, in_utc(start_at), start_delay))
    if as_json:
        give(result)
    else:
        _print(result, wait)
    if wait is not None and result["status"] != "COMPLETED":
        raise click.exceptions.Exit(1)


def read_input(given: str) -> bytes:
    """The input as JSON in UTF-8."""
    if given == "-":
        text = sys.stdin.read()
    elif given.startswith("@"):
        try:
            text = Path(given[1:]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise click.UsageError(f"--input: {given[1:]} cannot be read: {error}") from None
    else:
        text = given
    try:
        json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"--input is not JSON: {error}") from None
    return text.strip().encode()


def checked(saga: str, payload: bytes) -> tuple[str, bytes]:
    """(saga type, payload), the payload held against the class where there is one."""
    if ":" not in saga:
        return saga, payload
    (definition,) = load_definitions((saga,)).values()
    complaint = definition.check_input(payload)
    if complaint:
        raise click.UsageError(f"--input is no input of {definition.name}: {complaint}")
    return definition.name, payload


def untyped_saga(saga_type: str) -> type[Saga[bytes, bytes]]:
    """Stands for a saga whose code is elsewhere: input and result are JSON as it is on the wire."""
    from orchestrator.saga import Saga

    class Untyped(Saga[bytes, bytes], name=saga_type):
        async def run(self, input: bytes, /) -> bytes:
            raise NotImplementedError

        @classmethod
        def encode_input(cls, value: bytes) -> bytes:
            return value

        @classmethod
        def decode_result(cls, payload: bytes) -> bytes:
            return payload

    return Untyped


async def _start(
    settings: Settings,
    saga_type: str,
    saga_id: str,
    payload: bytes,
    wait: float | None,
    start_at: datetime | None,
    start_delay: float | None,
) -> dict[str, Any]:
    from orchestrator.errors import ResultTimeout, SagaFailed

    outcome: dict[str, Any] = {"saga_id": saga_id, "saga_type": saga_type}
    async with client_of(settings) as client:
        handle = await client.start(
            untyped_saga(saga_type), payload, id=saga_id, start_at=start_at, start_delay=start_delay
        )
        if wait is None:
            return outcome
        try:
            result = await handle.result(timeout=wait)
        except ResultTimeout:
            return {**outcome, "status": None}
        except SagaFailed as failed:
            return {
                **outcome,
                "run": failed.run,
                "status": str(failed.status),
                "undone": failed.undone,
                "error_type": failed.error_type,
                "error_message": failed.error_message,
            }
    return {**outcome, "status": "COMPLETED", "result": json.loads(result or b"null")}


def _print(result: dict[str, Any], wait: float | None) -> None:
    saga_id = result["saga_id"]
    if wait is None:
        click.echo(saga_id)
        say(f"started; `saga show {saga_id}` tells what becomes of it")
    elif result["status"] is None:
        click.echo(f"{saga_id}  still running")
        say(f"it has not ended within {wait:g} s and goes on; `saga show {saga_id}` tells what becomes of it")
    elif result["status"] == "COMPLETED":
        click.echo(f"{saga_id}  COMPLETED  {json.dumps(result['result'])}")
    else:
        error = ": ".join(part for part in (result["error_type"], result["error_message"]) if part)
        click.echo(f"{saga_id}  {result['status']}  {error}".rstrip())
