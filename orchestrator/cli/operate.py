"""What a person says to a saga: `saga cancel`, `signal`, `promise`, `query`, `update`, `pause`, `park` and the like."""

from __future__ import annotations

import asyncio
import getpass
import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.application import client_of, connection_options, settings_of
from orchestrator.cli.output import give, json_option
from orchestrator.cli.start import in_utc, start_options
from orchestrator.correlation import id_of

if TYPE_CHECKING:
    from orchestrator.client import Client


def send(options: dict[str, Any], act: Callable[[Client], Awaitable[None]]) -> None:
    async def run() -> None:
        async with client_of(settings_of(options)) as client:
            await act(client)

    asyncio.run(run())


within_option = click.option(
    "--within",
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for what came of it; 0: not at all.",
)


def done(as_json: bool, saga_id: str, what: str, within: float) -> None:
    if as_json:
        give({"saga_id": saga_id, "asked": what, "applied": True if within else None})
    elif within:
        click.echo(f"{saga_id}: {what} is applied")
    else:
        click.echo(f"{saga_id}: {what} asked for; `saga show {saga_id}` tells what came of it")


def operate(
    what: str,
    verb: Callable[[Client], Callable[..., Awaitable[None]]],
    saga_id: str,
    reason: str,
    within: float,
    as_json: bool,
    options: dict[str, Any],
    **how: Any,
) -> None:
    """Asks for an operation on one saga in the user's name, and says what came of it. `how` is the operation's own."""
    by = getpass.getuser()
    send(options, lambda client: verb(client)(saga_id, reason=reason, by=by, timeout=within or None, **how))
    done(as_json, saga_id, what, within)


@click.command("cancel")
@click.argument("saga_id")
@click.option("--reason", default="")
@within_option
@connection_options
@json_option
def cancel_command(saga_id: str, reason: str, within: float, as_json: bool, **options: Any) -> None:
    """Stops a saga: its code may clean up, then what it did is undone."""
    operate("cancel", lambda client: client.cancel, saga_id, reason, within, as_json, options)


@click.command("signal")
@click.argument("words", nargs=-1, required=True, metavar="SAGA_ID NAME [VALUE]")
@click.option("--key", help="A business key instead of SAGA_ID; then NAME is like Order.paid.")
@click.option("--ttl", default=86_400.0, show_default=True, help="Seconds for which it is kept while no saga listens.")
@connection_options
@json_option
def signal_command(words: tuple[str, ...], key: str | None, ttl: float, as_json: bool, **options: Any) -> None:
    """Tells a saga something: the signal's NAME, and its VALUE as JSON. With --key all sagas that listen for it."""
    named = words if key is not None else words[1:]
    if not 1 <= len(named) <= 2:
        raise click.UsageError("say SAGA_ID NAME [VALUE], or NAME [VALUE] --key KEY")
    name, value = named[0], (named[1] if len(named) == 2 else "null").encode()
    if key is None:
        send(options, lambda client: client.signal_raw(words[0], name, value))
    else:
        send(options, lambda client: client.signal_by_key_raw(name, key, value, ttl=ttl))
    done(as_json, words[0] if key is None else id_of(name, key), f"signal {name}", 0)


@click.command("reschedule")
@click.argument("saga_id")
@start_options
@within_option
@connection_options
@json_option
def reschedule_command(
    saga_id: str, start_at: datetime | None, start_delay: float | None, within: float, as_json: bool, **options: Any
) -> None:
    """Moves the time at which a saga begins that was started with a delay, while it has not begun."""
    send(
        options,
        lambda client: client.reschedule(
            saga_id,
            start_at=in_utc(start_at),
            start_delay=start_delay,
            by=getpass.getuser(),
            timeout=within or None,
        ),
    )
    done(as_json, saga_id, "another start", within)


@click.command("query")
@click.argument("saga_id")
@click.argument("name")
@click.argument("arguments", default="{}")
@connection_options
@json_option
def query_command(saga_id: str, name: str, arguments: str, as_json: bool, **options: Any) -> None:
    """Asks a saga, live or ended: the query's NAME, and its ARGUMENTS by name as a JSON object."""
    told: list[bytes] = []

    async def act(client: Client) -> None:
        told.append(await client.query_raw(saga_id, name, arguments.encode()))

    send(options, act)
    if as_json:
        give({"saga_id": saga_id, "query": name, "answer": json.loads(told[0])})
    else:
        click.echo(told[0].decode())


@click.command("update")
@click.argument("saga_id")
@click.argument("name")
@click.argument("arguments", default="{}")
@click.option("--id", "update_id", help="The update's own id: asked again under it, it is done once.")
@click.option("--type", "saga_type", default="", help="Starts the saga if need be: for an entity, its type.")
@click.option("--within", default=30.0, show_default=True, metavar="SECONDS", help="How long to wait for its result.")
@connection_options
@json_option
def update_command(
    saga_id: str,
    name: str,
    arguments: str,
    update_id: str | None,
    saga_type: str,
    within: float,
    as_json: bool,
    **options: Any,
) -> None:
    """Has a saga do something, and prints what came of it: the update's NAME, ARGUMENTS by name as a JSON object."""
    told: list[bytes] = []

    async def act(client: Client) -> None:
        given = update_id or client.unique(), saga_id, name, arguments.encode(), bytes, saga_type
        told.append(await (await client.start_update_raw(*given)).result(within))

    send(options, act)
    if as_json:
        give({"saga_id": saga_id, "update": name, "result": json.loads(told[0] or b"null")})
    else:
        click.echo(told[0].decode())


@click.group("promise")
def promise_command() -> None:
    """Settles what a saga waits for from outside: by the saga's id and the promise's name, or by its token."""


@promise_command.command("complete")
@click.argument("words", nargs=-1, metavar="SAGA_ID NAME [RESULT]")
@click.option("--token", help="The promise's token; then without SAGA_ID and NAME.")
@connection_options
@json_option
def promise_complete_command(words: tuple[str, ...], token: str | None, as_json: bool, **options: Any) -> None:
    """Keeps a promise with its RESULT as JSON."""
    saga_id, name, rest = _promise(words, token, 1)
    result = rest[0] if rest else "null"

    async def act(client: Client) -> None:
        if token is None:
            await client.settle_raw(saga_id, name, result.encode())
        else:
            await client.complete(token, _json(result))

    send(options, act)
    done(as_json, saga_id, f"promise {name} kept", 0)


@promise_command.command("fail")
@click.argument("words", nargs=-1, metavar="SAGA_ID NAME ERROR_TYPE [MESSAGE]")
@click.option("--token", help="The promise's token; then without SAGA_ID and NAME.")
@connection_options
@json_option
def promise_fail_command(words: tuple[str, ...], token: str | None, as_json: bool, **options: Any) -> None:
    """Fails a promise: the saga hears of ERROR_TYPE, such as Denied."""
    saga_id, name, rest = _promise(words, token, 2)
    if not rest:
        raise click.UsageError("say why: an ERROR_TYPE such as Denied is missing")
    error = (rest[0], rest[1] if len(rest) > 1 else "")

    async def act(client: Client) -> None:
        if token is None:
            await client.settle_raw(saga_id, name, b"", error)
        else:
            await client.fail(token, *error)

    send(options, act)
    done(as_json, saga_id, f"promise {name} failed", 0)


def _promise(words: tuple[str, ...], token: str | None, most: int) -> tuple[str, str, tuple[str, ...]]:
    """The saga, the promise and the words that follow, which are `most` at most."""
    from orchestrator.wire.promises import read_token

    if token is not None:
        try:
            address = read_token(token)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        words = (address.saga_id, address.name, *words)
    if len(words) < 2:
        raise click.UsageError("name the promise: SAGA_ID NAME, or --token TOKEN")
    if len(words) > 2 + most:
        raise click.UsageError(f"too many words: {' '.join(words[2 + most :])!r}; quote what has spaces")
    return words[0], words[1], words[2:]


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"the result is no JSON: {error}") from None


@click.command("terminate")
@click.argument("saga_id")
@click.option("--reason", default="")
@within_option
@connection_options
@json_option
def terminate_command(saga_id: str, reason: str, within: float, as_json: bool, **options: Any) -> None:
    """Ends a saga at once. Nothing is undone."""
    operate("terminate", lambda client: client.terminate, saga_id, reason, within, as_json, options)


@click.command("compensate")
@click.argument("saga_id")
@click.option("--reason", default="")
@within_option
@connection_options
@json_option
def compensate_command(saga_id: str, reason: str, within: float, as_json: bool, **options: Any) -> None:
    """Undoes what a saga did, whatever its code would do next, and also where its pivot is done."""
    operate("compensate", lambda client: client.compensate, saga_id, reason, within, as_json, options)


def _what(command: Callable[..., None]) -> Callable[..., None]:
    """What `pause` and `resume` are about: one saga, or a rule."""
    for option in (
        click.option("--reason", default=""),
        click.option("--partition", type=int, help="All sagas of this partition."),
        click.option(
            "--step", metavar="SERVICE.COMMAND", help="Sagas that would send this command; with --type of it."
        ),
        click.option("--service", help="Sagas that would send a command of this service."),
        click.option("--type", "saga_type", help="All sagas of this type; new ones start and wait."),
        click.argument("saga_id", required=False),
    ):
        command = option(command)
    return command


@click.command("pause")
@_what
@within_option
@connection_options
@json_option
def pause_command(**given: Any) -> None:
    """Keeps one saga where it is, or all that are named: what comes in is recorded, code, timers and undo wait."""
    _pause_or_resume("pause", **given)


@click.command("resume")
@_what
@within_option
@connection_options
@json_option
def resume_command(**given: Any) -> None:
    """Lets go on what `saga pause` stopped, named in the same way."""
    _pause_or_resume("resume", **given)


def _pause_or_resume(
    verb: str,
    saga_id: str | None,
    saga_type: str | None,
    service: str | None,
    step: str | None,
    partition: int | None,
    reason: str,
    within: float,
    as_json: bool,
    **options: Any,
) -> None:
    named = {"type": saga_type, "service": service, "step": step, "partition": partition}
    if (saga_id is None) == all(value is None for value in named.values()):
        raise click.UsageError("say what: a saga's id, or some of --type, --service, --step, --partition")
    if saga_id is not None:
        operate(verb, lambda client: getattr(client, verb), saga_id, reason, within, as_json, options)
        return
    rules: list[str] = []

    async def act(client: Client) -> None:
        every = getattr(client, f"{verb}_all")
        rules.append(await every(**named, reason=reason, by=getpass.getuser(), timeout=within or 10.0))

    send(options, act)
    if as_json:
        give({"rule": rules[0], "asked": verb, "applied": True})
    else:
        click.echo(f"{rules[0]}: {verb} is applied" + (f" to partition {partition}" if partition is not None else ""))


@click.command("move-version")
@click.argument("saga_id")
@click.option("--to", "version", type=click.IntRange(1), help="This version; the saga stays there.")
@click.option("--newest", is_flag=True, help="The newest that there is, now and later, as other sagas.")
@click.option("--reason", default="")
@within_option
@connection_options
@json_option
def move_version_command(
    saga_id: str, version: int | None, newest: bool, reason: str, within: float, as_json: bool, **options: Any
) -> None:
    """Has a saga go on with another version of its code; one that is parked for its code is tried again."""
    if (version is None) != newest:
        raise click.UsageError("give --to VERSION, or --newest")
    how = {"version": version or 0}
    operate("move-version", lambda client: client.move_version, saga_id, reason, within, as_json, options, **how)


@click.command("park")
@click.argument("action", type=click.Choice(["retry", "skip", "set-result"]))
@click.argument("saga_id")
@click.option("--step", default=0, help="The step's number; without it whatever is parked.")
@click.option("--result", help="For set-result: the step's result as JSON.")
@click.option("--input", "payload", help="For retry: what to send instead of the step's own payload, as JSON.")
@click.option("--reason", default="")
@within_option
@connection_options
@json_option
def park_command(
    action: str,
    saga_id: str,
    step: int,
    result: str | None,
    payload: str | None,
    reason: str,
    within: float,
    as_json: bool,
    **options: Any,
) -> None:
    """Decides about a step that is parked or between two attempts: retry it now, skip it, or set its result."""
    if action == "set-result" and result is None:
        raise click.UsageError("set-result needs --result")
    if payload is not None and (action != "retry" or not step):
        raise click.UsageError("--input is for the retry of one step: give --step too")
    said = result if payload is None else payload
    given = None if said is None else said.encode()

    unpark = {"action": action, "step": step, "payload": given}
    operate(action, lambda client: client.unpark, saga_id, reason, within, as_json, options, **unpark)
