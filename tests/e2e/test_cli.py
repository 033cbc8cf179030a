"""The command `saga` as it is typed: every verb a process of its own, against a real broker."""

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from orchestrator.broker.state import find_running
from orchestrator.demo.processes import Process
from tests.e2e.terminal import WITHIN_S, Terminal
from tests.processes import wait_for_dev

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

SHOP = "orchestrator.sagas.order_fulfilment"


@pytest.fixture
def terminal(broker: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    environment = {
        "SAGA_BOOTSTRAP_SERVERS": broker,
        "SAGA_PREFIX": prefix,
        "SAGA_DEVELOPMENT": "true",
        "SAGA_STATE_DIRECTORY": str(tmp_path / "state"),
        "SAGA_METRICS_PORT": "0",
        "SHOP_BOOKS": str(tmp_path / "books"),
    }
    monkeypatch.chdir(tmp_path)
    return Terminal(environment, tmp_path)


def order(number: int, cents: int = 900) -> str:
    return json.dumps({"id": f"o-{number}", "sku": "tea", "cents": cents})


def test_orders_are_started_watched_and_cancelled(terminal: Terminal) -> None:
    assert "saga topics apply" in terminal.told("doctor", SHOP, expect=1)["checks"][-1]["remedy"]
    terminal.saga("topics", "apply", SHOP)
    assert terminal.told("doctor", SHOP)["wrong"] == 0
    with ExitStack() as shop:
        shop.enter_context(terminal.running("worker", "worker", SHOP))
        for service in ("inventory", "shipping"):
            shop.enter_context(terminal.running(service, "participant", f"{SHOP}:{service}"))
        assert terminal.saga("start", "OrderFulfilment", "--id", "o-1", "--input", order(1)) == "o-1\n"
        shown = terminal.until(
            lambda: terminal.told("show", "o-1") if terminal.told("list")["sagas"] else {"steps": []},
            lambda found: len(found["steps"]) == 2,
        )
        assert shown["saga"]["status"] == "RUNNING"
        terminal.saga("cancel", "o-1", "--reason", "changed my mind")
        # What payments did not answer is unknown: it is undone as well, when payments is there.
        shop.enter_context(terminal.running("payments", "participant", f"{SHOP}:payments"))
        done = terminal.told("start", "OrderFulfilment", "--id", "o-2", "--input", order(2), "--wait", "60")
        assert (done["status"], done["result"]) == ("COMPLETED", "shipped o-2")
        typed = ("start", f"{SHOP}:OrderFulfilment", "--id", "o-3", "--input", order(3, 999_999), "--wait", "60")
        declined = terminal.told(*typed, expect=1)
        assert (declined["status"], declined["error_type"]) == ("COMPENSATED", "CardDeclined")
        terminal.until(
            lambda: terminal.told("list", "--status", "canceled")["sagas"],
            lambda sagas: [s["saga_id"] for s in sagas] == ["o-1"],
        )
    counts = terminal.told("list", "--type", "OrderFulfilment", "--limit", "1")
    assert counts["counts"] == {"CANCELED": 1, "COMPENSATED": 1, "COMPLETED": 1}
    assert counts["more"]
    lines = terminal.saga("show", "o-3").splitlines()
    assert "SagaEnded" in lines[-1]
    assert any("inventory.reserve" in line and "UNDONE" in line for line in lines)
    assert "there is no saga" in _error(terminal, "show", "nobody")


def test_what_cannot_be_handled_is_shown_and_redriven(terminal: Terminal, broker: str, prefix: str) -> None:
    terminal.saga("topics", "apply", SHOP)
    assert terminal.told("dead-letters", "list") == {"dead_letters": []}
    producer = Producer({"bootstrap.servers": broker})
    producer.produce(f"{prefix}saga.inbox", b"no saga at all", b"o-1", 0, headers=[("colour", b"green")])
    assert producer.flush(30) == 0
    with terminal.running("worker", "worker", SHOP):

        def letters() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = terminal.told("dead-letters", "list")["dead_letters"]
            return found

        (letter,) = terminal.until(letters, lambda found: len(found) == 1)
        assert letter["topic"] == f"{prefix}saga.inbox"
        assert (letter["key"], letter["value"], letter["headers"]["colour"]) == ("o-1", "no saga at all", "green")
        assert letter["reason"]
        assert "no saga at all" in terminal.saga("dead-letters", "show", letter["place"])
        (redriven,) = terminal.told("dead-letters", "redrive", letter["place"])["redriven"]
        assert redriven["to"].startswith(f"{prefix}saga.inbox-0@")
        _, again = terminal.until(letters, lambda found: len(found) == 2)
        assert again["redrives"] == 1
        first, second = letters()
        assert (first["redriven_to"], second["redriven_to"]) == (redriven["to"], None)
        assert "was redriven already" in _error(terminal, "dead-letters", "redrive", letter["place"])
        edits = ("--set-header", "saga-type=OrderFulfilment", "--payload", order(1), "--reason", "header 'saga-type'")
        terminal.saga(
            "dead-letters", "redrive", "--all", "--again", "--payload", order(1), expect=2
        )  # both would get it
        planned = terminal.told("dead-letters", "redrive", "--all", *edits, "--dry-run")
        assert [line["place"] for line in planned["redriven"]] == [again["place"]]
        terminal.told("dead-letters", "redrive", "--all", *edits)
        terminal.until(lambda: terminal.told("list")["sagas"], lambda found: [x["saga_id"] for x in found] == ["o-1"])
    assert "no dead letter 0:99" in _error(terminal, "dead-letters", "show", "0:99")


def test_a_new_project_has_a_test_that_passes_and_a_saga_that_runs(terminal: Terminal) -> None:
    terminal.saga("init", "corner-shop")
    terminal.folder /= "corner-shop"
    module = "corner_shop_orders"
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=terminal.folder,
        capture_output=True,
        text=True,
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "4 passed" in tested.stdout
    os.chdir(terminal.folder)  # `terminal` goes back
    terminal.saga("topics", "apply", module)
    with terminal.running("worker", "worker", module), terminal.running("shop", "participant", f"{module}:shop"):
        given = json.dumps({"order_id": "order-1", "item": "tea", "cents": 900})
        done = terminal.told("start", f"{module}:OrderSaga", "--id", "order-1", "--input", given, "--wait", "60")
        assert (done["status"], done["result"]) == ("COMPLETED", "parcel-of-order-1")


@pytest.mark.slow
def test_dev_runs_everything_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SAGA_BOOTSTRAP_SERVERS", "SAGA_PREFIX", "SAGA_STATE_DIRECTORY", "SAGA_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    terminal = Terminal({"SHOP_BOOKS": str(tmp_path / "books")}, tmp_path)
    dev = Process("dev", ["dev"], tmp_path, terminal.environment)
    dev.start()
    try:
        wait_for_dev(dev)
        assert "saga start OrderFulfilment --id first" in dev.tail(40)
        done = terminal.told("start", "OrderFulfilment", "--id", "first", "--input", order(1), "--wait", "60")
        assert done["status"] == "COMPLETED"
        assert dev._process is not None
        dev._process.send_signal(signal.SIGINT)
        assert dev._process.wait(60) == 0, dev.tail(40)
    finally:
        dev.stop()
    assert find_running(tmp_path / ".saga") is None
    assert _processes_of(tmp_path) == []


def _error(terminal: Terminal, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", *arguments],
        env={**os.environ, **terminal.environment},
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
    )
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr


def _processes_of(folder: Path) -> list[str]:
    """Command lines of processes that were given this folder, where the system tells."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            about = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue
        if process.name != str(os.getpid()) and any(str(folder).encode() in text for text in about):
            found.append(about[0].replace(b"\0", b" ").decode(errors="replace"))
    return found
