"""What a test is told that waits for ever: the verb that helps, with its key."""

import pytest
from pydantic import BaseModel

from orchestrator import Saga, promise, signal
from orchestrator.testing import SagaTest


class Form(BaseModel):
    ok: bool


class Waiting(Saga[str, str]):
    told = signal(str)
    kept = promise(str)

    async def run(self, what: str) -> str:
        if what == "signal":
            return await self.receive(Waiting.told)
        if what == "signal by key":
            return await self.receive(Waiting.told, key="i-7")
        if what == "promise":
            return await self.receive(self.promise(Waiting.kept))
        if what == "promise by key":
            return await self.promise(Waiting.kept, "boss")
        if what == "either":
            await self.race(self.receive(Waiting.told), self.receive(self.promise(Waiting.kept)))
        if what == "task":
            return str(await self.human_task(Form, title="look"))
        if what == "tasks":
            await self.gather(*(self.human_task(Form, title=key, key=key) for key in ("a", "b")))
        await self.wait_until(lambda: False)
        return what


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("signal", "for signal told: tell it by .signal(...)"),
        ("signal by key", "for signal told/i-7: tell it by .signal(..., key='i-7')"),
        ("promise", "for promise kept: keep it by .complete_promise(...)"),
        ("promise by key", "for promise kept/boss: keep it by .complete_promise(..., key='boss')"),
        ("either", "for signal told, promise kept: tell it by .signal(...) or keep it by .complete_promise(...)"),
        ("task", "for task Form: fill it in by .complete_task(Form(...))"),
        (
            "tasks",
            "for task a, task b: fill it in by .complete_task(Form(...), key='a') "
            "or fill it in by .complete_task(Form(...), key='b')",
        ),
        ("nothing", "for a condition"),
    ],
)
def test_the_verb_that_helps_is_named(what: str, words: str) -> None:
    with pytest.raises(AssertionError) as caught:
        SagaTest(Waiting).run(what)
    assert str(caught.value) == f"the saga waits for ever, {words}"
