"""Histories as files: every event comes back as it was, and a file says what is wrong with it."""

import json
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.retries import RetryPolicy
from orchestrator.wire.history import UnreadableHistory, read_history, write_history

KINDS = sorted(get_args(ev.Event), key=lambda kind: kind.__name__)
POLICIES = st.builds(RetryPolicy, backoff_coefficient=st.floats(1, 100))
PAYLOADS = st.one_of(
    st.binary(),
    st.sampled_from([b"", b"null", b'{"a": 1}', b'{"a":1}', '"é"'.encode(), b"[1.50]", b"\xff", b'{"b":"\\u00e9"}']),
)
st.register_type_strategy(RetryPolicy, POLICIES)
st.register_type_strategy(bytes, PAYLOADS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_every_event_comes_back_as_it_was(kind: type[Any], data: st.DataObject) -> None:
    event = data.draw(st.from_type(kind))
    decision = ev.Decision("s-1", "1-2-0", 1_000_000_000_123, (event,), message_id="m")
    assert read_history(write_history([decision])) == [decision]


@pytest.mark.parametrize(
    "kind", sorted(get_args(msg.Input), key=lambda kind: kind.__name__), ids=lambda kind: kind.__name__
)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_so_does_every_input_that_was_held(kind: type[Any], data: st.DataObject) -> None:
    decision = ev.Decision("s-1", "1-2-0", 5, (ev.InputHeld(data.draw(st.from_type(kind))),))
    assert read_history(write_history([decision])) == [decision]


STARTED = ev.SagaStarted("Order", b'{"id":"o-1"}', "m-1")
SCHEDULED = ev.StepScheduled(1, 0, "shop", "ship", b'{"id":"o-1"}', 0)


def test_a_file_is_made_to_be_read() -> None:
    text = write_history([ev.Decision("o-1", "1-2-0", 86_400_000, (STARTED, SCHEDULED))])
    assert text == (
        '{\n  "form": 1,\n  "saga_type": "Order",\n  "saga_id": "o-1",\n  "run": "1-2-0",\n  "decisions": [\n'
        '    {"at": "1970-01-02T00:00:00.000+00:00",\n     "events": [\n'
        '       {"SagaStarted": {"saga_type": "Order", "payload": {"id": "o-1"}, "started_by": "m-1"}},\n'
        '       {"StepScheduled": {"sequence": 1, "after": 0, "service": "shop", "command": "ship", '
        '"payload": {"id": "o-1"}, "partition": 0}}\n     ]}\n  ]\n}\n'
    )


def edited(**changes: Any) -> str:
    data = json.loads(write_history([ev.Decision("o-1", "1-2-0", 0, (STARTED,))]))
    return json.dumps(data | changes)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not a history: Expecting value"),
        ("[]", "not a history"),
        ("{}", "'form' is missing"),
        (edited(form=2), "its form is 2, this software reads 1"),
        (edited(decisions=[{"at": "yesterday", "events": []}]), "not a history: Invalid isoformat"),
        (edited(decisions=[{"at": "1970-01-02T00:00:00+00:00", "events": [{"Odd": {}}]}]), "knows no 'Odd'"),
        (
            edited(decisions=[{"at": "1970-01-02T00:00:00+00:00", "events": [{"StepParked": {"odd": 1}}]}]),
            "StepParked has no field 'odd'",
        ),
    ],
)
def test_what_is_no_history_says_why(text: str, problem: str) -> None:
    with pytest.raises(UnreadableHistory, match=problem):
        read_history(text)
