"""`saga locks`: what is asked of a lock, and how its answer is shown."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from click.testing import CliRunner

from orchestrator import cli
from orchestrator.cli import locks
from orchestrator.errors import SagaNotFound


class Asked:
    """A lock that one saga holds and another one waits for; and one that nobody ever took."""

    def __init__(self) -> None:
        self.updates: list[tuple[str, str, bytes]] = []

    async def query_raw(self, id: str, name: str) -> bytes:
        if id != "lock/account/ann":
            raise SagaNotFound(id, "there is no such saga")
        return b'{"holder": "order-1", "waiting": ["order-2"]}'

    async def start_update_raw(
        self, update_id: str, id: str, name: str, payload: bytes, decode: Callable[[bytes], str]
    ) -> Any:
        self.updates.append((id, name, payload))

        class Handle:
            async def result(self) -> str:
                return decode(b'"order-1"')

        return Handle()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    asked = Asked()

    @asynccontextmanager
    async def client_of(settings: object) -> AsyncIterator[Asked]:
        yield asked

    monkeypatch.setattr(locks, "client_of", client_of)
    monkeypatch.setenv("SAGA_BOOTSTRAP_SERVERS", "nowhere:9092")
    monkeypatch.setattr(locks.getpass, "getuser", lambda: "ann")
    return asked


def run(*words: str) -> str:
    return CliRunner().invoke(cli.saga, ["locks", *words]).output


def test_who_holds_a_key_and_who_waits_is_shown(asked: Asked) -> None:
    assert run("show", "account/ann") == "account/ann: held by order-1\n  order-2 waits\n"
    assert '"waiting": ["order-2"]' in run("show", "account/ann", "--json")
    assert run("show", "account/bob") == "account/bob: nobody holds it\n"


def test_a_key_is_taken_from_its_holder_with_who_did_so_and_why(asked: Asked) -> None:
    assert run("release", "account/ann", "--reason", "parked for days") == "account/ann: taken from order-1\n"
    assert '"taken_from": "order-1"' in run("release", "account/ann", "--json")
    assert asked.updates[0] == ("lock/account/ann", "break", b'{"by": "ann", "reason": "parked for days"}')
