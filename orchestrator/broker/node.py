"""One Kafka node on this machine: a directory, ports, and a Java process that can be killed and started again."""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.broker.archive import archive_options
from orchestrator.broker.jars import find_jars
from orchestrator.broker.java import find_java
from orchestrator.broker.probe import HOST, list_brokers
from orchestrator.broker.process import Process, launch
from orchestrator.broker.storage import Layout, prepare_storage
from orchestrator.errors import BrokerUnavailable

START_TIMEOUT_S = 60.0  # it takes 3 to 5 s; a machine that is busy with other things, several times that
STOP_TIMEOUT_S = 10.0  # an orderly stop takes about a second

_POLL_S = 0.05

# Java's first compiler only, for brokers that live for seconds or minutes: the start and the first 100,000 records take
# half the processor time (3 s instead of 6); after half a million records it would take twice as much.
SHORT_LIVED = ("-XX:TieredStopAtLevel=1",)

_LOGGING = Path(__file__).with_name("log4j2.properties")


@dataclass(frozen=True, slots=True)
class Kit:
    """What every node runs with: a Java executable and a directory of jars."""

    java: Path
    jars: Path


def find_kit() -> Kit:
    """Find Java and Kafka, fetching Kafka the first time; starts nothing. Raises BrokerUnavailable."""
    return Kit(find_java(), find_jars())


class Node:
    """A node that is started and stopped any number of times on the same ports and data.

    `jvm` are options for Java behind ours. `remove` is a directory to delete if the calling process is killed; `detach`
    lets the node outlive that process; `note` is told the pid at each start, before the node serves.
    """

    def __init__(
        self,
        kit: Kit,
        layout: Layout,
        *,
        jvm: Sequence[str] = (),
        detach: bool = False,
        remove: Path | None = None,
        note: Callable[[int], None] = lambda pid: None,
    ) -> None:
        self.layout = layout
        self._kit = kit
        self._jvm = jvm
        self._detach = detach
        self._remove = remove
        self._note = note
        self._process: Process | None = None

    @property
    def bootstrap_server(self) -> str:
        return f"{HOST}:{self.layout.port}"

    @property
    def pid(self) -> int | None:
        """Of the Java process, None while the node is down."""
        return self._process.pid if self._process is not None and self._process.is_alive() else None

    @property
    def log_file(self) -> Path:
        return self.layout.directory / "broker.log"

    @property
    def console_file(self) -> Path:
        """What Java itself says, as when it does not take an option."""
        return self.layout.directory / "console.log"

    def address(self, listener: str) -> str:
        """`host:port` of a further listener given at the start. Raises KeyError."""
        return f"{HOST}:{self.layout.listeners[listener][1]}"

    def start(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start and wait until it serves. Raises BrokerUnavailable if it ends or does not serve in time."""
        self.launch()
        self.wait(timeout_s)

    def launch(self) -> None:
        """Start without waiting; no effect on a node that runs."""
        if self.pid is not None:
            return
        prepare_storage(self.layout)
        self._process = launch(self._command(), self.console_file, detach=self._detach, remove=self._remove)
        self._note(self._process.pid)

    def wait(self, timeout_s: float = START_TIMEOUT_S, brokers: Collection[int] = ()) -> None:
        """Wait until the node sees itself serving, and the nodes of the ids `brokers`. Raises BrokerUnavailable."""
        deadline = time.monotonic() + timeout_s
        wanted = {self.layout.node_id, *brokers}
        while not wanted <= list_brokers(HOST, self.layout.port):
            if self.pid is None:
                raise BrokerUnavailable(f"the broker ended while it started:\n{self.read_log_end()}")
            if time.monotonic() > deadline:
                raise BrokerUnavailable(f"the broker did not serve within {timeout_s:.0f} s:\n{self.read_log_end()}")
            time.sleep(_POLL_S)

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Stop in order (SIGTERM), after `timeout_s` by force. Returns when it is gone."""
        if self._process is not None:
            self._process.stop(timeout_s)

    def kill(self) -> None:
        """Crash it (SIGKILL). Returns when it is gone; `start` brings it back with the data it had."""
        if self._process is not None:
            self._process.kill()

    def pause(self) -> None:
        """Freeze it (SIGSTOP): connections stay open, nothing is answered until `resume`."""
        if self._process is not None:
            self._process.pause()

    def resume(self) -> None:
        if self._process is not None:
            self._process.resume()

    def fill_disk(self, within_s: float) -> bool:
        """As of a disk that is full: its writes fail until it is started again. Whether it ended of that in time."""
        return self._process is not None and self._process.fill_disk(within_s)

    def read_log_end(self, lines: int = 15) -> str:
        """The last lines of what Java and the broker said, for error messages."""
        told: list[str] = []
        for path in (self.console_file, self.log_file):
            try:
                told += path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
            except OSError:
                continue
        return "\n".join(told[-lines:]) or f"nothing was written to {self.log_file}"

    def _command(self) -> list[str]:
        return [
            str(self._kit.java),
            *_JVM,
            *archive_options(self._kit.java, self._kit.jars),
            *self._jvm,
            # Also how a later process tells this one from another that got its pid, see state.py.
            f"-Dsaga.broker.directory={self.layout.directory}",
            f"-XX:ErrorFile={self.layout.directory}/java-crash-%p.log",
            f"-Dsaga.broker.log={self.log_file}",
            f"-Dlog4j2.configurationFile={_LOGGING.as_uri()}",
            "-cp",
            f"{self._kit.jars}/*",
            "kafka.Kafka",
            str(self.layout.configuration),
        ]


_JVM = (
    "-Xms64m",
    "-Xmx512m",
    "-XX:+UseSerialGC",  # G1 gains nothing on a heap this small and costs 40 MB and 0.4 s at the start
    "-XX:-UsePerfData",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
)
