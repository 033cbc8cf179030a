"""A real Kafka broker without Docker, for `saga dev`, the demonstration and the tests.

    with provide() as broker:
        connect(broker.bootstrap_servers)

`provide` uses what is there, in this order: bootstrap servers that were given, the broker that this project folder has
running, Java and Kafka's jars found or fetched, Docker. `start_cluster` starts several nodes that can be killed one by
one. By hand: `python -m orchestrator.broker`.
"""

from orchestrator.broker.cluster import Cluster, start_cluster
from orchestrator.broker.node import SHORT_LIVED, Kit, Node, find_kit
from orchestrator.broker.provide import Broker, provide, stop_running, warm_up

__all__ = [
    "SHORT_LIVED",
    "Broker",
    "Cluster",
    "Kit",
    "Node",
    "find_kit",
    "provide",
    "start_cluster",
    "stop_running",
    "warm_up",
]
