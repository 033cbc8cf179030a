"""What a verb is given: modules with sagas, `module:object` with a participant, and the settings."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator.errors import ConfigurationError

if TYPE_CHECKING:
    from orchestrator.archive.journals import JournalArchive
    from orchestrator.client import Client
    from orchestrator.config import Settings
    from orchestrator.depot import Depot
    from orchestrator.log.kafka import KafkaLog
    from orchestrator.model.definition import Definition
    from orchestrator.participant import Participant
    from orchestrator.saga import Saga
    from orchestrator.sources import FromTopic

F = TypeVar("F", bound=Callable[..., Any])


def connection_options(command: F) -> F:
    """The options of every verb that talks to a cluster."""
    for option in (
        click.option("--bootstrap-servers", "-b", help="Kafka's addresses, host:port[,host:port].", metavar="SERVERS"),
        click.option("--prefix", help="Before the names of all topics and groups."),
        click.option("--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A saga.toml."),
        click.option("--development/--production", default=None, help="Small defaults for one broker on this machine."),
    ):
        command = option(command)
    return command


def settings_of(options: dict[str, Any]) -> Settings:
    """Settings from file, environment and the verb's options; `saga dev`'s broker where none is named.

    Raises `ConfigurationError`.
    """
    from orchestrator.config import load_settings

    names = ("bootstrap_servers", "prefix", "development")
    settings = load_settings({name: options.get(name) for name in names}, file=options.get("config"))
    if settings.bootstrap_servers is None:
        from orchestrator.broker.state import find_running

        running = find_running(settings.state_directory)
        if running is None:
            raise ConfigurationError(
                "no cluster: give --bootstrap-servers or SAGA_BOOTSTRAP_SERVERS, or start one here with `saga dev`"
            )
        settings = load_settings(
            {
                **{name: options.get(name) for name in names},
                "bootstrap_servers": f"127.0.0.1:{running.port}",
                "development": True,
            },
            file=options.get("config"),
        )
    return settings


def log_of(settings: Settings, *, read_committed: bool = False) -> KafkaLog:
    """The cluster that the settings name; `read_committed` for topics that others write in transactions."""
    from orchestrator.log.kafka import KafkaLog

    return KafkaLog(
        settings.bootstrap_servers or "",
        common=settings.common,
        producer=settings.producer,
        consumer=settings.group_consumer,
        read_committed=read_committed,
    )


def depot_of(what: str, url: str) -> Depot:
    """The directory or object store at `url`; `what` says what it is for. Raises `ConfigurationError`."""
    from orchestrator.depot import Depot, DepotFailed

    try:
        return Depot(url)
    except DepotFailed as failed:
        raise ConfigurationError(f"{what}: {failed}") from None


def archive_of(settings: Settings, topic_id: str) -> JournalArchive | None:
    """The archive of the journal topic that has this id, if the settings name one. Raises `ConfigurationError`."""
    if not settings.archive:
        return None
    from orchestrator.archive.journals import JournalArchive

    return JournalArchive(depot_of("archive", settings.archive), settings.topic_names.journal, topic_id)


def client_of(settings: Settings) -> AbstractAsyncContextManager[Client]:
    """A client of the cluster that the settings name, to be used as `async with`."""
    from orchestrator.client import Client

    return Client.connect(
        settings.bootstrap_servers or "",
        prefix=settings.prefix,
        topic_overrides=settings.topics,
        common=settings.common,
        producer=settings.producer,
        consumer=settings.consumer,
    )


def load_module(name: str) -> Any:
    """A module by name, also from the current directory. Raises `ConfigurationError`."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name and not name.startswith(f"{error.name}."):
            raise
        raise ConfigurationError(f"there is no module {name!r} here or among the installed packages") from None


def load_definitions(
    modules: tuple[str, ...], shares: Mapping[tuple[str, int], float] | None = None
) -> dict[str, Definition]:
    """The sagas of modules (all they define) or of `module:Class`, read by the linter; by type the newest version.

    Raises `ConfigurationError`, `DefinitionError` where a saga's code cannot replay.
    """
    from orchestrator.lint import check
    from orchestrator.model.versions import SameVersion, by_type

    sagas = load_sagas(modules)
    for saga in sagas:
        check(saga)
    known = {(saga.definition.name, saga.definition.version) for saga in sagas}
    for name, version in (shares or {}).keys() - known:
        raise ConfigurationError(f"a share for {name}:{version}, which no given module defines")
    try:
        return by_type((saga.definition for saga in sagas), shares)
    except SameVersion as same:
        raise ConfigurationError(f"two sagas are {same}; pass name= or version= to one of them") from None


def with_built_in(definitions: dict[str, Definition]) -> dict[str, Definition]:
    """With the sagas that every worker has. Raises `ConfigurationError` where another has the name of one."""
    from orchestrator.correlator import with_correlator
    from orchestrator.locks import with_locks
    from orchestrator.schedules import with_schedules

    return with_locks(with_correlator(with_schedules(definitions)))


def load_sagas(modules: tuple[str, ...]) -> list[type[Saga[Any, Any]]]:
    """The saga classes of modules or of `module:Class`. Raises `ConfigurationError`."""
    from orchestrator.saga import Saga

    found: list[type[Saga[Any, Any]]] = []
    for name in modules:
        module_name, _, wanted = name.partition(":")
        module = load_module(module_name)
        known = {
            attribute: value
            for attribute, value in vars(module).items()
            if inspect.isclass(value) and issubclass(value, Saga) and value is not Saga and hasattr(value, "definition")
        }
        sagas = [value for attribute, value in known.items() if wanted in ("", attribute)]
        if not sagas:
            raise ConfigurationError(f"{name} defines no saga" + (_places(module_name, known) if wanted else ""))
        found.extend(saga for saga in sagas if saga not in found)
    return found


def load_participant(name: str) -> Participant:
    """The `Participant` at `module:object`, also from the current directory. Raises `ConfigurationError`."""
    from orchestrator.participant import Participant
    from orchestrator.participant.runner import load_participant as load

    module_name = name.partition(":")[0]
    known = [attribute for attribute, value in vars(load_module(module_name)).items() if isinstance(value, Participant)]
    try:
        return load(name)
    except ConfigurationError as error:
        raise ConfigurationError(f"{error}{_places(module_name, known)}") from None


def load_source(name: str) -> FromTopic[Any]:
    """The `FromTopic` at `module:object`, also from the current directory. Raises `ConfigurationError`."""
    from orchestrator.cli.topics import sources_in

    module_name = name.partition(":")[0]
    found = sources_in([module_name])
    if name not in found:
        raise ConfigurationError(f"{name!r} is no FromTopic; say module:object{_told(module_name, found)}")
    return found[name]


def _places(module_name: str, attributes: Iterable[str]) -> str:
    """What could have been named instead."""
    return _told(module_name, [f"{module_name}:{attribute}" for attribute in attributes])


def _told(module_name: str, places: Iterable[str]) -> str:
    there = ", ".join(places)
    return f"; there is {there}" if there else f"; nor is there another in {module_name}"
