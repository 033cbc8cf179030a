"""What a journal could not hold fails the test that decides it, with the value's name."""

from typing import Any

import pytest

from orchestrator.model.asked import Asked
from orchestrator.model.definition import Context, Definition, WaitRequest
from orchestrator.model.events import Decision, Event, Recorded, StepKind, StepScheduled, WaitScheduled
from orchestrator.model.messages import Start
from orchestrator.model.retries import RetryPolicy
from orchestrator.testing.journaled import check_journaled
from orchestrator.testing.services import Script, Services
from orchestrator.testing.world import World


def scheduled(**policy: Any) -> StepScheduled:
    return StepScheduled(1, 0, "shop", "charge", b"{}", 0, None, None, retry=RetryPolicy(**policy))


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (WaitScheduled(1, 0, StepKind.LOCK, 7, None), "WaitScheduled.name 7"),  # type: ignore[arg-type]
        (WaitScheduled(1, 0, StepKind.PROMISE, "key/\ud800", None), r"WaitScheduled.name 'key/\ud800'"),
        (Recorded(1, 0, StepKind.PATCH, 5, b""), "Recorded.name 5"),  # type: ignore[arg-type]
        (Recorded(1, 0, "nonsense", "new", b""), "Recorded.kind 'nonsense'"),  # type: ignore[arg-type]
        (scheduled(maximum_attempts=2.5), "StepScheduled.retry.maximum_attempts 2.5"),
        (scheduled(maximum_attempts=10**30), f"StepScheduled.retry.maximum_attempts {10**30}"),
        (scheduled(non_retryable_error_types=("A", 3)), "StepScheduled.retry.non_retryable_error_types 3"),
    ],
)
def test_the_value_that_does_not_fit_is_named(event: Event, words: str) -> None:
    with pytest.raises(AssertionError, match="Order asks for what the journal cannot hold") as caught:
        check_journaled("Order", Decision("o-1", "1-1-0", 0, (event,)))
    assert words in str(caught.value)


def test_what_fits_passes() -> None:
    check_journaled("Order", Decision("o-1", "1-1-0", 0, (scheduled(backoff_coefficient=1.5, maximum_attempts=3),)))


def test_every_decision_of_a_test_is_checked() -> None:
    async def body(context: Context, payload: bytes) -> bytes:
        await Asked(WaitRequest(StepKind.PROMISE, 7))  # type: ignore[arg-type]
        return b"null"

    world = World(Definition("Odd", body), Services(Script()), "odd-1", 0)
    with pytest.raises(AssertionError, match=r"Odd asks for what the journal cannot hold.*WaitScheduled\.name 7"):
        world.take(Start("odd-1", "start", "Odd", b"null"))
