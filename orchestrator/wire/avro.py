"""Frozen dataclasses to Avro and back, by the schemas that this package ships.

A schema file holds one record and is never edited once released: a change is a new format, a new folder `v<n>` with the
whole set. What was written under an older format names its schema by fingerprint and is read with it.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files
from io import BytesIO
from operator import attrgetter
from typing import Any

import fastavro
from fastavro.schema import fingerprint as avro_fingerprint
from fastavro.schema import to_parsing_canonical_form

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


Convert = Callable[[Any], Any]


class Codec:
    """One dataclass, whose schema has the class's name and fields."""

    def __init__(self, cls: type, version: int = FORMAT) -> None:
        self._datum = DatumCodec(cls.__name__, version)
        self._to, self._from = _record(cls)

    def encode(self, value: Any) -> bytes:
        return self._datum.encode(self._to(value))

    def decode(self, data: bytes) -> Any:
        """Raises `UnreadableRecord`."""
        datum = self._datum.decode(data)
        try:
            return self._from(datum)
        except (ValueError, TypeError, KeyError) as error:
            raise UnreadableRecord(f"not a {self._datum.name}: {error}") from None


@cache
def _record(cls: type) -> tuple[Convert, Convert]:
    hints = typing.get_type_hints(cls)
    names = tuple(field.name for field in fields(cls))
    converters = [(name, *_converters(hints[name])) for name in names]
    outward = [(name, to) for name, to, _ in converters if to is not None]
    inward = [(name, back) for name, _, back in converters if back is not None]
    get = attrgetter(*names) if len(names) > 1 else None
    single = names[0] if len(names) == 1 else None

    def to_datum(value: Any) -> dict[str, Any]:
        if get is not None:
            datum = dict(zip(names, get(value), strict=True))
        else:
            datum = {single: getattr(value, single)} if single is not None else {}
        for name, convert in outward:
            datum[name] = convert(datum[name])
        return datum

    def from_datum(datum: dict[str, Any]) -> Any:
        for name, convert in inward:
            datum[name] = convert(datum[name])
        return cls(**datum)

    return to_datum, from_datum


def _converters(hint: Any) -> tuple[Convert | None, Convert | None]:
    """How a field's value becomes a datum and back; None where it stays as it is."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        if len(options) > 1:
            return _union(tuple(options))
        to, back = _converters(options[0])
        return to and _optional(to), back and _optional(back)
    if origin is tuple:
        items = typing.get_args(hint)
        if items[-1:] == (Ellipsis,):
            to, back = _converters(items[0])
            return (
                (lambda values: [to(value) for value in values]) if to else list,
                (lambda values: tuple([back(value) for value in values])) if back else tuple,
            )
        return (lambda pair: {"name": pair[0], "value": pair[1]}), (lambda datum: (datum["name"], datum["value"]))
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return str, hint
    if is_dataclass(hint):
        return _record(typing.cast(type, hint))
    return None, None


def _optional(convert: Convert) -> Convert:
    return lambda value: None if value is None else convert(value)


def _union(options: tuple[type, ...]) -> tuple[Convert, Convert]:
    outward = {option: (f"{NAMESPACE}.{option.__name__}", _record(option)[0]) for option in options}
    inward = {f"{NAMESPACE}.{option.__name__}": _record(option)[1] for option in options}

    def to_datum(value: Any) -> tuple[str, dict[str, Any]]:
        name, convert = outward[type(value)]
        return name, convert(value)

    def from_datum(named: tuple[str, dict[str, Any]]) -> Any:
        name, datum = named
        return inward[name](datum)

    return to_datum, from_datum
