"""`python -m tests.crashes` in small: some of the points, and one way of breaking the worker that it must find."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crashes.campaign import VICTIMS, Campaign
from tests.crashes.failpoints import BEFORE, Point, moments_of
from tests.crashes.victims import ARCHIVIST, WORKER

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
LANES = 6
EVERY = 40
"""Two dozen points, some of each victim."""
REACHED = 0.8
"""Of the points to which two runs without a death have come, a third misses one in thirty."""


def test_who_dies_at_a_call_and_comes_back_has_lost_and_repeated_nothing(broker: str, tmp_path: Path) -> None:
    campaign = Campaign(broker, tmp_path, LANES, print)
    points = campaign.count(VICTIMS, runs=2, surely=True)
    assert {point.kind for point in points[WORKER]} > {"journal.append_run", "outward.append", "store.write"}
    assert {point.kind for point in points[ARCHIVIST]} > {
        "files.delete",
        "files.move",
        "files.open_to_read",
        "inputs.commit",
        "inquirer.committed",
        "MainThread-admin.trim",
        "store.checkpoint",
        "upkeep-admin.trim",
    }
    campaign.go(points, every=EVERY, seed=1)
    report = campaign.report
    print(report.table())
    assert report.violations == []
    told = report.as_json()
    assert told["died"] >= told["points"] * REACHED, told["missed"]


def test_a_worker_that_sends_nothing_again_is_found(broker: str, tmp_path: Path) -> None:
    campaign = Campaign(broker, tmp_path, LANES, print, mutant="effects are not sent again", patience_s=12.0)
    campaign.go({WORKER: [Point("outward.append", 1, BEFORE)]})
    assert any("after all is quiet" in violation for violation in campaign.report.violations)


def test_an_archive_that_lacks_a_record_is_found(broker: str, tmp_path: Path) -> None:
    campaign = Campaign(broker, tmp_path, LANES, lambda line: None, mutant="cut, not archived", patience_s=12.0)
    campaign.count([ARCHIVIST], runs=1)
    assert any("is not what stood in the journal" in violation for violation in campaign.report.violations)


def test_points_have_names() -> None:
    for moment in moments_of("journal.append_run"):
        point = Point("journal.append_run", 3, moment)
        assert Point.read(str(point)) == point
    assert moments_of("inputs.poll") == ("after",)
    with pytest.raises(ValueError, match="no moment"):
        Point.read("inputs.poll:1:soon")
