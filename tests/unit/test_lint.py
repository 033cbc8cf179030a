"""The linter reads a saga's code before it runs, and names the right call for what no replay would give again."""

import asyncio
import datetime as dt
import functools
import logging
import os
import platform
import random
import subprocess
import sys
import threading
import time
import uuid
from asyncio import sleep as pause
from collections import Counter
from datetime import date, datetime
from http import HTTPStatus
from os.path import exists
from pathlib import Path
from random import choice
from time import sleep as nap
from time import time as clock
from typing import Any

import pytest
from pydantic import BaseModel

from orchestrator import Entity, Saga, Service, command, operation, query, signal, update
from orchestrator.errors import DefinitionError
from orchestrator.lint import check, findings
from orchestrator.lint.rules import AWAITED
from orchestrator.testing import SagaTest


class Order(BaseModel):
    id: str
    skus: set[str] = set()


class Shop(Service):
    sell = command(Order, str)


def found(saga: type[Saga[Any, Any]]) -> list[tuple[str, str]]:
    """(rule, what) in the order of the lines."""
    return [(finding.rule.name, finding.what) for finding in findings(saga)]


def test_clock_randomness_and_ids_are_named_with_what_replaces_them() -> None:
    class Careless(Saga[Order, None]):
        async def run(self, order: Order) -> None:
            _ = time.time()
            _ = clock()
            _ = dt.datetime.now(dt.UTC)
            _ = datetime.now()
            _ = date.today()
            _ = random.random()
            _ = choice([1, 2])
            _ = random.Random()
            _ = uuid.uuid4()
            _ = os.urandom(8)
            _ = hash(order.id)

    assert found(Careless) == [
        ("clock", "calls time.time()"),
        ("clock", "calls time.time()"),
        ("clock", "calls datetime.datetime.now()"),
        ("clock", "calls datetime.datetime.now()"),
        ("clock", "calls datetime.date.today()"),
        ("random", "calls random.random()"),
        ("random", "calls random.Random.choice()"),
        ("random", "calls random.Random()"),
        ("uuid", "calls uuid.uuid4()"),
        ("random", "calls os.urandom()"),
        ("hash", "calls hash()"),
    ]
    line = str(findings(Careless)[0])
    assert line.startswith("test_lint.py:")
    assert line.endswith(": Careless.run calls time.time(): use self.now() [clock]")
    assert Path(__file__).read_text().splitlines()[findings(Careless)[0].line - 1].strip() == "_ = time.time()"


def test_what_waits_or_works_outside_is_named_too() -> None:
    class Busy(Saga[Order, None]):
        async def run(self, order: Order) -> None:
            import socket
            import subprocess as sub

            await pause(1)
            await asyncio.gather()
            threading.Thread(target=print).start()
            with open(order.id):
                pass
            Path(order.id).read_text()
            socket.create_connection(("host", 1))
            sub.run(["true"])
            nap(1)

    assert found(Busy) == [
        ("sleep", "calls asyncio.sleep()"),
        ("gather", "calls asyncio.gather()"),
        ("threads", "calls threading.Thread()"),
        ("io", "calls open()"),
        ("io", "calls read_text()"),
        ("io", "calls socket.create_connection()"),
        ("io", "calls subprocess.run()"),
        ("sleep", "calls time.sleep()"),
    ]


LATE = """
from orchestrator import Saga

class Late(Saga[str, None]):
    async def run(self, name: str) -> None:
        import http.client
        import email.message
        from ftplib import FTP
        from urllib.request import urlopen
        from urllib.request import urlretrieve as fetch
        from nowhere.to import be_found
        from psycopg import OperationalError, connect
        from .random import choice
        urlopen(name)
        get = fetch
        get(name)
        http.client.HTTPConnection(name)
        FTP(name)
        connect(name)
        email.message.Message()
        choice(be_found(name))
        raise OperationalError(name)
"""


def test_what_is_imported_in_the_function_is_known_before_anything_has_loaded_it(tmp_path: Path) -> None:
    (tmp_path / "late_shop.py").write_text(LATE)
    script = "import sys; from late_shop import Late; from orchestrator.lint import findings; found = findings(Late); "
    script += (
        "print(*(f'{each.rule.name} {each.what}' for each in found), *({'ftplib', 'urllib.request'} & {*sys.modules}))"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    calls = ["urllib.request.urlopen", "urllib.request.urlretrieve", "http.client.HTTPConnection", "ftplib.FTP"]
    assert done.stdout.split("\n")[0] == " ".join(f"io calls {call}()" for call in [*calls, "psycopg.connect"])


def test_the_order_of_a_set_is_not_taken() -> None:
    class Unordered(Saga[Order, None]):
        async def run(self, order: Order) -> None:
            names = {"a", "b"}
            for name in names:
                await self.step(Shop.sell(id=name))
            await self.gather(*{self.step(Shop.sell(id="x"))})
            _ = [name.upper() for name in names | {"c"}]
            _ = list(set(order.id))
            _ = sorted(names), len(names), {name.upper() for name in names}
            for name in sorted(names):
                _ = name

    assert [rule for rule, _ in found(Unordered)] == ["order"] * 4


def test_where_the_order_of_a_set_does_not_show_it_may_be_taken() -> None:
    class Fine(Saga[Order, None]):
        async def run(self, order: Order) -> None:
            names: Any = set(order.id)
            names = sorted(names)
            for name in names:
                await self.step(Shop.sell(id=name))
            _ = sorted(list(set(order.id))), sorted(name.upper() for name in set(order.id)), sorted([*order.skus])  # noqa: C414
            _ = sum(len(name) for name in order.skus), all(name for name in order.skus), any(map(len, order.skus))
            _ = max(order.skus), min(*order.skus, "a"), len(list(order.skus)), frozenset(list(order.skus))
            _ = {name.upper() for name in list(order.skus)}, "a" in [name.upper() for name in order.skus]
            kept = list(order.skus)
            kept.sort(reverse=True)
            (only,) = order.skus
            _ = sorted(f"{self.id} {self.now()} {name}" for name in order.skus), only

    assert found(Fine) == []

    class Tied(Saga[Order, None]):
        async def run(self, order: Order) -> None:
            _ = sorted(order.skus, key=len)
            _ = min(order.skus, key=len), max((name for name in order.skus), key=len)
            kept = list(order.skus)
            kept.sort(key=len)
            prices = {0.1, 0.2, 1e20}
            _ = sum(prices), sum(float(name) for name in order.skus)
            _ = sorted(sorted(order.skus), key=len), max(sorted(order.skus), key=len), sum(sorted(prices))
            _ = sum(1 for _ in prices), sum(price > 1 for price in prices), sum([int(price) for price in prices])

    assert [rule for rule, _ in found(Tied)] == ["order"] * 6
    assert "Tied.run compares a set by a key, so what is alike stays in its order" in str(findings(Tied)[0])

    class Asking(Saga[Order, None]):
        async def run(self, order: Order) -> None:
            _ = sorted([await self.step(Shop.sell(id=name)) for name in order.skus])
            _ = {await self.step(Shop.sell(id=name)) for name in order.skus}
            _ = any(self.random.random() < 0.5 for _ in order.skus)
            _ = sorted(enumerate(order.skus)), len(order.skus)

    assert [rule for rule, _ in found(Asking)] == ["order"] * 4


def test_a_group_takes_the_order_of_its_items() -> None:
    class Grouping(Saga[Order, None]):
        async def run(self, order: Order) -> None:
            await self.each(order.skus, self.one)  # type: ignore[arg-type]
            await self.each(items={"a", "b"}, function=self.one)  # type: ignore[arg-type]
            await self.each({name.upper() for name in order.skus}, self.one, concurrency=2)  # type: ignore[arg-type]
            await self.some({self.one("a")}, successes=1)  # type: ignore[arg-type]
            await self.each(dict.fromkeys(order.skus), self.one)
            await self.each(sorted(order.skus), self.one)
            await self.each(dict.fromkeys(sorted(order.skus)).keys(), self.one)
            _ = sorted(dict.fromkeys(order.skus))

        async def one(self, name: str) -> str:
            return await self.step(Shop.sell(id=name))

    assert [rule for rule, _ in found(Grouping)] == ["order"] * 5


SKUS = frozenset({"a", "b"})


def test_a_set_is_known_by_its_type_and_where_it_comes_from() -> None:
    class Unordered(Saga[Order, None]):
        kinds: set[str]

        async def run(self, order: Order) -> None:
            one, two = {"a", "b"}
            joined = {"a"} | {"b"}
            more = joined.union(order.skus)
            more |= {"c"}
            more = more & SKUS
            self.seen: set[str] = set()
            other: Order = await self.step(Shop.sell(id=one + two))  # type: ignore[assignment]
            _ = [*order.skus], ",".join(joined)
            while more:
                more.pop()
            for _ in self.seen:
                pass
            for _ in self.kinds:
                pass
            for _ in other.skus & {"a"}:
                pass
            for _ in Order(id="x").skus:
                pass
            for _ in SKUS:
                pass

    assert [rule for rule, _ in found(Unordered)] == ["order"] * 9

    class Unknown(Saga[Order, None]):
        async def run(self, order: Order) -> None:
            def names(skus: list[str], order: Any) -> list[str]:
                return [*skus, *order.skus]

            for joined in (["a"], {"a"}):
                _ = list(joined)
            first, *rest = order.id
            seen: dict[str, None] = dict.fromkeys(names([first, *rest], order))
            seen.pop("a", None)
            _ = ",".join(seen)

    assert found(Unknown) == []


class Box:
    def open(self) -> str:
        return ""

    replace = exists = open


def test_what_only_has_a_forbidden_name_or_argument_is_fine() -> None:
    class Fine(Saga[Order, None]):
        async def run(self, order: Order) -> None:
            def open(name: str) -> str:
                return name

            def made() -> float:
                return time.time()

            _ = open("x"), random.Random(x=order.id).random(), time.gmtime(5), time.strftime("%Y", time.gmtime(5))
            clock, pick = self.now, random.Random(5).choice
            _ = clock(), pick([1]), Box().open(), Box().exists(), Path("a").name, "a".replace("a", "b")
            self.side_effect(made, returns=float)
            try:
                raise KeyError(hash)
            except KeyError as id:
                id()  # type: ignore[operator]

    assert found(Fine) == []


def test_what_only_another_process_would_show_is_found() -> None:
    class Careless(Saga[Order, None]):
        started = staticmethod(time.time)

        @property
        def stamp(self) -> float:
            return time.time_ns()

        @functools.cached_property
        def key(self) -> str:
            return str(uuid.uuid1())

        async def run(self, order: Order) -> None:
            make = uuid.uuid4
            _ = make(), functools.partial(random.random)(), self.started(), self.stamp, self.key
            _ = time.ctime(), time.strftime("%Y"), time.process_time()
            here = Path(order.id) / "x"
            _ = here.open(), here.exists(), os.path.exists(order.id), exists(order.id)
            _ = os.getpid(), platform.node()
            await self.local(fmt, time.time(), retry=policy(random.random()), undo=lambda: time.time())
            self.side_effect(lambda: time.time(), returns=float)

    assert found(Careless) == [
        ("clock", "calls time.time_ns()"),
        ("uuid", "calls uuid.uuid1()"),
        ("random", "calls random.random()"),
        ("clock", "calls time.time()"),
        ("uuid", "calls uuid.uuid4()"),
        ("clock", "calls time.ctime()"),
        ("clock", "calls time.process_time()"),
        ("clock", "calls time.strftime()"),
        ("io", "calls Path.exists()"),
        ("io", "calls Path.open()"),
        ("io", "calls os.path.exists()"),
        ("io", "calls os.path.exists()"),
        ("environment", "calls os.getpid()"),
        ("environment", "calls platform.node()"),
        ("random", "calls random.random()"),
        ("clock", "calls time.time()"),
    ]


def fmt(at: float) -> str:
    return str(at)


def policy(chance: float) -> Any:
    return None


class Handed(Saga[Order, str], name="Handed"):
    async def run(self, order: Order) -> str:
        return await self.sold(order)

    async def sold(self, order: Order) -> str:
        return str(time.time())


class Handing(Handed, name="Handing"):
    async def run(self, order: Order) -> str:
        return await super().run(order)

    async def sold(self, order: Order) -> str:
        return await super().sold(order)


def test_what_a_class_hands_to_its_base_is_read_there() -> None:
    assert [finding.where for finding in findings(Handing)] == ["Handed.sold"]


def helper(order: Order) -> float:
    return deeper() if order.id else 0


def deeper() -> float:
    return time.time()


def test_methods_and_functions_of_the_saga_are_read_as_well() -> None:
    class Base(Saga[Order, None]):
        async def run(self, order: Order) -> None:
            await self.first(order)

        async def first(self, order: Order) -> None:
            helper(order)
            Base.second()

        @staticmethod
        def second() -> None:
            _ = [random.random() for _ in range(3)]

        def never_called(self) -> None:
            time.time()

    class Derived(Base):
        pass

    assert [(finding.where, finding.rule.name) for finding in findings(Derived)] == [
        ("deeper", "clock"),
        ("Base.second", "random"),
    ]


def test_what_the_saga_offers_is_fine() -> None:
    class Careful(Saga[Order, str]):
        async def run(self, order: Order) -> str:
            time = self.now()
            _ = self.random.choice([1, 2]), self.uuid(), time.time(), random.Random(order.id).random()
            await self.sleep(1)
            await self.gather(self.step(Shop.sell(id=order.id)), self.step(Shop.sell(id="b")))
            if order.id == "none":
                raise TimeoutError(HTTPStatus(404).phrase)
            return str(uuid.uuid5(uuid.NAMESPACE_DNS, order.id))

    assert found(Careful) == []


def test_a_mark_allows_a_line_a_rule_or_a_whole_function() -> None:
    class Marked(Saga[Order, None]):
        async def run(self, order: Order) -> None:
            _ = time.time()  # saga: allow clock
            _ = time.time()  # saga: allow
            _ = time.time()  # saga: allow random, uuid
            self.log()

        def log(self) -> None:  # saga: allow clock
            time.time()
            random.random()

    assert found(Marked) == [("clock", "calls time.time()"), ("random", "calls random.random()")]


COUNT = 0


def test_a_warning_is_logged_and_an_error_is_raised(caplog: pytest.LogCaptureFixture) -> None:
    class Warned(Saga[Order, None]):
        async def run(self, order: Order) -> None:
            global COUNT
            COUNT += 1
            _ = os.environ["HOME"], os.environ.get("A"), os.getenv("B")

    with caplog.at_level(logging.WARNING):
        check(Warned)
    assert [record.getMessage().rpartition("[")[2] for record in caplog.records] == ["global]"] + ["environment]"] * 3

    class Wrong(Saga[Order, None]):
        async def run(self, order: Order) -> None:
            time.time()
            uuid.uuid4()

    with pytest.raises(DefinitionError) as caught:
        check(Wrong)
    assert "Wrong.run calls time.time(): use self.now()" in str(caught.value)
    assert "use self.uuid()" in str(caught.value)
    assert "# saga: allow" in str(caught.value)
    with pytest.raises(DefinitionError, match=r"use self\.now"):
        SagaTest(Wrong).run(Order(id="o-1"))


def test_code_whose_source_cannot_be_had_is_let_through() -> None:
    space: dict[str, Any] = {"Saga": Saga, "time": time}
    exec("class Hidden(Saga[str, None]):\n    async def run(self, x: str) -> None:\n        time.time()\n", space)
    assert found(space["Hidden"]) == []


class Purse(Entity[int]):
    @operation
    async def pay(self, cents: int) -> int:
        return cents


class Forgetful(Saga[Order, None]):
    told = signal(str)

    async def run(self, order: Order) -> None:
        self.step(Shop.sell(id=order.id))
        self.child(Fine, order)
        self.local(len, order.id)
        self.lock("a")
        self.sleep(5)
        self.receive(Forgetful.told)
        self.wait_until(lambda: True, timeout=1)
        self.gather(self.sleep(1))
        self.entity(Purse, "ann").call(Purse.pay(5))
        self.helper(order)
        if order.skus:
            self.step(Shop.sell(id=order.id))

    async def helper(self, order: Order) -> None:
        await self.step(Shop.sell(id=order.id))


class Fine(Saga[Order, None]):
    told = signal(str)

    async def run(self, order: Order) -> None:
        sold = self.step(Shop.sell(id=order.id))
        steps = [self.step(Shop.sell(id=each)) for each in ("a", "b")]
        steps.append(self.step(Shop.sell(id="c")))
        await self.gather(sold, *steps, self.sleep(5))
        child = self.child(Forgetful, order)
        child.cancel()
        self.start_child(Forgetful, order)
        self.signal(self.id, Fine.told, "x")
        await self.entity(Purse, "ann").call(Purse.pay(5))
        async with self.lock("a"):
            self.own()
        self.sleep(5)  # saga: allow await
        walk(Walker())

    def own(self) -> None:
        pass


class Walker:
    def step(self) -> None:
        pass


def walk(walker: Walker) -> None:
    walker.step()


def test_what_is_asked_for_and_not_awaited_is_an_error() -> None:
    waits = ["sleep", "receive", "wait_until", "gather"]
    calls = ["step", "child", "local", "lock", *waits, "entity().call", "helper", "step"]
    assert found(Forgetful) == [("await", f"does not await self.{call}()") for call in calls]
    with pytest.raises(DefinitionError, match=r"does not await self.step\(\): it is asked for when it is awaited"):
        check(Forgetful)


def test_what_is_awaited_later_or_does_something_by_itself_is_fine() -> None:
    assert found(Fine) == []


def test_every_method_of_a_saga_that_gives_an_awaitable_is_known() -> None:
    lazy = {"Asked", "ChildAwaitable", "HumanTask", "Keys", "LocalStep", "Promised", "Receive", "Sleep"}
    lazy |= {"StepAwaitable", "WaitUntil"}
    methods = {name: getattr(Saga, name) for name in dir(Saga) if not name.startswith("_")}
    gives = {name: str(getattr(each, "__annotations__", {}).get("return")) for name, each in methods.items()}
    assert {name for name, what in gives.items() if what.partition("[")[0] in lazy} == AWAITED


class Talkative(Saga[Order, None]):
    told = signal(str)

    async def run(self, order: Order) -> None:
        await self.receive(Talkative.told)

    @update
    async def rename(self, name: str) -> float:
        """What it does is repeated with the saga."""
        self.step(Shop.sell(id=name))
        await self.twice()
        self.other(name)
        return helper(Order(id=name))

    @rename.validator
    def _may_be_renamed(self, name: str) -> None:
        """It is asked once, before the update is taken, and never again."""
        if time.time() < 0:
            raise ValueError(name)

    @update
    async def other(self, name: str) -> str:
        return str(uuid.uuid4())  # saga: allow uuid

    @query
    def age(self) -> float:
        """It is asked of a copy."""
        return time.time()

    async def twice(self) -> None:
        _ = random.random()


class Careful(Talkative, name="Careful"):
    @update
    async def rename(self, name: str) -> float:
        return 0.0


class Dice(Entity[int]):
    @operation
    async def throw(self, sides: int) -> int:
        self.sleep(1)
        self.state = random.randint(1, sides)
        return self.state

    def initial(self) -> int:
        return int(time.time())

    @query
    def shown(self) -> float:
        return self.state + random.random()


def test_updates_are_read_as_the_code_is_and_what_only_looks_is_not() -> None:
    assert [(finding.where, finding.what) for finding in findings(Talkative)] == [
        ("deeper", "calls time.time()"),
        ("Talkative.rename", "does not await self.step()"),
        ("Talkative.rename", "does not await self.other()"),
        ("Talkative.twice", "calls random.random()"),
    ]
    assert found(Careful) == [], "what is overridden is not read"
    line = next(finding.line for finding in findings(Talkative) if "self.step" in finding.what)
    assert Path(__file__).read_text().splitlines()[line - 1].strip() == "self.step(Shop.sell(id=name))"


def test_an_entitys_operations_and_its_first_state_are_read() -> None:
    assert [(finding.where, finding.what) for finding in findings(Dice)] == [
        ("Dice.throw", "does not await self.sleep()"),
        ("Dice.throw", "calls random.randint()"),
        ("Dice.initial", "calls time.time()"),
    ]
    with pytest.raises(DefinitionError, match=r"Dice\.throw calls random\.randint\(\): use self\.random"):
        SagaTest(Forgiving).entity(Dice)


class Forgiving(Saga[Order, None]):
    async def run(self, order: Order) -> None:
        return None


class Merging(Saga[None, int]):
    data: dict[str, int]
    names: set[str]

    async def run(self, _: None) -> int:
        self.data = self.data | {"x": 1}
        self.counts = self.counts - Counter({"y": 1})
        self.names = self.names | {"z"}
        for key in self.data:
            self.upsert(key)  # type: ignore[arg-type]
        for name in self.names:
            self.upsert(name)  # type: ignore[arg-type]
        return len(list(self.counts))


def test_what_is_made_of_itself_alone_is_what_it_was_declared_to_be() -> None:
    assert [(finding.where, finding.rule.name) for finding in findings(Merging)] == [("Merging.run", "order")]
