"""Signals that come before their saga is started, or with its start."""

from __future__ import annotations

import orjson
import pytest

from model.play import INBOX, SAGA_ID, Play
from orchestrator.model import checks
from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.events import Status
from orchestrator.model.turn import SIGNAL_TTL_MS
from orchestrator.saga import Saga
from orchestrator.signals import signal


class Told(Saga[None, list[str]]):
    told = signal(str)
    counted = signal(int)

    async def run(self, _: None) -> list[str]:
        return [await self.receive(Told.told), await self.receive(Told.told)]


def start_with(name: str, value: object, message_id: str = "with") -> msg.Start:
    return msg.Start(SAGA_ID, message_id, "Told", b"null", INBOX, None, name, orjson.dumps(value))


# -- before the start


def test_signals_before_the_start_are_kept_for_it() -> None:
    play = Play(Told)
    play.signal("told", "first")
    play.signal("told", "second")
    assert play.status is Status.NOT_STARTED
    run = play.state.run
    play.start()
    assert play.ending.payload == b'["first","second"]'
    assert play.state.run == run, "the run is the one that the first signal began"
    assert play.state.due_of(0) == play.ending.forget_at_ms


def test_nobody_starts_the_saga_and_the_signals_are_dropped_together() -> None:
    play = Play(Told)
    play.signal("told", "first")
    play.now_ms += SIGNAL_TTL_MS - 1
    play.signal("told", "second")
    assert play.take(msg.TimerDue(SAGA_ID, play.state.run, 0, 1_000_000 + SIGNAL_TTL_MS)) == [], "it was put off"
    dropped = play.fire(0)
    assert [type(event) for event in dropped] == [ev.SignalDropped, ev.SignalDropped, ev.SagaForgotten]
    play.signal("told", "third")
    play.signal("told", "fourth")
    play.start()
    assert play.ending.payload == b'["third","fourth"]'


def test_a_signal_that_the_saga_does_not_have_is_dropped_at_its_start_and_says_so() -> None:
    play = Play(Told)
    play.signal("told", "first")
    play.signal("sung", "la")
    play.signal("counted", "many")
    play.signal("told", "second")
    play.start()
    assert [(event.place, event.name) for event in play.of(ev.SignalDropped)] == [(1, "sung"), (1, "counted")]
    assert "no signal 'sung'" in play.of(ev.SignalDropped)[0].reason
    assert "does not fit" in play.of(ev.SignalDropped)[1].reason
    assert play.ending.payload == b'["first","second"]'


def test_without_the_code_nobody_can_tell_until_it_comes() -> None:
    play = Play(Told, known=False)
    play.signal("sung", "la")
    play.signal("told", "first")
    play.start()
    assert (play.status, len(play.state.signals)) == (Status.WAITING_FOR_CODE, 2)
    play.find_code()
    assert len(play.of(ev.SignalDropped)) == 1
    play.signal("told", "second")
    assert play.ending.payload == b'["first","second"]'


def test_what_is_kept_before_the_start_has_the_same_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "MAX_SIGNALS", 2)
    play = Play(Told)
    play.signal("told", "first")
    play.signal("told", "second")
    assert "2 signals are kept" in play.rejected(lambda: play.signal("told", "third"))


def test_there_is_no_saga_yet_for_anything_but_signals() -> None:
    play = Play(Told)
    play.signal("told", "first")
    for given in (play.cancel, play.terminate, play.retry):
        assert "there is no saga" in play.rejected(given)
    named = msg.Signal(SAGA_ID, "m", "told", b'"x"', "1-9-0")
    assert "there is no saga" in play.rejected(lambda: play.take(named))
    (refused,) = play.take(msg.Attach(SAGA_ID, "m", INBOX, "Told"))
    assert isinstance(refused, ev.AttachRefused)
    assert play.answers[-1].error_type == ev.Refusal.NOT_FOUND


def test_a_start_that_is_rejected_leaves_the_signals() -> None:
    play = Play(Told)
    play.signal("told", "first")
    wrong = msg.Start(SAGA_ID, "m", "Told", b"17")
    assert "does not fit Told" in play.rejected(lambda: play.take(wrong))
    assert len(play.state.signals) == 1


# -- with the start


def test_a_signal_with_the_start_starts_the_saga_and_is_its_first() -> None:
    play = Play(Told)
    play.take(start_with("told", "first"))
    assert play.names[:2] == ["SagaStarted", "SignalReceived"]
    play.signal("told", "second")
    assert play.ending.payload == b'["first","second"]'


def test_a_signal_with_the_start_of_what_exists_is_only_a_signal() -> None:
    play = Play(Told)
    play.start()
    play.take(start_with("told", "first"))
    play.take(start_with("told", "second", "again"))
    assert play.ending.payload == b'["first","second"]'
    assert len(play.answers) == 1, "the address waits once"
    absorbed = play.take(start_with("told", "third", "late"))[-1]
    assert isinstance(absorbed, ev.InputAbsorbed)
    assert absorbed.kind == "Signal"


def test_a_signal_with_the_start_is_behind_those_that_came_before() -> None:
    play = Play(Told)
    play.signal("told", "first")
    play.take(start_with("told", "second"))
    assert play.ending.payload == b'["first","second"]'


def test_a_wrong_signal_with_the_start_rejects_both_and_tells_who_waits() -> None:
    play = Play(Told)
    with pytest.raises(checks.InputRejected, match="the signal told does not fit") as caught:
        play.take(start_with("told", 3))
    assert caught.value.refusal is not None
    play.start()
    with pytest.raises(checks.InputRejected, match="no signal 'sung'"):
        play.take(start_with("sung", "la"))


def test_a_signal_with_the_start_of_what_has_no_code_waits_for_it() -> None:
    play = Play(Told, known=False)
    play.start()
    play.take(start_with("told", "first"))
    assert play.names[-1] == "InputHeld"
    play.find_code()
    play.lose_code()
    play.take(start_with("told", "second", "again"))
    assert play.names[-2:] == ["CodeMissing", "InputHeld"]
    play.find_code()
    assert play.ending.payload == b'["first","second"]'


# -- before there is code


@pytest.mark.parametrize("waiting", [True, False])
def test_one_that_does_not_fit_the_code_that_comes_is_dropped(waiting: bool) -> None:
    play = Play(Told, known=False)
    if waiting:
        play.start()
    play.signal("told", 3)
    play.signal("told", "first")
    if waiting:
        play.keep("asked", "nobody")
    if not waiting:
        play.start()
    play.find_code()
    play.signal("told", "second")
    assert play.ending.payload == b'["first","second"]'


def test_it_is_dropped_as_well_where_a_pause_ends_after_that() -> None:
    play = Play(Told, known=False)
    play.signal("told", 3)
    play.start()
    play.pause()
    play.known = True
    play.resume()
    assert [event.reason for event in play.of(ev.SignalDropped)] == [Told.definition.check_signal("told", b"3")]
    assert play.status is Status.RUNNING
