"""What the stores in memory let an observer see."""

import pytest

from orchestrator.store.base import StoreBroken
from orchestrator.store.memory import MemoryStores


def test_peek_sees_an_open_store_and_leaves_it_open() -> None:
    stores = MemoryStores()
    store = stores.open(1)
    store.write([(b"b", b"2"), (b"a", b"1")])
    assert list(stores.peek(1).scan(b"")) == [(b"a", b"1"), (b"b", b"2")]
    store.write([(b"c", b"3")])
    assert stores.peek(1).get(b"c") == b"3"


def test_peek_looks_into_a_damaged_store_that_its_user_cannot_read() -> None:
    stores = MemoryStores()
    store = stores.open(1)
    store.write([(b"b", b"2"), (b"a", b"1")])
    stores.damage(1)
    assert list(stores.peek(1).scan(b"")) == [(b"a", b"1"), (b"b", b"2")]
    with pytest.raises(StoreBroken):
        store.get(b"a")


def test_peek_sees_a_closed_store_and_none() -> None:
    stores = MemoryStores()
    assert list(stores.peek(1).scan(b"")) == []
    store = stores.open(1)
    store.write([(b"a", b"1")])
    store.close()
    assert stores.peek(1).get(b"a") == b"1"
    stores.open(1)


def test_a_scan_on_its_way_keeps_what_later_writes_replace() -> None:
    store = MemoryStores().open(1)
    store.write([(b"a", b"1"), (b"b", b"2"), (b"c", b"3")])
    first, second = store.scan(b""), store.scan(b"")
    assert next(first) == (b"a", b"1")
    list(second)
    store.write([(b"b", b"new")])
    store.write([(b"b", b"newer"), (b"c", None)])
    assert list(first) == [(b"b", b"2"), (b"c", b"3")]
    assert list(store.scan(b"")) == [(b"a", b"1"), (b"b", b"newer")]
