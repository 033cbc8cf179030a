"""Where snapshots are kept: a directory, or any object store that fsspec knows.

Of each partition there are manifests, named by their offset, and the files that they list, named by their content's
hash. RocksDB never changes a table once it is written, so a snapshot adds what is new since the last one. A manifest is
written last and read first: what it names is there, unless somebody took it away, and then its hash does not fit.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from orchestrator.depot import UNFINISHED, Depot

log = logging.getLogger(__name__)

FORMAT = 1
_PIECE = 1 << 20


class SnapshotDamaged(Exception):
    """A snapshot's file is missing or is not what was written."""


@dataclass(frozen=True, slots=True)
class File:
    """One file of a store: its name there, bytes, SHA-256 in hexadecimal digits."""

    name: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """One snapshot. `offset` is where the store stands in the journal, `journal` the id of that topic.

    Who begins with it reads the journal from `first_offset` on.
    """

    partition: int
    offset: int
    first_offset: int
    journal: str
    taken_ms: int
    files: Sequence[File]

    @property
    def name(self) -> str:
        """Later ones sort behind earlier ones."""
        return f"{self.offset:020d}-{self.taken_ms}.json"

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


class Vault:
    """The snapshots in `depot`. One writer for each partition: its owner. Raises `DepotFailed`."""

    def __init__(self, depot: Depot) -> None:
        self.depot = depot

    def list(self, partition: int) -> Sequence[Manifest]:
        """The partition's snapshots, the newest first; what is no manifest is passed over."""
        folder, found = _folder(partition), []
        for name in self.depot.names(folder):
            if name.endswith(".json"):
                try:
                    found.append(_read_manifest(self.depot.read(f"{folder}/{name}")))
                except Exception as error:
                    log.warning("%s/%s/%s is no manifest of a snapshot: %s", self.depot.url, folder, name, error)
        return sorted(found, key=lambda manifest: manifest.name, reverse=True)

    def save(
        self, partition: int, offset: int, first_offset: int, journal: str, taken_ms: int, store: Path
    ) -> tuple[Manifest, int]:
        """Copies a store's directory, which nobody changes. Gives the manifest and the bytes that were new."""
        folder, copied, files = _folder(partition), 0, []
        known = set(self.depot.names(f"{folder}/files"))
        for path in sorted(each for each in store.iterdir() if each.is_file()):
            content = path.read_bytes()
            file = File(path.name, len(content), sha256(content).hexdigest())
            files.append(file)
            if file.digest not in known:
                self.depot.write(f"{folder}/files/{file.digest}", content)
                copied += file.size
        manifest = Manifest(partition, offset, first_offset, journal, taken_ms, files)
        text = json.dumps({"format": FORMAT, **asdict(manifest)}, indent=1)
        self.depot.write(f"{folder}/{manifest.name}", text.encode())
        return manifest, copied

    def fetch(self, manifest: Manifest, target: Path) -> None:
        """Copies a snapshot into a new directory. Raises `SnapshotDamaged`, `DepotFailed`."""
        folder = _folder(manifest.partition)
        target.mkdir(parents=True)
        for file in manifest.files:
            place, digest = f"{folder}/files/{file.digest}", sha256()
            if Path(file.name).name != file.name:
                raise SnapshotDamaged(f"{folder}/{manifest.name} names the file {file.name!r}")
            try:
                with self.depot.open(place) as source, (target / file.name).open("wb") as copy:
                    while piece := source.read(_PIECE):
                        digest.update(piece)
                        copy.write(piece)
            except FileNotFoundError:
                raise SnapshotDamaged(f"{place} is missing") from None
            if digest.hexdigest() != file.digest:
                raise SnapshotDamaged(f"{place} is not what was written")

    def is_complete(self, manifest: Manifest) -> bool:
        """Whether all its files are there, by their names."""
        there = set(self.depot.names(f"{_folder(manifest.partition)}/files"))
        return all(file.digest in there for file in manifest.files)

    def prune(self, partition: int, journal: str, keep: int) -> None:
        """Deletes all but the newest `keep` snapshots of a journal, and files that nobody's have.

        Those of other journals stay: of a topic that is gone, or of another cluster.
        """
        folder, manifests = _folder(partition), self.list(partition)
        old = [manifest for manifest in manifests if manifest.journal == journal][keep:]
        needed = {file.digest for manifest in manifests if manifest not in old for file in manifest.files}
        for manifest in old:
            self.depot.delete(f"{folder}/{manifest.name}")
        for name in self.depot.names(f"{folder}/files"):
            if name not in needed:
                self.depot.delete(f"{folder}/files/{name}")
        for name in self.depot.names(folder):
            if name.endswith(UNFINISHED):
                self.depot.delete(f"{folder}/{name}")


def _folder(partition: int) -> str:
    return f"partition-{partition}"


def _read_manifest(content: bytes) -> Manifest:
    given: dict[str, Any] = json.loads(content)
    if given.pop("format") != FORMAT:
        raise ValueError("it is of newer software")
    files = [File(**file) for file in given.pop("files")]
    return Manifest(files=files, **given)
