"""What `saga list` and `saga show` print, from runs as the visibility has them."""

import json
from dataclasses import replace

import pytest

from orchestrator.cli import look
from orchestrator.model.events import SagaEnded, SagaStarted, Status, Undone
from orchestrator.visibility import Details, Entry, Run, StepView

RUN = Run(
    saga_id="o-1",
    run="1-3-0",
    saga_type="OrderFulfilment",
    status="PARKED",
    started_at_ms=1_000_000_000_123,
    updated_at_ms=1_000_000_001_000,
    ended_at_ms=None,
    undone=None,
    cause=None,
    error_type="",
    error_message="",
    parked_reason="Unavailable: used up",
    paused=None,
    attributes={},
    memo={},
    summary=None,
    partition=2,
    first_offset=3,
    last_offset=4,
    events=9,
)
HELD = StepView(1, "BACKING_OFF", "payments", "charge", 0, False, None, 0, "", "", None, 7, None, b"{}", b"", True)
STEP = StepView(1, "RUNNING", "payments", "charge", 2, False, "refund", 0, "", "", "used up", None, None, b"{}", b"")
HISTORY = (
    Entry(
        1_000_000_000_123,
        3,
        0,
        "inbox",
        SagaStarted(saga_type="OrderFulfilment", payload=b'{"id":"o-1"}', started_by="m-1"),
    ),
    Entry(1_000_000_001_000, 4, 0, "replies", SagaEnded(status=Status.FAILED, undone=Undone.ALL, payload=b"\xff")),
)
DETAILS = Details(RUN, b'{"id":\n "o-1"}', b"", (STEP,), HISTORY)


def test_show_prints_steps_and_the_newest_event_last(capsys: pytest.CaptureFixture[str]) -> None:
    look._print(DETAILS)
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0] == "saga     o-1  (OrderFulfilment, version 1, run 1-3-0)"
    assert 'input    {"id": "o-1"}' in lines
    assert any("payments.charge" in line and "parked: used up" in line for line in lines)
    assert "(7 earlier events; --history 9 shows all)" in lines
    assert lines[-2].startswith("2001-09-09 01:46:40.123  2:3     SagaStarted")
    assert lines[-1].startswith("2001-09-09 01:46:41.000  2:4     SagaEnded")
    assert "saga park retry o-1" in printed.err


def test_show_as_json_has_payloads_as_they_are() -> None:
    told = json.loads(json.dumps(look._as_json(DETAILS), default=str))
    assert told["saga"]["status"] == "PARKED"
    assert told["input"] == {"id": "o-1"}
    assert told["steps"][0]["command"] == "charge"
    assert [entry["event"] for entry in told["history"]] == ["SagaStarted", "SagaEnded"]
    assert told["history"][0]["data"]["payload"] == {"id": "o-1"}


def test_a_long_payload_is_cut_for_people() -> None:
    assert look.shown(b"x" * 1_000) == "x" * 99 + "…"
    assert look.shown(b" a\n b ") == "a b"
    assert look.plain(b"no json") == "no json"


def test_what_is_nested_without_end_is_shown_as_text() -> None:
    deep = b"[" * 100_000
    assert look.plain(deep) == deep.decode()


def test_a_saga_without_code_says_what_it_waits_for(capsys: pytest.CaptureFixture[str]) -> None:
    waiting = replace(RUN, status="WAITING_FOR_CODE", parked_reason=None)
    why = "no worker has the code of OrderFulfilment in version 1; start one that does, or `saga terminate o-1`"
    assert look._why(waiting) == why
    look._print(replace(DETAILS, run=waiting))
    assert f"why      {why}" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("saga_type", "counts", "said"),
    [
        (None, {}, "there is no saga yet; start one with `saga start`"),
        ("Nope", {}, "there is no saga of type Nope"),
        (None, {"RUNNING": 1, "COMPLETED": 2}, "there is none with these filters; in all 2 COMPLETED, 1 RUNNING"),
    ],
)
def test_an_empty_list_says_why_it_is(saga_type: str | None, counts: dict[str, int], said: str) -> None:
    assert look._nothing(saga_type, counts) == said


def test_show_says_of_a_step_that_waits_for_its_service_why(capsys: pytest.CaptureFixture[str]) -> None:
    look._print(replace(DETAILS, steps=(HELD,)))
    lines = capsys.readouterr().out.splitlines()
    assert any("BACKING_OFF" in line and "circuit open: payments does not answer" in line for line in lines)


def test_show_says_which_run_was_before(capsys: pytest.CaptureFixture[str]) -> None:
    details = replace(DETAILS, previous_run="1-3-0", following="reset")
    look._print(details)
    assert "after    run 1-3-0, reset" in capsys.readouterr().out
    assert (look._as_json(details)["previous_run"], look._as_json(details)["following"]) == ("1-3-0", "reset")
    assert look._as_json(DETAILS)["previous_run"] is None
