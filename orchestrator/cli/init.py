"""`saga init`: a project small enough to be read in a minute."""

from __future__ import annotations

import re
from pathlib import Path

import click

from orchestrator.cli.output import give, json_option, say

_LEGAL = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")

_CODE = '''\
"""Orders: reserve the goods, charge the card, ship. A declined card gives the goods back."""

from orchestrator.errors import Failure
from orchestrator.participant import Participant
from orchestrator.saga import Saga
from orchestrator.service import Service, command
from pydantic import BaseModel


class Order(BaseModel):
    order_id: str
    item: str
    cents: int


class Goods(BaseModel):
    order_id: str
    item: str


class Charge(BaseModel):
    order_id: str
    cents: int


class Parcel(BaseModel):
    tracking: str


# What the service can be asked. Sagas and services both import this.


class Shop(Service):
    reserve = command(Goods)
    release = command(Goods)
    charge = command(Charge)
    refund = command(Charge)
    ship = command(Goods, Parcel)


# The saga. What it awaits is durable: it goes on where it was, whatever crashes.


class OrderSaga(Saga[Order, str]):
    async def run(self, order: Order) -> str:
        await self.step(Shop.reserve(order_id=order.order_id, item=order.item), undo=Shop.release)
        await self.step(Shop.charge(order_id=order.order_id, cents=order.cents), undo=Shop.refund)
        parcel = await self.step(Shop.ship(order_id=order.order_id, item=order.item), pivot=True)
        return parcel.tracking


# The service. A handler may run again after a crash, with the same idempotency key (it is in the HandlerContext, a
# handler's second parameter if it wants one). `Failure` says that nothing was done: the saga undoes what it did before.

shop = Participant(Shop)


@shop.handles(Shop.reserve)
def reserve(goods: Goods) -> None:
    print(f"reserved {goods.item} for {goods.order_id}")


@shop.handles(Shop.release)
def release(goods: Goods) -> None:
    print(f"released {goods.item} of {goods.order_id}")


@shop.handles(Shop.charge)
def charge(request: Charge) -> None:
    if request.cents > 100_000:
        raise Failure("CardDeclined", f"{request.cents / 100:.2f} is over the limit")
    print(f"charged {request.cents} for {request.order_id}")


@shop.handles(Shop.refund)
def refund(request: Charge) -> None:
    print(f"refunded {request.cents} for {request.order_id}")


@shop.handles(Shop.ship)
def ship(goods: Goods) -> Parcel:
    print(f"shipped {goods.item} for {goods.order_id}")
    return Parcel(tracking=f"parcel-of-{goods.order_id}")
'''

_TEST = '''\
"""The saga with its service in memory, without a broker. Time skips by itself."""

from orchestrator.testing import SagaTest, prove

from @MODULE@ import Order, OrderSaga, Shop, shop

ORDER = Order(order_id="order-1", item="tea", cents=900)


def test_an_order_is_shipped() -> None:
    end = SagaTest(OrderSaga).service(shop).run(ORDER)
    end.assert_completed("parcel-of-order-1")
    assert end.effects == [Shop.reserve, Shop.charge, Shop.ship]


def test_a_declined_card_gives_the_goods_back() -> None:
    expensive = Order(order_id="order-2", item="gold", cents=900_000)
    end = SagaTest(OrderSaga).service(shop).run(expensive)
    assert end.reason == "CardDeclined: 9000.00 is over the limit"
    end.assert_compensated(Shop.release)


def test_an_address_that_is_not_found_gives_the_money_back_too() -> None:
    end = SagaTest(OrderSaga).service(shop).fail(Shop.ship, "NoSuchAddress").run(ORDER)
    end.assert_compensated(Shop.refund, Shop.release)


def test_whatever_fails_or_crashes_it_is_shipped_or_undone() -> None:
    assert prove(SagaTest(OrderSaga).service(shop), ORDER).cases > 100
'''

_SETTINGS = """\
# Settings of all `saga` commands in this folder; each may also be set as SAGA_<NAME> in the environment.
# With development = true: one broker, 4 partitions, nothing to lose. Without it: 12 partitions, 3 replicas, and a
# reply token key is asked for.
development = true
# bootstrap_servers = "localhost:9092"   # without it: the broker that `saga dev` runs
# prefix = "@NAME@-"                     # before the names of all topics and groups
"""

_README = """\
# @NAME@

One saga, one service, one test. `@MODULE@.py` holds all of the code.

```
pytest                  # the saga in memory, without a broker
saga dev @MODULE@       # broker, topics, worker and service, until Ctrl-C
```

In another terminal, in this folder:

```
saga start @MODULE@:OrderSaga --id order-1 --input '{"order_id": "order-1", "item": "tea", "cents": 900}' --wait 30
saga start OrderSaga --id order-2 --input '{"order_id": "order-2", "item": "gold", "cents": 900000}' --wait 30
saga list
saga show order-2       # the declined card, and how the goods were given back
saga dead-letters list  # what could not be handled
saga doctor @MODULE@    # if something does not work
```

From an application (the result is the tracking number):

```python
import asyncio

from orchestrator import Client
from @MODULE@ import Order, OrderSaga


async def main() -> None:
    async with Client.connect("127.0.0.1:<port that saga dev prints>") as client:
        handle = await client.start(OrderSaga, Order(order_id="order-3", item="tea", cents=900), id="order-3")
        print(await handle.result())


asyncio.run(main())
```

On a cluster of your own, `saga topics plan @MODULE@` shows the topics, `saga topics apply @MODULE@` creates them. Then
run `saga worker @MODULE@` and `saga participant @MODULE@:shop`, as many of each as you like.
"""

_IGNORED = ".saga/\n__pycache__/\n.pytest_cache/\n"


@click.command("init")
@click.argument("name")
@json_option
def init_command(name: str, as_json: bool) -> None:
    """Makes the folder NAME with a saga, a service and a test, ready to run."""
    folder = Path(name)
    if not _LEGAL.fullmatch(folder.name):
        raise click.UsageError("a name begins with a letter and has letters, digits, '-' and '_'")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise click.ClickException(f"{folder} exists already; nothing was written")
    files = project(folder.name)
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        (folder / path).write_text(text, encoding="utf-8")
    if as_json:
        give({"folder": str(folder), "files": sorted(files)})
        return
    for path in sorted(files):
        click.echo(f"{folder / path}")
    say(f"now: cd {folder}, then `pytest`, then `saga dev {module_of(folder.name)}`")


def module_of(name: str) -> str:
    """The module of a project: its name, with an ending so that it hides no package of the same name."""
    return name.lower().replace("-", "_") + "_orders"


def project(name: str) -> dict[str, str]:
    """The files of a new project by their path in it."""
    module = module_of(name)
    templates = {
        f"{module}.py": _CODE,
        f"test_{module}.py": _TEST,
        "saga.toml": _SETTINGS,
        "README.md": _README,
        ".gitignore": _IGNORED,
    }
    return {path: text.replace("@MODULE@", module).replace("@NAME@", name) for path, text in templates.items()}
