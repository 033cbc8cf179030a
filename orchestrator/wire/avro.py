"""Frozen dataclasses to Avro and back, by the schemas that this package ships.

A schema file holds one record and is never edited once released: a change is a new format, a new folder `v<n>` with the
whole set. What was written under an older format names its schema by fingerprint and is read with it.
"""

from __future__ import annotations

import json
import typing
from functools import cache
from importlib.resources import files
from io import BytesIO
from typing import Any

import fastavro
from fastavro.schema import fingerprint as avro_fingerprint
from fastavro.schema import to_parsing_canonical_form

from orchestrator.wire.compiled import DAMAGED, Read, Write, compile_record

FORMAT = 1
"""The journal format this software writes."""
NAMESPACE = "orchestrator"


class UnreadableRecord(Exception):
    """Bytes that are not what their schema says, or name a schema this software does not have."""


@cache
def _sources(version: int) -> dict[str, Any]:
    folder = files("orchestrator.schemas") / f"v{version}"
    return {
        entry.name.removesuffix(".avsc"): json.loads(entry.read_text())
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".avsc")
    }


@cache
def load_schema(name: str, version: int = FORMAT) -> Any:
    """The parsed schema of one record with everything it refers to. Raises `UnreadableRecord` if there is none."""
    sources = _sources(version)
    if name not in sources:
        raise UnreadableRecord(f"this software has no schema {name!r} of format {version}")
    return fastavro.parse_schema(_inline(sources[name], sources, set()))


def _inline(schema: Any, sources: dict[str, Any], seen: set[str]) -> Any:
    """A schema in which every named record is written out where it is first used."""
    if isinstance(schema, list):
        return [_inline(option, sources, seen) for option in schema]
    if isinstance(schema, str):
        short = schema.removeprefix(f"{NAMESPACE}.")
        if short not in sources or short in seen:
            return schema
        return _inline(sources[short], sources, seen)
    if schema.get("type") == "record":
        seen.add(schema["name"])
        inlined = [{**field, "type": _inline(field["type"], sources, seen)} for field in schema["fields"]]
        return {**schema, "fields": inlined}
    if schema.get("type") == "array":
        return {**schema, "items": _inline(schema["items"], sources, seen)}
    return schema


@cache
def fingerprint(name: str, version: int = FORMAT) -> bytes:
    """The schema's CRC-64-AVRO, 8 bytes, little-endian as in Avro's single-object encoding."""
    canonical = to_parsing_canonical_form(load_schema(name, version))
    return bytes.fromhex(avro_fingerprint(canonical, "CRC-64-AVRO"))


def _flat(schema: Any) -> Any:
    """A parsed schema without references by name.

    fastavro copies a parsed schema's table of names at every call, most of the cost of a small record; a schema that
    refers to nothing by name needs no table.
    """
    table = schema.get("__named_schemas", {})

    def resolve(part: Any) -> Any:
        if isinstance(part, str):
            return resolve(table[part]) if part in table else part
        if isinstance(part, list):
            return [resolve(option) for option in part]
        if part["type"] == "record":
            return {**part, "fields": [{**field, "type": resolve(field["type"])} for field in part["fields"]]}
        if part["type"] == "array":
            return {**part, "items": resolve(part["items"])}
        return part

    return {**resolve(schema), "__fastavro_parsed": True, "__named_schemas": {}}


class DatumCodec:
    """One schema, from and to plain dicts."""

    def __init__(self, name: str, version: int = FORMAT) -> None:
        self.name = name
        self._schema = _flat(load_schema(name, version))

    def encode(self, datum: dict[str, Any]) -> bytes:
        out = BytesIO()
        fastavro.schemaless_writer(out, self._schema, datum)
        return out.getvalue()

    def decode(self, data: bytes) -> dict[str, Any]:
        """Raises `UnreadableRecord`, also if bytes are left over."""
        source = BytesIO(data)
        try:
            datum = fastavro.schemaless_reader(
                source, self._schema, None, return_record_name=True, return_record_name_override=True
            )
        except Exception as error:  # fastavro raises whatever the damaged bytes lead it to
            raise UnreadableRecord(f"not a {self.name}: {type(error).__name__}: {error}") from None
        if source.tell() != len(data):
            raise UnreadableRecord(f"not a {self.name}: {len(data) - source.tell()} bytes too many")
        return typing.cast("dict[str, Any]", datum)


@cache
def _compiled(cls: type, version: int) -> tuple[Write, Read]:
    return compile_record(_flat(load_schema(cls.__name__, version)), cls)


class Codec:
    """One dataclass, whose schema has the class's name and fields."""

    def __init__(self, cls: type, version: int = FORMAT) -> None:
        self._name = cls.__name__
        self._write, self._read = _compiled(cls, version)

    def encode(self, value: Any) -> bytes:
        return self._write(value)

    def decode(self, data: bytes) -> Any:
        """Raises `UnreadableRecord`, also if bytes are left over."""
        try:
            value, end = self._read(data, 0)
        except DAMAGED as error:
            raise UnreadableRecord(f"not a {self._name}: {type(error).__name__}: {error}") from None
        if end != len(data):
            raise UnreadableRecord(f"not a {self._name}: {len(data)} bytes instead of {end}")
        return value
