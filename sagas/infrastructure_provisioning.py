"""Infrastructure: a network, machines at the same time, a load balancer, a health check, then the name in the DNS.

Whatever fails before the name points to it, all that was made is taken down again, in reverse order. Run it:
`saga dev orchestrator.sagas.infrastructure_provisioning`. See `docs/infrastructure_provisioning.md`.
"""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel

from orchestrator.errors import Abort, Failure
from orchestrator.participant import HandlerContext
from orchestrator.saga import Retry, Saga
from orchestrator.sagas.books import bookkeeper, enter, times
from orchestrator.service import Service, command


class Environment(BaseModel):
    name: str
    machines: int = 3
    check_every: timedelta = timedelta(seconds=30)


class Named(BaseModel):
    environment: str


class Machine(BaseModel):
    environment: str
    network: str
    number: int


class Balancer(BaseModel):
    environment: str
    targets: list[str]


class Record(BaseModel):
    name: str
    address: str


class Network(Service):
    create = command(Named, str)
    delete = command(Named)


class Compute(Service):
    launch = command(Machine, str)
    terminate = command(Machine)


class Balancing(Service):
    create = command(Balancer, str)
    delete = command(Balancer)
    is_healthy = command(Named, bool)


class Dns(Service):
    point = command(Record)


CLOUD = Retry(initial_interval=2.0, maximum_interval=60.0, maximum_attempts=8)
UNTIL_IT_IS_GONE = Retry(initial_interval=5.0, maximum_interval=600.0)  # what is left behind costs money
CHECKS = 20


class InfrastructureProvisioning(Saga[Environment, str]):
    async def run(self, wanted: Environment) -> str:
        network = await self.step(
            Network.create(environment=wanted.name), undo=Network.delete, retry=CLOUD, undo_retry=UNTIL_IT_IS_GONE
        )
        machines = [
            Compute.launch(environment=wanted.name, network=network, number=number + 1)
            for number in range(wanted.machines)
        ]
        addresses = await self.gather(
            *(
                self.step(machine, undo=Compute.terminate, retry=CLOUD, undo_retry=UNTIL_IT_IS_GONE, spread=True)
                for machine in machines
            )
        )
        address = await self.step(
            Balancing.create(environment=wanted.name, targets=list(addresses)),
            undo=Balancing.delete,
            retry=CLOUD,
            undo_retry=UNTIL_IT_IS_GONE,
        )
        await self.health(wanted)
        await self.step(Dns.point(name=wanted.name, address=address), pivot=True)
        return address

    async def health(self, wanted: Environment) -> None:
        """Waits until the machines answer; gives up after some checks."""
        for _ in range(CHECKS):
            if await self.step(Balancing.is_healthy(environment=wanted.name)):
                return
            await self.sleep(wanted.check_every)
        raise Abort("NeverHealthy", f"{wanted.name} does not answer after {CHECKS} checks")


# The services. Each keeps a book, see `orchestrator.sagas.books`.

QUOTA = 8
NEVER_HEALTHY = "broken"

network = bookkeeper(Network)
compute = bookkeeper(Compute)
balancing = bookkeeper(Balancing)
dns = bookkeeper(Dns)


@network.handles(Network.create)
def create_network(wanted: Named, context: HandlerContext) -> str:
    enter(context, f"created the network of {wanted.environment}")
    return f"net-{wanted.environment}"


@network.handles(Network.delete)
def delete_network(wanted: Named, context: HandlerContext) -> None:
    enter(context, f"deleted the network of {wanted.environment}")


@compute.handles(Compute.launch)
def launch(machine: Machine, context: HandlerContext) -> str:
    if machine.number > QUOTA:
        raise Failure("QuotaExceeded", f"{QUOTA} machines are all you may have")
    enter(context, f"launched machine {machine.number} of {machine.environment}")
    return f"10.0.0.{machine.number}"


@compute.handles(Compute.terminate)
def terminate(machine: Machine, context: HandlerContext) -> None:
    enter(context, f"terminated machine {machine.number} of {machine.environment}")


@balancing.handles(Balancing.create)
def create_balancer(balancer: Balancer, context: HandlerContext) -> str:
    enter(context, f"balances {balancer.environment} over {len(balancer.targets)}")
    return f"{balancer.environment}.balancer.example"


@balancing.handles(Balancing.delete)
def delete_balancer(balancer: Balancer, context: HandlerContext) -> None:
    enter(context, f"balances {balancer.environment} no more")


@balancing.handles(Balancing.is_healthy)
def is_healthy(wanted: Named, context: HandlerContext) -> bool:
    """Machines take a while: the second check finds them up."""
    enter(context, f"checked {wanted.environment}")
    return wanted.environment != NEVER_HEALTHY and times(context, f"checked {wanted.environment}") > 1


@dns.handles(Dns.point)
def point(record: Record, context: HandlerContext) -> None:
    enter(context, f"{record.name} is at {record.address}")
