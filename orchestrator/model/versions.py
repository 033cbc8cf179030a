"""Which version of a saga's code a run goes on with.

The versions of one type that a worker has hang together: the newest one, with the `older` ones. A run notes the version
that its code was in last. A pinned run keeps it; any other goes on with the newest that its id is in the share of, and
never goes back by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from orchestrator.errors import ConfigurationError
from orchestrator.model.definition import Definition
from orchestrator.model.ids import murmur2
from orchestrator.model.state import SagaState

_PARTS = 10_000


class SameVersion(Exception):
    """Two definitions of one type in one version. The message is the type and the version."""


def by_type(
    definitions: Iterable[Definition], shares: Mapping[tuple[str, int], float] | None = None
) -> dict[str, Definition]:
    """The newest version of each type, with the older ones. Raises `SameVersion`.

    `shares`: by type and version, the percentage of saga ids that get it; the others get the next older one.
    """
    types: dict[str, dict[int, Definition]] = {}
    for each in definitions:
        versions = types.setdefault(each.name, {})
        if versions.setdefault(each.version, each) is not each:
            raise SameVersion(f"{each.name} in version {each.version}")
    found = {}
    for name, versions in types.items():
        newest, *older = [
            replace(versions[version], share=(shares or {}).get((name, version), 100.0))
            for version in sorted(versions, reverse=True)
        ]
        found[name] = replace(newest, older=tuple(older))
    return found


def with_version(newest: Definition, other: Definition) -> Definition:
    """The newest version of a type, with the older ones, where a worker gets `other` too, or in its version's place."""
    versions = {each.version: each for each in (newest, *newest.older, other)}
    return by_type(versions.values())[other.name]


def with_own(definitions: Mapping[str, Definition], own: Definition) -> dict[str, Definition]:
    """What a worker is given, with a saga of the orchestrator's own.

    Raises `ConfigurationError` where another one has its name.
    """
    if own.name in definitions:
        raise ConfigurationError(f"{own.name} is the orchestrator's own saga; give yours another name")
    return {**definitions, own.name: own}


def names_of(definitions: Mapping[str, Definition]) -> tuple[str, ...]:
    """What a worker announces that it has: each type, and each version of it as `type@version`."""
    versions = [f"{name}@{each.version}" for name, newest in definitions.items() for each in (newest, *newest.older)]
    return tuple(sorted([*definitions, *versions]))


def name_needed(state: SagaState) -> str:
    """Which of these names a run needs."""
    return f"{state.saga_type}@{state.version}" if state.pinned else state.saga_type


def of_start(newest: Definition | None, saga_id: str) -> Definition | None:
    """The version that a new run gets."""
    if newest is None or not newest.older:
        return newest
    for each in (newest, *newest.older):
        if each.share >= 100:
            return each
        part = murmur2(f"{each.name}@{each.version}/{saga_id}".encode()) % _PARTS
        if part * 100 < each.share * _PARTS:
            return each
    return newest.older[-1]


def of_run(newest: Definition | None, state: SagaState) -> Definition | None:
    """The version that a run goes on with; None where this worker lacks it. `newest` is of the run's type."""
    if newest is None or (state.version == newest.version and not newest.older):
        return newest
    if not state.pinned:
        upgraded = of_start(newest, state.saga_id)
        if upgraded is not None and upgraded.version >= state.version:
            return upgraded
    return next((each for each in (newest, *newest.older) if each.version == state.version), None)
