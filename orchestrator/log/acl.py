"""What a secured cluster lets somebody do, one permission at a time."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Operation(Enum):
    """What may be done. READ, WRITE, DELETE and ALTER include DESCRIBE, on Kafka's side."""

    ALTER = "Alter"
    CREATE = "Create"
    DELETE = "Delete"
    DESCRIBE = "Describe"
    DESCRIBE_CONFIGS = "DescribeConfigs"
    READ = "Read"
    WRITE = "Write"


class Resource(Enum):
    """On what. There is one cluster, and its name is `CLUSTER_NAME`."""

    CLUSTER = "cluster"
    GROUP = "group"
    TOPIC = "topic"


CLUSTER_NAME = "kafka-cluster"


@dataclass(frozen=True, slots=True)
class Acl:
    """`principal`, such as `User:worker`, may do this on the resource of exactly this name, from any host."""

    principal: str
    operation: Operation
    resource: Resource
    name: str

    def __str__(self) -> str:
        return f"{self.principal}: {self.operation.value} on {self.resource.value} {self.name}"
