"""What the engine needs of a local store: ordered keys, one atomic write, disposable.

`store.rocks` keeps a partition's store in a directory, `store.memory` in a sorted map; one contract suite holds both
to the same behaviour. A store knows nothing of sagas: keys and values are bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

Change = tuple[bytes, bytes | None]
"""A key with its new value, or None to delete it."""


class StoreBroken(Exception):
    """The store cannot be read (damaged, unreadable): it is disposable, wipe it and rebuild it from the journal."""


class StoreBusy(StoreBroken):
    """The store is open elsewhere, in this process or another: nothing is damaged, do not wipe it, find its user."""


class StoreFull(StoreBroken):
    """There is no room to write it. Nothing is damaged: do not wipe it, try again when there is room."""


class Store(Protocol):
    """One partition's materialized state."""

    def get(self, key: bytes) -> bytes | None:
        """The value, or None. Raises `StoreBroken`, also when the store is closed."""

    def scan(
        self, prefix: bytes, start: bytes | None = None, end: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Entries whose key begins with `prefix`, ascending by key, from `start` (inclusive) to `end` (exclusive).

        Raises `StoreBroken`. Sees the store as it was when the scan began. Damage met on the way raises from the
        iterator, it never ends a scan early; so does closing the store under it. A scan may walk over keys deleted
        lately: whoever takes entries from the front of a prefix passes the key after the last one taken as `start`,
        and who does not want all that follow says where to `end`.
        """

    def write(self, changes: Iterable[Change]) -> None:
        """Applies all changes or none, the last of repeated keys wins; visible to the next call.

        Raises `StoreBroken`; `StoreFull` where there is no room, also when opened again soon.
        """

    def close(self) -> None:
        """Releases the directory, damaged or not; a second call does nothing.

        Writes that returned survive, except over a crash of the machine.
        """


@runtime_checkable
class Copyable(Protocol):
    """A store of which a copy can be made while it is in use."""

    def checkpoint(self, target: Path) -> None:
        """Makes a directory of the store as it stands; any thread may. Raises `StoreBroken`."""


class Stores(Protocol):
    """The stores of one worker, one for each partition."""

    def open(self, partition: int) -> Store:
        """The partition's store, empty if there is none. Raises `StoreBroken`; `StoreBusy` while it is open already."""

    def wipe(self, partition: int) -> None:
        """Deletes the partition's store, which must be closed (`StoreBusy` otherwise). None there: nothing to do."""


def after_prefix(prefix: bytes) -> bytes | None:
    """The smallest key above all keys that begin with `prefix`; None if there is none."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,)) if stem else None


def bound_of(prefix: bytes, end: bytes | None) -> bytes | None:
    """Where a scan ends (exclusive); None: with the last key there is."""
    after = after_prefix(prefix)
    return end if after is None else after if end is None else min(after, end)
