"""A broker from what the machine has, the first of these that works:

1. bootstrap servers that were given: nothing is started
2. the broker that this project folder has running
3. Java and Kafka's jars, found or fetched: one KRaft node on loopback
4. Docker, by testcontainers
5. an error that names the ways out
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from orchestrator.broker import state
from orchestrator.broker.archive import archive_path, recording_options
from orchestrator.broker.container import Container
from orchestrator.broker.node import STOP_TIMEOUT_S, Node, find_kit
from orchestrator.broker.probe import HOST, is_free, pick_free_ports
from orchestrator.broker.process import Process, call_at_exit
from orchestrator.broker.storage import Layout, make_id, read_port
from orchestrator.errors import BrokerUnavailable

HOME = Path(".saga")

_WAYS_OUT = """\
  - name a running one:  --bootstrap-servers HOST:PORT
  - let Python bring it:  pip install 'saga-orchestrator[broker]'  (a Java runtime, and Kafka fetched once)
  - use your Java 17 or newer:  SAGA_JAVA, JAVA_HOME or PATH; your Kafka 4.1 or newer:  SAGA_KAFKA_HOME
  - no way to the public Maven repository:  SAGA_MAVEN_REPOSITORY=<address of your mirror>
  - use Docker:  pip install 'saga-orchestrator[docker]', and start its engine"""

Source = Literal["given", "running", "started", "container"]


@dataclass(slots=True)
class Broker:
    """A broker to talk to. `source` tells where it comes from; `close` stops it only if it was started here.

    `node` is there for one started here: it can be killed and started again.
    """

    bootstrap_servers: str
    source: Source
    node: Node | None = None
    _stop: Callable[[], None] | None = field(default=None, repr=False)
    _forget: Callable[[], object] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self._stop is not None:
            self._forget = call_at_exit(self._stop)

    def close(self) -> None:
        """Stop what was started. Twice does no harm."""
        stop = self._stop
        self.keep()
        if stop is not None:
            stop()

    def keep(self) -> None:
        """Leave running what was started: `close` and the end of this process no longer stop it."""
        if self._forget is not None:
            self._forget()
        self._stop = self._forget = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def provide(
    bootstrap: str | None = None,
    home: Path = HOME,
    *,
    ephemeral: bool = False,
    detach: bool = False,
    port: int | None = None,
    listeners: Mapping[str, str] | None = None,
    properties: Mapping[str, str] | None = None,
    jvm: Sequence[str] = (),
) -> Broker:
    """A broker that serves, by the first link of the chain that works (see the module).

    A kept one lives under `home` and is shared by all who ask with the same `home`; an `ephemeral` one is the caller's
    alone and its data is deleted when it stops. What is started here stops with `close` or with this process, whichever
    is first, unless `detach`: then it goes on until `stop_running(home)`. One that runs already is used as it is.

    `port` is a free one unless given. `listeners` maps names of further listeners to their security protocols;
    `properties` are Kafka's own and win over ours, `jvm` are options for Java. Raises BrokerUnavailable.
    """
    if bootstrap:
        return Broker(bootstrap, "given")
    if ephemeral and detach:
        raise ValueError("an ephemeral broker ends with its process: it cannot be detached")
    options = _Options(port, dict(listeners or {}), dict(properties or {}), jvm)
    if ephemeral:
        return _start_ephemeral(options)
    home = home.absolute()
    with state.lock(home):
        running = state.find_running(home)
        if running is not None:
            return Broker(f"{HOST}:{running.port}", "running")
        return _start_kept(home, options, detach)


def stop_running(home: Path = HOME) -> bool:
    """Stop the broker that `home` has running, whoever started it. False if none was."""
    home = home.absolute()
    running = state.find_running(home)
    if running is None:
        return False
    Process(running.pid).stop(STOP_TIMEOUT_S)
    state.forget_running(home, running.pid)
    return True


def warm_up() -> Path | None:
    """Write Java's archive of classes unless it is there (7 to 12 s, once): later starts take half the time.

    Returns its path, None if this Java writes none. Raises BrokerUnavailable.
    """
    kit = find_kit()
    archive = archive_path(kit.java, kit.jars)
    if archive.is_file():
        return archive
    archive.parent.mkdir(parents=True, exist_ok=True)
    draft = archive.with_name(f".{os.getpid()}-{archive.name}")
    with provide(ephemeral=True, jvm=recording_options(kit.java, draft)) as broker:
        assert broker.node is not None
        broker.node.stop(_RECORDING_S)
    if not draft.is_file():
        return None
    draft.replace(archive)
    return archive


_RECORDING_S = 120.0  # it takes 3 to 9 s after the broker's own end


@dataclass(frozen=True, slots=True)
class _Options:
    port: int | None
    listeners: Mapping[str, str]
    properties: Mapping[str, str]
    jvm: Sequence[str]

    def make_layout(self, directory: Path, last_port: int | None = None) -> Layout:
        """A single node's layout, on the port wanted, else the one it had last, else a free one."""
        port = self.port or (last_port if last_port and is_free(last_port) else None)
        plain, controller, *further = pick_free_ports(2 + len(self.listeners), avoid=[port or 0])
        named = {name: (kind, port) for (name, kind), port in zip(self.listeners.items(), further, strict=True)}
        return Layout(1, port or plain, {1: controller}, directory, make_id(), named, self.properties)


def _refuse_taken(port: int | None) -> None:
    if port is not None and not is_free(port):
        raise BrokerUnavailable(f"port {port} is taken; choose another with --port, or leave it out")


def _start_ephemeral(options: _Options) -> Broker:
    _refuse_taken(options.port)
    try:
        kit = find_kit()
    except BrokerUnavailable as reason:
        return _start_container(options, str(reason))
    directory = Path(tempfile.mkdtemp(prefix="saga-broker-"))
    node = Node(kit, options.make_layout(directory), jvm=options.jvm, remove=directory)

    def stop() -> None:
        node.kill()  # its data goes too: nothing to put in order
        shutil.rmtree(directory, ignore_errors=True)

    return _start(node, stop)


def _start_kept(home: Path, options: _Options, detach: bool) -> Broker:
    _refuse_taken(options.port)
    try:
        kit = find_kit()
    except BrokerUnavailable as reason:
        if detach:
            raise _explain(str(reason), "Docker: a container ends with this process") from reason
        return _start_container(options, str(reason))
    directory = home / "kafka"
    layout = options.make_layout(directory, read_port(directory))

    def note(pid: int) -> None:
        state.write_running(home, state.Running(pid, layout.port, str(directory)))

    node = Node(kit, layout, jvm=options.jvm, detach=detach, note=note)

    def stop() -> None:
        pid = node.pid
        node.stop()
        if pid is not None:
            state.forget_running(home, pid)

    broker = _start(node, stop)
    if detach:
        broker.keep()
    return broker


def _start(node: Node, stop: Callable[[], None]) -> Broker:
    broker = Broker(node.bootstrap_server, "started", node, stop)
    try:
        node.start()
    except BaseException:
        broker.close()
        raise
    return broker


def _start_container(options: _Options, reason: str) -> Broker:
    try:
        container = Container(options.make_layout(Path(tempfile.gettempdir())))
        container.start()
    except BrokerUnavailable as error:
        raise _explain(reason, str(error)) from error
    return Broker(container.bootstrap_server, "container", None, container.stop)


def _explain(*reasons: str) -> BrokerUnavailable:
    tried = "\n".join(f"  - {reason}" for reason in reasons)
    return BrokerUnavailable(f"no Kafka broker could be had here:\n{tried}\nWays out:\n{_WAYS_OUT}")
