"""Several nodes on this machine, each of which can be crashed, frozen, stopped and started again by itself."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from orchestrator.broker.node import START_TIMEOUT_S, Node, find_kit
from orchestrator.broker.probe import pick_free_ports
from orchestrator.broker.process import call_at_exit
from orchestrator.broker.storage import Layout, make_id


class Cluster:
    """Combined nodes (broker and controller). Topics get replicas on up to three of them, two must be in sync.

    With three nodes one may be down; while two are down nothing is acknowledged. A node keeps its ports and data over
    `kill` and `start`; all data is gone after `close`.
    """

    def __init__(self, nodes: list[Node], directory: Path) -> None:
        self.nodes = nodes
        self._directory = directory
        self._forget = call_at_exit(self.close)

    @property
    def bootstrap_servers(self) -> str:
        return ",".join(node.bootstrap_server for node in self.nodes)

    def addresses(self, listener: str) -> str:
        """Bootstrap servers of a further listener. Raises KeyError."""
        return ",".join(node.address(listener) for node in self.nodes)

    def advertised(self, listener: str) -> dict[int, int]:
        """The ports that clients of a proxied listener are told, each with the broker's own behind it."""
        return {node.layout.advertised[listener]: node.layout.ports[listener] for node in self.nodes}

    def start(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start every node that is down, together, and wait until each sees all. Raises BrokerUnavailable."""
        for node in self.nodes:
            node.launch()
        everyone = [node.layout.node_id for node in self.nodes]
        for node in self.nodes:
            node.wait(timeout_s, everyone)

    def close(self) -> None:
        """End all nodes and delete their data. Twice does no harm."""
        self._forget()
        for node in self.nodes:
            node.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def start_cluster(
    size: int = 3,
    *,
    listeners: Mapping[str, str] | None = None,
    proxied: Sequence[str] = (),
    properties: Mapping[str, str] | None = None,
    jvm: Sequence[str] = (),
) -> Cluster:
    """`size` nodes that all serve, on free loopback ports; they end with `close`, or when this process ends.

    `listeners` maps names of further listeners to their security protocols; clients of those that are `proxied` are
    told other ports, on which the caller listens. `properties` win over ours; `jvm` are options for Java. Raises
    BrokerUnavailable.
    """
    kit = find_kit()
    directory = Path(tempfile.mkdtemp(prefix="saga-cluster-"))
    further = dict(listeners or {})
    ports = pick_free_ports(size * (2 + len(further) + len(proxied)))
    voters = {number: ports.pop() for number in range(1, size + 1)}
    cluster_id = make_id()
    nodes = []
    for number in voters:
        named = {name: (kind, ports.pop()) for name, kind in further.items()}
        told = {name: ports.pop() for name in proxied}
        place = directory / f"node-{number}"
        layout = Layout(number, ports.pop(), voters, place, cluster_id, named, dict(properties or {}), told)
        nodes.append(Node(kit, layout, jvm=jvm, remove=directory))
    cluster = Cluster(nodes, directory)
    try:
        cluster.start()
    except BaseException:
        cluster.close()
        raise
    return cluster
