"""Schedules, as a client sees them: sagas of the orchestrator's own, started, asked and updated like any others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from types import EllipsisType
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import JsonValue, TypeAdapter

from orchestrator.baggage import write_baggage
from orchestrator.durations import Duration
from orchestrator.errors import InvalidRequest, SagaAlreadyExists
from orchestrator.model.messages import Conflict, Reuse
from orchestrator.saga import Saga
from orchestrator.schedules.saga import ScheduleSaga
from orchestrator.schedules.schedule import (
    ID_PREFIX,
    MAX_ID_BYTES,
    YEAR_S,
    Overlap,
    Schedule,
    ScheduleDescription,
    ScheduleState,
    stamp,
)
from orchestrator.schedules.times import ScheduleSpec

if TYPE_CHECKING:
    from orchestrator.client.client import Client

I = TypeVar("I")  # noqa: E741 - input, as in `Saga`
_ANY: TypeAdapter[Any] = TypeAdapter(Any)


class Schedules:
    """`client.schedules`. Every method but `delete` waits until a worker has done it, up to 30 seconds.

    They raise `SagaNotFound` where there is no such schedule, `UpdateRejected` where it refuses (it has ended, say),
    `ResultTimeout` where no worker answers, and what `Client.cancel` raises.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def create(
        self,
        id: str,
        saga: type[Saga[I, Any]],
        input: I,
        spec: ScheduleSpec,
        *,
        overlap: Overlap = Overlap.SKIP,
        catch_up_window: Duration = YEAR_S,
        pause_on_failure: bool = False,
        remaining_actions: int | None = None,
        memo: Mapping[str, Any] | None = None,
        summary: str | None = None,
        paused: bool = False,
        note: str = "",
        baggage: Mapping[str, str] | None = None,
    ) -> None:
        """Has a saga started with `input` at each time of `spec`; see `Schedule` for the options.

        Its sagas have ids such as `<id>-2026-11-25T09:30:00Z` and the `baggage`. Raises `SagaAlreadyExists` while there
        is a schedule of this id, `InvalidRequest`, `pydantic.ValidationError`.
        """
        schedule = Schedule(
            saga_type=saga.definition.name,
            input=json.loads(saga.encode_input(input)),
            spec=spec,
            overlap=overlap,
            catch_up_window=catch_up_window,
            pause_on_failure=pause_on_failure,
            remaining_actions=remaining_actions,
            memo=memo or {},
            summary=summary,
        )
        await self.create_raw(id, schedule, paused=paused, note=note, baggage=baggage)

    async def create_raw(
        self,
        id: str,
        schedule: Schedule,
        *,
        paused: bool = False,
        note: str = "",
        baggage: Mapping[str, str] | None = None,
    ) -> None:
        """The same by the saga's type, with its input as JSON says it."""
        now = datetime.now(UTC)
        saga_id = _saga_id(id)
        try:
            if schedule.spec.next_time(now) is None:
                raise ValueError("it would never be due")
            write_baggage({**(baggage or {}), "scheduled-at": stamp(now)})
        except ValueError as error:
            raise InvalidRequest(f"schedule {id!r}: {error}") from None
        mine = self._client.unique()
        state = ScheduleState(schedule=schedule, created_by=mine, paused=paused, note=note)
        await self._client.start(
            ScheduleSaga, state, id=saga_id, reuse=Reuse.ALLOW_DUPLICATE, conflict=Conflict.FAIL, baggage=baggage
        )
        if (await self.describe(id)).created_by != mine:
            raise SagaAlreadyExists(saga_id, "there is a schedule of this id: update it, or delete it first")

    async def describe(self, id: str) -> ScheduleDescription:
        """How it stands, what it started last, and its next times; also of one that has ended. Raises `QueryFailed`."""
        return await self._client.query(_saga_id(id), ScheduleSaga.describe, datetime.now(UTC))

    async def update(
        self,
        id: str,
        *,
        action: tuple[type[Saga[I, Any]], I] | EllipsisType = ...,
        spec: ScheduleSpec | EllipsisType = ...,
        overlap: Overlap | EllipsisType = ...,
        catch_up_window: Duration | EllipsisType = ...,
        pause_on_failure: bool | EllipsisType = ...,
        remaining_actions: int | EllipsisType | None = ...,
        memo: Mapping[str, Any] | EllipsisType = ...,
        summary: str | EllipsisType | None = ...,
    ) -> None:
        """Changes what is given and leaves the rest; `action=(Report, input)`. New times count from now on."""
        changes: dict[str, Any] = {
            "spec": spec,
            "overlap": overlap,
            "catch_up_window": catch_up_window,
            "pause_on_failure": pause_on_failure,
            "remaining_actions": remaining_actions,
            "memo": memo,
            "summary": summary,
        }
        if not isinstance(action, EllipsisType):
            saga, input = action
            changes |= {"saga_type": saga.definition.name, "input": json.loads(saga.encode_input(input))}
        given = {name: value for name, value in changes.items() if value is not ...}
        await self.update_raw(id, json.loads(_ANY.dump_json(given)))

    async def update_raw(self, id: str, changes: dict[str, JsonValue]) -> None:
        """The same by the names of `Schedule`'s fields, with JSON."""
        await self._client.update(_saga_id(id), ScheduleSaga.change, changes)

    async def pause(self, id: str, note: str = "") -> None:
        """No time counts until it is resumed. What it started goes on; what waits for its turn is left out."""
        await self._client.update(_saga_id(id), ScheduleSaga.pause, note)

    async def resume(self, id: str, note: str = "") -> None:
        """Times count again from now on."""
        await self._client.update(_saga_id(id), ScheduleSaga.resume, note)

    async def trigger(self, id: str, overlap: Overlap | None = None) -> str:
        """Acts now, also while it is paused; `overlap` instead of the schedule's own. Gives the id of the saga.

        It is on its way then: who asks for it at once may hear `SagaNotFound`.
        """
        return await self._client.update(_saga_id(id), ScheduleSaga.trigger, overlap)

    async def backfill(self, id: str, start: datetime, end: datetime, overlap: Overlap = Overlap.BUFFER_ALL) -> int:
        """Acts for the times from `start` to `end`, both included, 500 at most; one after the other unless `overlap`
        says otherwise. Gives how many. What ran at one of them runs again.
        """
        return await self._client.update(_saga_id(id), ScheduleSaga.backfill, start, end, overlap)

    async def delete(self, id: str, *, reason: str = "", timeout: float | None = 30.0) -> None:
        """Ends it. What it started goes on. Raises `NotApplied` where it has ended, `NotHeard` after `timeout`."""
        await self._client.terminate(_saga_id(id), reason=reason or "deleted", timeout=timeout)


def _saga_id(id: str) -> str:
    """The id of the saga that a schedule is. Raises `InvalidRequest`."""
    saga_id = f"{ID_PREFIX}{id}"
    if not id or len(saga_id.encode(errors="replace")) > MAX_ID_BYTES:
        raise InvalidRequest(f"a schedule's id has 1 to {MAX_ID_BYTES - len(ID_PREFIX)} bytes, not {id[:40]!r}")
    return saga_id
