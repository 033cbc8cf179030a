"""`saga promise`, `saga query`: which words make which request."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from cli_client import take_requests
from click.testing import CliRunner, Result

from orchestrator import cli
from orchestrator.cli import operate
from orchestrator.wire.promises import write_token
from orchestrator.wire.tokens import TokenKeys

TOKEN = write_token(TokenKeys({"k": b"0" * 16}), "e-1", "1-2-0", "approved")


class Asked:
    """Notes what a client is asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Callable[..., Awaitable[bytes]]:
        async def note(*arguments: Any, **_: Any) -> bytes:
            self.calls.append((name, *arguments))
            return b'"ann"'

        return note


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    asked = Asked()
    take_requests(monkeypatch, operate, asked)
    return asked


def run(*words: str) -> Result:
    return CliRunner().invoke(cli.saga, ["promise", *words])


def test_a_promise_is_kept_or_failed_by_its_name(asked: Asked) -> None:
    assert "e-1: promise approved kept asked for" in run("complete", "e-1", "approved", '{"by": "ann"}').output
    run("complete", "e-1", "approved/boss")
    run("fail", "e-1", "approved", "Denied")
    run("fail", "e-1", "approved", "Denied", "too dear")
    assert asked.calls == [
        ("settle_raw", "e-1", "approved", b'{"by": "ann"}'),
        ("settle_raw", "e-1", "approved/boss", b"null"),
        ("settle_raw", "e-1", "approved", b"", ("Denied", "")),
        ("settle_raw", "e-1", "approved", b"", ("Denied", "too dear")),
    ]


def test_or_by_its_token_which_says_whose_it_is(asked: Asked) -> None:
    assert "e-1: promise approved kept" in run("complete", "--token", TOKEN, '{"by": "ann"}').output
    run("fail", "--token", TOKEN, "Denied", "too dear")
    assert asked.calls == [("complete", TOKEN, {"by": "ann"}), ("fail", TOKEN, "Denied", "too dear")]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("complete", "e-1"), "name the promise"),
        (("complete", "e-1", "approved", "1", "2"), "too many words: '2'"),
        (("complete", "--token", "nonsense"), "not a token of a promise"),
        (("complete", "--token", TOKEN, "{"), "the result is no JSON"),
        (("fail", "e-1", "approved"), "an ERROR_TYPE such as Denied is missing"),
    ],
)
def test_what_is_missing_or_wrong_is_said(asked: Asked, words: tuple[str, ...], why: str) -> None:
    result = run(*words)
    assert (result.exit_code, asked.calls) == (2, [])
    assert why in result.output


def test_a_query_prints_its_answer(asked: Asked) -> None:
    assert CliRunner().invoke(cli.saga, ["query", "e-1", "who"]).output == '"ann"\n'
    told = CliRunner().invoke(cli.saga, ["query", "e-1", "who", '{"otherwise": "x"}', "--json"]).output
    assert json.loads(told) == {"saga_id": "e-1", "query": "who", "answer": "ann"}
    assert asked.calls == [("query_raw", "e-1", "who", b"{}"), ("query_raw", "e-1", "who", b'{"otherwise": "x"}')]


def test_a_signal_goes_to_a_saga_or_to_who_listens_for_a_key(asked: Asked) -> None:
    def tell(*words: str) -> Result:
        return CliRunner().invoke(cli.saga, ["signal", *words])

    assert "e-1: signal decided asked for" in tell("e-1", "decided", '{"by": "ann"}').output
    tell("e-1", "nudged")
    assert (
        "saga.key/Order.paid/i-17: signal Order.paid asked for"
        in tell("Order.paid", "900", "--key", "i-17", "--ttl", "60").output
    )
    tell("Order.nudged", "--key", "i-17")
    assert asked.calls == [
        ("signal_raw", "e-1", "decided", b'{"by": "ann"}'),
        ("signal_raw", "e-1", "nudged", b"null"),
        ("signal_by_key_raw", "Order.paid", "i-17", b"900"),
        ("signal_by_key_raw", "Order.nudged", "i-17", b"null"),
    ]
    assert (
        tell("e-1").exit_code == tell("a", "b", "c", "d").exit_code == tell("a", "b", "c", "--key", "k").exit_code == 2
    )
