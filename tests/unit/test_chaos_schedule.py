"""What is broken when during chaos, and which sagas run: both are drawn from the seed alone."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from orchestrator.chaos import load
from orchestrator.chaos.load import CLIENTS
from orchestrator.chaos.nemesis import Nemesis
from orchestrator.chaos.schedule import FIRST_S, KINDS, LAST_S, Lane, Planned, draw

TEN_MINUTES_S = 600.0


def down_at(schedule: list[Planned], at_s: float) -> list[Planned]:
    return [each for each in schedule if each.begin_s <= at_s <= each.end_s and each.kind.brokers_down]


def test_a_seed_draws_the_same_schedule_again_and_another_seed_another_one() -> None:
    assert draw(7, TEN_MINUTES_S) == draw(7, TEN_MINUTES_S)
    assert draw(7, TEN_MINUTES_S) != draw(8, TEN_MINUTES_S)


def test_ten_minutes_meet_every_kind_and_more_than_a_hundred_faults() -> None:
    for seed in range(20):
        schedule = draw(seed, TEN_MINUTES_S)
        assert {each.kind for each in schedule} == set(KINDS)
        assert len(schedule) > 100
    assert len(KINDS) == len({kind.name for kind in KINDS}) >= 18


def test_there_are_ten_kinds_within_a_minute() -> None:
    assert all(len({each.kind for each in draw(seed, 60.0)}) >= 10 for seed in range(50))


def test_two_brokers_are_down_only_where_all_are() -> None:
    for seed in range(50):
        schedule = draw(seed, TEN_MINUTES_S)
        for each in schedule:
            assert len(down_at(schedule, each.begin_s)) <= 1
    assert {kind.name for kind in KINDS if kind.brokers_down > 1} == {"brokers-all-killed"}


def test_in_a_lane_one_fault_follows_the_other_between_the_first_and_the_last_seconds() -> None:
    for seed in range(20):
        schedule = draw(seed, TEN_MINUTES_S)
        assert [each.number for each in schedule] == list(range(1, len(schedule) + 1))
        for lane in Lane:
            of_lane = [each for each in schedule if each.kind.lane is lane]
            assert all(one.end_s < other.begin_s for one, other in pairwise(of_lane))
            assert of_lane[0].begin_s >= FIRST_S
            assert of_lane[-1].begin_s <= TEN_MINUTES_S - LAST_S


def test_a_lane_meets_all_its_kinds_before_one_comes_again() -> None:
    schedule = draw(3, TEN_MINUTES_S)
    for lane in Lane:
        kinds = [kind for kind in KINDS if kind.lane is lane]
        first = [each.kind for each in schedule if each.kind.lane is lane][: len(kinds)]
        assert set(first) == set(kinds)


def test_lanes_may_be_left_out() -> None:
    schedule = draw(1, TEN_MINUTES_S, [Lane.INPUTS])
    assert {each.kind.lane for each in schedule} == {Lane.INPUTS}
    whole = [each for each in draw(1, TEN_MINUTES_S) if each.kind.lane is Lane.INPUTS]
    assert [(each.kind, each.begin_s) for each in schedule] == [(each.kind, each.begin_s) for each in whole]


def test_the_nemesis_knows_how_to_carry_out_every_kind() -> None:
    for kind in KINDS:
        assert callable(getattr(Nemesis, "_" + kind.name.replace("-", "_"))), kind.name


def test_sagas_are_drawn_from_the_seed_and_their_number_and_are_of_every_type() -> None:
    assert load.draw(4, 17) == load.draw(4, 17)
    errands = [load.draw(4, number) for number in range(2_000)]
    assert len({each.id for each in errands}) == len(errands)
    types = Counter(each.saga.definition.name for each in errands)
    assert len(types) == 11
    refused = sum(each.given.refused for each in errands)
    assert 0.05 < refused / len(errands) < 0.15
    assert {each.client for each in errands} == set(range(CLIENTS))
    for each in errands:
        assert (each.cancel_after_s is not None) == (each.saga.definition.name == "ChaosCancelled")
