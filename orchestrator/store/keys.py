"""The keys of a partition's store. Numbers are 8 bytes big-endian, so that keys sort as they count.

p                                   the partition: positions, rule R, marks
g                                   the journal's genesis, as it stands there
n <nonce>                           a claim's nonce seen, with its offset
r <saga>                            a run, but for its steps
s <saga> 00 <sequence>              a step
t <due> <saga> 00 <sequence>        a timer
m <saga> 00 <message id>            an external input taken, with its journal offset; and a b if it began a run
w <saga>                            a run that waits for code
l <saga>                            a run with a local step whose function is to be called
h <saga>                            a run that a rule holds, with the rule
"""

from __future__ import annotations

from collections.abc import Iterable

PARTITION = b"p"
GENESIS = b"g"
NONCES = b"n"
RUNS = b"r"
STEPS = b"s"
TIMERS = b"t"
MESSAGES = b"m"
WAITING = b"w"
LOCAL = b"l"
PAUSED = b"h"


def number(value: int) -> bytes:
    return value.to_bytes(8, "big")


def nonce(value: bytes) -> bytes:
    return NONCES + value


def run(saga_id: str) -> bytes:
    return RUNS + saga_id.encode()


def steps(saga_id: str) -> bytes:
    """The prefix of all steps of a saga. Saga ids hold no NUL: the wire refuses it."""
    return STEPS + saga_id.encode() + b"\0"


def step(saga_id: str, sequence: int) -> bytes:
    return STEPS + saga_id.encode() + b"\0" + sequence.to_bytes(8, "big")


def timer(due_ms: int, saga_id: str, sequence: int) -> bytes:
    return TIMERS + due_ms.to_bytes(8, "big") + saga_id.encode() + b"\0" + sequence.to_bytes(8, "big")


def read_timer(key: bytes) -> tuple[int, str, int]:
    """(due_ms, saga id, sequence) of a timer's key."""
    return int.from_bytes(key[1:9], "big"), key[9:-9].decode(), int.from_bytes(key[-8:], "big")


def messages(saga_id: str) -> bytes:
    """The prefix of all external inputs of a saga that were taken."""
    return MESSAGES + saga_id.encode() + b"\0"


def message(saga_id: str, message_id: str) -> bytes:
    return MESSAGES + saga_id.encode() + b"\0" + message_id.encode()


def waiting(saga_id: str) -> bytes:
    return WAITING + saga_id.encode()


def local(saga_id: str) -> bytes:
    return LOCAL + saga_id.encode()


def paused(saga_id: str) -> bytes:
    return PAUSED + saga_id.encode()


def without_run(found: Iterable[bytes]) -> list[str]:
    """Sagas of which a store with these keys has a step, a timer or an input, but no run."""
    found = set(found)
    sagas = {key[1 : key.index(b"\0", 1)] for key in found if key[:1] in (STEPS, MESSAGES)}
    sagas |= {key[9:-9] for key in found if key[:1] == TIMERS}
    return sorted(saga_id.decode() for saga_id in sagas if saga_id and RUNS + saga_id not in found)
