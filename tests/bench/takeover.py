"""How long partitions stand still when a worker or a broker dies under load, against what is promised.

    python -m tests.bench.takeover --brokers 1|3 [--json]

Two workers, eight partitions, three services, 30 orders a second, of which one in five is undone. The times are told by
the brokers' append times in the raw journal. At the end the checker reads every topic (C1 to C10). The exit code is 0
if it found nothing and every promise was kept.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from orchestrator.broker import SHORT_LIVED, Cluster, start_cluster
from orchestrator.checker.check import check
from tests.e2e.faults import Fault, kill_leader, kill_worker, stop_worker
from tests.e2e.shop import Shop

PROMISED_MS = {1: {"worker-killed": 5_000, "worker-stopped": 2_000}}
PROMISED_MS[3] = {
    "worker-killed": 10_000,
    "worker-stopped": 2_000,
    "leader-killed": 10_000,
    "worker-killed-and-a-broker-down": 10_000,
}
"""From the end of the dead worker's session, from SIGTERM, from the kill of the broker, to the first decision."""


def measure(cluster: Cluster, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Every fault once, one after the other, and the checker's verdict."""
    shop = Shop(cluster.bootstrap_servers, "takeover-", folder, replication=len(cluster.nodes))
    promised = PROMISED_MS[len(cluster.nodes)]
    found = []
    shop.start()
    try:
        for fault in _faults(shop, cluster):
            load = round(os.getloadavg()[0], 2)
            kept = fault.decisions_ms.keys() == fault.struck
            kept = kept and max(fault.decisions_ms.values(), default=0) <= promised[fault.name]
            found.append(
                {**fault.as_json(), "promised_ms": promised[fault.name], "kept": kept, "load_average_1m": load}
            )
            say(json.dumps(found[-1]))
        verdict = check(shop.evidence())
    finally:
        shop.close()
    return {
        "brokers": len(cluster.nodes),
        "processors": os.cpu_count(),
        "faults": found,
        "sagas": verdict.sagas,
        "decisions": verdict.decisions,
        "records_dropped": verdict.dropped,
        "violations": verdict.violations,
    }


def _faults(shop: Shop, cluster: Cluster) -> Iterator[Fault]:
    """Who died comes back before the next fault; only the last worker dies while a broker is down."""
    first, second = shop.processes["worker-1"], shop.processes["worker-2"]
    yield kill_worker(shop, "worker-1")
    first.start()
    yield stop_worker(shop, "worker-2")
    second.stop()
    second.start()
    if len(cluster.nodes) > 1:
        yield kill_leader(shop, cluster)
        yield kill_worker(shop, "worker-1", "worker-killed-and-a-broker-down")
        cluster.start()


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=1)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="saga-takeover-"))
    try:
        with start_cluster(arguments.brokers, jvm=SHORT_LIVED) as cluster:
            result = measure(cluster, folder, lambda line: print(line, file=sys.stderr, flush=True))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if arguments.json:
        print(json.dumps(result))
    else:
        for fault in result["faults"]:
            print(f"{fault['fault']}: {fault['first_decision_ms']} ms after {fault['since']}, kept: {fault['kept']}")
        print(f"violations: {len(result['violations'])}")
    return int(bool(result["violations"]) or not all(fault["kept"] for fault in result["faults"]))


if __name__ == "__main__":
    sys.exit(main())
