"""`saga dead-letters`: what could not be handled, why, and again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.application import connection_options, log_of, settings_of
from orchestrator.cli.cluster import append_all, bounds_of, partitions_of, read_between
from orchestrator.cli.look import plain, shown, when
from orchestrator.cli.output import give, json_option, say, table
from orchestrator.wire.dead_letters import SHORTENED

if TYPE_CHECKING:
    from orchestrator.config import Settings
    from orchestrator.log.base import Record

REDRIVES = "saga-redrives"
"""Header of a redriven record: how often that was done to it."""

_CONNECT = "__connect.errors."
_FAMILIES = (_CONNECT, "kafka_dlt-")
_MAX_VALUE = 4_000


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter; its place is where it stands among the dead letters, `topic` and so on where it came from."""

    place: str
    at_ms: int
    topic: str | None
    partition: int | None
    offset: int | None
    kind: str
    reason: str
    redrives: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "place": self.place,
            "at_ms": self.at_ms,
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "error": self.kind,
            "reason": self.reason,
            "redrives": self.redrives,
            "key": _text(self.key),
            "headers": {name: _text(value) for name, value in self.headers},
            "value": None if self.value is None else plain(self.value),
        }


def read_letter(record: Record) -> Letter:
    """A dead letter's record. What another program has put there may lack the headers that say why."""
    said = {name: _text(value) or "" for name, value in record.headers if name.startswith(_CONNECT) or name == REDRIVES}
    # What was redriven and came again has them once only; of repeated ones the last are ours.
    own = tuple((name, value) for name, value in record.headers if not name.startswith(_FAMILIES))
    return Letter(
        f"{record.partition}:{record.offset}",
        record.timestamp_ms,
        said.get(_CONNECT + "topic"),
        _number(said.get(_CONNECT + "partition")),
        _number(said.get(_CONNECT + "offset")),
        said.get(_CONNECT + "exception.class.name", ""),
        said.get(_CONNECT + "exception.message", ""),
        _number(said.get(REDRIVES)) or 0,
        record.key,
        record.value,
        own,
    )


def redriven_headers(letter: Letter) -> list[tuple[str, bytes]]:
    """The headers the record had, and how often it was redriven."""
    kept = [(name, value) for name, value in letter.headers if name != REDRIVES]
    return [*kept, (REDRIVES, str(letter.redrives + 1).encode())]


@click.group("dead-letters")
def dead_letters_command() -> None:
    """List, show and redrive what could not be handled. A PLACE is PARTITION:OFFSET, as the list shows it."""


@dead_letters_command.command("list")
@click.option("--topic", help="Only what came from this topic.")
@click.option("--limit", default=50, show_default=True, help="So many of the latest.")
@connection_options
@json_option
def list_letters_command(topic: str | None, limit: int, as_json: bool, **options: Any) -> None:
    """Lists the dead letters, the newest at the end."""
    letters = _latest(settings_of(options), topic, limit)
    if as_json:
        give({"dead_letters": [letter.as_json() for letter in letters]})
    elif not letters:
        say("there are no dead letters")
    else:
        rows = [
            (x.place, when(x.at_ms), _origin(x), shown(x.key or b""), x.kind, x.redrives, shown(x.reason.encode()))
            for x in letters
        ]
        table(rows, ("place", "time (UTC)", "from", "key", "error", "redrives", "reason"))


@dead_letters_command.command("show")
@click.argument("place")
@connection_options
@json_option
def show_letter_command(place: str, as_json: bool, **options: Any) -> None:
    """Shows a dead letter: why it is one, where it came from, its headers and its value."""
    settings = settings_of(options)
    (letter,) = _at(settings, [place])
    if as_json:
        give(letter.as_json())
        return
    lines = [
        ("error", letter.kind),
        ("reason", letter.reason),
        ("from", _origin(letter)),
        ("time", f"{when(letter.at_ms)} UTC"),
        ("redrives", str(letter.redrives)),
        ("key", _text((letter.key or b"")[:_MAX_VALUE]) or ""),
    ]
    for name, text in lines:
        click.echo(f"{name.ljust(8)} {text}".rstrip())
    click.echo("headers")
    for header, content in letter.headers:
        click.echo(f"  {header}{_length(content)}: {_text(content[:_MAX_VALUE])}")
    value = letter.value or b""
    click.echo(f"value{_length(value)}")
    click.echo(_text(value[:_MAX_VALUE]))
    say(f"once its cause is gone: `saga dead-letters redrive {place}`")


@dead_letters_command.command("redrive")
@click.argument("places", nargs=-1, metavar="PLACE...")
@click.option("--all", "everything", is_flag=True, help="All there are, of the topic given by --topic if any.")
@click.option("--topic", help="With --all: only what came from this topic.")
@connection_options
@json_option
def redrive_command(
    places: tuple[str, ...], everything: bool, topic: str | None, as_json: bool, **options: Any
) -> None:
    """Appends dead letters where they came from once more: the same key, value and headers.

    The letter itself stays until the topic's retention ends; the new record's header `saga-redrives` counts. What is
    redriven twice is known by its message id or idempotency key, like any repeat.
    """
    if bool(places) == everything:
        raise click.UsageError("name what to redrive by PLACE, or give --all")
    settings = settings_of(options)
    letters = _latest(settings, topic, None) if everything else _at(settings, places)
    sendable, refused = [], []
    for letter in letters:
        problem = _obstacle(letter, settings)
        if problem:
            refused.append((letter.place, problem))
        else:
            sendable.append(letter)
    sent = [(x.topic or "", x.partition or 0, x.key, x.value, redriven_headers(x)) for x in sendable]
    redriven: list[dict[str, Any]] = []
    for letter, delivery in zip(sendable, append_all(log_of(settings), sent), strict=True):
        if delivery.failure is not None:
            refused.append((letter.place, f"{delivery.failure.value}: {delivery.detail}"))
        else:
            redriven.append({"place": letter.place, "to": f"{letter.topic}-{letter.partition}@{delivery.offset}"})
    if as_json:
        give({"redriven": redriven, "refused": [{"place": place, "problem": why} for place, why in refused]})
    else:
        for line in redriven:
            click.echo(f"{line['place']} is now {line['to']}")
        for place, why in refused:
            say(f"{place} was not redriven: {why}")
        if not letters:
            say("there are no dead letters")
    if refused:
        raise click.exceptions.Exit(1)


def _obstacle(letter: Letter, settings: Settings) -> str:
    if letter.topic is None or letter.partition is None:
        return "its headers do not say where it came from"
    if SHORTENED in letter.headers:
        return f"it was too large for the dead letters; until it is trimmed the record stands at {_origin(letter)}"
    if letter.topic == settings.topic_names.internal:
        return "what owners send each other is counted, and would be dropped as a repeat"
    return ""


def _latest(settings: Settings, topic: str | None, limit: int | None) -> list[Letter]:
    """The latest dead letters in the order of their time; all of them without a limit."""
    log, dead = log_of(settings), settings.topic_names.dead_letters
    bounds = bounds_of(log, dead, range(partitions_of(log, dead)))
    # Of one origin only: how far back its latest are is not known.
    least = {
        p: start if limit is None or topic is not None else max(start, end - limit)
        for p, (start, end) in bounds.items()
    }
    records = read_between(log, dead, {p: (least[p], end) for p, (_, end) in bounds.items()})
    letters = [read_letter(record) for record in sorted(records, key=lambda r: (r.timestamp_ms, r.partition, r.offset))]
    chosen = [letter for letter in letters if topic is None or letter.topic == topic]
    return chosen if limit is None else chosen[-max(1, limit) :]


def _at(settings: Settings, places: tuple[str, ...] | list[str]) -> list[Letter]:
    """The dead letters at some places, in their order."""
    log, dead = log_of(settings), settings.topic_names.dead_letters
    bounds = bounds_of(log, dead, range(partitions_of(log, dead)))
    letters = []
    for place in places:
        partition, _, offset = place.partition(":")
        if not (partition.isdecimal() and offset.isdecimal()):
            raise click.UsageError(f"{place!r} is no PARTITION:OFFSET as `saga dead-letters list` shows it")
        start, end = bounds.get(int(partition), (0, 0))
        wanted = (int(offset), int(offset) + 1) if start <= int(offset) < end else (0, 0)
        records = read_between(log, dead, {int(partition): wanted})
        if not records:
            raise click.ClickException(f"there is no dead letter {place}; `saga dead-letters list` shows what there is")
        letters.append(read_letter(records[0]))
    return letters


def _origin(letter: Letter) -> str:
    return "?" if letter.topic is None else f"{letter.topic}-{letter.partition}@{letter.offset}"


def _length(content: bytes) -> str:
    return f", the first {_MAX_VALUE} of {len(content)} bytes" if len(content) > _MAX_VALUE else ""


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdecimal() else None


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")
