"""Every use case with its services: completed or fully compensated, whatever fails, crashes, or comes twice."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.sagas import etl_pipeline as plant
from orchestrator.sagas import expense_approval as expenses
from orchestrator.sagas import infrastructure_provisioning as infrastructure
from orchestrator.sagas import order_fulfilment as shop
from orchestrator.sagas import subscription_billing as club
from orchestrator.sagas import travel_booking as travel
from orchestrator.testing import SagaTest, prove

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(autouse=True)
def _books(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_BOOKS", ":memory:")


def test_order_fulfilment() -> None:
    services = SagaTest(shop.OrderFulfilment).service(shop.inventory, shop.payments, shop.shipping)
    proof = prove(services, shop.Order(id="o-1", sku="tea", cents=900))
    assert set(proof.statuses) == {"COMPLETED", "COMPENSATED", "CANCELED", "FAILED"}


def test_travel_booking() -> None:
    services = SagaTest(travel.TravelBooking).service(travel.airline, travel.hotels, travel.cars, travel.cards)
    trip = travel.Trip(id="t-1", traveller="ann", destination="Rome", cents=900)
    assert set(prove(services, trip).statuses) == {"COMPLETED", "COMPENSATED", "CANCELED", "TIMED_OUT"}


def test_infrastructure_provisioning() -> None:
    cloud = (infrastructure.network, infrastructure.compute, infrastructure.balancing, infrastructure.dns)
    services = SagaTest(infrastructure.InfrastructureProvisioning).service(*cloud)
    wanted = infrastructure.Environment(name="shop", machines=1)
    proof = prove(services, wanted, harmless=[infrastructure.Balancing.is_healthy])
    assert set(proof.statuses) == {"COMPLETED", "COMPENSATED", "CANCELED", "FAILED"}


def test_expense_approval() -> None:
    decision = expenses.Decision(approved=True)
    services = SagaTest(expenses.ExpenseApproval).service(expenses.budgets, expenses.mail, expenses.payroll)
    test = services.complete_task(decision, by="manager", after=timedelta(hours=1))
    claim = expenses.Expense(id="e-1", employee="ann", cents=90_000, times_asked=1)
    proof = prove(test, claim, harmless=[expenses.Mail.send])  # a mail is not taken back
    assert set(proof.statuses) == {"COMPLETED", "COMPENSATED", "CANCELED", "FAILED"}


def test_etl_pipeline() -> None:
    """Two files of one part each show what six of three would."""
    services = SagaTest(plant.EtlPipeline).service(plant.lake, plant.cleaning, plant.warehouse)
    test = services.handle(plant.Lake.files, lambda table: ["1.csv", "2.csv"])
    test.handle(plant.Lake.extract, lambda part: plant.Batch(place=part.file, next=None))
    # What is only read needs no undo, and what was loaded goes with its table.
    harmless = [plant.Lake.files, plant.Lake.extract, plant.Cleaning.clean, plant.Warehouse.load]
    proof = prove(test, plant.Day(date="2024-05-01", may_be_bad=0.5), harmless=harmless)
    assert set(proof.statuses) == {"COMPLETED", "COMPENSATED", "CANCELED", "FAILED"}


def test_subscription_billing() -> None:
    services = SagaTest(club.SubscriptionBilling).service(club.cashier, club.membership, club.letters)
    agreed = club.Subscription(customer="Ada", cents=900, months=2)
    proof = prove(services, agreed, harmless=[club.Letters.send, club.Membership.end])
    assert proof.statuses["COMPLETED"] > 50


def test_no_use_case_is_left_out() -> None:
    files = {path.stem for path in Path(shop.__file__).parent.glob("*.py")} - {"__init__", "books"}
    assert {f"test_{name}" for name in files} <= set(globals())
