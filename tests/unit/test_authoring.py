"""Sagas, plans and contracts as they are written: what compiles to what, and what is refused when it is declared."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Generic, TypeVar

import pytest
from pydantic import BaseModel, ValidationError

from orchestrator.durations import milliseconds
from orchestrator.errors import DefinitionError
from orchestrator.model.retries import Jitter, RetryPolicy
from orchestrator.plan import outcome, step, takes
from orchestrator.saga import Retry, Saga
from orchestrator.service import Service, command, topic_name

T = TypeVar("T")


class Address(BaseModel):
    city: str


class Order(BaseModel):
    id: str
    cents: int
    address: Address = Address(city="Rome")


class Reserve(BaseModel):
    order_id: str
    city: str = ""


class Reservation(BaseModel):
    warehouse: str


class Receipt(BaseModel):
    number: int


class Refund(BaseModel):
    order_id: str
    receipt: Receipt | None


class Inventory(Service):
    reserve = command(Reserve, Reservation)
    release = command(Reserve)


class Payments(Service):
    charge = command(Reserve, Receipt)
    refund = command(Refund)
    ship = command(Reserve, str)


async def _asked(failed: object) -> bool:
    return True


WRONG_RETRIES = [
    ({"backoff_coefficient": 0.5}, "backoff_coefficient is a number from 1 on, not 0.5"),
    ({"backoff_coefficient": float("inf")}, "backoff_coefficient"),
    ({"backoff_coefficient": float("nan")}, "backoff_coefficient"),
    ({"maximum_attempts": -1}, "maximum_attempts is a whole number, 0 for no limit, not -1"),
    ({"maximum_attempts": 2.5}, "not 2.5"),
    ({"maximum_attempts": 10**30}, "maximum_attempts"),
    ({"initial_interval": -1.0}, "a duration is between"),
    ({"initial_interval": "1"}, "a duration is seconds or a timedelta, not '1'"),
    ({"jitter": "much"}, r"jitter is Jitter.NONE, Jitter.HALF, Jitter.FULL, not 'much'"),
    ({"exhausted": "parked"}, "exhausted is 'fail' or 'park', not 'parked'"),
    ({"non_retryable_error_types": "Unavailable"}, r"write \('Unavailable',\)"),
    ({"predicate": _asked}, "no `async def`"),
    ({"rules": {"Busy": 5}}, "the rule for 'Busy'"),
    ({"retry_timeout": -1}, "a duration is between"),
]

# -- contracts


@pytest.mark.parametrize(
    ("name", "topic"),
    [
        ("Payments", "payments"),
        ("PaymentGateway", "payment-gateway"),
        ("HTTPGate2", "http-gate2"),
        ("ABTest", "ab-test"),
    ],
)
def test_a_service_is_called_like_its_class(name: str, topic: str) -> None:
    assert topic_name(name) == topic


def test_a_service_may_be_called_otherwise() -> None:
    class Legacy(Service, name="pay.v2"):
        charge = command(Reserve)

    assert Legacy.charge.service == "pay.v2"
    assert repr(Legacy.charge) == "pay.v2.charge"
    assert Legacy.commands == {"charge": Legacy.charge}


@pytest.mark.parametrize("name", ["Pay", "pay me", "-pay", "x" * 200, "pay/me"])
def test_a_name_that_no_topic_can_have_is_refused(name: str) -> None:
    with pytest.raises(DefinitionError, match="cannot be a topic's name"):
        type("Bad", (Service,), {}, name=name)


@pytest.mark.parametrize("request_model", [int, dict, lambda: None])
def test_a_request_must_be_a_model(request_model: Any) -> None:
    with pytest.raises(DefinitionError, match="must be a pydantic model"):
        command(request_model)


def test_a_call_carries_its_request_as_json() -> None:
    assert Inventory.reserve(order_id="o-1").payload() == b'{"order_id":"o-1","city":""}'
    with pytest.raises(ValidationError):
        Inventory.reserve(order_id=7)  # type: ignore[arg-type]


def test_replies_go_over_the_wire_by_their_declared_type() -> None:
    reply = Reservation(warehouse="A")
    assert Inventory.reserve.encode(reply) == b'{"warehouse":"A"}'
    assert Inventory.reserve.decode(b'{"warehouse":"A"}') == reply
    assert Inventory.release.encode(None) == b"null"
    assert Inventory.release.decode(b"") is None
    assert Payments.ship.decode(b'"sent"') == "sent"
    with pytest.raises(ValidationError):
        Inventory.reserve.encode(7)  # type: ignore[arg-type]


# -- sagas


def test_a_saga_is_called_like_its_class_or_otherwise() -> None:
    class Plain(Saga[Order, str]):
        async def run(self, order: Order) -> str:
            return order.id

    class Named(Plain, name="order", execution_timeout=timedelta(minutes=1)):
        pass

    assert (Plain.definition.name, Plain.definition.execution_timeout_ms) == ("Plain", None)
    assert (Named.definition.name, Named.definition.execution_timeout_ms) == ("order", 60_000)
    assert Named.encode_input(Order(id="o", cents=1)) == b'{"id":"o","cents":1,"address":{"city":"Rome"}}'


def test_inputs_and_results_are_checked_by_their_declared_types() -> None:
    class Plain(Saga[Order, int]):
        async def run(self, order: Order) -> int:
            return order.cents

    check = Plain.definition.check_input
    assert check(b'{"id":"o","cents":1}') is None
    assert check(b'{"id":"o","address":{"city":1}}') == "cents: Field required"
    assert check(b'{"id":"o","cents":1,"address":{"city":1}}') == "address.city: Input should be a valid string"
    assert "Invalid JSON" in (check(b"{") or "")
    assert Plain.decode_result(b"7") == 7
    with pytest.raises(ValidationError):
        Plain.encode_input("order")  # type: ignore[arg-type]


def test_a_saga_must_say_what_it_takes_and_gives() -> None:
    with pytest.raises(DefinitionError, match="name the input and result types"):

        class Bare(Saga):  # type: ignore[type-arg]
            async def run(self, order: Any) -> Any:
                return order

    with pytest.raises(DefinitionError, match="neither `async def run` nor declared steps"):

        class Empty(Saga[Order, str]):
            pass


def test_a_saga_may_inherit_its_types() -> None:
    class Base(Saga[Order, int]):
        async def run(self, order: Order) -> int:
            return order.cents

    class Derived(Base):
        async def run(self, order: Order) -> int:
            return 2 * order.cents

    assert Derived.decode_result(b"7") == 7


@pytest.mark.parametrize(
    ("duration", "ms"),
    [(0, 0), (1.5, 1_500), (0.0004, 0), (timedelta(days=400), 34_560_000_000), (timedelta(milliseconds=7), 7)],
)
def test_durations_are_seconds_or_timedeltas(duration: float | timedelta, ms: int) -> None:
    assert milliseconds(duration) == ms


@pytest.mark.parametrize("duration", [-1, timedelta(seconds=-1), float("inf"), float("nan"), 1e300])
def test_a_duration_beyond_all_reason_is_refused(duration: float | timedelta) -> None:
    with pytest.raises(DefinitionError, match="a duration is between"):
        milliseconds(duration)


def test_a_retry_becomes_the_policy_that_is_recorded() -> None:
    assert Retry().policy() == RetryPolicy(1_000, 2.0, 100_000, 0, (), False)
    assert Retry(
        initial_interval=0.5,
        backoff_coefficient=3,
        maximum_interval=timedelta(minutes=1),
        maximum_attempts=5,
        non_retryable_error_types=("Fatal",),
        exhausted="park",
    ).policy() == RetryPolicy(500, 3.0, 60_000, 5, ("Fatal",), True)


@pytest.mark.parametrize(("wrong", "why"), WRONG_RETRIES)
def test_a_retry_that_makes_no_sense_is_refused_where_it_is_written(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(DefinitionError, match=why):
        Retry(**wrong)


def test_a_retrys_options_may_be_written_as_people_write_them() -> None:
    given: dict[str, Any] = {"jitter": "FULL", "non_retryable_error_types": ["Unavailable"]}
    assert Retry(**given).policy() == Retry(jitter=Jitter.FULL, non_retryable_error_types=("Unavailable",)).policy()


class Asking(Saga[Order, str]):
    async def run(self, order: Order) -> str:
        return ""


def test_a_pivot_has_no_undo() -> None:
    with pytest.raises(DefinitionError, match="a pivot has no undo"):
        Asking().step(Inventory.reserve(order_id="o"), pivot=True, undo=Inventory.release)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("undo", "words"),
    [
        (Payments.charge, "only the same service"),
        (Payments.charge(order_id="o"), "only the same service"),
        (lambda reply: Payments.charge(order_id="o"), "only the same service"),
    ],
)
def test_an_undo_of_another_service_is_refused(undo: Any, words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        Asking().step(Inventory.reserve(order_id="o"), undo=undo)


def test_an_undo_that_takes_another_request_is_refused() -> None:
    with pytest.raises(DefinitionError, match="it takes Refund, not Reserve"):
        Asking().step(Payments.charge(order_id="o"), undo=Payments.refund)  # type: ignore[call-overload]


def test_an_undo_that_is_sometimes_another_command_is_refused() -> None:
    def either(receipt: Receipt | None) -> Any:
        return Payments.refund(order_id="o", receipt=receipt) if receipt else Payments.ship(order_id="o")

    asked = Asking().step(Payments.charge(order_id="o"), undo=either)
    undo_payload = asked._request.undo_payload
    assert callable(undo_payload)
    with pytest.raises(DefinitionError, match=r"sometimes payments\.ship, sometimes payments\.refund"):
        undo_payload(b'{"number":7}')


# -- plans


class Plan(Saga[Order, str]):
    order = takes(Order)
    stock = step(Inventory.reserve(order_id=order.id, city=order.address.city), undo=Inventory.release)
    paid = step(Payments.charge(order_id=order.id), undo=Payments.refund(order_id=order.id, receipt=outcome(Receipt)))
    result = step(Payments.ship(order_id=order.id, city=stock.warehouse), pivot=True)


def test_a_plan_is_a_saga_with_a_static_graph() -> None:
    assert Plan.definition.name == "Plan"
    assert Plan.definition.commands == (
        ("inventory", "reserve"),
        ("payments", "charge"),
        ("payments", "ship"),
    )


def test_a_plan_cannot_have_a_run_of_its_own() -> None:
    with pytest.raises(DefinitionError, match="choose one style"):

        class Both(Saga[Order, str]):
            result = step(Payments.ship(order_id="o"))

            async def run(self, order: Order) -> str:
                return ""


def test_a_plan_takes_what_its_saga_takes() -> None:
    with pytest.raises(DefinitionError, match="takes Receipt, the saga another input"):

        class Wrong(Saga[Order, str]):
            order = takes(Receipt)
            result = step(Payments.ship(order_id="o"))


def test_a_field_that_is_not_there_is_found_when_the_plan_is_read() -> None:
    order: Any = takes(Order)
    with pytest.raises(DefinitionError, match="Order has no field 'idd'"):
        _ = order.idd
    with pytest.raises(DefinitionError, match="Address has no field 'street'"):
        _ = order.address.street
    with pytest.raises(DefinitionError, match="has no field 'upper'"):
        _ = order.id.upper
    with pytest.raises(DefinitionError, match="Reserve has no field 'orderid'"):
        Inventory.reserve(orderid=order.id)  # type: ignore[call-arg]


def test_nothing_can_be_computed_with_a_declared_value() -> None:
    order: Any = takes(Order)
    for compute in (lambda: bool(order.id), lambda: f"{order.id}", lambda: str(order)):
        with pytest.raises(DefinitionError, match="known only when the saga runs"):
            compute()


def test_the_outcome_in_an_undo_is_of_the_steps_own_type() -> None:
    with pytest.raises(DefinitionError, match=r"outcome\(Reservation\) in the undo of payments\.charge"):
        step(Payments.charge(order_id="o"), undo=Payments.refund(order_id="o", receipt=outcome(Reservation)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"undo": Payments.charge}, "only the same service"),
        ({"undo": Payments.charge(order_id="o")}, "only the same service"),
        ({"undo": lambda reply: Inventory.release(order_id="o")}, "a command or a call"),
        ({"undo": Inventory.release, "pivot": True}, "a pivot has no undo"),
    ],
)
def test_a_wrong_undo_is_found_when_the_plan_is_read(options: dict[str, Any], words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        step(Inventory.reserve(order_id="o"), **options)


def test_a_template_says_that_it_is_none() -> None:
    class Box(BaseModel, Generic[T]):
        value: T

    reference: Any = takes(Box[int])
    assert reference.value.__resolve__({"input": Box[int](value=7)}) == 7
