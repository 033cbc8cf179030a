"""What a saga publishes, as a client follows it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, TypeVar

from orchestrator.client.part import Part
from orchestrator.errors import Disconnected
from orchestrator.log.base import TopicPartition
from orchestrator.model.ids import partition_of, run_numbers
from orchestrator.model.queries import PUBLISHED as WHAT_WAS
from orchestrator.model.state import GOES_ON
from orchestrator.streams import Stream
from orchestrator.wire.lifecycle import ENDED, PUBLISHED

S = TypeVar("S")

LOOK_AGAIN_S = 30.0
"""Where nothing comes for so long the owner is asked, for the events may be late, or lost to a journal that was cut."""


class Following(Part):
    """Part of a client: what sagas publish on their streams.

    The owner says what was published by now; from then on the public events tell. Those are read from before the owner
    is asked, so nothing is missed, and what comes twice is known by its run and number.
    """

    async def ask(self, id: str, name: str, payload: bytes) -> tuple[str, bytes]:
        raise NotImplementedError

    async def follow(self, id: str, stream: Stream[S]) -> AsyncIterator[S]:
        """What a saga has published on a stream, and then what it publishes, until it has ended, in whatever way.

        Of a saga that continues as new: what its present run and those after it publish. It may be called for a saga
        that has ended. Raises `SagaNotFound`, `Disconnected`, and what `query` raises.
        """
        async for payload in self.follow_raw(id, stream.name):
            yield stream.decode(payload)

    async def follow_raw(self, id: str, name: str) -> AsyncIterator[bytes]:
        """The same by the stream's name; the values are JSON."""
        place: TopicPartition = (self._topics.lifecycle, partition_of(id, self._partitions))
        run, last = "", 0
        with self._connection.followed(place, id) as events:
            while True:
                await self._connection.listen(self._timeout_s, place)
                more, ended = True, False
                while more:
                    found, answer = await self.ask(id, WHAT_WAS, f"{last} {name}".encode())
                    if found != run:
                        if run and last:
                            run, last = found, 0
                            continue  # asked for what follows a number of another run
                        run = found
                    said = json.loads(answer)
                    more, ended = said["more"], said["ended"]
                    for number, value in said["values"]:
                        last = number
                        yield json.dumps(value).encode()
                if ended:
                    return
                while (record := await events.next(LOOK_AGAIN_S)) is not None:
                    event = json.loads(record.value or b"{}")
                    if _order(event["run"]) < _order(run):
                        continue
                    if event["run"] != run:
                        run, last = event["run"], 0
                    if event["event"] == PUBLISHED and event["stream"] == name and event["step"] > last:
                        last = event["step"]
                        yield json.dumps(event["value"]).encode()
                    elif event["event"] == ENDED and event["status"] not in GOES_ON:
                        return
                if self._connection.closed:
                    raise Disconnected("the client is closed: use it inside `async with`")


def _order(run: str) -> tuple[Any, ...]:
    """Runs of an id in the order in which they began."""
    return run_numbers(run) if run else ()
