"""Streams: what a saga tells about its progress, to whoever follows it.

    class Import(Saga[Source, int]):
        progress = stream(Progress)

        async def run(self, source: Source) -> int:
            for number, page in enumerate(source.pages, start=1):
                await self.step(Pages.load(page=page))
                self.publish(Import.progress, Progress(done=number, of=len(source.pages)))

    async for progress in handle.follow(Import.progress):
        print(f"{progress.done} of {progress.of}")

A value is in the history and is published once its decision is accepted: never by a replay, never by an owner that has
lost its partition.
"""

from __future__ import annotations

from typing import ClassVar, TypeVar

from orchestrator.errors import DefinitionError
from orchestrator.model.definition import Context
from orchestrator.model.events import StepKind
from orchestrator.signals import Declared

S = TypeVar("S")

MAX_BYTES = 16 * 1024
"""Of one value: it is told to everybody who reads the public events."""


class Stream(Declared[S]):
    """What a saga tells while it runs, with the type of each value."""


def stream(model: type[S]) -> Stream[S]:
    """Declares a stream of a saga."""
    return Stream(model)


class StreamMethods:
    """What a saga publishes. Base of `Saga`."""

    _context: Context
    _streams: ClassVar[dict[str, Stream[object]]]

    def publish(self, stream: Stream[S], value: S) -> None:
        """Tells whoever follows the stream, at most 16 KiB as JSON. The code goes on at once."""
        if self._streams.get(stream.name) is not stream:
            raise DefinitionError(f"{stream!r} is no stream of {type(self).__name__}: declare it in the class")
        payload = stream.encode(value)
        if len(payload) > MAX_BYTES:
            size = f"a value of {len(payload)} bytes, at most {MAX_BYTES}"
            raise DefinitionError(f"{stream!r}: {size}; publish a reference")
        self._context.record(StepKind.STREAM, stream.name, lambda: payload)
