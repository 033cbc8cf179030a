"""The verdict of a run, its page and the story of a violation, told from the evidence of a simulated world."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

from orchestrator.archive.journals import JournalArchive, as_segment
from orchestrator.chaos.archived import check_archive
from orchestrator.chaos.history import Histories, Struck, read_lines
from orchestrator.chaos.judge import Findings, judge
from orchestrator.chaos.kept import Material, RecordFiles, open_records, read_material, write_material
from orchestrator.chaos.recovery import AT_LATEST_MS, Kill
from orchestrator.chaos.report import page
from orchestrator.chaos.schedule import KINDS
from orchestrator.chaos.story import MARGIN_MS, MOST_LINES, NEAR, sagas_in, tell
from orchestrator.chaos.verdict import RAW, conclude
from orchestrator.checker.evidence import Evidence, Place, Raw, Told, Verdict
from orchestrator.checker.ownership import counted
from orchestrator.depot import Depot
from orchestrator.errors import ConfigurationError
from orchestrator.log.base import Record
from orchestrator.model.rule import Kind
from orchestrator.model.turn import ENDED_KEEP_MS
from orchestrator.runtime.replica import Replica
from orchestrator.simulation import clients
from orchestrator.simulation.run import MOST_EVENTS, MOST_MS
from orchestrator.simulation.world import START_MS, World
from orchestrator.store.rocks import RocksStores
from orchestrator.topics import TopicNames
from orchestrator.wire.journal import DECISION_FINGERPRINT, read_envelope

SEED = 3


@cache
def evidence() -> Evidence:
    """Of a simulated world without faults, in which a service has had an effect that it remembers with the key."""
    for seed in range(SEED, SEED + 50):
        world = World(seed)
        world.ended_keep_ms = ENDED_KEEP_MS
        for number in range(world.to_start):
            world.later(10 * number, partial(clients.start_saga, world, number))
        settled = world.run(MOST_EVENTS, MOST_MS)
        found = world.evidence(settled=settled)
        if settled and any(each.service in found.once for each in found.effects):
            return found
    raise AssertionError("no seed has such an effect")


def judged(given: Evidence, **more: Any) -> Findings:
    values: dict[str, Any] = {"stores": {}, "damaged": frozenset(), "kills": (), "faults": (), "lost": ()}
    return judge(given, **{**values, **more})


def doubled() -> Evidence:
    """The same evidence, but the book of one service has an effect twice."""
    given = evidence()
    effect = max((each for each in given.effects if each.service in given.once), key=lambda each: each.at)  # not undone
    again = replace(effect, at=max(each.at for each in given.effects) + 1)
    return replace(given, effects=[*given.effects, again])


def result_of(findings: Findings, faults: list[Struck]) -> Mapping[str, Any]:
    verdict = findings.verdict
    return {
        "seed": 5,
        "minutes": 2.0,
        "sagas_per_second": 20.0,
        "brokers": 3,
        "replication": 3,
        "workers": 3,
        "partitions": 8,
        "version": "1",
        "sagas": 1_234,
        "faults": len(faults),
        "fault_kinds": 2,
        "faults_not_done": 0,
        "violations": len(verdict.violations),
        "recovery_ms": findings.percentiles(),
        "statuses": verdict.statuses,
        "sagas_by_type": {"ChaosOrder": 1_234},
        "effects": verdict.effects,
        "decisions": verdict.decisions,
        "records_dropped": verdict.dropped,
        "inputs_absorbed": findings.absorbed,
        "dead_letters": 0,
        "starts_unknown": 0,
        "stores_compared": findings.stores,
        "faults_by_kind": {"broker-killed": 1, "claim-forged": 1},
    }


def struck() -> list[Struck]:
    return [
        Struck(1, "broker-killed", "broker 2", START_MS + 10, START_MS + 900),
        Struck(2, "claim-forged", "", START_MS + 50, START_MS + 60, "partition <3>"),
        Struck(3, "claim-forged", "", START_MS + 9_000_000, START_MS + 9_000_001),
    ]


def test_what_is_as_it_should_be_has_no_violation() -> None:
    assert judged(evidence()).verdict.violations == []


def test_an_effect_that_stands_twice_in_a_book_is_a_violation_with_its_story() -> None:
    given = doubled()
    findings = judged(given)
    (violation,) = findings.verdict.violations
    assert violation.startswith("C3")
    assert "twice" in violation
    (story,) = tell(findings.verdict.violations, given, struck())
    effect = given.effects[-1]
    assert story.lines[0] == effect.saga_id
    text = str(story)
    assert "SagaStarted" in text
    assert "at 0" not in text.partition("journal")[0]
    assert text.count(f"in the book of {effect.service}: {effect.key}") == 2
    assert "FAULT 1 broker-killed broker 2 (healed after 890 ms)" in text
    assert "FAULT 3" not in text
    shown = page(result_of(findings, struck()), struck(), [story], START_MS)
    assert 'class="verdict bad">1 violations' in shown
    assert "had its effect twice" in shown


def test_the_page_says_first_that_all_is_well_and_needs_nothing_else() -> None:
    findings = judged(evidence())
    shown = page(result_of(findings, struck()), struck(), [], START_MS)
    assert shown.index('class="verdict good">No invariant was violated') < shown.index("<table>")
    assert "saga chaos --minutes 2 --seed 5 --sagas-per-second 20 --workers 3 --brokers 3" in shown
    assert "partition &lt;3&gt;" in shown
    assert "http" not in shown
    assert "<script" not in shown
    assert shown.count("<rect") == len(struck())
    does = {kind.name: kind.does for kind in KINDS}
    assert does["claim-forged"] in shown
    assert does["poison"] not in shown


def test_a_story_stays_short() -> None:
    many = [Struck(number, "poison", "", START_MS + number, START_MS + number) for number in range(500)]
    given = doubled()
    (story,) = tell(judged(given).verdict.violations, given, many)
    assert len(story.lines) < MOST_LINES + 5
    assert any("more ..." in line for line in story.lines)


def test_a_violation_names_sagas_by_themselves_or_in_keys() -> None:
    known = {"order-1", "order-1/child", "a b"}
    assert sagas_in("C3: order-1/1-0-0/1/do had its effect twice", known) == ["order-1"]
    assert sagas_in("C2: order-1/child: told FAILED, 'order-1' too", known) == ["order-1/child", "order-1"]
    assert sagas_in("C6: journal 3 at offset 7", known) == []


def decided(partition: int) -> list[Record]:
    """The decisions of a partition's journal that count."""
    kept = counted(evidence().journal[partition])
    return [record for record, envelope, _ in kept if envelope.kind == Kind.DECISION]


def busiest() -> int:
    return max(evidence().journal, key=lambda partition: len(decided(partition)))


def test_where_no_saga_is_named_the_story_is_of_the_partition_at_that_time() -> None:
    partition = busiest()
    records = decided(partition)
    middle = records[len(records) // 2]
    at_ms = middle.timestamp_ms
    meanwhile = Struck(8, "worker-killed", "worker-1", at_ms - 5, at_ms + 5)
    late = Struck(9, "poison", "", at_ms + MARGIN_MS + 1, at_ms + MARGIN_MS + 2)
    violation = "C14: it was decided late"
    place = Place(partition, first_ms=at_ms, last_ms=at_ms)
    (story,) = tell([violation], evidence(), [meanwhile, late], {violation: place})
    text = str(story)
    assert story.lines[0].startswith(f"partition {partition}; 0 ms is at 1970-01-01T00:16:4")
    assert "FAULT 8 worker-killed worker-1 (healed after 10 ms)" in text
    assert "FAULT 9" not in text
    told = {int(found[1]) for line in story.lines if (found := re.search(r"journal \d+ at (\d+) by ", line))}
    offsets = [each.offset for each in records]
    first = next(at for at, each in enumerate(records) if each.timestamp_ms >= at_ms)
    assert told == set(offsets[max(0, first - NEAR) : first + NEAR])
    assert all(f"journal {other} at" not in text for other in evidence().journal if other != partition)


def test_a_violation_that_names_an_offset_is_told_at_the_time_of_that_record() -> None:
    partition = busiest()
    middle = decided(partition)[3]
    fault = Struck(8, "broker-killed", "broker 2", middle.timestamp_ms - 5, middle.timestamp_ms + 5)
    for words in (
        f"C6: journal {partition} at offset {middle.offset}: x",
        f"C10: journal {partition} at {middle.offset}: y",
    ):
        (story,) = tell([words], evidence(), [fault])
        assert "FAULT 8" in str(story)
        assert any(
            line.lstrip().startswith(f"+0 ms  journal {partition} at {middle.offset} by") for line in story.lines
        )
    (story,) = tell([f"C10: partition {partition} had 5 messages for 2"], evidence(), [])
    assert f"at {decided(partition)[-1].offset} by" in str(story)


def test_where_a_process_failed_the_story_has_who_claimed_what_at_that_time() -> None:
    claimed = [record for records in evidence().journal.values() for record in records[:2] if is_claim(record)]
    at_ms = claimed[0].timestamp_ms
    violation = "engine: worker-1: process 7 ended with code -11"
    (story,) = tell([violation], evidence(), struck(), {violation: Place(first_ms=at_ms, last_ms=at_ms)})
    assert story.lines[0].startswith("all partitions; 0 ms is at 1970-01-01T00:16:4")
    told = sum("claimed by" in line for line in story.lines)
    assert told == sum(abs(each.timestamp_ms - at_ms) <= MARGIN_MS for each in claimed) > 0


def is_claim(record: Record) -> bool:
    return read_envelope(record.value).kind == Kind.CLAIM


def test_where_nothing_is_known_the_story_says_so() -> None:
    (story,) = tell(["C14: topics still grow"], evidence(), struck())
    assert story.lines[0].startswith("when and where is not known")
    assert [line for line in story.lines if "FAULT 3" in line]


def test_what_the_checker_finds_of_stores_and_journals_has_its_place(tmp_path: Path) -> None:
    partition = busiest()
    store = RocksStores(tmp_path / "worker-1" / "stores" / "worker-0").open(partition)
    replica = Replica(store)
    for record in evidence().journal[partition]:
        replica.feed(record.offset, record.timestamp_ms, record.value)
    replica.flush()
    store.write([(b"~", b"what no journal says")])
    store.close()
    directory = tmp_path / "worker-1" / "stores" / "worker-0" / f"partition-{partition}"
    findings = judged(evidence(), stores={partition: [directory]})
    (violation,) = findings.verdict.violations
    assert violation.startswith("C7: worker-1's store")
    last = evidence().journal[partition][-1]
    assert findings.verdict.places[violation] == Place(partition, last.offset)
    (story,) = tell([violation], evidence(), [], findings.verdict.places)
    assert f"journal {partition} at" in str(story)


def test_what_clients_found_wrong_is_a_violation() -> None:
    assert judged(evidence(), lost=["C2: nothing came"]).verdict.violations == ["C2: nothing came"]
    told = [*evidence().told, Told("never-seen", True)]
    assert judged(replace(evidence(), told=told)).verdict.violations == [
        "C1: never-seen was accepted and has 0 first runs"
    ]


def test_a_killed_worker_that_nobody_follows_is_a_violation() -> None:
    journal = evidence().journal
    last_ms = max(record.timestamp_ms for records in journal.values() for record in records)
    owners = {owner_pid(records) for records in journal.values()}
    kills = [Kill(pid, last_ms + 1) for pid in sorted(owners)]
    found = judged(evidence(), kills=kills).verdict.violations
    assert found
    assert all(each.startswith("C14") and "nobody decided" in each for each in found)


UNCAUGHT = 'Traceback (most recent call last):\n  File "<frozen runpy>", line 1, in main\n    x\nKeyError: 7\n'


def test_a_process_that_failed_by_itself_is_a_violation(tmp_path: Path) -> None:
    log = tmp_path / "worker-1.log"
    killed = "cli.supervise: process 7 ended with code -9 after 3.0 s: starting another\n"
    log.write_text(killed)
    assert judged(evidence(), logs=[log]).verdict.violations == []
    log.write_text(killed + UNCAUGHT.replace("<frozen runpy>", "engine.py"))
    assert judged(evidence(), logs=[log]).verdict.violations == []
    log.write_text(killed + 2 * killed.replace("-9", "-11") + UNCAUGHT)
    first, second = judged(evidence(), logs=[log]).verdict.violations
    assert first.startswith("engine: worker-1: cli.supervise: process 7 ended with code -11")
    assert second == "engine: worker-1: nobody caught KeyError: 7"


def owner_pid(records: Any) -> int:
    from orchestrator.checker.ownership import accepted

    owner = next(each.owner for each in accepted(records))
    return int(owner.rpartition("-")[2])


def test_evidence_in_files_is_judged_as_that_in_memory(tmp_path: Path) -> None:
    given = evidence()
    topics = {"journal": given.journal, "inbox": given.inbox}

    def records() -> Any:
        for name, raw in topics.items():
            for partition in raw.values():
                for record in partition:
                    yield record._replace(topic=name)

    keep(tmp_path / "raw", records())
    kept = open_records(tmp_path / "raw", list(topics), given.partitions)
    for name, raw in topics.items():
        for partition, expected in raw.items():
            again = kept[name][partition]
            assert len(again) == len(expected)
            assert [each._replace(topic=name) for each in expected] == list(again)
    from_files = replace(given, journal=kept["journal"], inbox=kept["inbox"])
    assert judged(from_files).verdict.violations == []
    assert judged(from_files).verdict.decisions == judged(given).verdict.decisions


def test_what_is_known_of_a_run_is_read_again_as_it_was_written(tmp_path: Path) -> None:
    told = [Told("a", True, "COMPLETED"), Told("b", None), Told("c", False)]
    written = Material(
        {"seed": 5, "partitions": 8}, 1, 2, told, struck(), [Kill(7, 9)], ["state/w"], ["C2: x"], {"T": 3}
    )
    write_material(tmp_path, written)
    assert read_material(tmp_path) == written
    with pytest.raises(ConfigurationError, match="does not hold"):
        read_material(tmp_path / "nowhere")
    run = tmp_path / "run.json"
    run.write_text(run.read_text().replace(DECISION_FINGERPRINT.hex(), "0123"))
    with pytest.raises(ConfigurationError, match=r"schema 0123.*judge it with the version that ran it"):
        read_material(tmp_path)


def test_headers_that_are_no_text_are_kept_as_they_are(tmp_path: Path) -> None:
    record = Record("t", 0, 4, 9, b"\xff", None, (("a", b"\xff\xfe"), ("a", b"b"), ("c", "ü".encode())))
    keep(tmp_path / "raw", [record])
    kept = open_records(tmp_path / "raw", ["t"], 2)
    assert list(kept["t"][0]) == [record] == [kept["t"][0][0]]
    assert [list(kept["t"][partition]) for partition in (0, 1)] == [[record], []]
    assert [len(kept["t"][partition]) for partition in (0, 1)] == [1, 0]


def test_an_archive_is_held_to_what_stood_in_kafka(tmp_path: Path) -> None:
    raw: Raw = {0: [Record("j", 0, offset, 9, None, b"%d" % offset) for offset in range(40)], 1: []}
    archive = JournalArchive(Depot(str(tmp_path)), "j", "id")
    archive.shelf(0).put(0, 30, map(as_segment, raw[0][:30]))
    assert archived(tmp_path, raw, {"0": 30, "1": 0}) == (30, [])
    count, (lacks,) = archived(tmp_path, raw, {"0": 31, "1": 0})
    assert (count, lacks) == (30, "C6: journal 0 was cut below 31, and its archive ends at 30")
    other = {**raw, 0: [each._replace(value=b"x") if each.offset == 7 else each for each in raw[0]]}
    assert "differs at offset 7" in archived(tmp_path, other, {"0": 30, "1": 0})[1][0]
    assert "differs at offset 29" in archived(tmp_path, {**raw, 0: raw[0][:29]}, {"0": 30, "1": 0})[1][0]
    (segment,) = archive.shelf(0).segments()
    (tmp_path / archive.shelf(0).folder / segment.name).write_bytes(b"?")
    assert "is not what was written" in archived(tmp_path, raw, {"0": 30, "1": 0})[1][0]


def archived(folder: Path, raw: Raw, cut: dict[str, int]) -> tuple[int, list[str]]:
    verdict = Verdict()
    count = check_archive(folder, "j", Material({}, 1, 2, cut=cut, journal_id="id"), raw, verdict)
    return count, verdict.violations


def test_what_an_archive_lacks_has_a_place(tmp_path: Path) -> None:
    verdict, raw = Verdict(), {0: [Record("j", 0, offset, 9, None, b"x") for offset in range(40)]}
    JournalArchive(Depot(str(tmp_path)), "j", "id").shelf(0).put(0, 30, map(as_segment, raw[0][:30]))
    other = {0: [each._replace(value=b"y") if each.offset == 7 else each for each in raw[0]]}
    check_archive(tmp_path, "j", Material({}, 1, 2, cut={"0": 31}, journal_id="id"), other, verdict)
    assert list(verdict.places.values()) == [Place(0, 30), Place(0, 7)]


def test_of_a_run_that_failed_what_came_after_its_end_is_not_missed(tmp_path: Path) -> None:
    partition, names = busiest(), TopicNames()
    first = decided(partition)[0].offset
    begun = [each._replace(topic=names.journal) for each in evidence().journal[partition] if each.offset < first]
    keep(tmp_path / RAW, begun)
    killed = Kill(owner_pid(begun), begun[-1].timestamp_ms + 1)
    settings = {"partitions": 8, "seed": 1, "minutes": 1, "sagas_per_second": 1, "brokers": 3, "workers": 3}
    for passed_ms, count in ((AT_LATEST_MS, 1), (AT_LATEST_MS + 1, 2)):
        material = Material(settings, 1, killed.at_ms + passed_ms, kills=[killed], failed="SagaError: x")
        write_material(tmp_path, material)
        found = conclude(tmp_path).result["violation_list"]
        assert len(found) == count
        assert found[0].startswith("run: it failed, and what was written last may not have been read: SagaError: x")


def keep(folder: Path, records: Iterable[Record]) -> None:
    with closing(RecordFiles(folder)) as files:
        for record in records:
            files.add(record)


def test_a_history_has_starts_ends_and_faults_in_order(tmp_path: Path) -> None:
    histories = Histories(tmp_path / "history.jsonl")
    histories.start("a", "ChaosOrder", True)
    histories.start("b", "ChaosOrder", None, "NotAcknowledged")
    fault = histories.begin(1, "poison", "")
    histories.heal(fault)
    histories.end("a", "COMPLETED")
    histories.close()
    lines = list(read_lines(tmp_path / "history.jsonl"))
    assert [each["what"] for each in lines] == ["start", "start", "fault", "healed", "result"]
    assert [each.get("told") for each in lines[:2]] == ["ok", "unknown"]
    assert histories.told == {"a": Told("a", True, "COMPLETED"), "b": Told("b", None)}
    assert fault.during(fault.begin_ms, fault.begin_ms)
    assert not fault.during(0, fault.begin_ms - 1)


@pytest.mark.parametrize(("times", "expected"), [([], None), ([5], 5), ([1, 2, 3], 2)])
def test_percentiles_of_few_times(times: list[int], expected: int | None) -> None:
    findings = judged(evidence())
    findings.recovery_ms = times
    assert findings.percentiles()["p50"] == expected
