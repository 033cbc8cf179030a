"""Values that nobody changes, made quickly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def frozen(cls: type[T]) -> type[T]:
    """A slotted dataclass that type checkers hold to be frozen.

    A decision makes about a dozen of them, and one that checks itself at run time takes four times as long to make.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)
