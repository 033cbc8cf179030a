"""How a stopped worker's stores are damaged."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from random import Random

_DATA = (".sst", ".log")
CUT_AT_MOST = 4_096
"""Bytes that a file loses."""


def delete(stores: Iterable[Path]) -> int:
    """Deletes them. Returns how many there were."""
    found = list(stores)
    for store in found:
        shutil.rmtree(store)
    return len(found)


def flip_bits(stores: Iterable[Path], random: Random) -> int:
    """Flips one bit somewhere in each. Returns how many were hit."""
    hit = 0
    for store in stores:
        files = [file for file in _files(store, "MANIFEST") if file.stat().st_size]
        if files:
            file = random.choice(files)
            content = bytearray(file.read_bytes())
            content[random.randrange(len(content))] ^= 1 << random.randrange(8)
            file.write_bytes(content)
            hit += 1
    return hit


def cut(stores: Iterable[Path], random: Random) -> int:
    """Takes the end off the file of each that was written last. Returns how many were hit."""
    hit = 0
    for store in stores:
        files = [file for file in _files(store) if file.stat().st_size > 1]
        if files:
            file = max(files, key=lambda each: each.stat().st_mtime_ns)
            size = file.stat().st_size
            with file.open("r+b") as opened:
                opened.truncate(size - random.randint(1, min(CUT_AT_MOST, size - 1)))
            hit += 1
    return hit


def _files(store: Path, *more: str) -> list[Path]:
    return sorted(
        file
        for file in store.iterdir()
        if file.suffix in _DATA or any(file.name.startswith(beginning) for beginning in more)
    )
