"""The network between one worker and the brokers: a proxy for each broker, in a thread of its own.

The brokers tell the worker the proxies' ports in place of their own, so all its connections go through here.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum

from orchestrator.broker.probe import HOST

CHUNK = 1 << 16


class Manner(StrEnum):
    """How the network behaves."""

    OPEN = "open"
    SLOW = "slow"
    SILENT = "silent"
    """Connections stay, and can be made, and nothing comes through."""
    RESET = "reset"
    """Those that there are break; new ones can be made."""
    CUT = "cut"
    """Those that there are break, and new ones break at once."""


class Links:
    """Proxies, by the port that a worker connects to the broker's own. `worker` is whose they are."""

    def __init__(self, worker: str, ports: Mapping[int, int]) -> None:
        self.worker = worker
        self._ports = dict(ports)
        self._manner = Manner.OPEN
        self._delay_s = 0.0
        self._loop = asyncio.new_event_loop()
        self._open: set[asyncio.StreamWriter] = set()
        self._servers: list[asyncio.Server] = []
        self._passing: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="links", daemon=True)

    @property
    def servers(self) -> str:
        """Bootstrap servers for the worker."""
        return ",".join(f"{HOST}:{port}" for port in self._ports)

    def start(self) -> None:
        """Listens on all ports. Raises `OSError` where one is taken."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()

    def close(self) -> None:
        """Breaks all connections and ends."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def behave(self, manner: Manner, delay_s: float = 0.0) -> None:
        """From now on. `delay_s` is for `SLOW`: so much later comes each part of what either side says."""
        asyncio.run_coroutine_threadsafe(self._behave(manner, delay_s), self._loop).result()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    async def _listen(self) -> None:
        self._passing = asyncio.Event()
        self._passing.set()
        for port, broker in self._ports.items():

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, broker: int = broker) -> None:
                await self._serve(reader, writer, broker)

            self._servers.append(await asyncio.start_server(serve, HOST, port))

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        await self._behave(Manner.CUT, 0.0)
        serving = asyncio.all_tasks() - {asyncio.current_task()}
        if serving:
            await asyncio.wait(serving)

    async def _behave(self, manner: Manner, delay_s: float) -> None:
        before, self._manner, self._delay_s = self._manner, manner, delay_s
        assert self._passing is not None
        if manner is Manner.SILENT:
            self._passing.clear()
        else:
            self._passing.set()
        # What was silent for a while is not believed again: the bytes in between are gone.
        if manner in (Manner.RESET, Manner.CUT) or before is Manner.SILENT:
            self._break_all()

    def _break_all(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, broker: int) -> None:
        if self._manner is Manner.CUT:
            writer.transport.abort()
            return
        self._open.add(writer)
        try:
            their_reader, their_writer = await asyncio.open_connection(HOST, broker)
        except OSError:
            self._open.discard(writer)
            writer.transport.abort()
            return
        self._open.add(their_writer)
        try:
            await asyncio.gather(self._pass(reader, their_writer), self._pass(their_reader, writer))
        finally:
            for each in (writer, their_writer):
                self._open.discard(each)
                each.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until one side ends; then both do."""
        assert self._passing is not None
        with suppress(OSError):
            while chunk := await reader.read(CHUNK):
                await self._passing.wait()
                if self._manner is Manner.SLOW:
                    await asyncio.sleep(self._delay_s)
                writer.write(chunk)
                await writer.drain()
        writer.transport.abort()
