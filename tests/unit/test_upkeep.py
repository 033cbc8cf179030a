"""What owners look after: that journal and topics are still the same, who has the code, and what may be deleted."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from threading import Event

import pytest

from orchestrator.log.base import Ends, Failure, Record, TopicSpec
from orchestrator.log.memory_link import Link
from orchestrator.model.events import Status
from orchestrator.model.ids import partition_of
from orchestrator.model.rule import JournalHalted, Kind
from orchestrator.runtime.engine import MAX_WIPES, Engine
from orchestrator.runtime.identity import pinned_topics
from orchestrator.runtime.replica import Replica
from orchestrator.runtime.takeover import Places, Takeover
from orchestrator.runtime.tenure import Phase, Tenure
from orchestrator.runtime.trimmer import Holdings, Trimmer
from orchestrator.runtime.upkeep import COMPARE_EVERY_MS, TRIM_EVERY_MS, Upkeep
from orchestrator.runtime.witness import Witness, read_witness, witness_of
from orchestrator.store import keys
from orchestrator.store.base import StoreBroken
from orchestrator.store.memory import MemoryStore, MemoryStores
from orchestrator.topics import TopicNames
from orchestrator.wire import headers as h
from orchestrator.wire.journal import Envelope, Genesis, write_envelope
from tests.shop_world import PARTITIONS, SERVICES, Order, World, send_starts, succeed

ID = "order-1"
HERE = partition_of(ID, PARTITIONS)
LAG_MS = 60_000


class Kept(World):
    """A world whose journal knows its topics. `name` and `types` are of the next engine's claims."""

    def __init__(self) -> None:
        self.name = "w-1"
        self.types: tuple[str, ...] = ("Greeting", "OrderFulfilment")
        self.stores = MemoryStores()
        super().__init__()

    def ids(self) -> dict[str, str]:
        return {name: self.log.topics[name].topic_id for name in pinned_topics(self.topics) if name in self.log.topics}

    def new_engine(self) -> Engine:
        engine = super().new_engine()
        owner = engine._owner
        engine.topic_ids = self.ids()
        engine._stores = self.stores
        engine._owner = replace(
            owner,
            claim=replace(owner.claim, owner=self.name, saga_types=self.types),
            genesis=lambda: Genesis(1, PARTITIONS, self.ids(), self.now_ms),
            topic_ids=lambda: engine.topic_ids,
        )
        definitions = {name: engine.config.definitions[name] for name in self.types}
        engine.config = replace(engine.config, definitions=definitions)
        return engine

    def move(self, name: str = "w-2", *, warm: bool = False) -> None:
        """The partitions go to another worker."""
        self.name = name
        for tenure in self.engine.tenures.values():
            if tenure.store is not None:
                tenure.store.close()
        if not warm:
            self.stores = MemoryStores()
        self.crash()
        self.settle()

    def start(self, *ids: str, saga_type: str = "OrderFulfilment") -> None:
        send_starts(self, *ids, saga_type=saga_type, value=None if saga_type == "OrderFulfilment" else b'"you"')
        self.settle()
        self.advance(2_000)

    @property
    def here(self) -> Tenure:
        return self.engine.tenures[HERE]

    @property
    def witness(self) -> Witness:
        witness = read_witness(self.log.group("owners").offsets[self.topics.inbox, HERE][1])
        assert witness is not None
        return witness

    def commit(self, metadata: str) -> None:
        self.log.group("owners").offsets[self.topics.inbox, HERE] = (0, metadata)


# -- the witness


@pytest.mark.parametrize("metadata", ["", "member", "7", "7:", "7:zz", "-1:0011223344556677", "7:00", "x:001122"])
def test_metadata_of_others_is_no_witness(metadata: str) -> None:
    assert read_witness(metadata) is None


def test_a_witness_is_written_as_it_is_read() -> None:
    witness = witness_of(7, bytes(range(32)))
    assert read_witness(str(witness)) == witness
    assert witness.confirms(bytes(range(32)))
    assert not witness.confirms(bytes(32))


@pytest.mark.parametrize("warm", [False, True])
def test_a_journal_that_is_as_witnessed_is_taken_over(warm: bool) -> None:
    world = Kept()
    world.start(ID)
    assert world.witness.offset > 3
    world.move(warm=warm)
    assert world.here.phase is Phase.OWNING
    assert world.engine.counters["store_wipes"] == 0


@pytest.mark.parametrize("warm", [False, True])
def test_a_truncated_journal_halts_the_partition(warm: bool) -> None:
    world = Kept()
    world.start(ID)
    del world.log.partitions[world.topics.journal, HERE].records[-2:]
    world.move(warm=warm)
    assert world.here.phase is Phase.HALTED
    assert "truncated" in world.here.halted_because
    assert "saga topics apply" in world.here.halted_because
    assert all(tenure.phase is Phase.OWNING for number, tenure in world.engine.tenures.items() if number != HERE)


def test_a_journal_that_was_truncated_and_has_grown_again_halts_the_partition() -> None:
    world = Kept()
    world.start(ID)
    before = world.witness.offset
    records = world.log.partitions[world.topics.journal, HERE].records
    del records[-2:]
    world.commit("")
    world.move()
    world.start(*(f"order-{n}" for n in range(2, 20)))
    assert world.witness.offset > before
    world.commit(str(Witness(before, bytes(8))))
    world.move("w-3")
    assert world.here.phase is Phase.HALTED
    assert f"up to offset {before}" in world.here.halted_because


def test_a_witness_that_is_behind_is_no_alarm() -> None:
    world = Kept()
    world.start(ID)
    behind = world.witness
    world.start(*(f"order-{n}" for n in range(2, 20)))
    assert world.witness.offset > behind.offset
    world.commit(str(behind))
    world.move()
    assert world.here.phase is Phase.OWNING


def test_a_store_that_the_witness_denies_is_built_anew_before_anybody_despairs() -> None:
    world = Kept()
    world.start(ID)
    world.advance(2_000)
    assert world.here.partition is not None
    at = world.here.partition.progress.at
    assert world.witness == witness_of(at.offset, at.chain)
    world.commit(str(Witness(at.offset, bytes(8))))
    world.move(warm=True)
    assert world.engine.counters["store_wipes"] == 1
    assert world.here.phase is Phase.HALTED


def test_who_proves_its_membership_leaves_the_witness_alone() -> None:
    world = Kept()
    world.start(ID)
    witness, epochs = world.witness, world.engine.epochs_lost
    # A foreign claim takes the offset of the next decision.
    record = world.log.records(world.topics.journal, HERE)[1]
    world.log.appender().append(world.topics.journal, HERE, record.value, token=None)
    client = world.log.appender()
    headers = h.write_headers({h.SAGA_TYPE: "OrderFulfilment"})
    value = Order(id=ID).model_dump_json().encode()
    client.append(world.topics.inbox, HERE, value, key=ID.encode(), headers=headers, token=None)
    for _ in range(20):
        world.step()
        assert world.witness.offset >= witness.offset
    assert world.engine.epochs_lost > epochs
    world.advance(2_000)
    assert world.here.phase is Phase.OWNING


def test_a_worker_that_could_not_claim_leaves_the_witness_alone() -> None:
    world = Kept()
    world.start(ID)
    witness = world.witness
    world.engine._clients.inputs.close()
    world.engine = world.new_engine()
    world.engine._stores = MemoryStores()
    while world.engine.epochs_lost < PARTITIONS:
        for tenure in list(world.engine.tenures.values()):
            if tenure.phase is Phase.TAKING_OVER and str(tenure.takeover) == "claiming":
                world.engine._end_epoch(tenure, world.now_ms, "the claim is refused")
        world.engine._read_inputs(world.now_ms)
        world.engine._read_journals(world.now_ms)
        for tenure in list(world.engine.tenures.values()):
            world.engine._advance(tenure, world.now_ms)
        world.now_ms += 5
    assert world.witness == witness


@pytest.mark.parametrize("grows", [True, False])
def test_an_end_that_was_asked_for_before_the_witness_is_asked_for_again(grows: bool) -> None:
    """The former owner lives on for a moment: it confirms and commits while its successor begins."""
    world = Kept()
    world.start(ID)
    journals, inbox = world.log.reader(), world.topics.inbox
    places = Places(world.topics.journal, inbox, journals, world.log.reader("owners"), world.log.appender())
    takeover = Takeover(HERE, Replica(MemoryStores().open(HERE)), world.engine._owner, places)
    (asked,) = (happening for happening in journals.poll() if isinstance(happening, Ends))
    takeover.ends("end", asked.offsets, world.now_ms)
    before = len(world.log.records(world.topics.journal, HERE))
    world.start(*(f"order-{n}" for n in range(2, 20)))
    assert world.witness.offset >= before
    answer = Ends((takeover, "witness"), {(inbox, HERE): 1}, None, {(inbox, HERE): str(world.witness)})
    if not grows:
        del world.log.partitions[world.topics.journal, HERE].records[before:]
    takeover.witnessed(answer, world.now_ms)
    (again,) = (happening for happening in journals.poll() if isinstance(happening, Ends))
    assert str(takeover) == "asking for the end"
    if grows:
        takeover.ends("end", again.offsets, world.now_ms)
        assert str(takeover) == "reading"
    else:
        with pytest.raises(JournalHalted, match="truncated"):
            takeover.ends("end", again.offsets, world.now_ms)


@pytest.mark.parametrize("differs", [True, False])
def test_a_witness_that_is_heard_of_late_is_compared_with_what_was_read_before(differs: bool) -> None:
    world = Kept()
    world.start(ID)
    journals, inbox = world.log.reader(), world.topics.inbox
    places = Places(world.topics.journal, inbox, journals, world.log.reader("owners"), world.log.appender())
    takeover = Takeover(HERE, Replica(MemoryStores().open(HERE)), world.engine._owner, places)
    for happening in journals.poll():
        if isinstance(happening, Record):
            takeover.record(happening.offset, happening.timestamp_ms, happening.value, world.now_ms)
    witness = Witness(world.witness.offset, bytes(8)) if differs else world.witness
    answer = Ends((takeover, "witness"), {(inbox, HERE): 1}, None, {(inbox, HERE): str(witness)})
    if differs:
        with pytest.raises(JournalHalted, match="written anew"):
            takeover.witnessed(answer, world.now_ms)
    else:
        takeover.witnessed(answer, world.now_ms)
        assert takeover.committed == (1, str(witness))


def test_a_store_that_is_broken_again_and_again_halts_its_partition_and_no_other() -> None:
    class Breaking(MemoryStores):
        def open(self, partition: int) -> MemoryStore:
            if partition == HERE:
                raise StoreBroken("unreadable")
            return super().open(partition)

    world = Kept()
    world.start(ID)
    world.move()
    assert world.here.phase is Phase.OWNING
    for tenure in world.engine.tenures.values():
        assert tenure.store is not None
        tenure.store.close()
    world.stores = Breaking()
    world.crash()
    world.settle()
    assert world.here.phase is Phase.HALTED
    broken = f"its store was wiped {MAX_WIPES} times and is broken again: unreadable"
    assert world.here.halted_because == f"{broken}. Look after the disk, then start the worker again"
    assert all(tenure.phase is Phase.OWNING for number, tenure in world.engine.tenures.items() if number != HERE)


def test_a_store_without_the_genesis_is_built_anew() -> None:
    world = Kept()
    world.start(ID)
    assert world.here.store is not None
    world.here.store.write([(keys.GENESIS, None)])
    world.move(warm=True)
    assert world.engine.counters["store_wipes"] == 1
    assert world.here.phase is Phase.OWNING
    assert world.here.topic_ids == world.ids()


class Mute(Link):
    """The group's coordinator answers some questions for committed offsets by a failure."""

    def __init__(self, failures: int) -> None:
        self.left = failures

    def request(self, kind: str, perform: Callable[[], None], fail: Callable[[Failure], None]) -> None:
        if kind == "committed" and self.left:
            self.left -= 1
            fail(Failure.UNKNOWN_OUTCOME)
        else:
            perform()


@pytest.mark.parametrize("failures", [2 * PARTITIONS, 100])
def test_a_group_that_does_not_answer_is_asked_again_and_holds_nothing_up_for_ever(failures: int) -> None:
    world = Kept()
    world.start(ID)
    world.engine._clients.inputs.close()
    world.engine = world.new_engine()
    world.engine._stores = MemoryStores()
    world.engine._clients.inputs.close()
    world.engine._clients.inputs = world.log.reader("owners", [world.topics.inbox], link=Mute(failures))
    world.settle()
    assert world.here.phase is Phase.TAKING_OVER
    for _ in range(10):
        world.advance(300)
    assert world.here.phase is Phase.OWNING


# -- the topics' ids


def recreate(world: World, topic: str) -> None:
    records = [world.log.partitions[topic, number].records for number in range(PARTITIONS)]
    world.log.delete(topic)
    world.log.create(TopicSpec(topic, PARTITIONS, 1, {}))
    for number, copied in enumerate(records):
        world.log.partitions[topic, number].records.extend(copied)


@pytest.mark.parametrize("role", ["inbox", "replies", "internal", "operations", "journal"])
@pytest.mark.parametrize("warm", [False, True])
def test_a_topic_that_was_created_anew_halts_a_take_over(role: str, warm: bool) -> None:
    world = Kept()
    world.start(ID)
    topic = getattr(world.topics, role)
    recreate(world, topic)
    world.move(warm=warm)
    assert world.here.phase is Phase.HALTED
    assert f"{topic} (made for id" in world.here.halted_because
    assert "saga topics apply" in world.here.halted_because


def comparing(world: World) -> Upkeep:
    def tell(ids: Mapping[str, str], altered: str) -> None:
        world.engine.topic_ids, world.engine.altered = ids, altered

    return Upkeep(world.log, world.topics, lambda: world.engine.holdings, tell, PARTITIONS)


@pytest.mark.parametrize("role", ["inbox", "journal"])
@pytest.mark.parametrize("what", ["compacted", "more partitions"])
def test_a_topic_that_was_altered_halts_all_partitions_and_says_what_to_do(role: str, what: str) -> None:
    world = Kept()
    world.start(ID)
    upkeep = comparing(world)
    upkeep.step(0, world.now_ms)
    world.settle()
    assert world.here.phase is Phase.OWNING
    topic = getattr(world.topics, role)
    if what == "compacted":
        spec = world.log.topics[topic]
        world.log.topics[topic] = replace(spec, settings={**spec.settings, "cleanup.policy": "compact,delete"})
    else:
        world.log.topics[topic] = replace(world.log.topics[topic], partitions=PARTITIONS + 1)
    upkeep.step(COMPARE_EVERY_MS, world.now_ms)
    world.settle()
    assert {tenure.phase for tenure in world.engine.tenures.values()} == {Phase.HALTED}
    assert (
        f"{topic} {'is compacted' if what == 'compacted' else 'has 5 partitions, not 4'}" in world.here.halted_because
    )
    assert "start all workers again" in world.here.halted_because or "restore" in world.here.halted_because
    upkeep.close()


def test_a_topic_that_was_created_anew_halts_its_owner() -> None:
    world = Kept()
    world.start(ID)
    upkeep = comparing(world)
    upkeep.step(0, world.now_ms)
    world.settle()
    assert world.here.phase is Phase.OWNING
    recreate(world, world.topics.replies)
    upkeep.step(COMPARE_EVERY_MS - 1, world.now_ms)
    world.settle()
    assert world.here.phase is Phase.OWNING
    upkeep.step(COMPARE_EVERY_MS, world.now_ms)
    world.settle()
    assert {tenure.phase for tenure in world.engine.tenures.values()} == {Phase.HALTED}
    assert world.topics.replies in world.here.halted_because
    upkeep.close()


def test_a_topic_that_only_tells_others_may_be_created_anew() -> None:
    world = Kept()
    world.start(ID)
    recreate(world, world.topics.answers)
    recreate(world, world.topics.lifecycle)
    world.move()
    assert world.here.phase is Phase.OWNING


# -- the format


@pytest.mark.parametrize("kind", [Kind.FORMAT_RAISED, 4])
def test_a_record_of_a_later_format_halts_whoever_reads_it_before_it_claims(kind: int) -> None:
    world = Kept()
    world.start(ID)
    world.advance(2_000)
    assert world.here.partition is not None
    at = world.here.partition.progress.at
    record = write_envelope(Envelope(kind, at.nonce, at.expected_seq, at.chain))
    world.log.appender().append(world.topics.journal, HERE, record, token=None)
    end = world.log.partitions[world.topics.journal, HERE].end
    world.move()
    assert world.here.phase is Phase.HALTED
    assert "run the version that wrote it" in world.here.halted_because
    assert world.log.partitions[world.topics.journal, HERE].end == end


# -- who has the code


def yielding(world: Kept, saga_type: str = "OrderFulfilment") -> None:
    """A run that does not end, then an owner without its code."""
    world.behave = lambda message: None
    world.start(ID, saga_type=saga_type)
    world.types = ("Greeting",)
    world.move("w-2")


def test_a_worker_without_the_code_waits_then_claims_all_the_same() -> None:
    world = Kept()
    yielding(world)
    assert world.here.phase is Phase.TAKING_OVER
    assert "the code" in str(world.here)
    world.advance(29_000)
    assert world.here.phase is Phase.TAKING_OVER
    world.advance(2_000)
    assert world.here.phase is Phase.OWNING
    assert all(tenure.phase is Phase.OWNING for tenure in world.engine.tenures.values())


def test_only_partitions_with_such_runs_wait() -> None:
    world = Kept()
    yielding(world)
    assert [number for number, tenure in world.engine.tenures.items() if tenure.phase is not Phase.OWNING] == [HERE]


def test_while_it_waits_the_group_may_give_the_partition_to_who_has_the_code() -> None:
    world = Kept()
    yielding(world)
    world.types = ("Greeting", "OrderFulfilment")
    world.behave = succeed
    world.move("w-3")
    assert world.here.phase is Phase.OWNING
    journal = world.log.records(world.topics.journal, HERE)
    assert world.here.partition is not None
    assert len([r for r in journal if b"w-2" in (r.value or b"")]) == 0


def test_nobody_waits_for_runs_that_have_ended() -> None:
    world = Kept()
    world.start(ID)
    assert world.status(ID) is Status.COMPLETED
    world.types = ("Greeting",)
    world.move()
    assert world.here.phase is Phase.OWNING


def test_nobody_waits_for_code_that_the_owner_before_lacked_too() -> None:
    world = Kept()
    yielding(world)
    world.advance(31_000)
    world.move("w-3")
    assert world.here.phase is Phase.OWNING


def test_a_restarted_worker_does_not_wait_for_itself() -> None:
    world = Kept()
    world.behave = lambda message: None
    world.start(ID)
    world.types = ("Greeting",)
    world.move("w-1")
    assert world.here.phase is Phase.OWNING


# -- trimming


def starts(world: World, topic: str) -> int:
    return world.log.partitions[topic, HERE].start


def trimmer(world: World, lag_ms: int = LAG_MS) -> Trimmer:
    return Trimmer(world.log, world.log.admin(), world.topics, lag_ms, Event())


def test_what_was_consumed_longer_ago_than_the_lag_is_deleted() -> None:
    world = Kept()
    world.start(ID)
    trim = trimmer(world)
    assert trim.trim(world.engine.holdings, world.now_ms) == {}
    world.advance(LAG_MS + 1)
    world.start(*(f"order-{n}" for n in range(2, 30)))
    trim.trim(world.engine.holdings, world.now_ms)
    assert starts(world, world.topics.inbox) == 1
    assert starts(world, world.topics.replies) == 3
    assert world.log.partitions[world.topics.inbox, HERE].end > 3
    assert starts(world, world.topics.journal) == 0


def test_a_new_owner_starts_from_its_positions_after_trimming() -> None:
    world = Kept()
    world.start(ID)
    world.advance(LAG_MS + 1)
    world.start("order-2", "order-3")
    trimmer(world, 0).trim(world.engine.holdings, world.now_ms + 1)
    assert starts(world, world.topics.inbox) == world.log.partitions[world.topics.inbox, HERE].end
    world.move()
    assert world.here.phase is Phase.OWNING
    world.start(*(f"order-{n}" for n in range(4, 20)))
    for number in range(4, 20):
        assert world.status(f"order-{number}") is Status.COMPLETED


def test_what_is_not_consumed_is_kept_however_old() -> None:
    world = Kept()
    world.start(ID)
    world.log.expire(world.engine._clients.inputs)  # type: ignore[arg-type]
    holdings = world.engine.holdings
    client = world.log.appender()
    client.append(world.topics.inbox, HERE, b"x", token=None)
    world.now_ms += 10 * LAG_MS
    trimmer(world).trim(holdings, world.now_ms)
    assert starts(world, world.topics.inbox) == 1
    assert len(world.log.records(world.topics.inbox, HERE)) == 1


def test_positions_of_a_record_that_does_not_count_are_no_bound_beyond_the_confirmed_ones() -> None:
    world = Kept()
    world.start(ID)
    holdings = world.engine.holdings
    lower = {number: {"inbox": 0, "replies": 1} for number in holdings.positions}
    world.advance(LAG_MS + 1)
    trimmer(world).trim(Holdings(lower, frozenset()), world.now_ms)
    assert (starts(world, world.topics.inbox), starts(world, world.topics.replies)) == (0, 1)


def test_commands_are_deleted_below_their_group_s_offset() -> None:
    world = Kept()
    world.start(*(f"order-{n}" for n in range(30)))
    topic = world.topics.commands("payments")
    end = world.log.partitions[topic, HERE].end
    assert end > 2
    world.log.group(world.topics.group("payments")).offsets[topic, HERE] = (end - 1, "")
    assert world.engine.holdings.services == frozenset(SERVICES)
    trimmer(world).trim(world.engine.holdings, world.now_ms)
    assert starts(world, topic) == end - 1
    assert starts(world, world.topics.commands("inventory")) == 0


def test_trimming_is_due_every_few_minutes_and_survives_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    world = Kept()
    world.start(ID)
    upkeep = Upkeep(world.log, world.topics, lambda: world.engine.holdings, lambda *told: None, PARTITIONS, LAG_MS)
    upkeep.step(0, world.now_ms)
    world.advance(LAG_MS + 1)
    upkeep.step(TRIM_EVERY_MS - 1, world.now_ms)
    assert starts(world, world.topics.inbox) == 0
    world.log.delete(world.topics.operations)
    upkeep.step(TRIM_EVERY_MS, world.now_ms)
    assert "trimming failed" in caplog.text
    world.log.create(TopicSpec(world.topics.operations, PARTITIONS, 1, {}))
    upkeep.step(2 * TRIM_EVERY_MS, world.now_ms)
    assert starts(world, world.topics.inbox) == 1
    upkeep.close()


@pytest.mark.parametrize("role", ["inbox", "replies"])
def test_a_position_below_the_beginning_halts_the_partition(role: str) -> None:
    world = Kept()
    world.start(ID)
    topic = getattr(world.topics, role)
    client = world.log.appender()
    for _ in range(10):
        client.append(topic, HERE, b"lost", token=None)
    world.log.admin().trim({(topic, HERE): world.log.partitions[topic, HERE].end})
    world.move()
    for _ in range(20):
        world.advance(1_000)
    assert world.here.phase is Phase.HALTED
    assert "not consumed are gone" in world.here.halted_because


def test_the_pinned_topics_are_those_that_are_read_by_position() -> None:
    assert pinned_topics(TopicNames("p-"))[0] == "p-saga.journal"
    assert len(pinned_topics(TopicNames())) == 5


def test_the_lag_is_what_stands_in_the_topics_beyond_what_is_confirmed() -> None:
    world = Kept()
    world.start(ID)
    world.advance(2_000)
    upkeep = Upkeep(world.log, world.topics, lambda: world.engine.holdings, lambda *told: None, PARTITIONS, LAG_MS)
    upkeep.step(0, world.now_ms)
    assert upkeep.lag[HERE, "inbox"] == 0
    world.engine._clients.inputs.pause(world.topics.inbox, HERE)
    for number in range(3):
        headers = h.write_headers({h.SAGA_TYPE: "OrderFulfilment"})
        writer = world.log.appender()
        writer.append(world.topics.inbox, HERE, b"{}", key=ID.encode(), headers=headers, token=number)
    upkeep.step(10_000, world.now_ms)
    assert (upkeep.lag[HERE, "inbox"], upkeep.lag[HERE, "replies"]) == (3, 0)
    upkeep.close()
