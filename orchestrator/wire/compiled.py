"""Functions that write and read one schema's records straight from and to their dataclasses.

The engine writes two records for every decision, and a library that walks the schema for each of them was the largest
part of a decision's cost. So the walk is done once: it leaves the source of two functions for every record, made of the
few forms that our schemas have. `wire.avro` says which schema and class; tests hold the bytes to fastavro's.

Format: https://avro.apache.org/docs/1.12.0/specification/#binary-encoding
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields
from enum import StrEnum
from functools import lru_cache
from struct import Struct
from struct import error as StructError  # noqa: N812 - it is a class
from typing import Any

Write = Callable[[Any], bytes]
Read = Callable[[bytes, int], tuple[Any, int]]

DAMAGED = (ValueError, LookupError, TypeError, OverflowError, StructError)
"""What reading damaged bytes may raise."""


def compile_record(schema: Mapping[str, Any], cls: type) -> tuple[Write, Read]:
    """Functions for a record `schema` without references by name, whose fields are those of dataclass `cls`.

    Reading does not notice bytes that are missing at the end: the position it gives then lies beyond them.
    """
    return _Compiler().record(schema, cls)


class _Compiler:
    """Makes source; `names` are what it refers to: helpers, classes and functions of records within records."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = dict(_HELPERS)
        self._made: dict[type, tuple[Write, Read]] = {}

    def record(self, schema: Mapping[str, Any], cls: type) -> tuple[Write, Read]:
        if cls not in self._made:
            hints = typing.get_type_hints(cls)
            kinds = {field["name"]: field["type"] for field in schema["fields"]}
            parts = [self.write(kinds[field.name], hints[field.name], f"v.{field.name}") for field in fields(cls)]
            write = f"def write(v):\n    return join(({''.join(f'{part}, ' for part in parts)}))\n"
            lines = ["def read(data, at):"]
            for number, field in enumerate(fields(cls)):
                lines += [f"    {line}" for line in self.read(kinds[field.name], hints[field.name], f"f{number}")]
            made = ", ".join(f"f{number}" for number in range(len(fields(cls))))
            read = "\n".join([*lines, f"    return {self.name(cls)}({made}), at\n"])
            self._made[cls] = self.run(write, "write"), self.run(read, "read")
        return self._made[cls]

    def run(self, source: str, name: str) -> Any:
        space: dict[str, Any] = {}
        exec(source, self.names, space)
        return space[name]

    def name(self, value: Any) -> str:
        name = f"x{len(self.names)}"
        self.names[name] = value
        return name

    # -- writing: an expression of one or several bytes objects

    def write(self, kind: Any, hint: Any, value: str) -> str:
        if isinstance(kind, list) and "null" in kind:
            inner = self.joined(kind[1], _without_none(hint), "o")
            return f"b'\\0' if (o := {value}) is None else b'\\2' + {inner}"
        if kind == "string" and (texts := _texts(hint)) is not None:
            return f"{self.name(texts)}[{value}]"
        if kind == "string":
            return f"long(len(s := {value}.encode())), s"
        if kind == "bytes":
            return f"long(len(s := {value})), s"
        if kind in ("int", "long"):
            return f"long({value})"
        if kind == "boolean":
            return f"b'\\1' if {value} else b'\\0'"
        if kind == "double":
            return f"double({value})"
        return self.write_named(kind, hint, value)

    def write_named(self, kind: Any, hint: Any, value: str) -> str:
        if isinstance(kind, list):
            return f"{self.name(self.union(kind, hint)[0])}[type({value})]({value})"
        if kind["type"] == "fixed":
            return f"fixed({value}, {kind['size']})"
        if kind["type"] == "map":
            return f"write_map({value})"
        if kind["type"] == "array":
            item = self.name(self.item(kind["items"], typing.get_args(hint)[0])[0])
            return f"(write_array({value}, {item}) if {value} else b'\\0')"
        return f"{self.name(self.item(kind, hint)[0])}({value})"

    def joined(self, kind: Any, hint: Any, value: str) -> str:
        if kind in ("string", "bytes") and _texts(hint) is None:
            return f"{'text' if kind == 'string' else 'data'}_of({value})"
        return self.write(kind, hint, value)

    # -- reading: statements that move `at`

    def read(self, kind: Any, hint: Any, target: str) -> list[str]:
        if isinstance(kind, list) and "null" in kind:
            inner = self.read(kind[1], _without_none(hint), target)
            return [
                "at += 1",
                "if data[at - 1] == 0:",
                f"    {target} = None",
                "else:",
                "    if data[at - 1] != 2: raise ValueError('no such branch')",
                *(f"    {line}" for line in inner),
            ]
        if kind in ("string", "bytes"):
            return self.read_text(hint, target, kind)
        if kind in ("int", "long"):
            return [f"{target} = data[at]; at += 1", f"if {target} & 128: {target}, at = rest(data, at - 1)",
                    f"{target} = {target} >> 1 ^ -({target} & 1)"]  # fmt: skip
        if kind == "boolean":
            return [f"{target} = boolean[data[at]]; at += 1"]
        if kind == "double":
            return [f"{target} = read_double(data, at); at += 8"]
        return self.read_named(kind, hint, target)

    def read_text(self, hint: Any, target: str, kind: str) -> list[str]:
        size = ["n = data[at]; at += 1", "if n & 129: n, at = size(data, at - 1)", "end = at + (n >> 1)"]
        part = "data[at:end]" if kind == "bytes" else "data[at:end].decode()"
        if isinstance(hint, type) and issubclass(hint, StrEnum):
            part = f"{self.name(hint._value2member_map_)}[{part}]"
        return [*size, f"{target} = {part}; at = end"]

    def read_named(self, kind: Any, hint: Any, target: str) -> list[str]:
        if isinstance(kind, list):
            branches = self.name(self.union(kind, hint)[1])
            return [
                "n = data[at]; at += 1",
                "if n & 128: n, at = rest(data, at - 1)",
                f"{target}, at = {branches}[n](data, at)",
            ]
        if kind["type"] == "fixed":
            return [f"end = at + {kind['size']}; {target} = data[at:end]; at = end"]
        if kind["type"] == "map":
            return [f"{target}, at = read_map(data, at)"]
        if kind["type"] == "array":
            item = self.name(self.item(kind["items"], typing.get_args(hint)[0])[1])
            return [f"{target}, at = read_array(data, at, {item})"]
        return [f"{target}, at = {self.name(self.item(kind, hint)[1])}(data, at)"]

    # -- what stands inside

    def item(self, kind: Any, hint: Any) -> tuple[Write, Read]:
        """A value that is not a field: an item of an array, a record within a record, a pair."""
        if isinstance(kind, dict) and kind["type"] == "record" and typing.get_origin(hint) is not tuple:
            return self.record(kind, hint)
        if isinstance(kind, dict) and kind["type"] == "record":
            parts = [(field["type"], inner) for field, inner in zip(kind["fields"], typing.get_args(hint), strict=True)]
        else:
            parts = [(kind, hint)]
        several = len(parts) > 1
        written = [self.write(*part, f"v[{number}]" if several else "v") for number, part in enumerate(parts)]
        write = f"def write(v):\n    return join(({''.join(f'{part}, ' for part in written)}))\n"
        lines = [line for number, part in enumerate(parts) for line in self.read(*part, f"f{number}")]
        made = f"({', '.join(f'f{number}' for number in range(len(parts)))})"
        source = "\n    ".join(["def read(data, at):", *lines, f"return {made}, at\n"])
        return self.run(write, "write"), self.run(source, "read")

    def union(self, kinds: list[Any], hint: Any) -> tuple[dict[type, Write], dict[int, Read]]:
        """Writers by class and readers by the branch's number, zigzag, of a union of records."""
        classes = {cls.__name__: cls for cls in typing.get_args(hint)}
        writers, readers = {}, {}
        for number, kind in enumerate(kinds):
            cls = classes[kind["name"].rpartition(".")[2]]
            write, readers[2 * number] = self.record(kind, cls)
            writers[cls] = _prefixed(_long(number), write)
        return writers, readers


def _prefixed(prefix: bytes, write: Write) -> Write:
    return lambda value: prefix + write(value)


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next(option for option in typing.get_args(hint) if option is not type(None))
    return hint


def _texts(hint: Any) -> dict[Any, bytes] | None:
    """How the words of an enumeration are written; a word that could not be read back has no entry."""
    hint = _without_none(hint)
    if not (isinstance(hint, type) and issubclass(hint, StrEnum)):
        return None
    return {member.value: _text_of(member.value) for member in hint}


# -- what the made functions call


@lru_cache(maxsize=16_384)
def _long(value: int) -> bytes:
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"{value} does not fit 64 bits")
    left = value << 1 ^ value >> 63
    out = bytearray()
    while left > 127:
        out.append(left & 127 | 128)
        left >>= 7
    out.append(left)
    return bytes(out)


def _text_of(value: str) -> bytes:
    encoded = value.encode()
    return _long(len(encoded)) + encoded


_name = lru_cache(maxsize=1_024)(_text_of)
"""Of the entry of a map: there are few, and they come in every record."""


def _data_of(value: bytes) -> bytes:
    return _long(len(value)) + value


def _fixed(value: bytes, size: int) -> bytes:
    if len(value) != size:
        raise ValueError(f"{len(value)} bytes instead of {size}")
    return value


def _write_array(values: Any, item: Write) -> bytes:
    return b"".join((_long(len(values)), *map(item, values), b"\0"))


def _write_map(values: Mapping[str, int]) -> bytes:
    if not values:
        return b"\0"
    entries = [_name(name) + _long(value) for name, value in values.items()]
    return b"".join((_long(len(values)), *entries, b"\0"))


def _rest(data: bytes, at: int) -> tuple[int, int]:
    """A number of several bytes, as it stands: zigzag is the caller's."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if value >> 64:
                raise ValueError("a number of more than 64 bits")
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _size(data: bytes, at: int) -> tuple[int, int]:
    """Twice a length."""
    value, at = _rest(data, at)
    if value & 1:
        raise ValueError("a negative length")
    return value, at


def _count(data: bytes, at: int) -> tuple[int, int]:
    """The number of items in a block of an array or a map, 0 at its end."""
    value = data[at]
    at += 1
    if value & 128:
        value, at = _rest(data, at - 1)
    if value & 1:  # negative: the block's size in bytes follows
        _, at = _rest(data, at)
        return (value + 1) >> 1, at
    return value >> 1, at


def _read_array(data: bytes, at: int, item: Read) -> tuple[tuple[Any, ...], int]:
    values = []
    count, at = _count(data, at)
    while count:
        for _ in range(count):
            value, at = item(data, at)
            values.append(value)
        count, at = _count(data, at)
    return tuple(values), at


def _read_map(data: bytes, at: int) -> tuple[dict[str, int], int]:
    values = {}
    count, at = _count(data, at)
    while count:
        for _ in range(count):
            size = data[at]
            at += 1
            if size & 129:
                size, at = _size(data, at - 1)
            end = at + (size >> 1)
            value, after = data[end], end + 1
            if value & 128:
                value, after = _rest(data, end)
            values[data[at:end].decode()] = value >> 1 ^ -(value & 1)
            at = after
        count, at = _count(data, at)
    return values, at


_double = Struct("<d")
_HELPERS: dict[str, Any] = {
    "join": b"".join,
    "long": _long,
    "text_of": _text_of,
    "data_of": _data_of,
    "double": _double.pack,
    "fixed": _fixed,
    "write_array": _write_array,
    "write_map": _write_map,
    "rest": _rest,
    "size": _size,
    "boolean": (False, True),
    "read_double": lambda data, at: _double.unpack_from(data, at)[0],
    "read_array": _read_array,
    "read_map": _read_map,
}
