"""Random values of the core's frozen dataclasses, edges first."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import StrEnum
from typing import Any

from hypothesis import strategies as st

MAX = 2**63 - 1
_LEAVES: dict[Any, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: st.sampled_from((0, -1, 1, MAX, -MAX - 1)) | st.integers(-MAX - 1, MAX),
    float: st.sampled_from((0.0, 1.0, 2.0, 1e308)) | st.floats(allow_nan=False, allow_infinity=False),
    str: st.sampled_from(("", "\0", "ß€😀", "x" * 300)) | st.text(max_size=20),
    bytes: st.sampled_from((b"", bytes(range(256)))) | st.binary(max_size=20),
}


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """A strategy for a type as it is used in events, inputs and stored records."""
    if hint in _LEAVES:
        return _LEAVES[hint]
    if hint is type(None):
        return st.none()
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return st.one_of([values_of(argument) for argument in arguments])
    if origin is tuple:
        if arguments[-1:] == (Ellipsis,):
            return st.lists(values_of(arguments[0]), max_size=3).map(tuple)
        return st.tuples(*[values_of(argument) for argument in arguments])
    if origin is Mapping:
        return st.dictionaries(values_of(arguments[0]), values_of(arguments[1]), max_size=3)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return st.sampled_from(hint)
    assert is_dataclass(hint), hint
    hints = typing.get_type_hints(hint)
    return st.builds(typing.cast(type, hint), **{f.name: values_of(hints[f.name]) for f in fields(hint)})
