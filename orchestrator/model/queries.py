"""Questions to a saga, answered by its code: in an execution of its own, replayed, so that nothing is changed."""

from __future__ import annotations

from orchestrator.errors import BUGS
from orchestrator.model.budget import MAX_BYTES
from orchestrator.model.definition import Definition
from orchestrator.model.divergence import Divergence
from orchestrator.model.driver import Driver
from orchestrator.model.effects import ANSWERED, REFUSED, Answer
from orchestrator.model.events import Refusal, StepKind
from orchestrator.model.messages import Query
from orchestrator.model.migrations import migrates
from orchestrator.model.state import GOES_ON, UNSTARTED, SagaState
from orchestrator.model.updates import UNMIGRATED

_MESSAGE_CHARACTERS = 4_000
PUBLISHED = "saga.published"
"""What a run has published on a stream: no query that a saga could declare, for its name is no identifier.

It is asked with a sequence number, a space and the stream's name, and answered with what was published after that
number, `{"ended": ..., "more": ..., "values": [[number, value], ...]}`.
"""


def answer(definition: Definition | None, state: SagaState | None, query: Query) -> Answer:
    """What the code of a run says, live or ended; or why it says nothing. Whatever the code raises goes to who asks."""
    if state is None or state.phase in UNSTARTED:
        return _refused(query, "", Refusal.NOT_FOUND, "there is no such saga")
    if query.saga_type not in (None, state.saga_type):
        reason = f"the id belongs to a saga of type {state.saga_type}"
        return _refused(query, state.run, Refusal.OTHER_TYPE, reason)
    if query.name == PUBLISHED:
        return Answer(query.saga_id, state.run, query.reply_to, ANSWERED, _published(state, query.payload))
    if definition is None:
        reason = f"the worker that owns it has no code of {state.saga_type}"
        return _refused(query, state.run, Refusal.NO_CODE, reason)
    if state.migrates_from or migrates(definition, state):
        return _refused(query, state.run, Refusal.NOT_NOW, UNMIGRATED)
    driver = Driver(definition, state)
    try:
        driver.catch_up()
        payload = definition.query(driver.subject, query.name, query.payload)
    except Divergence as difference:
        return _refused(query, state.run, Refusal.QUERY_FAILED, f"the code diverges from the history: {difference}")
    except BUGS as error:
        return _refused(query, state.run, Refusal.QUERY_FAILED, f"{type(error).__name__}: {error}")
    finally:
        driver.detach()
    if len(payload) > MAX_BYTES:
        return _refused(query, state.run, Refusal.QUERY_FAILED, f"{len(payload)} bytes, at most {MAX_BYTES}")
    return Answer(query.saga_id, state.run, query.reply_to, ANSWERED, payload)


def _published(state: SagaState, payload: bytes) -> bytes:
    after, _, name = payload.decode(errors="replace").partition(" ")
    least = int(after) if after.isdecimal() and len(after) < 19 else 0
    values: list[bytes] = []
    size, more = 0, False
    for sequence, step in state.steps.items():
        if step.kind is StepKind.STREAM and step.command == name and sequence > least:
            if not step.result:
                continue  # of a run that newer code took over, and too much to be kept
            size += len(step.result) + 32
            if size > MAX_BYTES:
                more = True
                break
            values.append(b"[%d,%s]" % (sequence, step.result))
    ended = state.ended and state.phase not in GOES_ON
    flags = [b"true" if flag else b"false" for flag in (ended, more)]
    return b'{"ended":%s,"more":%s,"values":[%s]}' % (*flags, b",".join(values))


def _refused(query: Query, run: str, kind: Refusal, reason: str) -> Answer:
    return Answer(query.saga_id, run, query.reply_to, REFUSED, b"", kind, reason[:_MESSAGE_CHARACTERS])
