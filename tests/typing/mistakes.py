"""Mistakes that a type checker must find, each on the line that says so. Nothing here is ever run."""

from contracts import Charge, Inventory, Order, Payments, Receipt, Refund, Reservation, Reserve, Shipping

from orchestrator import Client, HandlerContext, Participant, Retry, Saga, outcome, step, takes
from orchestrator.testing import SagaTest

ORDER = Order(id="o-1", sku="tea", cents=900)


class Mistaken(Saga[Order, str]):
    async def run(self, order: Order) -> str:
        # A command and its request
        await self.step(Inventory.reserve(order_id=order.id, sku=order.cents))  # E: arg-type
        await self.step(Inventory.reserve(order_id=order.id))  # E: call-arg
        await self.step(Inventory.reserve(order_id=order.id, sku=order.sku, color="red"))  # E: call-arg
        await self.step(Inventory.reserve)  # E: call-overload
        await self.step(Inventory)  # E: call-overload
        await self.step(Inventory.reservation(order_id=order.id))  # E: attr-defined
        # Undo
        charge = Payments.charge(order_id=order.id, cents=order.cents)
        await self.step(charge, undo=Payments.refund)  # E: call-overload
        await self.step(charge, undo=lambda receipt: Payments.refund(order_id=receipt.payment_id, receipt=receipt))  # E: union-attr
        await self.step(charge, undo=lambda receipt: order)  # E: call-overload
        await self.step(charge, undo=refund_known)  # E: call-overload
        await self.step(Shipping.ship(order_id="o", warehouse="A"), undo=Shipping.ship, pivot=True)  # E: call-overload
        # Replies
        stock: Receipt = await self.step(Inventory.reserve(order_id=order.id, sku=order.sku))  # E: assignment
        print(stock.warehouse)  # E: attr-defined
        one, two = await self.gather(self.step(charge), self.step(charge), self.step(charge))  # E: misc
        # Options
        await self.step(charge, retry=5)  # E: call-overload
        await self.step(charge, retry=Retry(exhausted="ignore"))  # E: arg-type
        await self.step(charge, start_to_close="5s")  # E: call-overload
        await self.sleep("1 day")  # E: arg-type
        return stock  # E: return-value


def refund_known(receipt: Receipt) -> object:
    return receipt


class OtherInput(Saga[Order, str]):
    async def run(self, order: Receipt) -> str:  # E: override
        return order.payment_id


class OtherResult(Saga[Order, str]):
    async def run(self, order: Order) -> int:  # E: override
        return order.cents


class MistakenPlan(Saga[Order, str]):
    order = takes(Order)
    stock = step(Inventory.reserve(order_id=order.idd, sku=order.sku), undo=Inventory.release)  # E: attr-defined
    paid = step(Payments.charge(order_id=order.id, cents=stock.warehouse))  # E: arg-type
    other = step(Payments.charge(order_id=order.id, cents=1), undo=Payments.refund)  # E: call-overload
    wrong = step(
        Payments.charge(order_id=order.id, cents=1),
        undo=Payments.refund(order_id=order.id, receipt=outcome(Reservation)),  # E: arg-type
    )
    final = step(Payments.charge(order_id="o", cents=1), undo=Payments.refund(order_id="o"), pivot=True)  # E: call-overload
    result = step(Shipping.ship)  # E: call-overload


payments = Participant(Payments)
inventory = Participant(Payments.charge)  # E: arg-type


@payments.handles(Payments.charge)  # E: arg-type
async def charge_other(request: Reserve) -> Receipt:
    return Receipt(payment_id=request.sku)


@payments.handles(Payments.charge)  # E: arg-type
def charge_nothing(request: Charge) -> None:
    return None


@payments.handles(Payments.charge)  # E: arg-type
async def charge_later(request: Charge) -> str:
    return request.order_id


@payments.handles(Payments.refund)  # E: arg-type
def refund(request: Refund, context: Receipt) -> None:
    return None


@payments.handles(Payments)  # E: arg-type
def refund_all(request: Refund, context: HandlerContext) -> None:
    return None


async def main(client: Client) -> None:
    handle = await client.start(Mistaken, ORDER.id)  # E: arg-type
    await client.start(Mistaken(), ORDER)  # E: arg-type
    started = await client.start(Mistaken, ORDER)
    number: int = await started.result()  # E: assignment
    print(handle, number, started.result)


SagaTest(Mistaken).answer(Inventory.reserve, Receipt(payment_id="p"))  # E: arg-type
SagaTest(Mistaken).answer(Inventory.release, True)  # E: arg-type
SagaTest(Mistaken).fail("Payments.charge", "CardDeclined")  # E: arg-type
SagaTest(Mistaken).run(Reserve(order_id="o-1", sku="tea"))  # E: arg-type
SagaTest(Inventory)  # E: type-var
