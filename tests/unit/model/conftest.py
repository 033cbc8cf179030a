"""No live saga code outlives its test."""

from collections.abc import Iterator

import pytest

from model.play import PLAYS


@pytest.fixture(autouse=True)
def _let_go() -> Iterator[None]:
    yield
    for play in PLAYS:
        play.crash()
    PLAYS.clear()
