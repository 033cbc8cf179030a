"""Mistakes that type checkers must find, each on the line that names it. Nothing here is ever run."""

from pydantic import BaseModel

from orchestrator import (
    Client,
    Entity,
    FromTopic,
    Handle,
    HandlerContext,
    HumanTask,
    Jitter,
    LocalContext,
    Map,
    MapJob,
    Participant,
    PastRun,
    Retry,
    Saga,
    ScheduleSpec,
    each,
    inject,
    local,
    operation,
    outcome,
    parallel,
    promise,
    query,
    signal,
    step,
    stream,
    takes,
    transactional,
    update,
)
from orchestrator.interceptors import Around
from orchestrator.attributes import Keyword, KeywordList
from orchestrator.sagas.order_fulfilment import (
    Charge,
    Inventory,
    Order,
    Payments,
    Receipt,
    Refund,
    Reservation,
    Reserve,
    Shipping,
)
from orchestrator.testing import HandlerTest, SagaTest, prove, replay


def price(sku: str, pieces: int) -> int:
    return len(sku) * pieces


def free(context: LocalContext, cents: int | None, sku: str, pieces: int) -> None:
    return None


@transactional("shop.db")  # E: place of a database instead of an inbox
def enter(context: LocalContext, sku: str) -> None:
    return None


class Prices(Map[Order, int]):
    async def item(self, order: Order) -> str:  # E: result of another type than the map's
        return order.sku


class Names(Map[Order, str]):
    async def item(self, sku: str) -> str:  # E: row of another type than the map's
        return sku


ORDER = Order(id="o-1", sku="tea", cents=900)
SPEC = ScheduleSpec(crons="* * * * *")  # E: line instead of several


class Balance(BaseModel):
    cents: int = 0


class Account(Entity[Balance]):
    @operation
    async def withdraw(self, cents: int) -> int:
        self.state.euros = cents  # E: wrong field of an entity's state
        return self.state.cents

    @operation
    async def deposit(self, cents: int) -> int:
        return self.state.cents

    @operation  # E: operation that is no async method
    def look(self) -> int:
        return self.state.cents


class Drawer(Entity[Balance]):
    @operation
    async def close(self, cents: int) -> None:
        return None


class Expense(Saga[int, str]):
    decided = signal(Receipt)
    nudged = signal()
    paid = promise(Receipt)

    @query
    def more_than(self, cents: int) -> bool:
        return cents > 0

    @update
    async def raise_to(self, cents: int) -> int:
        return cents

    @raise_to.validator  # E: validator of other arguments
    def _check(self, euros: str) -> None:
        return None

    @update  # E: update that is no async method
    def lower_to(self, cents: int) -> int:
        return cents

    async def run(self, cents: int) -> str:
        receipt: Order = await self.receive(Expense.decided)  # E: wrong type of a signal that was received
        late = await self.receive(Expense.decided, timeout=60)
        print(late.payment_id)  # E: signal that may not have come
        paid = self.promise(Expense.paid)
        when_paid: Order = await paid  # E: wrong type of a promise's result
        print((await self.receive(paid, timeout=60)).payment_id, when_paid)  # E: promise that may not be kept in time
        self.signal("e-2", Expense.decided, cents)  # E: wrong payload of a signal to another saga
        self.signal("e-2", Expense.decided)  # E: signal to another saga without its payload
        await self.signal("e-2", Expense.nudged)  # E: nothing to wait for in telling another saga
        account = self.entity(Account, "ann")
        await account.call(Account.withdraw("5"))  # E: wrong argument of an operation
        await account.call(Account.withdraw)  # E: operation that was not called
        await account.call(Drawer.close(5))  # E: operation of another entity
        await account.call(Account.withdraw(5), undo=Drawer.close(5))  # E: undo by another entity
        await account.call(Account.withdraw(5), undo=lambda left: Account.deposit(left))  # E: undo that ignores None
        left: str = await account.call(Account.withdraw(5))  # E: wrong result of an operation
        self.entity(Expense, "ann")  # E: saga instead of an entity
        self.lock(5)  # E: key of a lock that is no text
        self.lock("a", if_locked="FAIL")  # E: policy of a lock by its name
        print(left)
        self.promise(Expense.decided)  # E: signal where a promise is asked for
        await self.receive(Expense.paid)  # E: promise that was not made
        return receipt.id


class Mistaken(Saga[Order, str]):
    async def run(self, order: Order) -> str:
        await self.step(Inventory.reserve(order_id=order.id, sku=order.cents))  # E: wrong argument of a command
        await self.step(Inventory.reserve(order_id=order.id))  # E: missing argument of a command
        await self.step(Inventory.reserve(order_id="o", sku="s", color="red"))  # E: unknown argument of a command
        await self.step(Inventory.reserve)  # E: command not called
        await self.step(Inventory)  # E: service instead of a command
        await self.step(Inventory.reservation(order_id=order.id))  # E: command that is not in the contract

        charge = Payments.charge(order_id=order.id, cents=order.cents)
        ship = Shipping.ship(order_id=order.id, warehouse="A")
        await self.step(charge, undo=Payments.refund)  # E: undo that takes another request
        await self.step(charge, undo=lambda r: Payments.charge(order_id=r.payment_id, cents=1))  # E: undo ignores None
        await self.step(charge, undo=refund_known)  # E: undo function that does not take None
        await self.step(charge, undo=lambda r: order)  # E: undo function that gives no call
        await self.step(ship, undo=Shipping.ship, pivot=True)  # E: pivot with undo

        await self.child(Mistaken, order.id)  # E: wrong input of a child
        answer: int = await self.child(Mistaken, order)  # E: wrong result of a child
        await self.child(Mistaken, order, parent_close="TERMINATE")  # E: word instead of a policy
        self.start_child(Inventory, order)  # E: service instead of a child

        await self.local(price, order.sku, "3")  # E: wrong argument of a local step
        await self.local(price, order.sku)  # E: missing argument of a local step
        await self.local(price, order.sku, 3, 4)  # E: unknown argument of a local step
        cost: str = await self.local(price, order.sku, 3)  # E: wrong result of a local step
        await self.local(price(order.sku, 3), order.sku)  # E: function called instead of passed
        await self.local(price, order.sku, 3, undo=price)  # E: undo that takes something else
        number: int = self.side_effect(lambda: cost, returns=str)  # E: side effect of another type
        drawn: str = self.side_effect(lambda: number + 1, returns=str)  # E: side effect that gives another type

        stock: Receipt = await self.step(Inventory.reserve(order_id="o", sku="s"))  # E: wrong reply of a step
        print(stock.warehouse)  # E: field that is not in the reply
        _, two = await self.gather(self.step(charge), self.step(charge), self.step(ship))  # E: three results, not two
        print(two, drawn)

        (paid,) = await self.settle(self.step(charge))
        print(paid.value.payment_id)  # E: result of a branch that may have failed
        _, first = await self.race(self.step(charge), self.step(ship))
        print(first.payment_id)  # E: result of one branch of a race, whichever won
        match await self.any(self.step(charge), self.step(ship)):
            case (1, receipt):
                print(receipt.payment_id)  # E: result of another branch than the one that won
        await self.some([self.step(charge)])  # E: how many are to succeed is not said
        await self.each([order], self.pay, concurrency="all")  # E: number that is text
        await self.each(["o-1"], self.pay)  # E: items that the function does not take
        await self.each([order], self.pay, tolerated_failures=1, tolerated_share=0.5)  # E: count and share at once
        for result in await self.each([order], self.pay, tolerated_failures=1):
            print(result.value.payment_id)  # E: result of an item that may have failed

        await self.step(charge, retry=5)  # E: retry that is none
        await self.step(charge, retry=Retry(exhausted="ignore"))  # E: what there is not to do when exhausted
        await self.step(charge, retry=Retry(jitter="full"))  # E: jitter that is text
        await self.step(charge, retry=Retry(jitter=Jitter.ALL))  # E: jitter that there is not
        await self.step(charge, retry=Retry(rules={"Busy": 30}))  # E: rule of a retry that is a number
        await self.step(charge, retry=Retry(predicate=lambda f: f.kind == "x"))  # E: unknown field of an attempt
        await self.step(charge, retry=Retry(predicate=refund_known))  # E: predicate of something else
        await self.step(charge, start_to_close="5s")  # E: duration that is text
        await self.sleep("1 day")  # E: pause that is text
        await self.sleep_until(5.0)  # E: pause until a number
        await self.step(charge, heartbeat="5s")  # E: heartbeat timeout that is text
        await self.step(charge, start_timeout=5)  # E: timeout that there is not
        return stock  # E: wrong result of a saga

    async def pay(self, order: Order) -> Receipt:
        return await self.step(Payments.charge(order_id=order.id, cents=order.cents))


def refund_known(receipt: Receipt) -> object:
    return receipt


class OtherInput(Saga[Order, str]):
    async def run(self, order: Receipt) -> str:  # E: run takes another input than its saga
        return order.payment_id


class OtherResult(Saga[Order, str]):
    async def run(self, order: Order) -> int:  # E: run gives another result than its saga
        return order.cents


class MistakenAgain(Saga[Order, str]):
    async def run(self, order: Order) -> str:
        self.continue_as_new(order.id)  # E: wrong input of the next run


class MistakenPlan(Saga[Order, str]):
    order = takes(Order)
    stock = step(Inventory.reserve(order_id=order.idd, sku=order.sku))  # E: wrong field in a reference to the input
    paid = step(Payments.charge(order_id=order.id, cents=stock.warehouse))  # E: reference of another type
    room = step(Inventory.reserve(order_id=order.id, sku=stock.shelf))  # E: wrong field in a reference to a reply
    cents = local(price, order.sku, order)  # E: wrong reference for a local step
    again = step(Payments.charge(order_id=order.id, cents=1), undo=Payments.refund)  # E: undo with another request
    wrong = step(
        Payments.charge(order_id=order.id, cents=1),
        undo=Payments.refund(order_id=order.id, receipt=outcome(Reservation)),  # E: outcome of another type
    )
    final = step(Shipping.ship(order_id="o", warehouse="A"), undo=Shipping.ship, pivot=True)  # E: pivot with undo
    one, two = parallel(step(Payments.charge(order_id="o", cents=1)), step(Shipping.ship(order_id="o", warehouse="A")))
    there = step(Shipping.ship(order_id="o", warehouse=one))  # E: reply of another step of a group
    lots = each(order.lines, lambda line: Inventory.reserve(order_id="o", sku="s"))  # E: list that is not there
    unordered = each({"o"}, lambda line: Inventory.reserve(order_id=line, sku="s"))  # E: declared set
    unmade = each(["o"], lambda line: line)  # E: function that gives no call
    charge = Payments.charge(order_id="o", cents=1)
    undone = each(["o"], lambda line: MistakenPlan.charge, undo=Payments.refund)  # E: undo of many, of another request
    result = step(Shipping.ship)  # E: command not called


payments = Participant(Payments)
inventory = Participant(Payments.charge)  # E: command instead of a service


@payments.handles(Payments.charge)  # E: wrong request of an async handler
async def charge_other(request: Reserve) -> Receipt:
    return Receipt(payment_id=request.sku)


@payments.handles(Payments.charge)  # E: wrong request of a sync handler
def charge_reservation(request: Reservation) -> Receipt:
    return Receipt(payment_id=request.warehouse)


@payments.handles(Payments.charge)  # E: wrong reply of a sync handler
def charge_nothing(request: Charge) -> None:
    return None


@payments.handles(Payments.charge)  # E: wrong reply of an async handler
async def charge_later(request: Charge) -> str:
    return request.order_id


@payments.handles(Payments.refund)  # E: second parameter that is no context
def refund(request: Refund, context: Receipt) -> None:
    return None


@payments.handles(Payments)  # E: service instead of a command
def refund_all(request: Refund, context: HandlerContext) -> None:
    return None


def receipts() -> Receipt:
    return Receipt(payment_id="p-1")


def handler_only(request: Charge) -> None:
    return None


Participant(Payments, provide=[1])  # E: provider that is no function
Participant(Payments, around=[handler_only])  # E: something around handlers that is no context manager


def injected(request: Charge, receipt: Receipt = inject(Refund)) -> Receipt:  # E: injected as another type
    return receipt


class Patience(Around):
    def step(self, saga: Saga[Order, str], request: Order) -> Order:  # E: something around steps that takes no step
        return request


class TextVersion(Saga[Order, str], version="2"):  # E: version that is text
    async def run(self, order: Order) -> str:
        if self.patched(2):  # E: patch that is no name
            return ""
        self.deprecate_patch()  # E: deprecated patch without its name
        return "x"


class Surrounded(Saga[Order, str], around=[Patience]):  # E: class instead of an object around a saga
    async def run(self, order: Order) -> str:
        return self.baggage["tenant"].cents  # E: baggage is text


async def ask(client: Client) -> None:
    account = client.entity(Account, "ann")
    await account.call(Account.withdraw())  # E: operation without its argument
    await account.call(Account.withdraw(euros=5))  # E: unknown argument of an operation
    await account.call(Drawer.close(5))  # E: client's operation of another entity
    left: str = await account.call(Account.withdraw(5))  # E: wrong result of a client's operation
    client.entity(Expense, left)  # E: client's saga instead of an entity


async def main(client: Client) -> None:
    await client.move_version("o-1", "2")  # E: version that is text
    await client.start(Mistaken, ORDER, baggage={"tenant": 1})  # E: baggage that is no text
    await client.start(Mistaken, ORDER.id)  # E: wrong start input
    await client.start(Prices, MapJob(source=ORDER))  # E: wrong source of a map
    await client.start(Mistaken(), ORDER)  # E: saga that is an object, not a class
    await client.start(Mistaken, ORDER, start_at=5.0)  # E: start at a number
    await client.schedules.create("s", Mistaken, Reserve(order_id="o", sku="tea"), SPEC)  # E: wrong input of a schedule
    await client.schedules.create("s", Mistaken, ORDER, "* * * * *")  # E: cron line instead of a spec
    await client.schedules.create("s", Mistaken, ORDER, SPEC, overlap="SKIP")  # E: overlap by its name
    await client.schedules.create("s", Mistaken, ORDER, SPEC, remaining=3)  # E: unknown option of a schedule
    await client.schedules.update("s", action=(Mistaken, "tea"))  # E: wrong input of a changed schedule
    await client.schedules.backfill("s", "2026-01-01", "2026-01-02")  # E: times that are text
    await client.reschedule("o-1", start_delay="1h")  # E: delay that is text
    started = await client.start(Mistaken, ORDER)
    number: int = await started.result()  # E: wrong type of a result
    await started.signal("paid", number)  # E: signal by its name
    await started.signal(Expense.decided, number)  # E: wrong payload of a signal
    await started.signal(Expense.decided)  # E: signal without its payload
    await started.signal(Expense.nudged, number)  # E: payload of a signal that has none
    await client.signal("e-1", Expense.decided, "yes")  # E: wrong payload of a signal by id
    await started.complete_promise(Expense.paid, "yes")  # E: wrong result of a promise
    await started.complete_promise(Expense.paid)  # E: promise without its result
    await started.complete_promise(Expense.decided, Receipt(payment_id="p"))  # E: signal instead of a promise
    await client.complete_promise("e-1", Expense.paid, number)  # E: wrong result of a promise by id
    await client.fail_promise("e-1", "paid", "Denied")  # E: promise by its name
    await started.query(Expense.more_than)  # E: query without its argument
    await started.query(Expense.more_than, "many")  # E: wrong argument of a query
    word: str = await started.query(Expense.more_than, 1)  # E: wrong type of a query's answer
    await client.query("e-1", Expense.more_than, most=word)  # E: unknown argument of a query
    await started.query("more_than")  # E: query by its name
    await started.update(Expense.raise_to)  # E: update without its argument
    await started.update(Expense.raise_to, "much")  # E: wrong argument of an update
    text: str = await started.update(Expense.raise_to, 1)  # E: wrong type of an update's result
    await client.start_update("e-1", Expense.raise_to, euros=text)  # E: unknown argument of an update
    await started.query(Expense.raise_to, 1)  # E: update where a query is asked for
    await client.start(Mistaken, ORDER, signal=(Expense.decided, "yes"))  # E: wrong payload of a signal with a start
    await client.start(Searched, ORDER, attributes=[Searched.customer(3)])  # E: attribute's value at the start


class Asking(Saga[Order, str]):
    async def hear(self, order: Order, client: Client) -> None:
        paid: Order = await self.receive(Expense.decided, key=order.id)  # E: wrong type of a signal by a key
        late = await self.receive(Expense.decided, timeout=60, key=order.id)
        print(late.payment_id)  # E: signal by a key that may not have come
        await self.receive(Expense.decided, key=order)  # E: business key that is no text
        self.signal_by_key(Expense.decided, order.id, order)  # E: wrong payload of a saga's signal by a key
        await client.signal_by_key(Expense.decided, order.id, paid)  # E: wrong payload of a signal by a key
        await client.signal_by_key(Expense.decided, order.id)  # E: signal by a key without its payload
        await client.signal_by_key(Expense.paid, order.id, Receipt(payment_id="p"))  # E: promise instead of a signal
        await client.signal_by_key(Expense.nudged, order.id, ttl="1h")  # E: time to live that is text

    async def run(self, order: Order) -> str:
        receipt: Receipt = await self.human_task(Reservation, title="which?")  # E: wrong type of a form
        await self.human_task(order, title="which?")  # E: object instead of a form's model
        await self.human_task(int, title="how many?")  # E: form that is no model
        await self.human_task(Reservation)  # E: task without a title
        await self.human_task(Reservation, title="", due=60, escalate=self.remind)  # E: escalation of another form
        return receipt.payment_id

    told = stream(Receipt)

    def tell(self, order: Order) -> None:
        self.publish(Asking.told, order)  # E: wrong value for a stream
        self.publish("told", Receipt(payment_id="p"))  # E: stream by its name
        self.publish(Asking.told)  # E: stream without a value

    async def listen(self, handle: Handle[str], client: Client) -> None:
        async for told in handle.follow(Asking.told):
            told.warehouse  # E: field that is not on the stream
        async for each in client.follow("a-1", Expense.decided):  # E: signal where a stream is asked for
            print(each)

    async def remind(self, task: HumanTask[Receipt]) -> None:
        task.reassign("ann")  # E: assignee that is not named
        task.form.warehouse  # E: form of a task before it is filled in

    async def ask(self, client: Client) -> None:
        await client.complete_task("e-1", {"warehouse": "A"}, by="ann")  # E: form that is no model's object
        await client.complete_task("e-1", Reservation(warehouse="A"))  # E: task that nobody completes


class Searched(Saga[Order, str]):
    customer = Keyword()
    tags = KeywordList()

    async def run(self, order: Order) -> str:
        self.upsert(Searched.customer(3))  # E: wrong value of an attribute
        self.upsert(Searched.tags("gift"))  # E: word instead of a list of words
        self.upsert(Searched.customer)  # E: attribute without its value
        self.upsert(customer="ann")  # E: attribute by its name
        return ""


class MigratesToText(Saga[Order, str], name="Mistaken", version=2):
    async def run(self, order: Order) -> str:
        return order.id

    @classmethod
    def migrate(cls, past: PastRun) -> str | None:  # E: input of another type from a migration
        past.results(Inventory.reserve)[0].payment_id  # E: field that is not in a result taken over
        return None


async def run_again(client: Client) -> None:
    await client.reset("o-1")  # E: reset without a step
    await client.fork("o-1", to=3)  # E: fork without a new id
    await client.restart("o-1", payload=ORDER)  # E: restart with an input that is no bytes


def nothing_for(request: Charge) -> None:
    return None


ORDERS = FromTopic("shop.orders", Order)
ORDERS.starts(Mistaken, id=lambda r: r.value.id, input=lambda r: r.value.sku)  # E: wrong input from a topic
ORDERS.starts(Mistaken, id=lambda r: r.value.cents, input=lambda r: r.value)  # E: id that is no text
ORDERS.starts(Mistaken, id=lambda r: r.value.number, input=lambda r: r.value)  # E: field that is not in the record
ORDERS.starts(Mistaken, id=lambda r: r.key)  # E: start from a topic without an input
ORDERS.signals(Expense.decided, id=lambda r: r.key, value=lambda r: r.value)  # E: wrong signal from a topic
ORDERS.signals(Expense.decided, id=lambda r: r.key)  # E: signal from a topic without its payload
ORDERS.signals("decided", id=lambda r: r.key)  # E: signal from a topic by its name
ORDERS.signals(Expense.nudged)  # E: signal from a topic to nobody
ORDERS.signals(Expense.nudged, id=lambda r: r.key, key=lambda r: r.key)  # E: signal from a topic by id and key
ORDERS.completes(Expense.paid, id=lambda r: r.key, result=lambda r: "yes")  # E: wrong result from a topic
FromTopic("shop.orders", Order, where=lambda r: r.value.cents > 0)  # E: value that is not decoded yet

SagaTest(Mistaken).answer(Inventory.reserve, Receipt(payment_id="p"))  # E: wrong test answer
SagaTest(Mistaken).answer(Inventory.release, True)  # E: test answer where there is no reply
SagaTest(Mistaken).fail("Payments.charge", "CardDeclined")  # E: command by its name
SagaTest(Mistaken).service(Payments)  # E: contract instead of a participant
SagaTest(Mistaken).handle(Payments.charge, nothing_for)  # E: wrong reply of a function in a test
SagaTest(Mistaken).handle(Inventory.release, nothing_for)  # E: wrong request of a function in a test
SagaTest(Mistaken).update(Expense.raise_to, "much")  # E: wrong argument of a planned update
SagaTest(Mistaken).at(60).update(Expense.raise_to)  # E: planned update without its argument
SagaTest(Mistaken).locked("account/ann", for_="60 s")  # E: time that a key is held, as text
SagaTest(Mistaken).locked("account/ann", 60)  # E: time that a key is held, as a key
SagaTest(Mistaken).at("60 s").cancel()  # E: time that is text
SagaTest(Mistaken).when(Payments).cancel()  # E: service instead of a command
SagaTest(Mistaken).start(ORDER).answer(Payments.charge, "paid")  # E: wrong answer by hand
SagaTest(Mistaken).run(ORDER).assert_completed(1)  # E: wrong result of a test
SagaTest(Mistaken).run(ORDER).requests(Payments.charge)[0].sku  # E: field that is not in the request
HandlerTest(payments).call(Payments.charge)  # E: command not called
HandlerTest(payments).call(Payments.charge(order_id="o", cents=1)).reply.warehouse  # E: field that is not in the reply
SagaTest(Mistaken).run(Reserve(order_id="o-1", sku="tea"))  # E: wrong input of a test
prove(SagaTest(Mistaken), Reserve(order_id="o-1", sku="tea"))  # E: wrong input of a proof
prove(SagaTest(Mistaken), ORDER, harmless=[Payments])  # E: service instead of a command
replay(Mistaken(), "history.json")  # E: saga that is an object, not a class
SagaTest(Inventory)  # E: service instead of a saga
