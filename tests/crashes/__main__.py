"""Kills a worker and a participant at each call they make to Kafka and RocksDB; the invariants must hold each time.

    python -m tests.crashes --all                 every point of every victim, some minutes
    python -m tests.crashes --every 10 --seed 3   every tenth
    python -m tests.crashes --victim worker --at journal.append_run:3:landed
    python -m tests.crashes --mutant "store before ack" --every 9

A run is two sagas on topics of its own and a real broker; `tests.crashes.failpoints` says what a point is. An archivist
is a worker with snapshots, an archive and warm stores, which deletes what is consumed and begins with a snapshot. The
exit code is 1 if anything was violated; the folders of those runs are kept.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from orchestrator.broker import SHORT_LIVED, provide
from tests.crashes.archiving import LOSSES
from tests.crashes.campaign import VICTIMS, Campaign
from tests.crashes.failpoints import Point
from tests.crashes.mutants import MUTANTS
from tests.crashes.run import PATIENCE_S


def main() -> int:
    """The exit code."""
    given = _read_arguments()
    root = Path(tempfile.mkdtemp(prefix="saga-crashes-"))

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    with provide(given.bootstrap_servers, ephemeral=True, jvm=SHORT_LIVED) as broker:
        options = {"mutant": given.mutant, "patience_s": given.patience}
        campaign = Campaign(broker.bootstrap_servers, root, given.lanes, say, **options)
        victims = given.victim or VICTIMS
        if given.at:
            campaign.go(
                {victim: [Point.read(at) for at in given.at] for victim in victims}, twice=given.twice, loss=given.lose
            )
        else:
            points = campaign.count(victims)
            say(f"{sum(map(len, points.values()))} points; counted in {campaign.report.seconds:.0f} s")
            campaign.go(points, every=given.every, seed=given.seed, twice=given.twice, loss=given.lose)
    report = campaign.report
    print(json.dumps(report.as_json(), indent=1) if given.json else report.table())
    if not report.violations:
        root.rmdir()
    return 1 if report.violations else 0


def _read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.crashes", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--all", dest="every", action="store_const", const=1, help="every point, as without --every")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every n-th point")
    parser.add_argument("--seed", type=int, default=0, help="which of them, and where who comes back dies")
    parser.add_argument("--twice", action="store_true", help="who is started again dies once more, somewhere")
    parser.add_argument("--victim", action="append", choices=VICTIMS)
    parser.add_argument("--at", action="append", metavar="CALL:NUMBER:MOMENT", help="these points alone")
    parser.add_argument("--lose", default="", choices=LOSSES, help="what an archivist lacks when it comes back")
    parser.add_argument("--mutant", default="", choices=["", *MUTANTS], help="with the code broken on purpose")
    parser.add_argument("--patience", type=float, default=PATIENCE_S, metavar="S", help="for the sagas of one run")
    parser.add_argument("--lanes", type=int, default=6, help="runs at a time")
    parser.add_argument("--bootstrap-servers", help="a broker that is there; else one is started")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
