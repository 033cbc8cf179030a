"""What the checker makes of inputs that no decision names, and of timers that ring late."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.checker.check import check
from orchestrator.checker.evidence import Evidence, Raw
from orchestrator.checker.lateness import RUNG_WITHIN_MS
from orchestrator.log.base import Record
from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.rule import Kind, Rule
from orchestrator.wire.dead_letters import dead_letter_headers
from orchestrator.wire.inputs import COUNTER, FORWARDED_FROM, SAGA, write_message
from orchestrator.wire.journal import (
    DECISION_FINGERPRINT,
    Claim,
    Envelope,
    Genesis,
    claim_record,
    genesis_record,
    write_decision,
    write_envelope,
)

ID, RUN = "o-1", "1-2-0"
START = {"saga-type": "Order", "message-id": "m-1"}
TOLD = {"input-type": "signal", "signal": "told", "message-id": "m-2"}
ADDRESS = {"reply-to": "saga.answers", "reply-partition": "0", "correlation-id": "c-1"}
UPDATE = {"input-type": "update", "update": "add", **ADDRESS}
REFUSED = {"saga-id": ID, "saga-status": "REFUSED", "correlation-id": "c-1"}
NOTHING: Raw = {0: []}

Step = tuple[dict[str, int], ev.Decision | None]
"""Positions, with a decision or in a mark."""


def record(topic: str, offset: int, headers: dict[str, str], value: bytes = b"{}") -> Record:
    return Record(topic, 0, offset, 1_000, ID.encode(), value, tuple((n, v.encode()) for n, v in headers.items()))


def journal(*steps: Step | None) -> Raw:
    """Behind genesis and a claim; None is another claim."""
    rule, records = Rule(), []
    nonce, seq = b"", 0
    for offset, step in enumerate((None, None, *steps)):
        if offset == 0:
            kind, value = Kind.GENESIS, genesis_record(Genesis(1, 1, {}, 0))
        elif step is None:
            nonce, seq = bytes([offset] * 16), 0
            kind, value = Kind.CLAIM, claim_record(nonce, Claim("host-1", "", (), ""))
        else:
            body = b"" if step[1] is None else write_decision(step[1])
            mark = DECISION_FINGERPRINT if body else b""
            envelope = Envelope(Kind.DECISION, nonce, seq, rule.chain, step[0], body_fingerprint=mark, body=body)
            kind, value = Kind.DECISION, write_envelope(envelope)
            seq += 1
        assert rule.accept(kind, nonce, seq - 1, rule.chain, offset, value)
        records.append(Record("saga.journal", 0, offset, 1_000 + offset, None, value, ()))
    return {0: records}


BEGUN: Step = ({"inbox": 1}, ev.Decision(ID, RUN, 1_000, (ev.SagaStarted("Order", b"{}", "m-1"),), "m-1", "inbox", 0))
PASSED: Step = ({"inbox": 2, "replies": 1, "internal": 1, "operations": 1}, None)
"""Behind one more record of each topic."""


def violations(*steps: Step | None, **topics: list[Record]) -> list[str]:
    evidence = Evidence(1, journal(BEGUN, *steps), *[NOTHING] * 6, {}, settled=False)
    evidence.inbox = {0: [record("saga.inbox", 0, START)]}
    for name, records in topics.items():
        setattr(evidence, name, {0: [*getattr(evidence, name)[0], *records]})
    return check(evidence).violations


def test_a_record_that_was_never_there_is_not_asked_about() -> None:
    assert violations(PASSED) == []


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        (START, ""),
        ({"input-type": "query", "query": "seen", **ADDRESS}, ""),
        (TOLD, "Signal of 'o-1'"),
        ({**TOLD, "message-id": "m-1"}, ""),
        ({"input-type": "attach", **ADDRESS}, "Attach of 'o-1'"),
        ({"input-type": "dance"}, "nobody can read it"),
        (UPDATE, "an update of 'o-1', and nobody was told"),
        ({**UPDATE, "saga-type": "Other"}, ""),
        ({**UPDATE, "saga-id": "o-2"}, ""),
    ],
)
def test_what_an_inbox_holds_may_be_passed_over_only_if_it_says_nothing(headers: dict[str, str], problem: str) -> None:
    found = violations(PASSED, inbox=[record("saga.inbox", 1, headers)])
    assert len(found) == (problem != "")
    assert all(each.startswith("C10: inbox 0 at 1") and problem in each for each in found)


def test_an_update_may_be_refused_if_its_sender_was_told_or_its_owner_ended() -> None:
    asked = record("saga.inbox", 1, UPDATE)
    assert violations(PASSED, inbox=[asked], answers=[record("saga.answers", 0, REFUSED)]) == []
    assert violations(PASSED, None, inbox=[asked]) == []
    assert len(violations(None, PASSED, inbox=[asked])) == 1


def test_a_dead_letter_of_its_own_or_of_the_same_answers_for_it() -> None:
    told = record("saga.inbox", 1, TOLD)
    for offset in (1, 7):
        why = dead_letter_headers("saga.inbox", 0, offset, 1_000, told.headers, "too much", "InputRejected")
        letter = Record("saga.dead-letters", 0, 0, 1_000, told.key, told.value, tuple(why))
        assert violations(PASSED, inbox=[told], dead_letters=[letter]) == []
        assert len(violations(PASSED, inbox=[told], dead_letters=[letter._replace(key=b"o-2")])) == (offset == 7)


def test_a_decision_takes_its_own_record_and_no_other() -> None:
    told = ev.Decision(ID, RUN, 1_000, (ev.SignalReceived("told", b"{}"),), "told-2", "inbox", 2)
    records = [record("saga.inbox", offset, {**TOLD, "message-id": f"told-{offset}"}) for offset in (1, 2)]
    assert violations(({"inbox": 3}, told), inbox=records[1:]) == []
    assert len(violations(({"inbox": 3}, told), inbox=records)) == 1
    empty = replace(told, events=(), message_id="")
    assert len(violations(({"inbox": 3}, empty), inbox=records[1:])) == 1


@pytest.mark.parametrize(("outcome", "lost"), [("heartbeat", 0), ("success", 1)])
def test_of_replies_only_late_heartbeats_are_passed_over(outcome: str, lost: int) -> None:
    headers = {"saga-run": RUN, "step": "1", "outcome": outcome}
    assert len(violations(PASSED, replies=[record("saga.replies", 0, headers)])) == lost


def test_an_operation_is_never_passed_over() -> None:
    assert len(violations(PASSED, operations=[record("saga.operations", 0, {"input-type": "pause"})])) == 1


@pytest.mark.parametrize(("counter", "lost"), [(1, 1), (2, 0)])
def test_between_partitions_only_the_next_number_counts(counter: int, lost: int) -> None:
    headers = {FORWARDED_FROM: SAGA, "source-partition": "0", COUNTER: str(counter)}
    value = write_message(msg.ChildEnded(ID, RUN, 1, False, "", "COMPLETED", "none", b"", "", ""))
    assert len(violations(PASSED, internal=[record("saga.internal", 0, headers, value)])) == lost


@pytest.mark.parametrize(("late_ms", "late"), [(RUNG_WITHIN_MS, 0), (RUNG_WITHIN_MS + 1, 1)])
def test_a_timer_rings_within_a_bound_once_nothing_is_broken(late_ms: int, late: int) -> None:
    slept = ev.Decision(ID, RUN, 2_000, (ev.WaitScheduled(1, 0, ev.StepKind.SLEEP, due_ms=3_000),))
    rang = ev.Decision(ID, RUN, 5_000 + late_ms, (ev.WaitExpired(1),))
    evidence = Evidence(1, journal(BEGUN, ({}, slept), ({}, rang)), *[NOTHING] * 6, {}, settled=False)
    assert check(evidence).violations == [], "nobody knows since when nothing is broken"
    evidence.healed_ms = 5_000
    found = check(evidence).violations
    assert [each.startswith("C12: o-1: WaitExpired") for each in found] == [True] * late
