"""A broker from what the machine has, the first of these that works:

1. bootstrap servers that were given: nothing is started
2. the broker that this project folder has running
3. Java and Kafka's jars, found or fetched: one KRaft node on loopback
4. Docker, by testcontainers
5. an error that names the ways out
"""

import atexit
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from orchestrator.broker import state
from orchestrator.broker.container import Container
from orchestrator.broker.node import STOP_TIMEOUT_S, Node, find_kit
from orchestrator.broker.probe import HOST, is_free, pick_free_ports
from orchestrator.broker.process import Process
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

    def close(self) -> None:
        """Stop what was started. Twice does no harm."""
        stop, self._stop = self._stop, None
        if stop is not None:
            stop()
            atexit.unregister(stop)

    def keep(self) -> None:
        """Leave running what was started: `close` and the end of this process no longer stop it."""
        stop, self._stop = self._stop, None
        if stop is not None:
            atexit.unregister(stop)

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
) -> Broker:
    """A broker that serves, by the first link of the chain that works (see the module).

    A kept one lives under `home` and is shared by all who ask with the same `home`; an `ephemeral` one is the caller's
    alone and its data is deleted when it stops. What is started here stops with `close` or with this process, whichever
    is first, unless `detach`: then it goes on until `stop_running(home)`.

    `port` is a free one unless given. `listeners` maps names of further listeners to their security protocols;
    `properties` are Kafka's own and win over ours. Raises BrokerUnavailable.
    """
    if bootstrap:
        return Broker(bootstrap, "given")
    if ephemeral and detach:
        raise ValueError("an ephemeral broker ends with its process: it cannot be detached")
    options = _Options(port, dict(listeners or {}), dict(properties or {}))
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


@dataclass(frozen=True, slots=True)
class _Options:
    port: int | None
    listeners: Mapping[str, str]
    properties: Mapping[str, str]

    def make_layout(self, directory: Path, last_port: int | None = None) -> Layout:
        """A single node's layout, on the port wanted, else the one it had last, else a free one."""
        port = self.port or (last_port if last_port and is_free(last_port) else None)
        plain, controller, *further = pick_free_ports(2 + len(self.listeners), avoid=[port or 0])
        named = {name: (kind, port) for (name, kind), port in zip(self.listeners.items(), further, strict=True)}
        return Layout(1, port or plain, {1: controller}, directory, make_id(), named, self.properties)


def _start_ephemeral(options: _Options) -> Broker:
    try:
        kit = find_kit()
    except BrokerUnavailable as reason:
        return _start_container(options, str(reason))
    directory = Path(tempfile.mkdtemp(prefix="saga-broker-"))
    node = Node(kit, options.make_layout(directory), remove=directory)

    def stop() -> None:
        node.kill()  # its data goes too: nothing to put in order
        shutil.rmtree(directory, ignore_errors=True)

    return _start(node, stop)


def _start_kept(home: Path, options: _Options, detach: bool) -> Broker:
    try:
        kit = find_kit()
    except BrokerUnavailable as reason:
        if detach:
            raise _explain(str(reason), "Docker: a container ends with this process") from reason
        return _start_container(options, str(reason))
    directory = home / "kafka"
    node = Node(kit, options.make_layout(directory, read_port(directory)), detach=detach)

    def stop() -> None:
        pid = node.pid
        node.stop()
        if pid is not None:
            state.forget_running(home, pid)

    broker = _start(node, stop)
    if node.pid is not None:
        state.write_running(home, state.Running(node.pid, node.layout.port, str(directory)))
    if detach:
        broker.keep()
    return broker


def _start(node: Node, stop: Callable[[], None]) -> Broker:
    atexit.register(stop)
    try:
        node.start()
    except BaseException:
        stop()
        atexit.unregister(stop)
        raise
    return Broker(node.bootstrap_server, "started", node, stop)


def _start_container(options: _Options, reason: str) -> Broker:
    try:
        container = Container(options.make_layout(Path(tempfile.gettempdir())))
        container.start()
    except BrokerUnavailable as error:
        raise _explain(reason, str(error)) from error
    atexit.register(container.stop)
    return Broker(container.bootstrap_server, "container", None, container.stop)


def _explain(*reasons: str) -> BrokerUnavailable:
    tried = "\n".join(f"  - {reason}" for reason in reasons)
    return BrokerUnavailable(f"no Kafka broker could be had here:\n{tried}\nWays out:\n{_WAYS_OUT}")
