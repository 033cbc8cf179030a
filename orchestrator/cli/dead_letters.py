"""`saga dead-letters`: what could not be handled, why, and again."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.application import connection_options, log_of, settings_of
from orchestrator.cli.cluster import append_all, bounds_of, partitions_of, read_between
from orchestrator.cli.look import plain, shown, when
from orchestrator.cli.output import give, json_option, say, table
from orchestrator.wire import headers as h
from orchestrator.wire.dead_letters import REDRIVES, SHORTENED
from orchestrator.wire.inputs import BY, COUNTER, FORWARDED_FROM, INBOX, MESSAGE, OPERATIONS, REPLIES, SAGA

if TYPE_CHECKING:
    from orchestrator.config import Settings
    from orchestrator.log.base import Record
    from orchestrator.topics import TopicNames

NOTED = "saga-redriven"
NOTED_TO = "saga-redriven-to"
"""Headers of the note that a redrive leaves in the letter's partition: its place, and where the record is now."""

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
    redriven_to: str | None = None

    @property
    def saga_id(self) -> str:
        """The saga it is for: the header, or the key."""
        given = dict(self.headers).get(h.SAGA_ID)
        return _text(given or self.key) or ""

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
            "redriven_to": self.redriven_to,
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


def read_letters(records: Iterable[Record]) -> list[Letter]:
    """The dead letters among the records of their topic, in their order, each with what became of it."""
    letters: dict[str, Letter] = {}
    for record in records:
        said = dict(record.headers)
        if NOTED not in said:
            letter = read_letter(record)
            letters[letter.place] = letter
        elif (place := _text(said[NOTED]) or "") in letters:
            letters[place] = replace(letters[place], redriven_to=_text(said.get(NOTED_TO)))
    return list(letters.values())


def redriven_headers(letter: Letter) -> list[tuple[str, bytes]]:
    """The headers it had, how often it was redriven and, where there was none, the message id its place gave it."""
    kept = [(name, value) for name, value in _with_message_id(letter) if name != REDRIVES]
    return [*kept, (REDRIVES, str(letter.redrives + 1).encode())]


def _with_message_id(letter: Letter) -> list[tuple[str, bytes]]:
    headers = list(letter.headers)
    if not any(name.lower() == h.MESSAGE_ID for name, _ in headers):
        headers.append((h.MESSAGE_ID, f"{letter.topic}-{letter.partition}-{letter.offset}".encode()))
    return headers


def handed_in(letter: Letter, names: TopicNames) -> Letter:
    """The letter as it is to be redriven. What owners sent each other is counted, so it goes in where it is not.

    What was forwarded goes to the topic of its kind, on the partition that it was forwarded to; what a saga has for
    another to the operations. Without the headers that say how it travelled.
    """
    if letter.topic != names.internal:
        return letter
    kept = [(name, value) for name, value in _with_message_id(letter) if name.lower() not in _PASSAGE]
    origin = _forwarded_from(letter)
    if origin == SAGA:
        kept.append((h.INPUT_TYPE, MESSAGE.encode()))
    return replace(letter, topic=_ways_in(names).get(origin), headers=tuple(kept))


def is_between_sagas(letter: Letter, names: TopicNames) -> bool:
    """Whether it is what one saga has for another, which by a redrive is believed as such."""
    return letter.topic == names.internal and _forwarded_from(letter) == SAGA


_PASSAGE = (FORWARDED_FROM, h.SOURCE_PARTITION, COUNTER)


def _forwarded_from(letter: Letter) -> str:
    return _text(dict(letter.headers).get(FORWARDED_FROM)) or ""


def _ways_in(names: TopicNames) -> dict[str, str]:
    """By what `forwarded-from` says, where a record of `saga.internal` is handed in again."""
    return {INBOX: names.inbox, REPLIES: names.replies, OPERATIONS: names.operations, SAGA: names.operations}


def edited(letter: Letter, headers: Iterable[str], payload: str | None) -> Letter:
    """The letter with other headers (NAME=VALUE; an empty value takes one away) and another payload (text, or @FILE).

    It stays the same message: what was taken once under its message id, edited or not, is a repeat.
    """
    kept = dict(letter.headers)
    for given in headers:
        name, equals, text = given.partition("=")
        if not name or not equals:
            raise click.UsageError(f"--set-header {given!r}: it is NAME=VALUE; an empty VALUE takes the header away")
        kept.pop(name, None)
        if text:
            kept[name] = text.encode()
    value = letter.value
    if payload is not None:
        try:
            value = Path(payload[1:]).read_bytes() if payload.startswith("@") else payload.encode()
        except OSError as error:
            raise click.UsageError(f"--payload {payload}: {error.strerror}") from None
    return replace(letter, headers=tuple(kept.items()) if headers else letter.headers, value=value)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which dead letters are meant; what is None matters not. `reason` is a part of the letter's."""

    topic: str | None = None
    error: str | None = None
    saga_id: str | None = None
    reason: str | None = None

    def takes(self, letter: Letter) -> bool:
        return (
            self.topic in (None, letter.topic)
            and self.error in (None, letter.kind)
            and self.saga_id in (None, letter.saga_id)
            and (self.reason is None or self.reason.lower() in letter.reason.lower())
        )


def _filters(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--reason", metavar="TEXT", help="Only those whose reason has this in it."),
        click.option("--id", "saga_id", help="Only what is for this saga."),
        click.option("--error", help="Only this kind, such as InputRejected or MalformedMessage."),
        click.option("--topic", help="Only what came from this topic."),
    ):
        command = option(command)
    return command


@click.group("dead-letters")
def dead_letters_command() -> None:
    """List, show and redrive what could not be handled. A PLACE is PARTITION:OFFSET, as the list shows it."""


@dead_letters_command.command("list")
@_filters
@click.option("--open", "only_open", is_flag=True, help="Only those that were not redriven.")
@click.option("--limit", default=50, show_default=True, help="So many of the latest.")
@connection_options
@json_option
def list_letters_command(
    topic: str | None,
    error: str | None,
    saga_id: str | None,
    reason: str | None,
    only_open: bool,
    limit: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Lists the dead letters, the newest at the end."""
    letters = _latest(settings_of(options), Filter(topic, error, saga_id, reason))
    letters = [letter for letter in letters if not (only_open and letter.redriven_to)][-max(1, limit) :]
    if as_json:
        give({"dead_letters": [letter.as_json() for letter in letters]})
    elif not letters:
        say("there are no dead letters")
    else:
        rows = [
            (
                x.place,
                when(x.at_ms),
                _origin(x),
                shown(x.saga_id.encode()),
                x.kind,
                x.redrives,
                x.redriven_to or "",
                shown(x.reason.encode()),
            )
            for x in letters
        ]
        table(rows, ("place", "time (UTC)", "from", "saga", "error", "redrives", "redriven to", "reason"))


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
        ("is now", letter.redriven_to or ""),
        ("key", _text((letter.key or b"")[:_MAX_VALUE]) or ""),
    ]
    for name, text in lines:
        if text:
            click.echo(f"{name.ljust(8)} {text}")
    click.echo("headers")
    for header, content in letter.headers:
        click.echo(f"  {header}{_length(content)}: {_text(content[:_MAX_VALUE])}")
    value = letter.value or b""
    click.echo(f"value{_length(value)}")
    click.echo(_text(value[:_MAX_VALUE]))
    say(f"once its cause is gone: `saga dead-letters redrive {place}`")


@dead_letters_command.command("redrive")
@click.argument("places", nargs=-1, metavar="PLACE...")
@click.option("--all", "everything", is_flag=True, help="All that the filters let through and nobody redrove yet.")
@_filters
@click.option("--set-header", "headers", multiple=True, metavar="NAME=VALUE", help="Another header; no VALUE: none.")
@click.option("--payload", metavar="TEXT|@FILE", help="Another value.")
@click.option("--again", is_flag=True, help="Also what was redriven before.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@connection_options
@json_option
def redrive_command(
    places: tuple[str, ...],
    everything: bool,
    topic: str | None,
    error: str | None,
    saga_id: str | None,
    reason: str | None,
    headers: tuple[str, ...],
    payload: str | None,
    again: bool,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Appends dead letters where they came from once more: the same key, value and headers, or edited ones.

    The letter itself stays until the topic's retention ends; a note beside it says where it is now, and the new
    record's header `saga-redrives` counts. What is redriven twice is known by its message id or idempotency key, like
    any repeat.
    """
    chosen = Filter(topic, error, saga_id, reason)
    if bool(places) == everything or (places and chosen != Filter()):
        raise click.UsageError("name what to redrive by PLACE, or give --all, with filters if only some are meant")
    settings = settings_of(options)
    letters = _latest(settings, chosen) if everything else _at(settings, places)
    if everything and not again:
        letters = [letter for letter in letters if letter.redriven_to is None]
    if everything:
        between = [letter for letter in letters if is_between_sagas(letter, settings.topic_names)]
        letters = [letter for letter in letters if letter not in between]
        if between:
            places_left = ", ".join(each.place for each in between)
            say(f"left alone, for they speak for a saga: {places_left}; name them by PLACE")
    sendable: list[Letter] = []
    refused: list[tuple[str, str]] = []
    for letter in letters:
        problem = _obstacle(letter, settings, again)
        if problem:
            refused.append((letter.place, problem))
        else:
            sendable.append(handed_in(edited(letter, headers, payload), settings.topic_names))
    if payload is not None and len(sendable) > 1:
        raise click.UsageError(f"all {len(sendable)} letters would get this --payload: name one of them by PLACE")
    redriven = [{"place": x.place, "to": f"{x.topic}-{x.partition}"} for x in sendable]
    if not dry_run:
        redriven = _redrive(settings, sendable, refused)
    if as_json:
        problems = [{"place": place, "problem": why} for place, why in refused]
        give({"redriven": redriven, "refused": problems, "dry_run": dry_run})
    else:
        for line in redriven:
            click.echo(f"{line['place']} {'would go to' if dry_run else 'is now'} {line['to']}")
        for place, why in refused:
            say(f"{place} was not redriven: {why}")
        if not letters:
            say("there are no such dead letters")
    if refused:
        raise click.exceptions.Exit(1)


def _redrive(settings: Settings, letters: list[Letter], refused: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Appends the letters where they came from and, behind those that were taken, a note among the dead letters."""
    log = log_of(settings)
    sent = [(x.topic or "", x.partition or 0, x.key, x.value, redriven_headers(x)) for x in letters]
    redriven: list[dict[str, Any]] = []
    for letter, delivery in zip(letters, append_all(log, sent), strict=True):
        if delivery.failure is not None:
            refused.append((letter.place, f"{delivery.failure.value}: {delivery.detail}"))
        else:
            redriven.append({"place": letter.place, "to": f"{letter.topic}-{letter.partition}@{delivery.offset}"})
    notes = [note_of(line["place"], line["to"], getpass.getuser()) for line in redriven]
    dead = settings.topic_names.dead_letters
    append_all(log, [(dead, number, None, None, headers) for number, headers in notes])
    return redriven


def note_of(place: str, to: str, by: str) -> tuple[int, list[tuple[str, bytes]]]:
    """The partition and the headers of the note that says what became of a letter."""
    headers = [(NOTED, place.encode()), (NOTED_TO, to.encode()), (BY, by.encode())]
    return int(place.partition(":")[0]), headers


def _obstacle(letter: Letter, settings: Settings, again: bool = False) -> str:
    if letter.redriven_to is not None and not again:
        return f"it was redriven already, to {letter.redriven_to}; --again does it once more"
    if letter.topic is None or letter.partition is None:
        return "its headers do not say where it came from"
    if SHORTENED in letter.headers:
        return f"it was too large for the dead letters; until it is trimmed the record stands at {_origin(letter)}"
    names = settings.topic_names
    if letter.topic == names.internal and _forwarded_from(letter) not in _ways_in(names):
        return "its headers do not say what it is, and owners count what they send each other"
    return ""


def _latest(settings: Settings, chosen: Filter) -> list[Letter]:
    """The dead letters that are meant, in the order of their time."""
    log, dead = log_of(settings), settings.topic_names.dead_letters
    records = read_between(log, dead, bounds_of(log, dead, range(partitions_of(log, dead))))
    letters = read_letters(sorted(records, key=lambda r: (r.timestamp_ms, r.partition, r.offset)))
    return [letter for letter in letters if chosen.takes(letter)]


def _at(settings: Settings, places: tuple[str, ...] | list[str]) -> list[Letter]:
    """The dead letters at some places, in their order."""
    log, dead = log_of(settings), settings.topic_names.dead_letters
    bounds = bounds_of(log, dead, range(partitions_of(log, dead)))
    least: dict[int, int] = {}
    for place in places:
        partition, _, offset = place.partition(":")
        if not (partition.isdecimal() and offset.isdecimal()):
            raise click.UsageError(f"{place!r} is no PARTITION:OFFSET as `saga dead-letters list` shows it")
        start, end = bounds.get(int(partition), (0, 0))
        least[int(partition)] = min(least.get(int(partition), end), max(start, int(offset)))
    # Up to the end: behind it stands what became of it.
    ranges = {p: (from_, max(from_, bounds.get(p, (0, 0))[1])) for p, from_ in least.items()}
    records = sorted(read_between(log, dead, ranges), key=lambda r: (r.partition, r.offset))
    found = {letter.place: letter for letter in read_letters(records)}
    for place in places:
        if place not in found:
            raise click.ClickException(f"there is no dead letter {place}; `saga dead-letters list` shows what there is")
    return [found[place] for place in places]


def _origin(letter: Letter) -> str:
    return "?" if letter.topic is None else f"{letter.topic}-{letter.partition}@{letter.offset}"


def _length(content: bytes) -> str:
    return f", the first {_MAX_VALUE} of {len(content)} bytes" if len(content) > _MAX_VALUE else ""


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdecimal() else None


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")
