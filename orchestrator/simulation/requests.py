"""What code asks for by the plans of simulated sagas: requests in place of what describes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from orchestrator.correlation import START, TOLD, id_of, publish
from orchestrator.model.calls import type_of
from orchestrator.model.definition import ChildRequest, SignalRequest, StepRequest, WaitRequest
from orchestrator.model.events import StepKind
from orchestrator.model.messages import ChildCancellation, Leaving, ParentClose, Reuse
from orchestrator.model.retries import Jitter, RetryPolicy, RetryRule

Plan = list[Any]
SIGNAL = "told"
ADDRESS = f"Plain.{SIGNAL}"
"""What business keys belong to."""


def with_requests(plan: Plan) -> Plan:
    make = _REQUESTS.get(plan[0])
    if make is not None:
        return make(plan)
    if plan[0] == "beside":
        return [plan[0], with_requests(plan[1])]
    if len(plan) > 1 and isinstance(plan[1], list):
        return [plan[0], [with_requests(part) for part in plan[1]], *plan[2:]]
    return plan


def _child(plan: Plan) -> Plan:
    return ["child" if plan[1]["waited for"] else "begin", _child_request(plan[1])]


def _tell(plan: Plan) -> Plan:
    start = None if plan[2] is None else (plan[2][0], plan[2][1].encode())
    return ["tell", SignalRequest(plan[1], SIGNAL, b'"by another"', start)]


def _by_key(plan: Plan) -> Plan:
    return ["tell", SignalRequest(id_of(ADDRESS, plan[1]), TOLD, publish(b'"by key"', plan[2]), START)]


_REQUESTS: dict[str, Callable[[Plan], Plan]] = {
    "step": lambda plan: ["step", step_request(plan[1])],
    "call": lambda plan: ["call", call_request(plan[1])],
    "put": lambda plan: ["tell", put_request(plan[1])],
    "sleep": lambda plan: ["sleep", WaitRequest(StepKind.SLEEP, "", plan[1])],
    "receive": lambda plan: ["receive", WaitRequest(StepKind.SIGNAL, SIGNAL, plan[1])],
    "promise": lambda plan: ["promise", WaitRequest(StepKind.PROMISE, plan[1], plan[2])],
    "child": _child,
    "stop": lambda plan: ["stop", _child_request(plan[1]), plan[2], Leaving(plan[3])],
    "tell": _tell,
    "key": _by_key,
}


def _child_request(child: dict[str, Any]) -> ChildRequest:
    return ChildRequest(
        child["type"],
        json.dumps(child["plan"]).encode(),
        child["id"],
        child["undo"],
        ParentClose(child["close"]),
        ChildCancellation(child["cancellation"]),
        child["reuse"] and Reuse(child["reuse"]),
    )


def step_request(step: dict[str, Any]) -> StepRequest:
    script = step["script"].encode()
    return StepRequest(
        step["service"],
        "act",
        script,
        "revert" if step["undo"] else None,
        (lambda reply: script) if step["undo"] == "by reply" else None,
        pivot=step["pivot"],
        start_to_close_ms=step["timeout"],
        schedule_to_close_ms=step["deadline"],
        retry=RetryPolicy(
            initial_interval_ms=step["interval"],
            maximum_interval_ms=5_000,
            maximum_attempts=step["attempts"],
            non_retryable_error_types=("Busy",) if step["final"] else (),
            park=step["park"],
            jitter=Jitter(step["jitter"]),
            retry_timeout_ms=step["retry timeout"],
            asks=step["asks"],
            rules=(RetryRule("Unsure", 50, 1.0, 50, 5, Jitter.NONE),) if step["rule"] else (),
        ),
        undo_retry=RetryPolicy(
            initial_interval_ms=step["interval"], maximum_interval_ms=3_000, maximum_attempts=4, park=True
        ),
        spread=step["spread"],
        schedule_to_start_ms=step["start"] if step["service"] else None,
        heartbeat_ms=step["heartbeat"] if step["service"] else None,
        retry_if=(lambda failed: failed.attempt != 2) if step["asks"] else None,
        kind=StepKind.SERVICE if step["service"] else StepKind.LOCAL,
    )


def amount_of(call: dict[str, Any], sign: int = 1) -> bytes:
    return json.dumps([sign * call["amount"], call["step"] if sign > 0 else None]).encode()


def call_request(call: dict[str, Any]) -> StepRequest:
    """One that is undone by its opposite."""
    undo = amount_of(call, -1)
    return StepRequest(
        call["id"],
        "add",
        amount_of(call),
        "add" if call["undo"] else None,
        (lambda reply: undo) if call["undo"] == "by reply" else undo if call["undo"] else None,
        schedule_to_close_ms=call["timeout"],
        kind=StepKind.CALL,
    )


def put_request(call: dict[str, Any]) -> SignalRequest:
    """The same where nobody waits for what comes of it."""
    return SignalRequest(call["id"], "add", amount_of(call), (type_of(call["id"]), b"null"), update=True)
