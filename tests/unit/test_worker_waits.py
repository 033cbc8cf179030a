"""A worker that has nothing to do waits: for its next timer, or for what must come before one that is due."""

from orchestrator.runtime.engine import SOON_MS
from orchestrator.runtime.partition import BATCH
from orchestrator.runtime.tenure import Phase
from orchestrator.wire import headers as h
from tests.shop_world import World, send_starts
from tests.unit.test_ownership import IDS, Slow, send, steps

LIMIT_MS = 200


def waits(world: World) -> int:
    return world.engine.next_due_in_ms(world.now_ms, LIMIT_MS)


def with_a_timer(delay_ms: int) -> World:
    """Owned partitions at rest, one of which has a saga that begins in so many milliseconds."""
    world = World()
    send(world, IDS[0], b'"you"', saga_type="Greeting", start_delay_ms=delay_ms)
    steps(world, 10)
    while world.engine.step(world.now_ms):
        pass
    return world


def test_it_waits_for_the_next_timer_and_no_longer() -> None:
    world = with_a_timer(100)
    due_ms = world.owned().timers.next_due_ms()
    assert due_ms is not None
    while world.now_ms < due_ms:
        world.now_ms += max(1, waits(world))
        world.engine.step(world.now_ms)
        world.engine.step(world.now_ms)  # the answer to its question for the end offsets wakes it
    assert world.now_ms <= due_ms + 1
    execution = world.owned().runs.find(IDS[0])
    assert execution is not None
    assert execution.state.begin_ms is None


def test_a_timer_that_is_due_while_a_partition_is_handed_back_keeps_nobody_busy() -> None:
    world = with_a_timer(100)
    link = Slow()
    link.slow = True
    world.engine._journal._appender = world.log.appender(link=link)
    send_starts(world, IDS[1])
    world.engine.step(world.now_ms)
    world.engine._revoke(world.engine.tenures[0], world.now_ms)
    world.now_ms += 150
    for _ in range(5):
        world.engine.step(world.now_ms)
    assert world.engine.tenures[0].phase is Phase.LEAVING
    assert waits(world) > 0


def test_an_acknowledged_command_makes_no_step() -> None:
    world = World()
    world.behave = lambda message: None
    link = Slow()
    world.engine._outward._appender = world.log.appender(link=link)
    link.slow = True
    owned = world.owned()
    send(world, IDS[0], b'{"id":"o"}', saga_type="OrderFulfilment", input_type="start")
    for _ in range(10):
        world.engine.step(world.now_ms)
    assert [dict(sent.headers)[h.SAGA_ID] for sent in link.held] == [IDS[0].encode()]
    link.go()
    world.engine.step(world.now_ms)
    assert not owned.sender.pending
    assert owned.rests(world.now_ms)
    world.advance(2_000)
    assert owned.progress.at.effects_sent == owned.progress.at.offset - 1


def test_it_looks_for_acknowledged_effects_where_somebody_waits_for_them() -> None:
    world = World()
    world.behave = lambda message: None
    link = Slow()
    link.slow = True
    world.engine._outward._appender = world.log.appender(link=link)
    send(world, IDS[0], b'{"id":"o"}', saga_type="OrderFulfilment", input_type="start")
    while world.engine.step(world.now_ms) or not link.held:
        pass
    assert waits(world) > SOON_MS, "a command that is not acknowledged is no reason to look"
    world.engine._revoke(world.engine.tenures[0], world.now_ms)
    assert waits(world) == SOON_MS, "who hands over waits for it"


def test_there_is_more_only_where_nothing_new_has_to_come() -> None:
    world = World()
    steps(world, 10)
    send_starts(world, *IDS[:2])
    assert not world.engine.step(world.now_ms), "both are decided, and what comes of it is told"
    for number in range(BATCH + 1):
        send(world, f"more-{number}", b'"you"', saga_type="Greeting")
    assert world.engine.step(world.now_ms), "a step decides so many at once"


def test_it_looks_for_an_acknowledged_dead_letter_that_holds_up_what_comes_behind_it() -> None:
    world = World()
    link = Slow()
    link.slow = True
    world.engine._outward._appender = world.log.appender(link=link)
    send(world, IDS[0], b"no json", saga_type="OrderFulfilment")
    while world.engine.step(world.now_ms) or not link.held:
        pass
    assert waits(world) == SOON_MS
    link.go()
    world.engine.step(world.now_ms)
    assert waits(world) > SOON_MS
