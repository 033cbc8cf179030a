"""States in the store: only what changed is written, and reading gives the state back."""

from __future__ import annotations

from orchestrator.model import events as ev
from orchestrator.model.evolve import evolve
from orchestrator.model.state import SagaState
from orchestrator.runtime.materialize import Materializer, changes_of, load_state
from orchestrator.runtime.progress import Progress
from orchestrator.runtime.timers import Timer
from orchestrator.store import keys
from orchestrator.store.memory import MemoryStore, MemoryStores
from orchestrator.wire.stored import write_run, write_step

RUN = b"1-10-0"


class Kept:
    """A run and the store that follows it."""

    def __init__(self, saga_id: str = "order-7", timeout_ms: int | None = None) -> None:
        self.state = SagaState(saga_id, RUN.decode())
        self.store: MemoryStore = MemoryStores().open(0)
        self.apply(ev.SagaStarted("Order", b"{}", "m", timeout_ms=timeout_ms))

    def apply(self, *events: ev.Event, at_ms: int = 1_000) -> tuple[list[bytes], list[Timer]]:
        """Events of one decision; gives the keys that were written and the timers newly set."""
        for event in events:
            evolve(self.state, event, at_ms)
        timers = [
            (due_ms, self.state.saga_id, sequence)
            for sequence in self.state.new_due
            if (due_ms := self.state.due_of(sequence)) is not None
        ]
        changes = changes_of(self.state)
        self.store.write(changes)
        return [key for key, _ in changes], timers

    @property
    def timers(self) -> list[Timer]:
        return [keys.read_timer(key) for key, _ in self.store.scan(keys.TIMERS)]

    @property
    def waits(self) -> bool:
        return self.store.get(keys.waiting(self.state.saga_id)) is not None


def sleep(sequence: int, due_ms: int) -> ev.Event:
    return ev.WaitScheduled(sequence, 0, ev.StepKind.SLEEP, "", due_ms)


def test_only_the_run_and_the_steps_that_changed_are_written() -> None:
    kept = Kept()
    written, _ = kept.apply(sleep(1, 5_000), sleep(2, 6_000))
    assert written[:3] == [keys.run("order-7"), keys.step("order-7", 1), keys.step("order-7", 2)]
    written, _ = kept.apply(ev.WaitExpired(2))
    assert written == [keys.run("order-7"), keys.step("order-7", 2), keys.timer(6_000, "order-7", 2)]
    assert kept.apply(ev.InputAbsorbed("Reply", "late")) == ([keys.run("order-7")], [])


def test_timers_are_written_moved_and_deleted() -> None:
    kept = Kept()
    _, timers = kept.apply(sleep(1, 5_000), sleep(2, 4_000))
    assert timers == [(5_000, "order-7", 1), (4_000, "order-7", 2)]
    assert kept.timers == [(4_000, "order-7", 2), (5_000, "order-7", 1)]
    assert kept.store.get(keys.timer(4_000, "order-7", 2)) == RUN
    assert kept.apply(ev.WaitCanceled(2))[1] == []
    assert kept.timers == [(5_000, "order-7", 1)]


def test_a_timer_that_moves_back_and_forth_in_one_decision_is_left_alone() -> None:
    kept = Kept()
    scheduled = ev.StepScheduled(1, 0, "shop", "reserve", b"", 0, start_to_close_ms=4_000)
    kept.apply(scheduled)
    assert kept.timers == [(5_000, "order-7", 1)]
    written, timers = kept.apply(ev.StepBackedOff(1, 1, 2_000, "Busy", ""), ev.StepAttempted(1, 2))
    assert (written, set(timers)) == ([keys.run("order-7"), keys.step("order-7", 1)], {(5_000, "order-7", 1)})
    _, timers = kept.apply(ev.StepBackedOff(1, 2, 2_000, "Busy", ""))
    assert timers == [(2_000, "order-7", 1)]
    assert kept.timers == [(2_000, "order-7", 1)]


def test_a_timer_that_is_set_and_cleared_in_one_decision_never_shows() -> None:
    kept = Kept()
    _, timers = kept.apply(sleep(1, 5_000), ev.WaitCanceled(1))
    assert (timers, kept.timers) == ([], [])


def test_the_runs_own_timer_has_sequence_0_and_gives_way_to_what_is_due_at_once() -> None:
    kept = Kept(timeout_ms=60_000)
    assert kept.timers == [(61_000, "order-7", 0)]
    kept.apply(ev.ContinueDue())
    assert kept.timers == [(0, "order-7", 0)]
    kept.apply(ev.Continued())
    assert kept.timers == [(61_000, "order-7", 0)]


def test_the_end_leaves_no_timer() -> None:
    kept = Kept(timeout_ms=60_000)
    kept.apply(sleep(1, 5_000), ev.ContinueDue())
    kept.apply(ev.SagaEnded(ev.Status.TERMINATED, ev.Undone.NONE))
    assert kept.timers == []


def test_runs_that_wait_for_code_are_listed_as_long_as_they_do() -> None:
    kept = Kept()
    assert not kept.waits
    kept.apply(ev.CodeMissing())
    assert kept.waits
    assert kept.apply(ev.InputAbsorbed("Reply", ""))[0] == [keys.run("order-7")]
    loaded = load_state(kept.store, "order-7")
    assert loaded is not None
    assert loaded.stored_waiting
    kept.apply(ev.CodeFound())
    assert not kept.waits


def test_a_run_is_read_back_with_all_its_steps_in_their_order() -> None:
    kept = Kept()
    kept.apply(*[sleep(sequence, 5_000) for sequence in range(1, 301)])
    kept.apply(ev.WaitExpired(300), ev.WaitExpired(7))
    loaded = load_state(kept.store, "order-7")
    assert loaded is not None
    assert list(loaded.steps) == list(range(1, 301))
    assert loaded.outcomes == [300, 7]
    assert write_run(loaded) == write_run(kept.state)
    assert [write_step(step) for step in loaded.steps.values()] == [
        write_step(step) for step in kept.state.steps.values()
    ]
    assert changes_of(loaded) == [(keys.run("order-7"), write_run(loaded))]


def test_a_run_that_is_not_there_is_none() -> None:
    assert load_state(MemoryStores().open(0), "order-7") is None


def test_sagas_whose_ids_begin_alike_are_kept_apart() -> None:
    kept = Kept("order")
    other = Kept("order-7")
    other.store = kept.store
    kept.apply(sleep(1, 5_000))
    other.apply(sleep(1, 6_000), sleep(2, 7_000))
    loaded = load_state(kept.store, "order")
    assert loaded is not None
    assert list(loaded.steps) == [1]


# -- on the way to the store


class Owner:
    """An owner's store, and the progress it has confirmed."""

    def __init__(self) -> None:
        self.store: MemoryStore = MemoryStores().open(0)
        self.progress = Progress(self.store)
        self.changes = Materializer(self.store, self.progress)
        self.state = SagaState("order-7", RUN.decode())
        evolve(self.state, ev.SagaStarted("Order", b"{}", "m"), 0)
        self.decide(0)

    def decide(self, offset: int, *events: ev.Event) -> None:
        for event in events:
            evolve(self.state, event, 1_000)
        self.changes.run(self.state, offset)
        self.changes.message(ev.Decision("order-7", RUN.decode(), 1_000, events, f"message-{offset}"), offset)

    def confirm(self, offset: int) -> None:
        self.progress.at.offset = offset
        self.changes.confirmed(offset)

    def stored(self) -> SagaState | None:
        return load_state(self.store, "order-7")


def test_nothing_is_stored_before_its_cut_is_confirmed() -> None:
    owner = Owner()
    owner.confirm(0)
    assert owner.stored() is None
    owner.decide(1, sleep(1, 5_000))
    owner.changes.cut(1)
    assert owner.stored() is None
    assert owner.changes.holds("order-7")
    assert owner.changes.knows("order-7", "message-0")
    owner.confirm(1)
    assert Progress(owner.store).at.offset == 1
    assert owner.store.get(keys.message("order-7", "message-0")) == keys.number(0)
    stored = owner.stored()
    assert stored is not None
    assert write_run(stored) == write_run(owner.state)


def test_a_cut_holds_what_was_decided_up_to_it_and_no_more() -> None:
    owner = Owner()
    owner.changes.cut(0)
    owner.decide(1, sleep(1, 5_000))
    owner.confirm(0)
    stored = owner.stored()
    assert stored is not None
    assert (stored.steps, Progress(owner.store).at.offset) == ({}, 0)
    assert owner.changes.holds("order-7")
    owner.changes.cut(1)
    owner.confirm(1)
    stored = owner.stored()
    assert stored is not None
    assert list(stored.steps) == [1]
    assert not owner.changes.holds("order-7")


def test_the_timers_of_runs_that_are_ahead_of_the_store_are_told() -> None:
    owner = Owner()
    owner.changes.cut(0)
    owner.decide(1, sleep(1, 5_000), sleep(2, 6_000), ev.ContinueDue())
    assert sorted(owner.changes.timers()) == [(0, "order-7", 0), (5_000, "order-7", 1), (6_000, "order-7", 2)]
    owner.confirm(0)
    owner.decide(2, ev.Continued(), ev.WaitExpired(2))
    owner.changes.cut(2)
    assert list(owner.changes.timers()) == [(5_000, "order-7", 1)]
    owner.confirm(2)
    assert list(owner.changes.timers()) == []
    assert [keys.read_timer(key) for key, _ in owner.store.scan(keys.TIMERS)] == [(5_000, "order-7", 1)]


def test_a_second_cut_waits_for_the_first() -> None:
    owner = Owner()
    owner.changes.cut(0)
    owner.decide(1, sleep(1, 5_000))
    owner.changes.cut(1)
    assert owner.changes.gathered == 2
    owner.confirm(0)
    owner.confirm(1)
    assert Progress(owner.store).at.offset == 0
    owner.changes.cut(1)
    assert (Progress(owner.store).at.offset, owner.changes.gathered) == (1, 0)


def test_an_input_is_known_from_its_decision_on() -> None:
    owner = Owner()
    for _ in range(2):
        assert owner.changes.knows("order-7", "message-0")
        assert not owner.changes.knows("order-7", "message-1")
        assert not owner.changes.knows("order-8", "message-0")
        owner.changes.cut(0)
    owner.confirm(0)
    assert owner.changes.knows("order-7", "message-0")


def test_positions_alone_are_stored_too() -> None:
    owner = Owner()
    owner.changes.cut(0)
    owner.confirm(0)
    owner.progress.at.offset = 1
    owner.changes.cut(1)
    assert Progress(owner.store).at.offset == 1
