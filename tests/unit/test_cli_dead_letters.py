"""Dead letters as they are read, and what a redrive appends."""

from dataclasses import replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from orchestrator.cli.dead_letters import (
    REDRIVES,
    Filter,
    _obstacle,
    dead_letters_command,
    edited,
    handed_in,
    is_between_sagas,
    note_of,
    read_letter,
    read_letters,
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
    nameless = redriven_headers(read_letter(letter_record(())))
    assert nameless == [("message-id", b"saga.inbox-3-17"), (REDRIVES, b"1")], "the id that its place gave it"
    again = read_letter(letter_record(tuple(once)))
    assert again.redrives == 1
    assert redriven_headers(again) == [*OWN, (REDRIVES, b"2")]


def test_of_repeated_headers_the_last_are_the_letters_own() -> None:
    copied = (("__connect.errors.topic", b"elsewhere"), *OWN)
    assert read_letter(letter_record(copied)).topic == "saga.inbox"


def test_what_cannot_be_redriven_is_told() -> None:
    settings = Settings(development=True)
    assert _obstacle(read_letter(letter_record()), settings) == ""
    redriven = replace(read_letter(letter_record()), redriven_to="saga.inbox-3@99")
    assert "redriven already, to saga.inbox-3@99" in _obstacle(redriven, settings)
    assert _obstacle(redriven, settings, again=True) == ""
    assert "do not say what it is" in _obstacle(read_letter(letter_record(topic="saga.internal")), settings)
    shortened = _obstacle(read_letter(letter_record((SHORTENED,))), settings)
    assert "too large" in shortened
    assert "saga.inbox-3@17" in shortened
    foreign = read_letter(Record("saga.dead-letters", 0, 0, 0, None, None, OWN))
    assert "do not say" in _obstacle(foreign, settings)
    assert foreign.as_json()["value"] is None


def test_what_owners_sent_each_other_goes_in_where_it_is_not_counted() -> None:
    names = Settings(development=True).topic_names
    passage = (("source-partition", b"1"), ("internal-counter", b"7"))

    def redriven(*headers: tuple[str, bytes]) -> tuple[str | None, list[tuple[str, bytes]]]:
        letter = read_letter(letter_record((*headers, *passage), topic=names.internal))
        assert _obstacle(letter, Settings(development=True)) == ""
        given = handed_in(letter, names)
        assert (given.partition, given.key, given.value) == (3, b"o-1", b"value")
        return given.topic, redriven_headers(given)

    nameless = ("message-id", b"saga.internal-3-17")
    for origin in ("inbox", "replies", "operations"):
        kept = [*OWN, (REDRIVES, b"1")]
        assert redriven(*OWN, ("forwarded-from", origin.encode())) == (f"saga.{origin}", kept)
    assert redriven(("forwarded-from", b"replies"))[1] == [nameless, (REDRIVES, b"1")]
    said = [nameless, ("input-type", b"message"), (REDRIVES, b"1")]
    assert redriven(("forwarded-from", b"saga")) == ("saga.operations", said)
    other = read_letter(letter_record())
    assert handed_in(other, names) is other


def test_what_one_saga_has_for_another_is_told_apart() -> None:
    names = Settings(development=True).topic_names

    def between(origin: bytes, topic: str = names.internal) -> bool:
        return is_between_sagas(read_letter(letter_record((("forwarded-from", origin),), topic=topic)), names)

    assert between(b"saga")
    assert not between(b"inbox")
    assert not between(b"saga", names.inbox)


def test_a_note_says_what_became_of_a_letter_and_is_none_itself() -> None:
    partition, headers = note_of("3:5", "saga.inbox-3@99", "ann")
    note = Record("saga.dead-letters", partition, 6, 3_000, None, None, tuple(headers))
    other = letter_record()._replace(offset=7)
    assert [(x.place, x.redriven_to) for x in read_letters([letter_record(), note, other])] == [
        ("3:5", "saga.inbox-3@99"),
        ("3:7", None),
    ]
    assert read_letters([note]) == []


def test_headers_and_payload_are_edited(tmp_path: Path) -> None:
    letter = read_letter(letter_record())
    other = edited(letter, ["colour=green", "binary="], "other")
    assert (other.headers, other.value) == ((("message-id", b"m-1"), ("colour", b"green")), b"other")
    (tmp_path / "value.json").write_bytes(b"from a file")
    assert edited(letter, [], f"@{tmp_path}/value.json").value == b"from a file"
    assert edited(letter, [], None) == letter
    for wrong in ((["colour"], None), ([], "@/no/such/file")):
        with pytest.raises(click.UsageError):
            edited(letter, *wrong)


def test_letters_are_chosen_by_topic_error_saga_and_reason() -> None:
    letter = read_letter(letter_record())
    named = read_letter(letter_record((("saga-id", b"o-9"),)))
    assert (letter.saga_id, named.saga_id) == ("o-1", "o-9")
    assert Filter().takes(letter)
    assert Filter("saga.inbox", "MalformedMessage", "o-1", "IS missing").takes(letter)
    for other in (Filter("x"), Filter(error="x"), Filter(saga_id="o-9"), Filter(reason="x")):
        assert not other.takes(letter)


@pytest.mark.parametrize("arguments", [[], ["0:1", "--all"], ["0:1", "--topic", "saga.inbox"]])
def test_redrive_wants_places_or_all(arguments: list[str]) -> None:
    result = CliRunner().invoke(dead_letters_command, ["redrive", *arguments])
    assert result.exit_code == 2
    assert "give --all" in result.output
