"""A store in a RocksDB directory.

Many small stores share one block cache and one memtable budget, so that the memory of a worker does not depend on how
many partitions it owns. Every write goes to the write-ahead log without fsync: it survives the process, and after a
crash of the machine the log's intact prefix is what is left, positions and state alike.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from weakref import WeakSet

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    Checkpoint,
    DbClosedError,
    DBCompressionType,
    Options,
    Rdict,
    RdictIter,
    ReadOptions,
    WriteBatch,
    WriteBufferManager,
)

from orchestrator.store.base import Change, StoreBroken, StoreBusy, StoreFull, bound_of

log = logging.getLogger(__name__)

_MIB = 1 << 20
_MEMTABLE = 4 * _MIB
"""Memtable of one partition; with few partitions the shared budget is not reached and this flushes first."""
_WAL = 16 * _MIB
"""Log of one partition, bounds replay at open: about 0.2 s."""
_OPEN_FILES = 128
"""Table files a partition keeps open: 12 partitions on the usual limit of 1,024 descriptors stay half below."""
_NO_ROOM = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS))
"""What the system says where nothing can be written, for RocksDB gives its words on."""


class RocksStores:
    """Stores under `root`, a directory for each partition; sizes are bytes for all partitions together."""

    def __init__(self, root: Path, *, cache_bytes: int = 64 * _MIB, memtable_bytes: int = 64 * _MIB) -> None:
        self._root = root
        self._cache = Cache(cache_bytes)
        # Not to stall over the budget: that would block the engine's thread, and flushing keeps it anyway.
        self._options = _options(self._cache, WriteBufferManager(memtable_bytes, False))

    def open(self, partition: int) -> RocksStore:
        path = self.path(partition)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # The column family is named because a store that exists would otherwise open with the options it was
            # last saved with and a block cache of its own.
            return RocksStore(path, Rdict(str(path), self._options, {"default": self._options}))
        except Exception as error:
            raise _broken(path, error) from error

    def wipe(self, partition: int) -> None:
        path = self.path(partition)
        if not path.exists():
            return
        try:
            Rdict.destroy(str(path), self._options)
        except Exception as error:
            broken = _broken(path, error)
            if isinstance(broken, StoreBusy):
                raise broken from error
            # Too damaged even for its own destruction, which is no reason to keep it.
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        if path.exists():
            raise StoreBroken(f"{path} cannot be deleted: delete it by hand")

    def cache_usage(self) -> int:
        """Bytes of table blocks, indexes and filters in memory, of all stores together."""
        return self._cache.get_usage()

    def path(self, partition: int) -> Path:
        """The directory of a partition's store; not there, if there is none."""
        return self._root / f"partition-{partition}"


class RocksStore:
    """One partition's store."""

    def __init__(self, path: Path, database: Rdict) -> None:
        self._path = path
        self._database = database
        self._get = database.get
        self._scans: WeakSet[_Scan] = WeakSet()

    def get(self, key: bytes) -> bytes | None:
        try:
            value: bytes | None = self._get(key)
        except Exception as error:
            raise _broken(self._path, error) from error
        return value

    def scan(
        self, prefix: bytes, start: bytes | None = None, end: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        try:
            bound = bound_of(prefix, end)
            scan = _Scan(self._path, self._cursor(prefix if start is None or start < prefix else start, bound), bound)
        except Exception as error:
            raise _broken(self._path, error) from error
        self._scans.add(scan)
        return scan

    def write(self, changes: Iterable[Change]) -> None:
        batch = WriteBatch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for key, value in changes:
            if value is None:
                delete(key)
            else:
                put(key, value)
        try:
            self._database.write(batch)
        except Exception as error:
            raise _broken(self._path, error) from error

    def checkpoint(self, target: Path) -> None:
        """Makes a directory of the store as it stands, of links to its files; any thread may. Raises `StoreBroken`."""
        try:
            Checkpoint(self._database).create_checkpoint(str(target))
        except Exception as error:
            raise _broken(self._path, error) from error

    def close(self) -> None:
        # A live iterator would keep the directory locked.
        for scan in list(self._scans):
            scan.close()
        try:
            self._database.close()
        except DbClosedError:
            return
        except Exception as error:
            # It is released all the same. Who closes a damaged store is about to wipe it, and must get to that.
            log.warning("%s was closed, and is damaged: %s", self._path, error)

    def _cursor(self, start: bytes, bound: bytes | None) -> RdictIter:
        if bound is None:
            cursor = self._database.iter()
        else:
            # Without the bound the last step would walk over every deleted key behind it.
            options = ReadOptions()
            options.set_iterate_upper_bound(bound)
            cursor = self._database.iter(options)
        cursor.seek(start)
        return cursor


class _Scan:
    """Walks a cursor by hand: the library's own iterators end silently where they meet damage."""

    __slots__ = ("__weakref__", "_bound", "_cursor", "_path")

    def __init__(self, path: Path, cursor: RdictIter, bound: bytes | None) -> None:
        self._path = path
        self._cursor: RdictIter | None = cursor
        # The cursor points into these bytes without owning them.
        self._bound = bound

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return self

    def __next__(self) -> tuple[bytes, bytes]:
        cursor = self._cursor
        if cursor is None:
            raise StoreBroken(f"{self._path} was closed while it was scanned")
        if cursor.valid():
            entry = (cursor.key(), cursor.value())
            cursor.next()
            return entry
        try:
            cursor.status()
        except Exception as error:
            # The error keeps this frame, and a cursor in it would keep the directory locked against being wiped.
            del cursor
            self._cursor = None
            raise _broken(self._path, error) from error
        raise StopIteration

    def close(self) -> None:
        self._cursor = None


def read_only(path: Path, key: bytes) -> bytes | None:
    """One value of a store that nobody has open; its files stay as they are. Raises `StoreBroken`."""
    try:
        database = Rdict(str(path), Options(raw_mode=True), access_type=AccessType.read_only())
        try:
            value: bytes | None = database.get(key)
        finally:
            database.close()
    except Exception as error:
        raise _broken(path, error) from error
    return value


def _options(cache: Cache, memtables: WriteBufferManager) -> Options:
    table = BlockBasedOptions()
    table.set_block_cache(cache)
    table.set_cache_index_and_filter_blocks(True)
    table.set_pin_l0_filter_and_index_blocks_in_cache(True)
    table.set_bloom_filter(10, False)
    table.set_format_version(5)
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_block_based_table_factory(table)
    options.set_write_buffer_manager(memtables)
    options.set_write_buffer_size(_MEMTABLE)
    options.set_max_total_wal_size(_WAL)
    options.set_max_background_jobs(2)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_level_compaction_dynamic_level_bytes(True)
    options.set_target_file_size_base(8 * _MIB)
    options.set_max_bytes_for_level_base(32 * _MIB)
    # Defaults are made for one big database: they reserve megabytes a directory and write statistics of no reader.
    options.set_manifest_preallocation_size(64 << 10)
    options.set_max_open_files(_OPEN_FILES)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(1 * _MIB)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    # Timers leave runs of deleted keys at the front of their prefix; compact a file that is mostly those.
    options.add_compact_on_deletion_collector_factory(1024, 512, 0.5)
    # One thread writes.
    options.set_allow_concurrent_memtable_write(False)
    options.set_enable_write_thread_adaptive_yield(False)
    return options


def _broken(path: Path, error: Exception) -> StoreBroken:
    text = str(error)
    if "lock hold by current process" in text or ("While lock file" in text and "temporarily unavailable" in text):
        return StoreBusy(f"{path} is open already, here or in another process: one worker owns a state directory")
    if any(reason in text for reason in _NO_ROOM):
        return StoreFull(f"{path} cannot be written: {error}. Make room there, it is tried again")
    return StoreBroken(f"{path}: {error}")
