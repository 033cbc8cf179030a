"""What a KRaft node finds on disk before its first start: its configuration and a formatted data directory."""

import base64
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.broker.probe import HOST

CONTROLLER = "CONTROLLER"
PLAIN = "PLAINTEXT"

_CONFIGURATION = "server.properties"

# What `kafka-storage format` of Kafka 4.1 writes: one snapshot that names the feature levels (metadata 4.1-IV1,
# eligible leader replicas 1, groups 1, transactions 2). It holds no id, so it is the same for every node, and a newer
# Kafka reads it too. Kept as a file: a second Java started only to format would take 1.5 s more.
_CHECKPOINT = Path(__file__).with_name("bootstrap.checkpoint")


@dataclass(frozen=True, slots=True)
class Layout:
    """One node's place in its cluster.

    `voters` maps every node's id to its controller port. `listeners` maps the name of each further listener to its
    (security protocol, port); what such a protocol needs beyond that goes into `properties`, which win over all others.
    `advertised` has the ports that clients of a listener are told in place of its own: those of a proxy before it.
    """

    node_id: int
    port: int
    voters: Mapping[int, int]
    directory: Path
    cluster_id: str
    listeners: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)
    advertised: Mapping[str, int] = field(default_factory=dict)

    @property
    def ports(self) -> dict[str, int]:
        """Of all listeners for clients, the plain one first."""
        return {PLAIN: self.port} | {name: port for name, (_, port) in self.listeners.items()}

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def configuration(self) -> Path:
        return self.directory / _CONFIGURATION


def make_id() -> str:
    """A random id as Kafka writes them: 16 bytes in URL-safe base64, never with a leading dash."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return text


def prepare_storage(layout: Layout) -> None:
    """Write the configuration, and format the data directory unless it is formatted already."""
    layout.data.mkdir(parents=True, exist_ok=True)
    layout.configuration.write_text(_render(make_properties(layout)), encoding="utf-8")
    meta = layout.data / "meta.properties"
    if meta.exists():
        return
    # The checkpoint first: with meta.properties Kafka takes the directory for formatted.
    (layout.data / _CHECKPOINT.name).write_bytes(_CHECKPOINT.read_bytes())
    meta.write_text(
        _render(
            {
                "version": "1",
                "cluster.id": layout.cluster_id,
                "node.id": str(layout.node_id),
                "directory.id": make_id(),
            }
        ),
        encoding="utf-8",
    )


def read_port(directory: Path) -> int | None:
    """The plain listener's port at the last start of the node in this directory, so that it can have it again."""
    try:
        text = (directory / _CONFIGURATION).read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(rf"^listeners={PLAIN}://[^:,]*:(\d+)", text, re.MULTILINE)
    return int(found[1]) if found else None


def make_properties(layout: Layout) -> dict[str, str]:
    """All properties of one node, the caller's own last."""
    nodes = len(layout.voters)
    replicas = str(min(3, nodes))
    in_sync = str(min(2, nodes))
    protocols = {PLAIN: PLAIN, CONTROLLER: PLAIN} | {name: kind for name, (kind, _) in layout.listeners.items()}
    served = [f"{name}://{HOST}:{port}" for name, port in layout.ports.items()]
    told = [f"{name}://{HOST}:{port}" for name, port in {**layout.ports, **layout.advertised}.items()]
    own = {
        "process.roles": "broker,controller",
        "node.id": str(layout.node_id),
        "controller.quorum.voters": ",".join(f"{node}@{HOST}:{port}" for node, port in layout.voters.items()),
        "listeners": ",".join([*served, f"{CONTROLLER}://{HOST}:{layout.voters[layout.node_id]}"]),
        "advertised.listeners": ",".join(told),
        "listener.security.protocol.map": ",".join(f"{name}:{kind}" for name, kind in protocols.items()),
        "controller.listener.names": CONTROLLER,
        "inter.broker.listener.name": PLAIN,
        "log.dirs": str(layout.data),
        "auto.create.topics.enable": "false",
        "unclean.leader.election.enable": "false",
        "num.partitions": "4",
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
    }
    for topic in ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic"):
        own[f"{topic}.replication.factor"] = replicas
        own[f"{topic}.num.partitions"] = "4"
    for topic in ("transaction.state.log", "share.coordinator.state.topic"):
        own[f"{topic}.min.isr"] = in_sync
    return own | _QUICK | _SMALL | _ALERT | dict(layout.properties)


# Groups form at once, and members that are gone may be missed soon: tests and demonstrations kill workers on purpose.
_QUICK = {
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.heartbeat.interval.ms": "200",
    "group.consumer.heartbeat.interval.ms": "1000",
}

# A laptop's share: the defaults are for a machine of its own (128 MB for the log cleaner alone, taken at the start).
_SMALL = {
    "log.cleaner.dedupe.buffer.size": str(4 << 20),
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
    "num.recovery.threads.per.data.dir": "2",
    "num.replica.fetchers": "1",
}

# Nodes are killed to see what happens. One that is gone is missed after the session's time, and one that comes back
# after a crash is not taken before its old session has ended. On a busy machine several heartbeats may be late.
_ALERT = {
    "broker.heartbeat.interval.ms": "300",
    "broker.session.timeout.ms": "3000",
}


def _render(properties: Mapping[str, str]) -> str:
    """As Java's `Properties` reads it: a backslash escapes, everything behind the first `=` is the value."""
    lines = [f"{name}={_escape(value)}" for name, value in properties.items()]
    return "\n".join(lines) + "\n"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n")
