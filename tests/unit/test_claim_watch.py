"""An owner that has nothing to write learns all the same that its partition was claimed by somebody else."""

from orchestrator.log.base import Failure
from orchestrator.runtime.claim_watch import ASK_EVERY_MS, ClaimWatch
from orchestrator.wire.journal import Claim, claim_record
from tests.shop_world import World, send_starts


def idle() -> World:
    """Nothing more is to be written, no mark either."""
    world = World()
    for _ in range(3):
        world.advance(1_000)
    return world


def claim(world: World) -> None:
    """A worker that the group does not count in claims partition 0, and says no more."""
    claimed = claim_record(b"another's nonce.", Claim("z", "", (), "1"))
    world.log.appender().append(world.topics.journal, 0, claimed, token=None)


def test_an_idle_owner_takes_its_partition_over_again_after_another_claimed_it() -> None:
    world = idle()
    before = world.owned()
    claim(world)
    world.advance(2_000)
    assert world.owned() is before
    world.advance(ASK_EVERY_MS)
    for _ in range(5):
        world.advance(1_000)
    assert world.engine.epochs_lost == 1
    assert world.owned() is not before
    assert world.owned().progress.at.offset > before.writer.next_offset


def test_a_journal_that_its_owner_writes_alone_ends_no_epoch() -> None:
    world = World()
    for number in range(12):
        send_starts(world, f"o-{number}")
        world.advance(ASK_EVERY_MS // 4)
    assert world.engine.epochs_lost == 0
    assert all(tenure.watch is not None for tenure in world.engine.tenures.values())


def test_an_answer_counts_only_while_nothing_was_written_since_the_question() -> None:
    world = World()
    owned = world.owned()
    watch = ClaimWatch(owned, world.engine._clients.journals, world.now_ms)
    place, expected = (world.topics.journal, 0), owned.writer.next_offset
    watch.ends(expected - 1, {place: expected}, world.now_ms)
    watch.ends(expected, {place: expected - 1}, world.now_ms)  # of a broker that leads no longer
    watch.ends(expected, {}, world.now_ms)
    watch.ends(expected, None, world.now_ms)
    owned.close()
    watch.ends(expected, {place: expected + 1}, world.now_ms)


def test_an_owner_asks_again_where_no_broker_answered() -> None:
    world = idle()
    claim(world)
    reader = world.engine._clients.journals
    reader._request = lambda kind, perform, fail: fail(Failure.FATAL)  # type: ignore[attr-defined]
    world.advance(ASK_EVERY_MS)
    world.advance(1_000)
    assert world.engine.epochs_lost == 0
    del reader._request  # type: ignore[attr-defined]
    world.advance(ASK_EVERY_MS)
    world.advance(1_000)
    assert world.engine.epochs_lost == 1
