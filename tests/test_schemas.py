"""The Avro contract: every schema parses, says what its dataclass says, and is never edited once it is released.

`tests/schemas/v<n>.json` holds of every schema its SHA-256 and golden bytes with what they mean. A new schema is added
by `python tests/test_schemas.py`, which leaves what is there alone. A changed one is a new format: a new folder.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.retries import RetryPolicy, RetryRule
from orchestrator.wire import journal, ledger, segments
from orchestrator.wire.avro import FORMAT, NAMESPACE, Codec, DatumCodec, UnreadableRecord, load_schema
from orchestrator.wire.commands import ReplyMessage

ROOT = Path(__file__).parent.parent
FOLDERS = sorted((ROOT / "schemas").glob("v*"))
GOLDEN = Path(__file__).parent / "schemas"

JOURNALED: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        *ev.Event.__args__,
        *msg.Input.__args__,
        ev.Decision,
        RetryPolicy,
        RetryRule,
        msg.ReplyAddress,
        msg.Parent,
    )
}
"""Dataclasses that are encoded as they are."""
ASSEMBLED: dict[str, type] = {
    "Envelope": journal.Envelope,
    "Genesis": journal.Genesis,
    "Claim": journal.Claim,
    "LedgerClaim": ledger.Claim,
    "LedgerRelease": ledger.Release,
    "SegmentRecord": segments.SegmentRecord,
}
"""Those that are encoded field by field."""
PARTS = {"EffectAt", "Header", "LedgerOutcome", "LedgerRecord"}
"""Schemas without a class of their own."""


def released(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.avsc"))


EVERY = [(int(folder.name[1:]), name) for folder in FOLDERS for name in released(folder)]
LATEST = released(ROOT / "schemas" / f"v{FORMAT}")


def golden(version: int) -> dict[str, Any]:
    path = GOLDEN / f"v{version}.json"
    return json.loads(path.read_text()) if path.exists() else {}


# -- every schema by itself


@pytest.mark.parametrize(("version", "name"), EVERY)
def test_a_schema_parses_and_has_the_name_of_its_file(version: int, name: str) -> None:
    schema = json.loads((ROOT / "schemas" / f"v{version}" / f"{name}.avsc").read_text())
    assert (schema["type"], schema["name"], schema["namespace"]) == ("record", name, NAMESPACE)
    assert load_schema(name, version)["name"] == f"{NAMESPACE}.{name}"


def test_the_newest_folder_is_the_format_that_is_written() -> None:
    assert max(int(folder.name[1:]) for folder in FOLDERS) == FORMAT


# -- schemas and classes


def avro_of(hint: Any) -> Any:
    """The Avro type that a field of this type has."""
    plain = {int: "long", str: "string", bytes: "bytes", bool: "boolean", float: "double"}
    if hint in plain:
        return plain[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        options = [avro_of(option) for option in arguments if option is not type(None)]
        return ["null", *options] if type(None) in arguments else options
    if origin is tuple and arguments[-1:] == (Ellipsis,):
        return {"type": "array", "items": avro_of(arguments[0])}
    if origin is tuple:
        return {(str, bytes): "orchestrator.Header", (int, int): "orchestrator.EffectAt"}[arguments]
    if origin is Mapping:
        return {"type": "map", "values": avro_of(arguments[1])}
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return "string"
    return f"{NAMESPACE}.{hint.__name__}"


def same(declared: Any, expected: Any) -> bool:
    """A count that fits 32 bits may be `int`, bytes of one length `fixed`."""
    if declared == "int" or (isinstance(declared, dict) and declared["type"] == "fixed"):
        return expected == ("long" if declared == "int" else "bytes")
    return bool(declared == expected)


def hints_of(cls: type) -> list[tuple[str, Any]]:
    hints = typing.get_type_hints(cls)
    names = [field.name for field in fields(cls)] if is_dataclass(cls) else list(cls.__annotations__)
    return [(name, hints[name]) for name in names]


@pytest.mark.parametrize("name", sorted(JOURNALED.keys() | ASSEMBLED.keys()))
def test_a_schema_has_the_fields_of_its_class_in_their_order(name: str) -> None:
    cls = JOURNALED.get(name) or ASSEMBLED[name]
    schema = json.loads((ROOT / "schemas" / f"v{FORMAT}" / f"{name}.avsc").read_text())
    declared = [(field["name"], field["type"]) for field in schema["fields"]]
    expected = [(field, avro_of(hint)) for field, hint in hints_of(cls)]
    assert [field for field, _ in declared] == [field for field, _ in expected]
    wrong = [
        (field, avro, want) for (field, avro), (_, want) in zip(declared, expected, strict=True) if not same(avro, want)
    ]
    assert wrong == []


def test_an_outcome_in_the_ledger_has_the_fields_of_an_execution_and_its_reply() -> None:
    schema = json.loads((ROOT / "schemas" / f"v{FORMAT}" / "LedgerOutcome.avsc").read_text())
    reply = [name for name, _ in hints_of(ReplyMessage)]
    expected = [name for name, _ in hints_of(ledger.Execution) if name != "reply"] + reply
    assert [field["name"] for field in schema["fields"]] == expected


def test_every_class_has_its_schema_and_every_schema_its_class() -> None:
    assert sorted(JOURNALED.keys() | ASSEMBLED.keys() | PARTS) == LATEST


# -- what was written once


@pytest.mark.parametrize(("version", "name"), EVERY)
def test_a_released_schema_is_not_edited(version: int, name: str) -> None:
    kept = golden(version).get(name)
    assert kept, f"{name} is new: run `python tests/test_schemas.py` and commit tests/schemas"
    digest = sha256((ROOT / "schemas" / f"v{version}" / f"{name}.avsc").read_bytes()).hexdigest()
    assert digest == kept["sha256"], (
        f"schemas/v{version}/{name}.avsc was edited, and journals hold records that were written with it: put it back "
        f"and make a new format. Only before the first release: delete its entry in tests/schemas/v{version}.json"
    )


def test_a_released_schema_is_not_removed() -> None:
    for folder in FOLDERS:
        assert sorted(golden(int(folder.name[1:]))) == released(folder)


@pytest.mark.parametrize(("version", "name"), EVERY)
def test_golden_bytes_still_mean_what_they_meant(version: int, name: str) -> None:
    codec = DatumCodec(name, version)
    for data, meaning in golden(version)[name]["bytes"].items():
        datum = codec.decode(bytes.fromhex(data))
        assert repr(datum) == meaning
        assert codec.encode(datum).hex() == data


@pytest.mark.parametrize("name", sorted(JOURNALED))
def test_golden_bytes_still_make_an_object_and_it_makes_them_again(name: str) -> None:
    codec = Codec(JOURNALED[name])
    for data in golden(FORMAT)[name]["bytes"]:
        value = codec.decode(bytes.fromhex(data))
        assert type(value) is JOURNALED[name]
        assert codec.encode(value).hex() == data


@pytest.mark.parametrize("name", sorted(JOURNALED))
def test_bytes_that_were_cut_are_noticed(name: str) -> None:
    for data in golden(FORMAT)[name]["bytes"]:
        for at in range(len(data) // 2):
            with pytest.raises(UnreadableRecord):
                Codec(JOURNALED[name]).decode(bytes.fromhex(data)[:at])


# -- making golden bytes


def sample(hint: Any, full: bool, option: int = 0) -> Any:
    """A value of a type: everything empty, or everything there, taking the n-th of several options."""
    plain = {int: (0, -1_234_567_890_123), str: ("", "naïve\n"), bytes: (b"", b"\0\xff"), bool: (False, True)}
    if hint in plain:
        return plain[hint][full]
    if hint is float:
        return 2.5 if full else 0.0
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if type(None) in arguments and not full:
            return None
        return sample(arguments[option % len(arguments)], full)
    if origin is tuple and arguments[-1:] == (Ellipsis,):
        every = typing.get_args(arguments[0]) if typing.get_origin(arguments[0]) is types.UnionType else (arguments[0],)
        return tuple(sample(item, full) for item in every) if full else ()
    if origin is tuple:
        return tuple(sample(item, full) for item in arguments)
    if issubclass(hint, StrEnum):
        return list(hint)[-1 if full else 0]
    return hint(*[sample(inner, full, option) for _, inner in hints_of(hint)])


def samples_of(cls: type) -> list[Any]:
    several = len(msg.Input.__args__) if cls is ev.InputHeld else 1
    return [sample(cls, False), *[sample(cls, True, option) for option in range(several)]]


def datum_of(schema: Any, full: bool) -> Any:
    """The same of a schema without a class that is encoded as it is."""
    if isinstance(schema, list):
        chosen = schema[-1 if full else 0]
        datum = datum_of(chosen, full)
        return (chosen["name"], datum) if isinstance(chosen, dict) and chosen["type"] == "record" else datum
    kind = schema["type"] if isinstance(schema, dict) else schema
    if kind == "record":
        return {field["name"]: datum_of(field["type"], full) for field in schema["fields"]}
    if kind == "array":
        return [datum_of(schema["items"], full)] if full else []
    if kind == "map":
        return {"naïve": datum_of(schema["values"], full)} if full else {}
    if kind == "fixed":
        return (b"\xff" if full else b"\0") * schema["size"]
    values = {"null": (None, None), "boolean": (False, True), "int": (0, -7), "long": (0, -1_234_567_890_123)}
    values |= {"string": ("", "naïve\n"), "bytes": (b"", b"\0\xff")}
    return values[kind][full]


def made(name: str, version: int) -> list[bytes]:
    if name in JOURNALED:
        return [Codec(JOURNALED[name], version).encode(value) for value in samples_of(JOURNALED[name])]
    codec = DatumCodec(name, version)
    return [codec.encode(datum_of(codec._schema, full)) for full in (False, True)]


def add_new() -> None:
    """Adds what is not there yet."""
    for version, name in EVERY:
        kept = golden(version)
        if name not in kept:
            codec = DatumCodec(name, version)
            source = (ROOT / "schemas" / f"v{version}" / f"{name}.avsc").read_bytes()
            means = {data.hex(): repr(codec.decode(data)) for data in made(name, version)}
            kept[name] = {"sha256": sha256(source).hexdigest(), "bytes": means}
            text = json.dumps(dict(sorted(kept.items())), indent=1, ensure_ascii=False)
            (GOLDEN / f"v{version}.json").write_text(text + "\n")


if __name__ == "__main__":
    add_new()
