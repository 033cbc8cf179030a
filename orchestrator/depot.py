"""A directory, or any object store that fsspec knows, as a place for files that are written once and read whole."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from secrets import token_hex
from typing import Any, BinaryIO

UNFINISHED = ".new"
"""How the name of a file ends whose writer died."""


class DepotFailed(Exception):
    """The place could not be read or written; nothing there is half done."""


class Depot:
    """The files under `url`, such as `/var/snapshots` or `s3://bucket/sagas`. All calls block.

    Names are paths below it, with '/'. Raises `DepotFailed` where fsspec does not know how to reach the place, and so
    does every method where it cannot be reached.
    """

    def __init__(self, url: str) -> None:
        try:
            from fsspec.core import url_to_fs
            from fsspec.implementations.local import LocalFileSystem

            self._files, self._root = url_to_fs(url)
        except Exception as error:
            raise DepotFailed(f"{url!r}: {error}") from error
        self.url = url
        self._is_local = isinstance(self._files, LocalFileSystem)

    def names(self, folder: str) -> Sequence[str]:
        """What is in a folder, without its path; nothing where there is no such folder."""
        with self._told(folder):
            self._files.invalidate_cache()  # others write there too
            if not self._files.exists(self._path(folder)):
                return []
            return sorted(str(name).rpartition("/")[2] for name in self._files.ls(self._path(folder), detail=False))

    def read(self, name: str) -> bytes:
        """A file's content. Raises `FileNotFoundError`."""
        with self._told(name):
            content: bytes = self._files.cat_file(self._path(name))
            return content

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """A file to be read piece by piece. Raises `FileNotFoundError`."""
        with self._told(name):
            file: Any = self._files.open(self._path(name), "rb")
            with file:
                yield file

    def write(self, name: str, content: bytes) -> None:
        """All of it or nothing: a name is there once its content is."""
        path = self._path(name)
        unfinished = f"{path}.{token_hex(4)}{UNFINISHED}"  # of two who write the same, neither moves the other's half
        with self._told(name):
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            with self._files.open(unfinished, "wb") as file:
                file.write(content)
                if self._is_local:
                    file.flush()
                    os.fsync(file.fileno())
            self._files.mv(unfinished, path)

    def delete(self, name: str) -> None:
        with self._told(name):
            self._files.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as error:
            raise DepotFailed(f"{self.url}/{name}: {error}") from error
