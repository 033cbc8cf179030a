"""What a client asks of running sagas, one by one or by a rule, and what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal

from orchestrator.client.connection import came
from orchestrator.client.part import Part
from orchestrator.client.requests import Act, Request
from orchestrator.errors import Disconnected, InvalidRequest, NotApplied, NotHeard, SagaNotFound
from orchestrator.model.effects import ABSORBED, REFUSED
from orchestrator.model.events import Refusal
from orchestrator.model.messages import Override, ReplyAddress
from orchestrator.model.pauses import rule_of

Action = Override | Literal["retry", "skip", "set-result"]


class Operations(Part):
    """Part of a client: what people do about sagas that are under way."""

    async def cancel(
        self, id: str, *, reason: str = "", by: str = "", run: str | None = None, timeout: float | None = None
    ) -> None:
        """Asks a saga to stop and undo what it did; its code may clean up first.

        This and the following return when Kafka has the request; with a `timeout` in seconds, when a worker has taken
        it. `by` is who asks (the client id by default), `run` limits it to that run. Raise `InvalidRequest`,
        `NotAcknowledged`, `Disconnected`; with a `timeout` also `SagaNotFound`, `NotApplied`, `NotHeard`.
        """
        await self._act("cancel", id, run, reason, by, timeout)

    async def terminate(
        self, id: str, *, reason: str = "", by: str = "", run: str | None = None, timeout: float | None = None
    ) -> None:
        """Ends a saga at once; nothing is undone."""
        await self._act("terminate", id, run, reason, by, timeout)

    async def compensate(
        self, id: str, *, reason: str = "", by: str = "", run: str | None = None, timeout: float | None = None
    ) -> None:
        """Has all undone that the saga did, at once: its code is not asked, and a pivot that is done stops nothing.

        It ends COMPENSATED. While the pivot is under way it changes nothing: only `cancel` waits for its outcome.
        """
        await self._act("compensate", id, run, reason, by, timeout)

    async def pause(
        self, id: str, *, reason: str = "", by: str = "", run: str | None = None, timeout: float | None = None
    ) -> None:
        """Keeps a saga where it is until `resume`: what comes in is recorded, its code, timers and undo wait."""
        await self._act("pause", id, run, reason, by, timeout)

    async def resume(
        self, id: str, *, reason: str = "", by: str = "", run: str | None = None, timeout: float | None = None
    ) -> None:
        """Lets a paused saga go on. One that a rule holds (`pause_all`) goes on with the rule's end only."""
        await self._act("resume", id, run, reason, by, timeout)

    async def pause_all(
        self,
        *,
        type: str | None = None,
        service: str | None = None,
        step: str | None = None,
        partition: int | None = None,
        reason: str = "",
        by: str = "",
        timeout: float = 10.0,
    ) -> str:
        """Pauses sagas of a type, those that would send a command of a service or the step `service.command` (with a
        type: of that type only), or those of one partition. New ones start and wait. Gives the rule.

        Returns when the worker of each partition has taken it. A rule for a type that no worker has stands too, for one
        may come, but that is told by `NotApplied`. Raises as `pause` does.
        """
        return await self._set_rule(True, type, service, step, partition, reason, by, timeout)

    async def resume_all(
        self,
        *,
        type: str | None = None,
        service: str | None = None,
        step: str | None = None,
        partition: int | None = None,
        reason: str = "",
        by: str = "",
        timeout: float = 10.0,
    ) -> str:
        """The end of what `pause_all` began, named by the same."""
        return await self._set_rule(False, type, service, step, partition, reason, by, timeout)

    async def unpark(
        self,
        id: str,
        action: Action,
        *,
        step: int = 0,
        payload: bytes | None = None,
        reason: str = "",
        by: str = "",
        run: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Decides about a step that is parked, or between two attempts: retry it now, skip it, or set-result.

        `payload` is the step's result as JSON, or what to retry it with instead of its own. `step` 0 means whatever is
        parked; to retry, where nothing is, whatever is between two attempts.
        """
        whose = by or self.client_id
        if action not in tuple(Override):
            raise InvalidRequest(f"a decision is {', '.join(Override)}, not {action!r}")
        override = Override(action)

        def request(reply: ReplyAddress | None) -> Request:
            return self._requests.unpark(id, self._message_id(), override, step, payload, run, reason, whose, reply)

        await self._tell(request, id, timeout)

    async def restart(
        self,
        id: str,
        *,
        payload: bytes | None = None,
        reason: str = "",
        by: str = "",
        run: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Runs a saga that has ended again, with the same input or with `payload` as JSON. Nothing is undone before.

        What it does happens again, under new keys.
        """
        await self._run_again("restart", id, payload, reason, by, run, timeout)

    async def redrive(
        self,
        id: str,
        *,
        payload: bytes | None = None,
        reason: str = "",
        by: str = "",
        run: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Has a saga that failed go on, with the results that still stand.

        What is parked is tried again, in the same run under the same key. One that has ended gets another run, from the
        step that failed or, where steps before it were undone, from the first of these on, under new keys. That run may
        have another input, `payload` as JSON; with it the code has to ask for the same steps up to there.
        """
        await self._run_again("redrive", id, payload, reason, by, run, timeout)

    async def _run_again(
        self,
        kind: Literal["restart", "redrive"],
        id: str,
        payload: bytes | None,
        reason: str,
        by: str,
        run: str | None,
        timeout: float | None,
    ) -> None:
        whose = by or self.client_id

        def request(reply: ReplyAddress | None) -> Request:
            return self._requests.run_again(kind, id, self._message_id(), payload, run, reason, whose, reply)

        await self._tell(request, id, timeout)

    async def reset(
        self,
        id: str,
        *,
        to: int,
        reason: str = "",
        by: str = "",
        run: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Undoes what a saga did from step `to` on, and has it go on from there in another run.

        That run has the results of the steps before and undoes them if it fails. Where something was under way when the
        code asked for step `to`, it goes back to the beginning of that. Signals that were taken after come again,
        updates do not.
        """
        await self._set_back(id, to, None, reason, by, run, timeout)

    async def fork(
        self,
        id: str,
        *,
        to: int,
        new_id: str,
        reason: str = "",
        by: str = "",
        run: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Starts the saga `new_id` with what this one had come to before its step `to`.

        The results are copied, their undo stays with this saga, which goes on as it would. If `new_id` is taken nothing
        happens.
        """
        await self._set_back(id, to, new_id, reason, by, run, timeout)

    async def _set_back(
        self, id: str, to: int, target: str | None, reason: str, by: str, run: str | None, timeout: float | None
    ) -> None:
        whose = by or self.client_id

        def request(reply: ReplyAddress | None) -> Request:
            return self._requests.set_back(id, self._message_id(), to, target, run, reason, whose, reply)

        await self._tell(request, id, timeout)

    async def move_version(
        self,
        id: str,
        version: int,
        *,
        reason: str = "",
        by: str = "",
        run: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Has a saga go on with this version of its code and stay there; 0: with the newest, as others do.

        A saga that is parked for its code is tried again with it. A version that its worker lacks is refused.
        """
        whose = by or self.client_id

        def request(reply: ReplyAddress | None) -> Request:
            return self._requests.move_version(id, self._message_id(), version, run, reason, whose, reply)

        await self._tell(request, id, timeout)

    async def _act(self, kind: Act, id: str, run: str | None, reason: str, by: str, timeout: float | None) -> None:
        def request(reply: ReplyAddress | None) -> Request:
            return self._requests.act(kind, id, self._message_id(), run, reason, by or self.client_id, reply)

        await self._tell(request, id, timeout)

    async def _set_rule(
        self,
        standing: bool,
        type: str | None,
        service: str | None,
        step: str | None,
        partition: int | None,
        reason: str,
        by: str,
        timeout: float,
    ) -> str:
        if partition is not None and (type or service or step):
            raise InvalidRequest("a partition is paused as a whole: name nothing beside it")
        if partition is None and not (type or service or step):
            raise InvalidRequest("say what: a type, a service, a step or a partition")
        try:
            rule = rule_of(type, service, step)
        except ValueError as error:
            raise InvalidRequest(str(error)) from None
        partitions = range(self._partitions) if partition is None else (partition,)
        whose, message_id = by or self.client_id, self._message_id()

        async def tell(number: int) -> None:
            def request(reply: ReplyAddress | None) -> Request:
                assert reply is not None
                unique = f"{message_id}-{number}"
                return self._requests.pause_rule(number, rule, standing, unique, reason, whose, reply)

            await self._tell(request, f"partition {number}", timeout)

        refusals: list[NotApplied] = []
        for outcome in await asyncio.gather(*map(tell, partitions), return_exceptions=True):
            if isinstance(outcome, NotApplied):
                refusals.append(outcome)
            elif outcome is not None:
                raise outcome
        if len(refusals) == len(partitions):
            raise refusals[0]  # of some only: those had it from a call before that did not reach all
        return rule

    async def _tell(self, request: Callable[[ReplyAddress | None], Request], about: str, timeout: float | None) -> None:
        """Sends an operation and, with a timeout, waits for what came of it."""
        if timeout is None:
            await self._send(request(None), about)
            return
        reply = self._reply_address()
        await self._connection.listen(self._timeout_s)
        expected = self._connection.expect(reply.correlation_id)
        await self._send(request(reply), about)
        if not await came(expected, timeout):
            raise NotHeard(about, timeout)
        if expected.answer is None:
            raise Disconnected("the client is closed: use it inside `async with`")
        if expected.answer.status == REFUSED and expected.answer.error_type == Refusal.NOT_FOUND:
            raise SagaNotFound(about, expected.answer.error_message)
        if expected.answer.status in (REFUSED, ABSORBED):
            raise NotApplied(about, expected.answer.error_message)
