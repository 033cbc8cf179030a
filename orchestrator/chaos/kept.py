"""What is kept of a run in files: each partition's records, and what was told, broken and killed."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, overload

from orchestrator.chaos.history import Struck
from orchestrator.chaos.recovery import Kill
from orchestrator.checker.evidence import Raw, Told
from orchestrator.errors import ConfigurationError
from orchestrator.log.base import Record
from orchestrator.wire.journal import DECISION_FINGERPRINT

TOLD, RUN, SETTINGS, HISTORY = "told.jsonl", "run.json", "settings.json", "history.jsonl"
_LOSSLESS = "surrogateescape"
_OPEN_BUFFER = 1 << 18


class KeptRecords(Sequence[Record]):
    """One partition's records in a file of JSON lines: read each time they are walked over, so they take no memory.

    A line has the offset, the time in milliseconds, key and value in base64, and the headers as pairs of texts.
    """

    def __init__(self, path: Path, topic: str, partition: int, count: int) -> None:
        self._path = path
        self._topic = topic
        self._partition = partition
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, at: int) -> Record: ...
    @overload
    def __getitem__(self, at: slice) -> list[Record]: ...
    def __getitem__(self, at: int | slice) -> Record | list[Record]:
        return list(self)[at]

    def __iter__(self) -> Iterator[Record]:
        if not self._count:
            return
        with self._path.open(encoding="utf-8", buffering=_OPEN_BUFFER) as file:
            for line in file:
                offset, at_ms, key, value, headers = json.loads(line)
                yield Record(
                    self._topic,
                    self._partition,
                    offset,
                    at_ms,
                    _bytes(key),
                    _bytes(value),
                    tuple((name, text.encode(errors=_LOSSLESS)) for name, text in headers),
                )


class RecordFiles:
    """Writes records to files in a folder that is made: each partition's in the order in which they are added."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[tuple[str, int], IO[str]] = {}
        folder.mkdir()

    def add(self, record: Record) -> None:
        key = (record.topic, record.partition)
        if key not in self._files:
            self._files[key] = _path(self._folder, *key).open("w", encoding="utf-8", buffering=_OPEN_BUFFER)
        self._files[key].write(_line(record))

    def close(self) -> None:
        for file in self._files.values():
            file.close()


def open_records(folder: Path, topics: Sequence[str], partitions: int) -> dict[str, Raw]:
    """What `RecordFiles` wrote, as the checker takes it. Counts the lines of each file."""
    found: dict[str, Raw] = {}
    for topic in topics:
        raw = {}
        for partition in range(partitions):
            path = _path(folder, topic, partition)
            raw[partition] = KeptRecords(path, topic, partition, _lines_in(path))
        found[topic] = raw
    return found


@dataclass(slots=True)
class Material:
    """What is known of a run beside topics, books and stores. `settings` as in the result; times in milliseconds.

    `damaged` are directories of stores below the folder, `lost` what clients found wrong, `ended` sagas by type. `cut`
    says by partition from where on the journal still stood in Kafka, `journal_id` is the topic's id. `failed` says what
    ended the run before its time.
    """

    settings: dict[str, Any]
    began_ms: int
    ended_ms: int
    told: list[Told] = field(default_factory=list)
    faults: list[Struck] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    ended: dict[str, int] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    journal_id: str = ""
    failed: str = ""


def command_of(settings: Mapping[str, Any]) -> str:
    """What runs it again."""
    return (
        f"saga chaos --minutes {settings['minutes']:g} --seed {settings['seed']} --sagas-per-second "
        f"{settings['sagas_per_second']:g} --workers {settings['workers']} --brokers {settings['brokers']}"
    )


def write_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """As `settings.json`, before anything is started: what a run was asked for stays known however it ends."""
    (folder / SETTINGS).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def write_material(folder: Path, material: Material) -> None:
    """As `told.jsonl`, a line for each saga, and `run.json`."""
    with (folder / TOLD).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps([each.saga_id, each.accepted, each.status]) + "\n" for each in material.told)
    values = {**asdict(material), "told": None, "schema": DECISION_FINGERPRINT.hex()}
    (folder / RUN).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def read_material(folder: Path) -> Material:
    """Raises `ConfigurationError` where no run was kept there, or one of software that writes another journal."""
    try:
        values = json.loads((folder / RUN).read_text(encoding="utf-8"))
        with (folder / TOLD).open(encoding="utf-8") as file:
            told = [Told(*json.loads(line)) for line in file]
    except OSError as error:
        raise ConfigurationError(f"{folder} does not hold the evidence of a run: {error}") from None
    schema = values.pop("schema", "unknown")
    if schema != DECISION_FINGERPRINT.hex():
        raise ConfigurationError(
            f"{folder} holds a journal of schema {schema}, this software's is {DECISION_FINGERPRINT.hex()}: "
            "judge it with the version that ran it"
        )
    values["told"] = told
    values["faults"] = [Struck(**each) for each in values["faults"]]
    values["kills"] = [Kill(**each) for each in values["kills"]]
    return Material(**values)


def _lines_in(path: Path) -> int:
    if not path.exists():
        return 0
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(_OPEN_BUFFER), b""))


def _line(record: Record) -> str:
    key = None if record.key is None else b64encode(record.key).decode()
    value = None if record.value is None else b64encode(record.value).decode()
    headers = [[name, (content or b"").decode(errors=_LOSSLESS)] for name, content in record.headers]
    return json.dumps([record.offset, record.timestamp_ms, key, value, headers]) + "\n"


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else b64decode(text)


def _path(folder: Path, topic: str, partition: int) -> Path:
    return folder / f"{topic}-{partition}.jsonl"
