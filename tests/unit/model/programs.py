"""Random sagas: a small language whose programs hypothesis makes up, and a body that carries them out.

What a step sends depends on everything the code has seen so far (results, errors, the time), so that a replay that sees
anything else asks for something else.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from dataclasses import dataclass
from typing import Any, Literal

from hypothesis import strategies as st

from orchestrator.errors import Abort, StepFailed
from orchestrator.model.definition import Context, Definition, StepRequest, WaitRequest
from orchestrator.model.driver import Asked, Until
from orchestrator.model.events import StepKind
from orchestrator.model.groups import LOST, Together
from orchestrator.model.retries import RetryPolicy


@dataclass(frozen=True)
class Do:
    name: str
    undo: Literal["none", "same", "fixed", "of reply"]
    retry: RetryPolicy | None
    start_to_close_ms: int | None
    schedule_to_close_ms: int | None


@dataclass(frozen=True)
class Pivot:
    name: str


@dataclass(frozen=True)
class Pause:
    duration_ms: int


@dataclass(frozen=True)
class Take:
    name: str
    timeout_ms: int | None


@dataclass(frozen=True)
class Hold:
    seen: int
    timeout_ms: int


@dataclass(frozen=True)
class Note:
    name: str


@dataclass(frozen=True)
class Both:
    parts: tuple[Node, ...]
    successes: int | None
    tolerated: int
    concurrency: int | None


@dataclass(frozen=True)
class Catch:
    part: Node
    then: Node


@dataclass(frozen=True)
class Finally:
    part: Node
    then: Node


@dataclass(frozen=True)
class Chain:
    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Stop:
    bug: bool


Node = Do | Pause | Take | Hold | Note | Both | Catch | Finally | Chain | Stop | Pivot

_POLICIES = (
    None,
    RetryPolicy(maximum_attempts=2),
    RetryPolicy(maximum_attempts=1, park=True),
    RetryPolicy(non_retryable_error_types=("Fatal",)),
)
_DO = st.builds(
    Do,
    st.sampled_from("abc"),
    st.sampled_from(("none", "same", "fixed", "of reply")),
    st.sampled_from(_POLICIES),
    st.sampled_from((None, 5_000)),
    st.sampled_from((None, None, 12_000)),
)
_WAIT = st.one_of(
    st.builds(Pause, st.sampled_from((0, 1_000))),
    st.builds(Take, st.sampled_from("st"), st.sampled_from((None, 2_000))),
    st.builds(Hold, st.integers(0, 4), st.sampled_from((0, 3_000))),
    st.builds(Note, st.sampled_from("n")),
)
_LEAF = st.one_of(_DO, _DO, _DO, _WAIT)
_STOP = st.builds(Stop, st.booleans())
_NODE: st.SearchStrategy[Any] = st.recursive(
    st.one_of(_LEAF, _LEAF, _LEAF, _STOP),
    lambda node: st.one_of(
        st.builds(
            Both,
            st.lists(node, max_size=4).map(tuple),
            st.sampled_from((None, None, None, 1, 2)),
            st.sampled_from((0, 0, 1, 4)),
            st.sampled_from((None, None, 1, 2)),
        ),
        st.builds(Catch, node, node),
        st.builds(Finally, node, node),
        st.builds(Chain, st.lists(node, min_size=1, max_size=3).map(tuple)),
    ),
    max_leaves=8,
)
PROGRAMS = st.lists(st.one_of(_LEAF, _NODE, _NODE, st.builds(Pivot, st.just("p"))), min_size=1, max_size=4).map(
    lambda parts: Chain(tuple(parts))
)


class _Part:
    """A branch that is begun when its turn comes."""

    def __init__(self, machine: _Machine, node: Node) -> None:
        self._machine = machine
        self._node = node

    def __await__(self) -> Generator[Any, Any, None]:
        return (yield from self._machine.run(self._node).__await__())


class _Machine:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._seen: list[str] = []

    async def run(self, node: Node) -> None:
        if isinstance(node, Do | Pivot):
            await self._do(node)
        elif isinstance(node, Pause):
            await Asked(WaitRequest(StepKind.SLEEP, "", node.duration_ms))
            self._seen.append("slept")
        elif isinstance(node, Take):
            self._seen.append(str(await Asked(WaitRequest(StepKind.SIGNAL, node.name, node.timeout_ms))))
        elif isinstance(node, Hold):
            self._seen.append(str(await Until(lambda: len(self._seen) >= node.seen, node.timeout_ms)))
        elif isinstance(node, Note):
            value = self._context.record(StepKind.VALUE, node.name, lambda: b"%d" % self._context.now_ms)
            self._seen.append(value.decode())
        elif isinstance(node, Both):
            parts = tuple(_Part(self, part) for part in node.parts)
            results = await Together(parts, node.successes, node.tolerated, node.concurrency)
            self._seen.append(" ".join("lost" if result is LOST else str(result) for result in results))
        elif isinstance(node, Chain):
            for part in node.parts:
                await self.run(part)
        elif isinstance(node, Catch):
            try:
                await self.run(node.part)
            except StepFailed as failed:
                self._seen.append(str(failed))
                await self.run(node.then)
        elif isinstance(node, Finally):
            try:
                await self.run(node.part)
            finally:
                await self.run(node.then)
        elif node.bug:
            raise ValueError("a bug")
        else:
            raise Abort("Enough", "the saga's own decision")

    async def _do(self, node: Do | Pivot) -> None:
        payload = f"{self._context.now_ms} {self._seen}".encode()
        if isinstance(node, Pivot):
            self._seen.append(str(await Asked(StepRequest("svc", node.name, payload, pivot=True))))
            return
        undo: Any = {"none": None, "same": None, "fixed": b"fixed", "of reply": lambda reply: b"of %a" % reply}[
            node.undo
        ]
        request = StepRequest(
            "svc",
            node.name,
            payload,
            None if node.undo == "none" else "u" + node.name,
            undo,
            False,
            node.start_to_close_ms,
            node.schedule_to_close_ms,
            node.retry,
            RetryPolicy(maximum_attempts=2, park=True),
        )
        self._seen.append(str(await Asked(request)))


def definition_of(program: Node, timeout_ms: int | None = None) -> Definition:
    """A saga type that carries out one program."""

    def body(context: Context, payload: bytes) -> Coroutine[Any, Any, bytes]:
        return _carry_out(context, program)

    return Definition("Random", body, execution_timeout_ms=timeout_ms)


async def _carry_out(context: Context, program: Node) -> bytes:
    machine = _Machine(context)
    await machine.run(program)
    return repr(machine._seen).encode()
