"""The example of docs/http.md as it stands there, on a real broker, and what its processes tell about themselves."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from orchestrator.broker.probe import pick_free_ports

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]

PAGE = Path(__file__).parents[2] / "docs" / "http.md"
WITHIN_S = 90.0


def eventually(ask: Callable[[], httpx.Response], wanted: Callable[[httpx.Response], bool]) -> httpx.Response:
    """Asks until the answer is the wanted one; a server that is not there yet counts as another one."""
    end = time.monotonic() + WITHIN_S
    while True:
        last = ""
        try:
            response = ask()
            if wanted(response):
                return response
            last = response.text
        except httpx.TransportError as error:
            last = repr(error)
        assert time.monotonic() < end, last
        time.sleep(0.1)


class Shop:
    """The files of the page in a folder, and processes that run them."""

    def __init__(self, folder: Path, broker: str, prefix: str) -> None:
        service, saga = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
        (folder / "payments_api.py").write_text(service)
        (folder / "shop_http.py").write_text(saga)
        self.folder = folder
        self.api, self.metrics, self.participant = pick_free_ports(3)
        self.environ = {
            **os.environ,
            "SAGA_BOOTSTRAP_SERVERS": broker,
            "SAGA_PREFIX": prefix,
            "SAGA_DEVELOPMENT": "true",
            "SAGA_METRICS_PORT": str(self.metrics),
            "PAYMENTS_URL": f"http://127.0.0.1:{self.api}",
        }
        self.processes = ExitStack()

    def start(self, *arguments: str, metrics: int | None = None) -> None:
        environ = {**self.environ, "SAGA_METRICS_PORT": str(metrics or 0)}
        process = subprocess.Popen([sys.executable, "-m", *arguments], cwd=self.folder, env=environ)
        self.processes.callback(process.wait, 30)
        self.processes.callback(process.terminate)

    def saga(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "orchestrator.cli", *arguments]
        return subprocess.run(command, cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=120)


@pytest.fixture
def shop(tmp_path: Path, broker: str, prefix: str) -> Iterator[Shop]:
    shop = Shop(tmp_path, broker, prefix)
    with shop.processes:
        yield shop


def test_the_page_runs_and_is_seen_by_a_scraper(shop: Shop) -> None:
    made = shop.saga("topics", "apply", "shop_http")
    assert made.returncode == 0, made.stderr
    worker, participant = shop.metrics, shop.participant
    shop.start("uvicorn", "payments_api:app", "--port", str(shop.api), "--log-level", "warning")
    shop.start("orchestrator.cli", "participant", "shop_http:payments", metrics=participant)
    shop.start("orchestrator.cli", "worker", "shop_http", metrics=worker)
    with httpx.Client(trust_env=False, timeout=10) as web:
        for port in (worker, participant):
            eventually(lambda port=port: web.get(f"http://127.0.0.1:{port}/readyz"), lambda r: r.status_code == 200)
            assert web.get(f"http://127.0.0.1:{port}/livez").status_code == 200
        good = shop.saga(
            "start", "Purchase", "--input", '{"order_id": "7", "cents": 900}', "--id", "purchase-7", "--wait", "60"
        )
        assert good.returncode == 0, good.stderr
        assert "p-7" in good.stdout
        bad = shop.saga(
            "start", "Purchase", "--input", '{"order_id": "8", "cents": 900000}', "--id", "purchase-8", "--wait", "60"
        )
        assert "CardDeclined" in bad.stdout + bad.stderr
        wanted = 'saga_sagas_ended_total{saga_type="Purchase",status="COMPLETED"} 1.0'
        eventually(lambda: web.get(f"http://127.0.0.1:{worker}/metrics"), lambda r: wanted in r.text)
        text = web.get(f"http://127.0.0.1:{participant}/metrics").text
    assert 'saga_participant_outcomes_total{outcome="success",service="payments"} 1.0' in text
    assert 'saga_participant_outcomes_total{outcome="failure",service="payments"} 1.0' in text
