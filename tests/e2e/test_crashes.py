"""`python -m tests.crashes` in small: some of the points, and one way of breaking the worker that it must find."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crashes.campaign import VICTIMS, Campaign
from tests.crashes.failpoints import BEFORE, Point, moments_of
from tests.crashes.victims import WORKER

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
LANES = 6
EVERY = 40
"""A dozen points, some of each victim."""


def test_who_dies_at_a_call_and_comes_back_has_lost_and_repeated_nothing(broker: str, tmp_path: Path) -> None:
    campaign = Campaign(broker, tmp_path, LANES, print)
    points = campaign.count(VICTIMS, runs=1)
    assert {point.kind for point in points[WORKER]} > {"journal.append_run", "outward.append", "store.write"}
    campaign.go(points, every=EVERY, seed=1)
    report = campaign.report
    print(report.table())
    assert report.violations == []
    told = report.as_json()
    # How often a call is made varies a little, and the last one may be missing.
    assert told["died"] >= told["points"] * 0.6


def test_a_worker_that_sends_nothing_again_is_found(broker: str, tmp_path: Path) -> None:
    campaign = Campaign(broker, tmp_path, LANES, print, mutant="effects are not sent again", patience_s=12.0)
    campaign.go({WORKER: [Point("outward.append", 1, BEFORE)]})
    assert any("after all is quiet" in violation for violation in campaign.report.violations)


def test_points_have_names() -> None:
    for moment in moments_of("journal.append_run"):
        point = Point("journal.append_run", 3, moment)
        assert Point.read(str(point)) == point
    assert moments_of("inputs.poll") == ("after",)
    with pytest.raises(ValueError, match="no moment"):
        Point.read("inputs.poll:1:soon")
