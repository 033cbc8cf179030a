"""Identity: runs, idempotency keys, epochs, and the partition of a saga id."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

Direction = Literal["do", "undo"]

MAX_SAGA_ID_BYTES = 512
_OFFSET_BITS = 44
"""An epoch on the wire is one 64-bit integer: 19 bits of incarnation above 44 bits of claim offset."""


def problem_of(saga_id: str) -> str | None:
    """Why no saga can have this id, None if one can."""
    if not saga_id:
        return "a saga id is not empty"
    try:
        size = len(saga_id.encode())
    except UnicodeEncodeError:
        return "a saga id is text that UTF-8 can hold"
    if "\0" in saga_id or size > MAX_SAGA_ID_BYTES:
        return f"a saga id has at most {MAX_SAGA_ID_BYTES} bytes and no NUL"
    return None


def run_id(incarnation: int, offset: int, index: int) -> str:
    """The run started by event `index` of the journal record at `offset`: unique over restores and repartitions."""
    return f"{incarnation}-{offset}-{index}"


def run_numbers(run: str) -> tuple[int, ...]:
    """What a run's id is made of: of one saga id, later runs compare greater. Raises `ValueError`."""
    return tuple(map(int, run.split("-")))


def idempotency_key(saga_id: str, run: str, sequence: int, direction: Direction) -> str:
    """The key under which a step has at most one recorded outcome. The attempt is not part of it, on purpose."""
    return f"{saga_id}/{run}/{sequence}/{direction}"


def epoch_number(incarnation: int, claim_offset: int) -> int:
    """(incarnation, claim offset) as the one integer that headers carry; later epochs are greater."""
    return incarnation << _OFFSET_BITS | claim_offset


def murmur2(data: bytes) -> int:
    """Kafka's murmur2 (seed 0x9747b28c), as an unsigned 32-bit integer."""
    length = len(data)
    h = 0x9747B28C ^ length
    whole = length & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * 0x5BD1E995 & 0xFFFFFFFF
        k = (k ^ k >> 24) * 0x5BD1E995 & 0xFFFFFFFF
        h = (h * 0x5BD1E995 & 0xFFFFFFFF) ^ k
    if whole < length:
        h ^= int.from_bytes(data[whole:], "little")
        h = h * 0x5BD1E995 & 0xFFFFFFFF
    h = (h ^ h >> 13) * 0x5BD1E995 & 0xFFFFFFFF
    return h ^ h >> 15


@lru_cache(maxsize=65_536)
def partition_of(key: str, partitions: int) -> int:
    """The partition that Java's default partitioner and librdkafka's `murmur2_random` give to this key."""
    return (murmur2(key.encode()) & 0x7FFFFFFF) % partitions
