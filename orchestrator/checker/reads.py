"""C11: an answer shows all that anybody had been told when it was asked for.

Told are the answers to earlier questions about the same saga, and what came of its updates.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from orchestrator.checker.evidence import Evidence, Raw, Verdict
from orchestrator.checker.journal import Accepted
from orchestrator.log.base import Record
from orchestrator.model import events as ev
from orchestrator.model.ids import run_numbers
from orchestrator.wire import headers as h

SEEN = "seen"
"""A query that is answered with how many outcomes the saga's code has seen."""
PUBLISHED = "saga.published"


class Known(NamedTuple):
    """How far somebody knew a saga to be: its run, by the numbers in its id, and by how many outcomes or values."""

    run: tuple[int, ...]
    progress: int


NOTHING = Known((), 0)


def check_reads(evidence: Evidence, accepted: Accepted, verdict: Verdict) -> None:
    asked = _asked(evidence.inbox)
    updated = {
        (history.saga_id, history.run, event.reply_to.correlation_id): history.state.steps[event.sequence].resolved
        for history, event in accepted.of_runs(ev.UpdateAccepted)
        if event.reply_to is not None
    }
    told: dict[tuple[str, str], list[tuple[int, Known]]] = defaultdict(list)
    """By saga and question what was told, with the time."""
    for record, headers in sorted(_records(evidence.answers), key=lambda each: each[0].timestamp_ms):
        saga_id, run, correlation_id = (headers.get(name, "") for name in (h.SAGA_ID, h.SAGA_RUN, h.CORRELATION_ID))
        if correlation_id in asked:
            at_ms, name = asked[correlation_id]
            known = [each for when_ms, each in told[saga_id, name] if when_ms < at_ms]
            answer = _known(name, run, headers, record)
            if answer == NOTHING and known and _is_forgotten(accepted, saga_id, max(known).run, record.timestamp_ms):
                continue
            if answer is not None and known and answer < max(known):
                verdict.blame("C11", f"{saga_id}: {correlation_id} is answered {answer} after {max(known)} was told")
            if answer is not None and run:
                told[saga_id, name].append((record.timestamp_ms, answer))
        elif (resolved := updated.get((saga_id, run, correlation_id))) is not None:
            told[saga_id, SEEN].append((record.timestamp_ms, Known(run_numbers(run), resolved)))


def _is_forgotten(accepted: Accepted, saga_id: str, run: tuple[int, ...], by_ms: int) -> bool:
    """Whether this run, or a later one, was forgotten by then."""
    forgotten = accepted.forgotten.get(saga_id, ())
    return any(run_numbers(each) >= run and at_ms <= by_ms for each, at_ms in forgotten)


def _asked(inbox: Raw) -> dict[str, tuple[int, str]]:
    """By correlation id when it was asked, first, and what."""
    asked: dict[str, tuple[int, str]] = {}
    for record, headers in _records(inbox):
        if headers.get(h.INPUT_TYPE) == "query" and headers.get(h.QUERY) in (SEEN, PUBLISHED):
            correlation_id, question = headers.get(h.CORRELATION_ID, ""), (record.timestamp_ms, headers[h.QUERY])
            asked[correlation_id] = min(question, asked.get(correlation_id, question))
    return asked


def _known(name: str, run: str, headers: dict[str, str], record: Record) -> Known | None:
    """What an answer tells; None where it is none. A saga that is not found is none yet."""
    status = headers.get("saga-status")
    if status == "REFUSED":
        return NOTHING if headers.get(h.ERROR_TYPE) == ev.Refusal.NOT_FOUND else None
    value = json.loads(record.value or b"null")
    return Known(run_numbers(run), value if name == SEEN else len(value["values"]))


def _records(topic: Raw) -> Iterator[tuple[Record, dict[str, str]]]:
    """Every record with its headers, but what nobody can read: anybody may write to an inbox."""
    for records in topic.values():
        for record in records:
            try:
                headers = h.read_headers(record.headers)
            except h.MalformedMessage:
                continue
            yield record, headers
