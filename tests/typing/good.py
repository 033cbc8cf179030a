"""Everything as it should be written: no type checker finds anything here."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type
from uuid import UUID

from pydantic import BaseModel

from orchestrator import (
    Abort,
    Backoff,
    Calendar,
    Canceled,
    ChildCancellation,
    Client,
    Conflict,
    Done,
    Entity,
    FailedAttempt,
    Failure,
    FromTopic,
    Handle,
    HandlerContext,
    HumanTask,
    IfLocked,
    Interval,
    Jitter,
    LocalContext,
    Map,
    MapChange,
    MapJob,
    MapReport,
    Overlap,
    ParentClose,
    Participant,
    PastRun,
    Promised,
    Retry,
    RetryLater,
    Reuse,
    Saga,
    SagaFailed,
    ScheduleDescription,
    ScheduleSpec,
    SourceRecord,
    Status,
    StepFailed,
    Undone,
    each,
    inject,
    local,
    operation,
    outcome,
    parallel,
    per_call,
    promise,
    query,
    signal,
    step,
    stream,
    takes,
    transactional,
    update,
)
from orchestrator.attributes import Bool, Datetime, Double, Int, Keyword, KeywordList, Text
from orchestrator.connectors.sql import SqlInbox
from orchestrator.interceptors import Around
from orchestrator.model.definition import StepRequest
from orchestrator.sagas.order_fulfilment import (
    Charge,
    Inventory,
    Order,
    Payments,
    Receipt,
    Refund,
    Reservation,
    Reserve,
    Ship,
    Shipping,
)
from orchestrator.testing import (
    End,
    HandlerTest,
    Mapped,
    Proof,
    Running,
    SagaTest,
    check_histories,
    mapped,
    prove,
    replay,
)

# -- search attributes


class Sale(Saga[Order, str]):
    customer = Keyword()
    amount = Double()
    items = Int()
    express = Bool()
    due = Datetime()
    tags = KeywordList()
    comment = Text()

    async def run(self, order: Order) -> str:
        self.upsert(Sale.customer("ann"), Sale.amount(3), Sale.items(1), Sale.express(True), Sale.due(self.now()))
        self.upsert(Sale.tags(["gift"]), Sale.comment("ring twice"), Sale.customer(None))
        self.memo(colour="green", size=[1, 2])
        self.summarize("done")
        return ""


async def search(client: Client, order: Order) -> None:
    await client.start(Sale, order, attributes=[Sale.customer("ann")], memo={"size": 3}, summary="new")


async def schedules(client: Client, order: Order) -> None:
    spec = ScheduleSpec(
        crons=("30 9 * * MON-FRI",),
        intervals=(Interval(every=60), Interval(every=timedelta(hours=1), offset=5.5)),
        calendars=(Calendar(hour="9", weekday="MON"),),
        exclude=(Calendar(month="12"),),
        time_zone="Europe/Berlin",
        jitter=timedelta(seconds=5),
        end=datetime.now(UTC),
    )
    await client.schedules.create("s", Sale, order, spec, overlap=Overlap.BUFFER_ONE, catch_up_window=60)
    await client.schedules.create("t", Sale, order, spec, remaining_actions=3, memo={"for": "ann"}, paused=True)
    await client.schedules.update("s", spec=spec, action=(Sale, order), remaining_actions=None)
    assert_type(await client.schedules.describe("s"), ScheduleDescription)
    assert_type(await client.schedules.trigger("s", Overlap.ALLOW_ALL), str)
    assert_type(await client.schedules.backfill("s", datetime.now(UTC), datetime.now(UTC)), int)
    await client.schedules.pause("s", "for a while")
    await client.schedules.resume("s")
    await client.schedules.delete("s", reason="old")


# -- code style


def may_pass(failed: FailedAttempt) -> bool:
    return failed.attempt < 3 and failed.error_type != "Closed"


class OrderFulfilment(Saga[Order, str]):
    async def run(self, order: Order) -> str:
        stock = await self.step(Inventory.reserve(order_id=order.id, sku=order.sku), undo=Inventory.release)
        await self.step(
            Payments.charge(order_id=order.id, cents=order.cents),
            retry=Retry(maximum_attempts=5, jitter=Jitter.FULL, rules={"Busy": Backoff(30)}, predicate=may_pass),
            undo=lambda receipt: Payments.refund(order_id=order.id, receipt=receipt),
        )
        return await self.step(Shipping.ship(order_id=order.id, warehouse=stock.warehouse), pivot=True)


class Balance(BaseModel):
    cents: int = 0


class Account(Entity[Balance]):
    @operation
    async def withdraw(self, cents: int) -> int:
        assert_type(self.state, Balance)
        assert_type(await self.deposit(0), int)
        return self.state.cents

    @operation
    async def deposit(self, cents: int) -> int:
        return self.state.cents

    @query
    def balance(self) -> int:
        return self.state.cents


async def ask_an_entity(client: Client) -> None:
    account = client.entity(Account, "ann")
    assert_type(await account.call(Account.withdraw(cents=5), operation_id="p-1"), int)
    assert_type(await account.call(Account.delete()), None)
    assert_type(await account.query(Account.balance), int)
    await account.tell(Account.deposit(5))
    assert_type(SagaTest(Account).entity(Account).call(Account.deposit(5)), int)
    SagaTest(Expense).locked("account/ann", "account/bob", for_=timedelta(hours=1)).locked("till")
    SagaTest(Expense).update(Expense.raise_to, 10).at(60).update(Expense.raise_to, cents=20).run(900)
    SagaTest(Expense).call(Account.withdraw, 15).call_fails(Account.deposit, "Closed")


class Locked(Saga[int, str], locks=lambda cents: [f"cents/{cents}"]):
    async def run(self, cents: int) -> str:
        async with self.lock("a", "b", timeout=5, if_locked=IfLocked.FAIL):
            account = self.entity(Account, "ann")
            assert_type(await account.call(Account.withdraw(5), undo=Account.deposit(5), timeout=60), int)
            calls = await self.gather(
                account.call(Account.withdraw(5), undo=lambda left: Account.deposit(5 if left is None else left)),
                account.call(Account.delete()),
            )
            assert_type(calls, tuple[int, None])
            account.tell(Account.deposit(5))
        await self.lock("a")
        return ""


class Expense(Saga[int, str]):
    decided = signal(Receipt)
    nudged = signal()
    paid = promise(Receipt)
    seen = promise()

    @query
    def more_than(self, cents: int) -> bool:
        return cents > 0

    @update
    async def raise_to(self, cents: int) -> int:
        return cents

    @raise_to.validator
    def _check(self, cents: int) -> None:
        return None

    async def run(self, cents: int) -> str:
        assert_type(await self.receive(Expense.decided), Receipt)
        late = await self.receive(Expense.decided, timeout=timedelta(days=3))
        assert_type(late, Receipt | None)
        assert_type(await self.receive(Expense.nudged), None)
        assert_type(await self.wait_until(lambda: late is None, timeout=60), bool)
        self.signal("e-2", Expense.decided, Receipt(payment_id="p-1"))
        self.signal("e-2", Expense.nudged)
        assert_type(self.more_than(10), bool)
        assert_type(await self.raise_to(10), int)
        paid = self.promise(Expense.paid, key="boss")
        assert_type(paid, Promised[Receipt])
        assert_type(paid.token, str)
        assert_type(await paid, Receipt)
        assert_type(await self.receive(paid, timeout=60), Receipt | None)
        assert_type(await self.gather(paid, self.promise(Expense.seen)), tuple[Receipt, None])
        return "paid"


class Everything(Saga[Order, Receipt | None], name="everything", execution_timeout=timedelta(hours=1), run_timeout=9):
    async def run(self, order: Order) -> Receipt | None:
        reserve = Inventory.reserve(order_id=order.id, sku=order.sku)
        stock = await self.step(reserve, undo=Inventory.release(order_id=order.id, sku=order.sku))
        assert_type(stock, Reservation)
        assert_type(await self.step(Inventory.release(order_id=order.id, sku=order.sku)), None)
        await self.sleep_until(self.now() + timedelta(days=30))
        assert_type(await self.step(reserve, heartbeat=5, schedule_to_start=timedelta(hours=1)), Reservation)
        first, second = await self.gather(self.step(reserve), self.step(Shipping.ship(order_id="o", warehouse="A")))
        assert_type(first, Reservation)
        assert_type(second, str)
        many = await self.gather(*[self.step(reserve, spread=True) for _ in range(100)])
        assert_type(many, tuple[Reservation, ...])
        assert_type(await self.gather(self.charge(order), self.charge(order)), tuple[Receipt, Receipt])
        ship = self.step(Shipping.ship(order_id="o", warehouse="A"))
        match await self.race(self.step(reserve), ship, self.sleep(5)):
            case (0, won):
                assert_type(won, Reservation)
            case (1, shipped):
                assert_type(shipped, str)
            case (2, nothing):
                assert_type(nothing, None)
        place, either = await self.any(self.charge(order), self.step(reserve))
        assert_type(either, Receipt | Reservation)
        assert_type(await self.any(*[self.charge(order) for _ in range(9)]), tuple[int, Receipt])
        assert_type(await self.some([self.charge(order), self.charge(order)], successes=1), tuple[Receipt, ...])
        settled, other = await self.settle(self.charge(order), self.step(reserve))
        assert_type(other, Done[Reservation] | StepFailed)
        match settled:
            case Done(receipt):
                assert_type(receipt, Receipt)
            case failure:
                raise failure
        assert_type(await self.each([order, order], self.charge, concurrency=place + 1), tuple[Receipt, ...])
        by_id = {order.id: order}
        await self.each(by_id.values(), self.charge)
        await self.each((each for each in (order, order)), self.charge)
        await self.each(filter(None, [order]), self.charge)
        assert_type(await self.some((self.charge(order) for _ in range(2)), successes=1), tuple[Receipt, ...])
        borne = await self.each([order], self.charge, tolerated_share=0.05)
        assert_type(borne, tuple[Done[Receipt] | StepFailed, ...])
        assert_type([one.value for one in borne if isinstance(one, Done)], list[Receipt])
        assert_type(self.now(), datetime)
        assert_type(self.uuid(), UUID)
        assert_type(self.random.random(), float)
        assert_type(self.id, str)
        await self.sleep(5)
        await self.sleep(timedelta(days=30))
        try:
            return await self.charge(order)
        except StepFailed as failed:
            if failed.unknown:
                raise Abort(failed.error_type, failed.message) from failed
            return None
        except Canceled:
            raise
        finally:
            await self.step(Shipping.ship(order_id=order.id, warehouse="B"), start_to_close=5, schedule_to_close=60.5)

    async def charge(self, order: Order) -> Receipt:
        return await self.step(
            Payments.charge(order_id=order.id, cents=order.cents),
            retry=Retry(1.5, 2, timedelta(minutes=1), 5, ("Fatal",), exhausted="park"),
            undo_retry=Retry(maximum_attempts=3),
            undo=lambda receipt: Payments.refund(order_id=order.id, receipt=receipt),
        )


# -- declarative style


class Family(Saga[Order, str]):
    async def run(self, order: Order) -> str:
        assert_type(await self.child(OrderFulfilment, order), str)
        both = await self.gather(self.child(Everything, order, id="e"), self.child(OrderFulfilment, order, undo=False))
        assert_type(both, tuple[Receipt | None, str])
        kept = self.child(OrderFulfilment, order, undo=False, cancellation=ChildCancellation.ABANDON)
        self.start_child(OrderFulfilment, order, parent_close=ParentClose.REQUEST_CANCEL)
        if self.suggests_continue_as_new:
            self.continue_as_new(order)
        return await kept


class OrderPlan(Saga[Order, str]):
    order = takes(Order)
    stock = step(Inventory.reserve(order_id=order.id, sku=order.sku), undo=Inventory.release)
    paid = step(
        Payments.charge(order_id=order.id, cents=order.cents),
        undo=Payments.refund(order_id=order.id, receipt=outcome(Receipt)),
    )
    result = step(Shipping.ship(order_id=order.id, warehouse=stock.warehouse), pivot=True, retry=Retry())


class Parcel(BaseModel):
    skus: list[str]


class ParcelPlan(Saga[Parcel, tuple[Reservation, ...]]):
    parcel = takes(Parcel)
    paid, sent = parallel(
        step(Payments.charge(order_id="o", cents=1)), step(Shipping.ship(order_id="o", warehouse="A"))
    )
    refunded = step(Payments.refund(order_id=sent, receipt=paid))
    result = each(
        parcel.skus,
        lambda sku: Inventory.reserve(order_id="o", sku=sku),
        undo=Inventory.release,
        concurrency=3,
        retry=Retry(),
    )


assert_type(ParcelPlan.paid, Receipt)
assert_type(ParcelPlan.sent, str)
assert_type(ParcelPlan.result, tuple[Reservation, ...])
assert_type(OrderPlan.stock, Reservation)
assert_type(OrderPlan.paid, Receipt)
assert_type(OrderPlan.result, str)

# -- services

payments = Participant(Payments)


@payments.handles(Payments.charge)
async def charge(request: Charge) -> Receipt:
    if request.cents > 100_000:
        raise Failure("CardDeclined")
    if request.cents < 0:
        raise RetryLater(after=5)
    return Receipt(payment_id="p-1")


@payments.handles(Payments.refund)
def refund(request: Refund) -> None:
    assert_type(request.receipt, Receipt | None)


inventory = Participant(Inventory)


@inventory.handles(Inventory.reserve)
def reserve(request: Reserve, context: HandlerContext) -> Reservation:
    context.heartbeat({"row": 7})
    assert_type(context.heartbeat_details(Receipt), Receipt | None)
    assert_type(context.heartbeat_details(int), int | None)
    return Reservation(warehouse=context.idempotency_key)


@inventory.handles(Inventory.release)
async def release(request: Reserve, context: HandlerContext) -> None:
    return None


shipping = Participant(Shipping)


class Shipper:
    @staticmethod
    def ship(request: Ship) -> str:
        return request.warehouse


shipping.handles(Shipping.ship)(Shipper.ship)

# -- clients


async def main() -> str:
    async with Client.connect("localhost:9092") as client:
        handle = await client.start(OrderFulfilment, Order(id="o-1", sku="tea", cents=900), id="o-1")
        assert_type(handle, Handle[str])
        await client.start(Everything, Order(id="o-9", sku="tea", cents=9), start_delay=timedelta(days=1))
        await client.reschedule("o-9", start_at=datetime.now(UTC))
        other = await client.start(Everything, Order(id="o-2", sku="tea", cents=900))
        assert_type(await other.result(), Receipt | None)
        again = await client.start(
            OrderFulfilment, Order(id="o-3", sku="t", cents=9), reuse=Reuse.ALLOW_DUPLICATE, conflict=Conflict.FAIL
        )
        assert_type(await again.result(), str)
        expense = await client.start(Expense, 900, id="e-1", signal=(Expense.decided, Receipt(payment_id="p")))
        await expense.signal(Expense.decided, Receipt(payment_id="p-1"))
        await expense.signal(Expense.nudged)
        await expense.complete_promise(Expense.paid, Receipt(payment_id="p-1"), key="boss")
        await expense.fail_promise(Expense.paid, "Denied", "too dear")
        await client.complete_promise("e-1", Expense.seen)
        assert_type(await expense.query(Expense.more_than, 10), bool)
        assert_type(await expense.update(Expense.raise_to, 10), int)
        raising = await client.start_update_as("u-1", "e-1", Expense.raise_to, cents=10)
        await raising.accepted(timeout=None)
        assert_type(await raising.result(), int)
        assert_type(await client.query("e-1", Expense.more_than, cents=10), bool)
        await client.signal("e-1", Expense.decided, Receipt(payment_id="p-1"), message_id="m-1")
        planned = await client.start(OrderPlan, Order(id="o-3", sku="tea", cents=900))
        assert_type(await planned.result(timeout=None), str)
        attached = await client.attach(OrderFulfilment, "o-1")
        await attached.cancel(reason="changed my mind")
        try:
            return await handle.result(timeout=30)
        except SagaFailed as failed:
            return failed.error_type


# -- local steps


def price(sku: str, pieces: int = 1) -> int:
    return 300 * pieces


async def book(context: LocalContext, sku: str) -> Receipt:
    return Receipt(payment_id=context.idempotency_key)


def unbook(context: LocalContext, receipt: Receipt | None, sku: str) -> None:
    return None


class Booking(Saga[Order, str]):
    async def run(self, order: Order) -> str:
        assert_type(await self.local(price, order.sku), int)
        assert_type(await self.local(price, order.sku, 3, retry=Retry(maximum_attempts=3)), int)
        booked = await self.local(book, order.sku, undo=unbook, start_to_close=30)
        cents, again = await self.gather(self.local(price, order.sku, 2), self.local(book, order.sku))
        assert_type((cents, again), tuple[int, Receipt])
        assert_type(self.side_effect(lambda: 7, returns=int), int)
        return booked.payment_id


class BookingPlan(Saga[Order, Receipt]):
    order = takes(Order)
    cents = local(price, order.sku, 3)
    result = local(book, order.sku, undo=unbook)
    assert_type(result, Receipt)


# -- what goes along


class Database:
    rows: list[str]


class Patient(Around):
    def step(self, saga: Saga[Any, Any], request: StepRequest) -> StepRequest:
        return request


class NewOrder(Saga[Order, str], name="OrderFulfilment", version=2, pinned=True):
    async def run(self, order: Order) -> str:
        self.deprecate_patch("gone")
        assert_type(self.patched("check"), bool)
        return order.id


class TakenOver(Saga[Order, str], name="OrderFulfilment", version=3):
    async def run(self, order: Order) -> str:
        return order.id

    @classmethod
    def migrate(cls, past: PastRun) -> Order | None:
        assert_type(past.results(Inventory.reserve), list[Reservation])
        return None if past.has_done(Shipping.ship) else Order(id=past.input["id"], sku="tea", cents=past.version)


assert_type(PastRun.of(1, {"id": "o-1"}, (Inventory.reserve, Reservation(warehouse="A"))), PastRun)


class PatientOrder(Saga[Order, str], around=[Patient()]):
    async def run(self, order: Order) -> str:
        return self.baggage["tenant"]


def database() -> Iterator[Database]:
    yield Database()


def rows(database: Database = inject(Database), context: HandlerContext = inject(HandlerContext)) -> list[str]:
    return database.rows


@contextmanager
def logged(request: object, context: HandlerContext) -> Iterator[None]:
    yield


provided = Participant(Shipping, provide=[database, per_call(rows)], around=[logged])


@provided.handles(Shipping.ship)
def ship_with(request: Ship, context: HandlerContext, *, database: Database = inject(Database)) -> str:
    return context.baggage["tenant"] + database.rows[0]


async def start_with_baggage(client: Client) -> str:
    handle = await client.start(PatientOrder, Order(id="o-1", sku="tea", cents=900), baggage={"tenant": "acme"})
    await client.move_version("o-1", 2, reason="it is broken", by="ann")
    await client.redrive("o-1", timeout=10)
    await client.restart("o-1", payload=b"{}", reason="again")
    await client.reset("o-1", to=3)
    await client.fork("o-1", to=3, new_id="o-2")
    await client.unpark("o-1", "retry", step=3, payload=b"{}")
    with provided.override({Database: Database()}):
        return await handle.result()


class Prices(Map[Order, int]):
    concurrency = 20
    tolerated_failures = None

    async def item(self, order: Order) -> int:
        return await self.local(price, order.sku)


@transactional(SqlInbox(lambda: sqlite3.connect("shop.db")))
def enter(context: LocalContext, sku: str) -> int:
    context.connection.execute("INSERT INTO bookings VALUES (?)", (sku,))
    return len(sku)


class Entering(Saga[Order, int]):
    async def run(self, order: Order) -> int:
        return await self.local(enter, order.sku, undo=unbook_entry)


@transactional(SqlInbox(lambda: sqlite3.connect("shop.db")))
def unbook_entry(context: LocalContext, entered: int | None, sku: str) -> None:
    return None


async def map_all(client: Client) -> MapReport:
    handle = await client.start(Prices, MapJob(source="orders.csv"), id="m-1")
    await handle.signal(Map.change, MapChange(concurrency=50))
    return await handle.result()


class Asking(Saga[Order, str]):
    paid = signal(Receipt)

    async def hear(self, order: Order, client: Client) -> None:
        assert_type(await self.receive(Asking.paid, key=order.id), Receipt)
        assert_type(await self.receive(Asking.paid, timedelta(days=1), key=order.id), Receipt | None)
        await client.signal_by_key(Asking.paid, order.id, Receipt(payment_id="p"), ttl=timedelta(hours=1))
        await client.signal_by_key(Expense.nudged, order.id)
        self.signal_by_key(Expense.decided, order.id, Receipt(payment_id="p"), ttl=timedelta(hours=1))
        self.signal_by_key(Expense.nudged, order.id)

    async def run(self, order: Order) -> str:
        task = self.human_task(Reservation, title="which?", group="stock", due=timedelta(days=1), escalate=self.remind)
        assert_type(task, HumanTask[Reservation])
        assert_type(await task, Reservation)
        first, second = await self.gather(
            self.human_task(Receipt, title="paid?", assignee="ann", key="a"),
            self.human_task(Reservation, title="else?"),
        )
        assert_type((first, second), tuple[Receipt, Reservation])
        return str(task.assignee)

    told = stream(Receipt)
    counted = stream(int)

    def tell(self, receipt: Receipt) -> None:
        self.publish(Asking.told, receipt)
        self.publish(Asking.counted, 3)

    async def remind(self, task: HumanTask[Reservation]) -> timedelta | None:
        task.reassign(assignee="bob")
        return timedelta(days=1) if task.escalations < 3 else None


async def follow(client: Client, handle: Handle[str]) -> None:
    async for receipt in handle.follow(Asking.told):
        assert_type(receipt, Receipt)
    async for number in client.follow("a-1", Asking.counted):
        assert_type(number, int)


async def fill_in(client: Client) -> None:
    await client.claim_task("a-1", by="ann")
    await client.complete_task("a-1", Reservation(warehouse="A"), by="ann")
    await client.reassign_task("a-1", "Reservation", assignee="bob", by="ann")


orders = FromTopic("shop.orders", Order, where=lambda r: r.headers.get("type") == "placed" and len(r.value) > 0)
orders.starts(OrderFulfilment, id=lambda r: r.value.id, input=lambda r: r.value, where=lambda r: r.value.cents > 0)
orders.signals(Expense.decided, id=lambda r: r.key, value=lambda r: Receipt(payment_id=r.value.sku))
orders.signals(Expense.decided, key=lambda r: r.value.id, value=lambda r: Receipt(payment_id=r.value.sku), ttl=60)
orders.signals(Expense.nudged, key=lambda r: r.value.id)
orders.signals(Expense.nudged, id=lambda r: r.key).completes(
    Expense.paid, id=lambda r: r.key, result=lambda r: Receipt(payment_id=r.value.id)
)


def number_of(record: SourceRecord[Order]) -> str:
    return f"{record.value.id}-{record.offset}"


orders.starts(OrderFulfilment, id=number_of, input=lambda r: r.value, reuse=Reuse.ALLOW_DUPLICATE)


# -- tests


def test_what_a_record_means() -> None:
    assert_type(mapped(orders, Order(id="o-1", sku="tea", cents=900), key="o-1"), list[Mapped])


def test_a_function_stands_in() -> None:
    SagaTest(Booking).stand_in(price, lambda sku, pieces=1: 1).run(Order(id="o-1", sku="tea", cents=900))


def test_handlers_answer_in_a_test() -> None:
    test = SagaTest(OrderFulfilment).service(inventory, payments).service(shipping, takes=timedelta(hours=1))
    test.handle(Payments.charge, lambda request: Receipt(payment_id=request.order_id)).handle(Payments.charge, charge)
    test.handle(Inventory.reserve, reserve).limit(500).without_replay().never(Shipping.ship).at(60).cancel("too slow")
    saga = test.when(Shipping.ship, attempt=2).terminate().start(Order(id="o-1", sku="tea", cents=900), id="o-1")
    assert_type(saga, Running[str])
    assert_type(saga.move_version(NewOrder), Running[str])
    saga.advance(timedelta(days=1)).until(Shipping.ship)
    end = saga.answer(Shipping.ship, "shipped").finish()
    end.assert_completed("shipped").assert_compensated(Payments.refund, {Inventory.release, Shipping.ship})
    assert_type(end.requests(Payments.charge), list[Charge])
    assert_type(prove(test, Order(id="o-1", sku="tea", cents=900), harmless=[Shipping.ship]), Proof)
    prove(test, Order(id="o-1", sku="tea", cents=900), check=lambda end: end.assert_completed("shipped"))
    end.save("paid.json")
    replay(OrderFulfilment, end.decisions)
    assert_type(check_histories("histories", OrderFulfilment, OrderPlan), int)
    called = HandlerTest(payments).call(Payments.charge(order_id="o-1", cents=900), attempt=2)
    assert_type(called.reply, Receipt)


def test_a_declined_card_gives_the_stock_back() -> None:
    saga = (
        SagaTest(OrderFulfilment)
        .answer(Inventory.reserve, Reservation(warehouse="A"))
        .retry(Payments.charge)
        .fail(Payments.charge, "CardDeclined")
    )
    end = saga.run(Order(id="o-1", sku="tea", cents=900))
    assert_type(end, End[str])
    assert end.status is Status.COMPENSATED
    assert end.undone is Undone.ALL
    assert end.effects == [Inventory.reserve, Inventory.release]
    assert_type(end.result, str | None)
