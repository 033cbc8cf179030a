"""Permissions as Kafka's client library has them."""

from __future__ import annotations

from typing import Any

from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from orchestrator.log.acl import Acl, Operation, Resource

_OPERATIONS: dict[Any, Operation] = {AclOperation[operation.name]: operation for operation in Operation}
_RESOURCES: dict[Any, Resource] = {
    ResourceType.BROKER: Resource.CLUSTER,  # the library's name for it
    ResourceType.GROUP: Resource.GROUP,
    ResourceType.TOPIC: Resource.TOPIC,
}
_KINDS = {resource: kind for kind, resource in _RESOURCES.items()}


def binding_of(acl: Acl) -> AclBinding:
    """To be created."""
    kind, operation = _KINDS[acl.resource], AclOperation[acl.operation.name]
    literal, allow = ResourcePatternType.LITERAL, AclPermissionType.ALLOW
    return AclBinding(kind, acl.name, literal, acl.principal, "*", operation, allow)


def filter_of(principal: str) -> AclBindingFilter:
    """Those of a principal that are of our kind: on a resource by its whole name, from any host."""
    literal, allow = ResourcePatternType.LITERAL, AclPermissionType.ALLOW
    every = None  # of all names; the library's types do not say that it may be
    return AclBindingFilter(ResourceType.ANY, every, literal, principal, "*", AclOperation.ANY, allow)  # type: ignore[arg-type]


def acl_of(binding: AclBinding) -> Acl | None:
    """None: for something that no role of ours needs."""
    operation, resource = _OPERATIONS.get(binding.operation), _RESOURCES.get(binding.restype)
    if operation is None or resource is None:
        return None
    return Acl(binding.principal, operation, resource, binding.name)
