"""Which ends of processes are those that somebody brought about, and which are not."""

from __future__ import annotations

import pytest

from orchestrator.chaos.ends import Failure, failures_in

AT = "2026-12-01T00:40:03.676Z warning  cli.supervise: "
AT_MS = 1_796_085_603_676
GAVE_UP = "saga: the cluster did not do it (no answer within 10.0 s); `saga doctor` says more\n"


def ended(code: int, pid: int = 7) -> str:
    return f"{AT}process {pid} ended with code {code} after 5.8 s: starting another\n"


@pytest.mark.parametrize("code", [0, -9, -15])
def test_who_was_stopped_or_killed_did_not_fail(code: int) -> None:
    assert failures_in(ended(code)) == []


def test_who_gives_up_says_why() -> None:
    assert failures_in(GAVE_UP + ended(1)) == []
    (silent,) = failures_in(ended(1))
    assert "code 1" in silent.words
    assert silent.at_ms == AT_MS
    assert len(failures_in(GAVE_UP + ended(1, 7) + ended(1, 8))) == 1, "the reason was another one's"
    assert len(failures_in(GAVE_UP + ended(-11))) == 1


def test_what_nobody_caught_has_the_time_of_what_was_logged_before() -> None:
    trace = 'Traceback (most recent call last):\n  File "<frozen runpy>", line 1, in main\n    x\nKeyError: 7\n'
    assert failures_in(f"{AT}all is well\n{trace}") == [Failure("nobody caught KeyError: 7", AT_MS)]
    assert failures_in(trace) == [Failure("nobody caught KeyError: 7", None)]
