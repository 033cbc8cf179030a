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

log = logging.getLogger(__name__)

FORMAT = 1
_PIECE = 1 << 20


class VaultFailed(Exception):
    """The place of the snapshots could not be read or written; nothing there is half done."""


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
    """One snapshot. `offset` is where the store stands in the journal, `journal` the id of that topic."""

    partition: int
    offset: int
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
    """The snapshots under `url`, such as `/var/snapshots` or `s3://bucket/sagas`. All calls block.

    Raises `VaultFailed` where fsspec does not know how to reach it. One writer for each partition: its owner.
    """

    def __init__(self, url: str) -> None:
        try:
            from fsspec.core import url_to_fs

            self._files, self._root = url_to_fs(url)
        except Exception as error:
            raise VaultFailed(f"snapshots {url!r}: {error}") from error
        self.url = url

    def list(self, partition: int) -> Sequence[Manifest]:
        """The partition's snapshots, the newest first; what is no manifest is passed over. Raises `VaultFailed`."""
        folder = self._folder(partition)
        try:
            if not self._files.exists(folder):
                return []
            names = [str(name) for name in self._files.ls(folder, detail=False)]
        except Exception as error:
            raise VaultFailed(f"{folder}: {error}") from error
        found = []
        for name in names:
            if name.endswith(".json"):
                try:
                    found.append(_read_manifest(self._files.cat_file(name)))
                except Exception as error:
                    log.warning("%s is no manifest of a snapshot: %s", name, error)
        return sorted(found, key=lambda manifest: manifest.name, reverse=True)

    def save(self, partition: int, offset: int, journal: str, taken_ms: int, store: Path) -> tuple[Manifest, int]:
        """Copies a store's directory, which nobody changes. Gives the manifest and the bytes that were new."""
        folder, copied, files = self._folder(partition), 0, []
        try:
            known = set(self._known(folder))
            self._files.makedirs(f"{folder}/files", exist_ok=True)
            for path in sorted(each for each in store.iterdir() if each.is_file()):
                content = path.read_bytes()
                file = File(path.name, len(content), sha256(content).hexdigest())
                files.append(file)
                if file.digest not in known:
                    self._put(content, f"{folder}/files/{file.digest}")
                    copied += file.size
            manifest = Manifest(partition, offset, journal, taken_ms, files)
            text = json.dumps({"format": FORMAT, **asdict(manifest)}, indent=1)
            self._put(text.encode(), f"{folder}/{manifest.name}")
        except Exception as error:
            raise VaultFailed(f"{folder}: {error}") from error
        return manifest, copied

    def fetch(self, manifest: Manifest, target: Path) -> None:
        """Copies a snapshot into a new directory. Raises `SnapshotDamaged`, `VaultFailed`."""
        folder = self._folder(manifest.partition)
        target.mkdir(parents=True)
        for file in manifest.files:
            place, digest = f"{folder}/files/{file.digest}", sha256()
            if Path(file.name).name != file.name:
                raise SnapshotDamaged(f"{folder}/{manifest.name} names the file {file.name!r}")
            try:
                with self._files.open(place, "rb") as source, (target / file.name).open("wb") as copy:
                    while piece := source.read(_PIECE):
                        digest.update(piece)
                        copy.write(piece)
            except FileNotFoundError:
                raise SnapshotDamaged(f"{place} is missing") from None
            except Exception as error:
                raise VaultFailed(f"{place}: {error}") from error
            if digest.hexdigest() != file.digest:
                raise SnapshotDamaged(f"{place} is not what was written")

    def prune(self, partition: int, journal: str, keep: int) -> None:
        """Deletes all but the newest `keep` snapshots of a journal, and files that nobody's have. Raises `VaultFailed`.

        Those of other journals stay: of a topic that is gone, or of another cluster.
        """
        folder, manifests = self._folder(partition), self.list(partition)
        old = [manifest for manifest in manifests if manifest.journal == journal][keep:]
        needed = {file.digest for manifest in manifests if manifest not in old for file in manifest.files}
        try:
            for manifest in old:
                self._files.rm_file(f"{folder}/{manifest.name}")
            for digest in self._known(folder):
                if digest not in needed:
                    self._files.rm_file(f"{folder}/files/{digest}")
            for name in self._files.ls(folder, detail=False):
                if str(name).endswith(".new"):  # its writer died
                    self._files.rm_file(name)
        except Exception as error:
            raise VaultFailed(f"{folder}: {error}") from error

    def _folder(self, partition: int) -> str:
        return f"{self._root}/partition-{partition}"

    def _known(self, folder: str) -> Sequence[str]:
        if not self._files.exists(f"{folder}/files"):
            return []
        return [str(name).rpartition("/")[2] for name in self._files.ls(f"{folder}/files", detail=False)]

    def _put(self, content: bytes, place: str) -> None:
        """All of it or nothing: a name is there once its content is."""
        self._files.pipe_file(f"{place}.new", content)
        self._files.mv(f"{place}.new", place)


def _read_manifest(content: bytes) -> Manifest:
    given: dict[str, Any] = json.loads(content)
    if given.pop("format") != FORMAT:
        raise ValueError("it is of newer software")
    files = [File(**file) for file in given.pop("files")]
    return Manifest(files=files, **given)
