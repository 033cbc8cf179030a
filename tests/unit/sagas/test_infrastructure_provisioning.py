"""Infrastructure provisioning: every way it can end."""

import pytest

from orchestrator.model.events import Status, StepScheduled, Undone
from orchestrator.sagas.infrastructure_provisioning import (
    CHECKS,
    Balancing,
    Compute,
    Dns,
    Environment,
    InfrastructureProvisioning,
    Network,
)
from orchestrator.testing import SagaTest

WANTED = Environment(name="staging", machines=2)
MADE = [Network.create, Compute.launch, Compute.launch, Balancing.create]
TAKEN_DOWN = [Balancing.delete, Compute.terminate, Compute.terminate, Network.delete]


def cloud() -> SagaTest[Environment, str]:
    return SagaTest(InfrastructureProvisioning).answer(Network.create, "net-1")


def machines(test: SagaTest[Environment, str]) -> SagaTest[Environment, str]:
    return test.answer(Compute.launch, "10.0.0.1").answer(Compute.launch, "10.0.0.2")


def balanced() -> SagaTest[Environment, str]:
    return machines(cloud()).answer(Balancing.create, "lb.example")


def test_an_environment_gets_its_name_when_it_is_healthy() -> None:
    test = balanced().answer(Balancing.is_healthy, False).answer(Balancing.is_healthy, True).answer(Dns.point, None)
    end = test.run(WANTED)
    assert end.result == "lb.example"
    assert end.effects == [*MADE, Balancing.is_healthy, Balancing.is_healthy, Dns.point]


def test_an_environment_without_machines_asks_for_none() -> None:
    test = cloud().answer(Balancing.create, "lb.example").answer(Balancing.is_healthy, True).answer(Dns.point, None)
    assert Compute.launch not in test.run(Environment(name="empty", machines=0)).effects


def test_a_quota_takes_down_what_was_launched() -> None:
    end = cloud().answer(Compute.launch, "10.0.0.1").fail(Compute.launch, "QuotaExceeded").run(WANTED)
    assert (end.status, end.undone, end.reason) == (Status.COMPENSATED, Undone.ALL, "QuotaExceeded")
    assert end.effects == [Network.create, Compute.launch, Compute.terminate, Network.delete]


def test_what_is_never_healthy_is_taken_down_in_reverse_order() -> None:
    end = balanced().answer(Balancing.is_healthy, False).run(WANTED)
    assert (end.status, end.reason.split(":")[0]) == (Status.COMPENSATED, "NeverHealthy")
    assert end.effects == [*MADE, *[Balancing.is_healthy] * CHECKS, *TAKEN_DOWN]


def test_a_cloud_that_stumbles_is_asked_again_also_when_it_takes_down() -> None:
    test = SagaTest(InfrastructureProvisioning).retry(Network.create, "Throttled", times=3).answer(Network.create, "n")
    test = machines(test).fail(Balancing.create, "NoBalancer").retry(Compute.terminate, "Throttled", times=30)
    end = test.answer(Compute.terminate, None).run(WANTED)
    assert end.status is Status.COMPENSATED
    assert end.effects[-3:] == [Compute.terminate, Compute.terminate, Network.delete]


@pytest.mark.parametrize("machines", [1, 40])
def test_machines_are_launched_at_the_same_time(machines: int) -> None:
    test = cloud().answer(Compute.launch, "10.0.0.1").fail(Balancing.create, "NoBalancer")
    end = test.run(Environment(name="wide", machines=machines))
    launched = [event for event in end.journal if isinstance(event, StepScheduled) and event.command == "launch"]
    assert len(launched) == machines
    assert {event.after for event in launched} == {1}
