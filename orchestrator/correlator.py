"""The saga that keeps one business key of one signal. Every worker has it; nobody starts it by hand.

It ends when nobody listens and nothing is kept, and is started again by the next who has something to say: the start
and what is said are one record, so nothing is told to a saga that has just ended.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, field_validator

from orchestrator.correlation import CORRELATOR
from orchestrator.model.definition import Definition, SignalRequest
from orchestrator.model.ids import problem_of
from orchestrator.model.versions import with_own
from orchestrator.saga import Saga
from orchestrator.signals import signal

MAX_KEPT = 1_000
MAX_KEPT_CHARACTERS = 100_000
"""Values that are kept while nobody listens; what comes beyond is dropped, and the summary says so."""


class Message(BaseModel):
    """One of three: a saga listens (`hear`), under the name `name`; one does no longer (`leave`); a value is told."""

    hear: str | None = None
    name: str = ""
    leave: str | None = None
    payload: str | None = None
    ttl_ms: int = 0

    @field_validator("hear")
    @classmethod
    def _is_an_id(cls, saga_id: str | None) -> str | None:
        if saga_id is not None and (problem := problem_of(saga_id)) is not None:
            raise ValueError(problem)
        return saga_id


class Kept(BaseModel):
    """A value that nobody has heard yet. `until_ms`: milliseconds since 1970."""

    payload: str
    until_ms: int


class Key(BaseModel):
    """What is known of a key. `listeners`: by saga id the name of the signal by which it wants to hear."""

    listeners: dict[str, str] = {}
    kept: list[Kept] = []
    dropped: int = 0


class Correlator(Saga[Key, None], name=CORRELATOR):
    """Passes on what is told for a key: to all who listen, else to the first who does before its time is up."""

    told = signal(Message)

    async def run(self, key: Key) -> None:
        while True:
            now_ms = self._context.now_ms
            key.kept = [each for each in key.kept if each.until_ms > now_ms]
            if key.listeners:
                message: Message | None = await self.receive(Correlator.told)
            else:
                # With nothing to wait for it takes what has come by now, and ends.
                left_ms = min((each.until_ms for each in key.kept), default=now_ms) - now_ms
                message = await self.receive(Correlator.told, timeout=left_ms / 1000)
                if message is None and not left_ms:
                    return
            if message is not None:
                self._take(key, message)
            if self.suggests_continue_as_new:
                self.continue_as_new(key)

    def _take(self, key: Key, message: Message) -> None:
        if message.hear is not None:
            key.listeners[message.hear] = message.name
            for each in key.kept:
                self._pass_on(message.hear, message.name, each.payload)
            key.kept = []
        if message.leave is not None:
            key.listeners.pop(message.leave, None)
        if message.payload is not None:
            for saga_id, name in key.listeners.items():
                self._pass_on(saga_id, name, message.payload)
            if not key.listeners:
                self._keep(key, message.payload, message.ttl_ms)

    def _pass_on(self, saga_id: str, name: str, payload: str) -> None:
        self._context.tell(SignalRequest(saga_id, name, payload.encode()))

    def _keep(self, key: Key, payload: str, ttl_ms: int) -> None:
        size = sum(len(each.payload) for each in key.kept)
        if len(key.kept) >= MAX_KEPT or size + len(payload) > MAX_KEPT_CHARACTERS:
            key.dropped += 1
            self.summarize(f"{key.dropped} values were dropped: {len(key.kept)} wait already and nobody listens")
        elif ttl_ms > 0:
            key.kept.append(Kept(payload=payload, until_ms=self._context.now_ms + ttl_ms))


def with_correlator(definitions: Mapping[str, Definition]) -> dict[str, Definition]:
    """A worker's sagas and this one. Raises `ConfigurationError` where another has its name."""
    return with_own(definitions, Correlator.definition)
