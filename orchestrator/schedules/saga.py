"""The saga that a schedule is: it sleeps until the next time, and has the sagas that it starts as children.

Nothing else keeps a schedule: pause, trigger and the like are its updates, its description is a query, and it continues
as new when its history has grown. It sleeps no more often than it has to: while a run is under way that would have the
next times left out, it waits for that run alone, and counts what passed afterwards.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import islice

from pydantic import JsonValue, TypeAdapter

from orchestrator.attributes import Bool, Keyword
from orchestrator.baggage import write_baggage
from orchestrator.durations import milliseconds
from orchestrator.errors import Abort, StepFailed
from orchestrator.model.asked import Asked
from orchestrator.model.definition import ChildRequest
from orchestrator.model.events import StepKind
from orchestrator.model.messages import ChildCancellation, Leaving, ParentClose, Reuse
from orchestrator.questions import query, update
from orchestrator.saga import Saga
from orchestrator.schedules.schedule import (
    ID_PREFIX,
    MAX_ID_BYTES,
    MAX_WAITING,
    RECENT,
    SCHEDULE_TYPE,
    Action,
    Overlap,
    Schedule,
    ScheduleDescription,
    ScheduledRun,
    ScheduleState,
    stamp,
)
from orchestrator.schedules.times import Look, Upcoming
from orchestrator.wire.notes import Note, write_note

CONTINUE_AFTER = 400
"""Outcomes of a run: some 200 times. A replay of them takes some 20 ms, and each description is one."""
_TIMES: TypeAdapter[list[datetime]] = TypeAdapter(list[datetime])
_JSON: TypeAdapter[JsonValue] = TypeAdapter(JsonValue)
_MILLISECOND = timedelta(milliseconds=1)
_ERROR_CHARACTERS = 500
_SUMMARY_CHARACTERS = 200
_STOPPED = ("Canceled", "Terminated")
"""Types of errors of a run that somebody stopped: it has not failed."""


class ScheduleSaga(Saga[ScheduleState, None], name=SCHEDULE_TYPE):
    """One schedule. It ends when no time is left and nothing is under way."""

    action = Keyword()
    paused = Bool()

    async def run(self, state: ScheduleState) -> None:
        self._state = state
        self._open: dict[str, ScheduledRun] = {}
        self._requests: dict[str, ChildRequest] = {}
        self._stopped: set[str] = set()
        self._upcoming: Upcoming | None = None
        self._stale = True
        """The next time is not known: at the start, and after a change."""
        self._changes = 0
        state.after = state.after or self.now()
        if len(self.id.encode()) > MAX_ID_BYTES:
            raise Abort("IdTooLong", f"a schedule's id has at most {MAX_ID_BYTES - len(ID_PREFIX)} bytes")
        self._tell()
        while True:
            if self._context.outcomes >= CONTINUE_AFTER and not self._follows_any():
                self.continue_as_new(state)
            self._take_due()
            self._take_waiting()
            if self._is_over():
                return
            await self._sleep()

    # -- what it is told

    @update
    async def pause(self, note: str = "") -> None:
        """No time counts until it is resumed; what waits for its turn is left out."""
        self._take_due()
        self._hold(note)
        self._changes += 1

    @update
    async def resume(self, note: str = "") -> None:
        """Times count again from now on."""
        state = self._state
        if state.paused:
            state.paused, state.after, self._stale = False, self.now(), True
        state.note = note
        self._tell()
        self._changes += 1

    @update
    async def trigger(self, overlap: Overlap | None = None) -> str:
        """Acts now, also while it is paused. Gives the saga's id, which it has once its turn has come."""
        self._take_due()
        at = self.now()
        while self._id(at) in self._known_ids():
            at += _MILLISECOND
        self._arrive(Action(at=at, overlap=overlap or self._state.schedule.overlap, manual=True))
        self._changes += 1
        return self._id(at)

    @trigger.validator
    def _may_be_triggered(self, overlap: Overlap | None = None) -> None:
        how = overlap or self._state.schedule.overlap
        if self._leaves_out(how):
            running = ", ".join(self._open)
            raise ValueError(f"by {how} it would be left out: {running} is under way. Trigger it with another overlap")

    @update
    async def backfill(self, start: datetime, end: datetime, overlap: Overlap = Overlap.BUFFER_ALL) -> int:
        """Acts for the times from `start` to `end`, both included, whether it did before or not; gives how many."""
        self._take_due()
        make = lambda: _TIMES.dump_json(self._times(start, end))  # noqa: E731
        times = _TIMES.validate_json(self._context.record(StepKind.VALUE, "backfill", make))
        for at in times:
            self._arrive(Action(at=at, overlap=overlap, manual=True))
        self._changes += 1
        return len(times)

    @backfill.validator
    def _may_be_backfilled(self, start: datetime, end: datetime, overlap: Overlap = Overlap.BUFFER_ALL) -> None:
        if start.tzinfo is None or end.tzinfo is None:
            raise ValueError("both ends of a backfill have a time zone, such as datetime.UTC")
        if start > end:
            raise ValueError("a backfill goes from the earlier time to the later one")
        most = MAX_WAITING - len(self._state.waiting) if overlap is Overlap.BUFFER_ALL else MAX_WAITING
        if len(self._times(start, end)) > most:
            raise ValueError(f"there are more than {most} times in that span: backfill a shorter one first")

    @update
    async def change(self, changes: dict[str, JsonValue]) -> None:
        """Sets fields of the schedule, by name. New times count from now on."""
        self._take_due()
        state = self._state
        before, state.schedule = state.schedule.spec, self._changed(changes)
        if state.schedule.spec != before:
            state.after, self._stale = self.now(), True
        self._tell()
        self._changes += 1

    @change.validator
    def _may_be_changed(self, changes: dict[str, JsonValue]) -> None:
        changed = self._changed(changes)
        if "spec" in changes and changed.spec.next_time(self.now()) is None:
            raise ValueError("it would never be due")

    @query
    def describe(self, now: datetime | None = None) -> ScheduleDescription:
        """How it stands, with the next ten times after `now`; none once it has ended."""
        state, ended = self._state, self._context.ended
        after = max(filter(None, (state.after, now)), default=self.now())
        most = 10 if state.schedule.remaining_actions is None else min(10, state.schedule.remaining_actions)
        return ScheduleDescription(
            id=self._name,
            schedule=state.schedule,
            paused=state.paused,
            note=state.note,
            running=list(self._open.values()),
            waiting=[action.at for action in state.waiting],
            recent=state.recent,
            next_times=[] if ended else state.schedule.spec.next_times(after, most),
            counts=state.counts,
            created_by=state.created_by,
            ended=ended,
        )

    # -- times

    async def _sleep(self) -> None:
        """Until the next time, if that would mean something, or until something has changed."""
        seen = self._changes
        changed = self.wait_until(lambda: self._changes != seen)
        if self._upcoming is not None and self._minds_the_time():
            await self.race(self.sleep_until(self._upcoming.due), changed)
        else:
            await changed

    def _minds_the_time(self) -> bool:
        """Whether the next time changes more than a count."""
        state = self._state
        if state.paused or state.schedule.remaining_actions == 0:
            return False
        return not self._leaves_out(state.schedule.overlap) and not (self._stopped and state.waiting)

    def _take_due(self) -> None:
        """Deals with the times that have come. They are recorded: another time zone database tells others."""
        state, now = self._state, self.now()
        if state.paused or (not self._stale and (self._upcoming is None or self._upcoming.due > now)):
            return
        assert state.after is not None
        schedule, after, jump = state.schedule, state.after, not self._minds_the_time()
        window_ms = milliseconds(schedule.catch_up_window)

        def make() -> bytes:
            return schedule.spec.look(self._name, after, now, window_ms, jump=jump).model_dump_json().encode()

        look = Look.model_validate_json(self._context.record(StepKind.VALUE, "times", make))
        self._stale, self._upcoming, state.after = False, look.upcoming, look.after
        state.counts.missed += look.missed
        for at in look.due:
            self._arrive(Action(at=at, overlap=state.schedule.overlap))

    def _times(self, start: datetime, end: datetime) -> list[datetime]:
        found = self._state.schedule.spec.times(start - _MILLISECOND, end)
        return list(islice(found, MAX_WAITING + 1))

    # -- actions

    def _leaves_out(self, overlap: Overlap) -> bool:
        """Whether an action would be left out now."""
        ahead = len(self._state.waiting) + bool(self._open)
        most = {Overlap.SKIP: 1, Overlap.BUFFER_ONE: 2, Overlap.BUFFER_ALL: MAX_WAITING}.get(overlap)
        return most is not None and ahead >= most

    def _arrive(self, action: Action) -> None:
        """The action's time has come."""
        state = self._state
        if not action.manual and state.schedule.remaining_actions == 0:
            return
        if action.overlap is Overlap.ALLOW_ALL:
            self._begin(action)
        elif self._leaves_out(action.overlap):
            state.counts.skipped += 1
        elif action.overlap in (Overlap.CANCEL_OTHER, Overlap.TERMINATE_OTHER):
            state.counts.skipped += len(state.waiting)
            state.waiting = [action]
            how = Leaving.CANCEL if action.overlap is Overlap.CANCEL_OTHER else Leaving.TERMINATE
            for saga_id, request in self._requests.items():
                self._stopped.add(saga_id)
                self._context.stop(request, how)
        else:
            state.waiting.append(action)

    def _take_waiting(self) -> None:
        """It is the next one's turn."""
        while self._state.waiting and not self._open:
            action = self._state.waiting.pop(0)
            if action.manual or self._state.schedule.remaining_actions != 0:
                self._begin(action)

    def _begin(self, action: Action) -> None:
        state = self._state
        left = state.schedule.remaining_actions
        if not action.manual and left is not None:
            state.schedule = state.schedule.model_copy(update={"remaining_actions": left - 1})
        run = ScheduledRun(id=self._id(action.at), at=action.at, started=self.now())
        state.counts.started += 1
        self._open[run.id] = run
        request = self._requests[run.id] = self._request(action, run.id)
        self._context.beside(self._follow(run, request))

    def _request(self, action: Action, saga_id: str) -> ChildRequest:
        schedule = self._state.schedule
        told = {"schedule": ("Keyword", self._name[:255]), "scheduled_at": ("Datetime", _ms(action.at))}
        allows = action.overlap is Overlap.ALLOW_ALL
        return ChildRequest(
            schedule.saga_type,
            _JSON.dump_json(schedule.input),
            saga_id,
            undo=False,
            parent_close=ParentClose.ABANDON,
            cancellation=ChildCancellation.ABANDON if allows else ChildCancellation.WAIT_CANCELLATION_COMPLETED,
            reuse=Reuse.ALLOW_DUPLICATE if action.manual else None,
            baggage=write_baggage({**self.baggage, "scheduled-at": stamp(action.at)}),
            note=write_note(Note(told, dict(schedule.memo), schedule.summary)),
        )

    async def _follow(self, run: ScheduledRun, request: ChildRequest) -> None:
        """Waits for the run's end."""
        failure: StepFailed | None = None
        try:
            await Asked(request)
        except StepFailed as failed:
            failure = failed
        self._take_due()  # it was still under way at the times that passed
        del self._open[run.id], self._requests[run.id]
        self._note_end(run, failure)
        self._changes += 1

    def _note_end(self, run: ScheduledRun, failure: StepFailed | None) -> None:
        state = self._state
        run.ended, run.outcome = self.now(), "completed"
        stopped = run.id in self._stopped
        self._stopped.discard(run.id)
        if failure is not None:
            run.outcome = "stopped" if stopped else "failed"
            run.error = f"{failure.error_type}: {failure.message}"[:_ERROR_CHARACTERS]
        state.recent = [*state.recent, run][-RECENT:]
        if failure is not None and not stopped:
            state.counts.failed += 1
            if state.schedule.pause_on_failure and failure.error_type not in _STOPPED:
                self._hold(f"paused after {run.id} failed: {run.error}")

    # -- the rest

    def _hold(self, note: str) -> None:
        state = self._state
        state.paused, state.note = True, note
        waiting = [action for action in state.waiting if action.manual]
        state.counts.skipped += len(state.waiting) - len(waiting)
        state.waiting = waiting
        self._tell()

    def _follows_any(self) -> bool:
        """Whether the next run would miss an end that matters; those that may overlap are no longer followed then."""
        return any(each.cancellation is not ChildCancellation.ABANDON for each in self._requests.values())

    def _is_over(self) -> bool:
        state = self._state
        if self._open or state.waiting:
            return False
        return state.schedule.remaining_actions == 0 or (not self._stale and self._upcoming is None)

    def _changed(self, changes: dict[str, JsonValue]) -> Schedule:
        return Schedule.read({**self._state.schedule.model_dump(mode="json"), **changes})

    @property
    def _name(self) -> str:
        return self.id.removeprefix(ID_PREFIX)

    def _id(self, at: datetime) -> str:
        return f"{self._name}-{stamp(at)}"

    def _known_ids(self) -> set[str]:
        state = self._state
        return {*self._open, *(run.id for run in state.recent), *(self._id(action.at) for action in state.waiting)}

    def _tell(self) -> None:
        """For lists."""
        schedule = self._state.schedule
        self.upsert(ScheduleSaga.action(schedule.saga_type[:255]), ScheduleSaga.paused(self._state.paused))
        self.summarize(schedule.spec.words[:_SUMMARY_CHARACTERS])


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
