"""Dead letters as they are read, and what a redrive appends."""

import pytest
from click.testing import CliRunner

from orchestrator.cli.dead_letters import (
    REDRIVES,
    _obstacle,
    dead_letters_command,
    read_letter,
    redriven_headers,
)
from orchestrator.config import Settings
from orchestrator.log.base import Record
from orchestrator.wire.dead_letters import SHORTENED, dead_letter_headers

OWN = (("message-id", b"m-1"), ("binary", b"\xff\x00"))


def letter_record(headers: tuple[tuple[str, bytes], ...] = OWN, topic: str = "saga.inbox") -> Record:
    written = dead_letter_headers(topic, 3, 17, 1_000, headers, "header 'saga-type' is missing", "MalformedMessage")
    return Record("saga.dead-letters", 3, 5, 2_000, b"o-1", b"value", tuple(written))


def test_a_letter_says_where_it_came_from_and_why() -> None:
    letter = read_letter(letter_record())
    assert (letter.place, letter.topic, letter.partition, letter.offset) == ("3:5", "saga.inbox", 3, 17)
    assert (letter.kind, letter.reason) == ("MalformedMessage", "header 'saga-type' is missing")
    assert letter.headers == OWN
    assert letter.as_json()["value"] == "value"


def test_a_redrive_keeps_key_value_and_headers_and_counts() -> None:
    letter = read_letter(letter_record())
    once = redriven_headers(letter)
    assert once == [*OWN, (REDRIVES, b"1")]
    again = read_letter(letter_record(tuple(once)))
    assert again.redrives == 1
    assert redriven_headers(again) == [*OWN, (REDRIVES, b"2")]


def test_of_repeated_headers_the_last_are_the_letters_own() -> None:
    copied = (("__connect.errors.topic", b"elsewhere"), *OWN)
    assert read_letter(letter_record(copied)).topic == "saga.inbox"


def test_what_cannot_be_redriven_is_told() -> None:
    settings = Settings(development=True)
    assert _obstacle(read_letter(letter_record()), settings) == ""
    assert "counted" in _obstacle(read_letter(letter_record(topic="saga.internal")), settings)
    shortened = _obstacle(read_letter(letter_record((SHORTENED,))), settings)
    assert "too large" in shortened
    assert "saga.inbox-3@17" in shortened
    foreign = read_letter(Record("saga.dead-letters", 0, 0, 0, None, None, OWN))
    assert "do not say" in _obstacle(foreign, settings)
    assert foreign.as_json()["value"] is None


@pytest.mark.parametrize("arguments", [[], ["0:1", "--all"]])
def test_redrive_wants_places_or_all(arguments: list[str]) -> None:
    result = CliRunner().invoke(dead_letters_command, ["redrive", *arguments])
    assert result.exit_code == 2
    assert "give --all" in result.output
