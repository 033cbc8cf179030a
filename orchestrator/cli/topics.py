"""`saga topics`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator.cli.application import connection_options, load_module, log_of, settings_of
from orchestrator.cli.output import give, json_option, table

if TYPE_CHECKING:
    from orchestrator.config import Settings
    from orchestrator.log.base import TopicSpec
    from orchestrator.sources import FromTopic

F = TypeVar("F", bound=Callable[..., Any])


@click.group("topics")
def topics_command() -> None:
    """Plan, apply, check and export the topics. MODULE... are those that define services; their topics are included."""


def _plan_options(command: F) -> F:
    for option in (
        click.argument("modules", nargs=-1, metavar="[MODULE...]"),
        click.option("--partitions", type=int, help="Of every topic; pinned in the journal once it is written."),
        click.option("--replication", type=int),
        click.option("--fsync", is_flag=True, help="Records are on the disk before they are acknowledged."),
    ):
        command = option(command)
    return connection_options(command)


def _planned(modules: tuple[str, ...], settings: Settings, options: dict[str, Any]) -> list[TopicSpec]:
    from orchestrator.provisioning import plan

    return plan(
        settings.topic_names,
        partitions=options["partitions"] or settings.partitions,
        replication=options["replication"] or settings.replication,
        services=services_in(modules),
        fsync=options["fsync"],
    )


def services_in(modules: tuple[str, ...]) -> list[str]:
    """The names of all services that modules define or import."""
    from orchestrator.service import Service

    return sorted(
        {
            value.name
            for name in modules
            for value in vars(load_module(name.partition(":")[0])).values()
            if isinstance(value, type) and issubclass(value, Service) and value is not Service
        }
    )


def sources_in(modules: Sequence[str]) -> dict[str, FromTopic[Any]]:
    """The sources that modules define or import, by their place, `module:object`."""
    from orchestrator.sources import FromTopic

    found: dict[str, FromTopic[Any]] = {}
    for name in dict.fromkeys(module.partition(":")[0] for module in modules):
        for attribute, value in vars(load_module(name)).items():
            if isinstance(value, FromTopic) and value not in found.values():
                found[f"{name}:{attribute}"] = value
    return found


@topics_command.command("plan")
@_plan_options
@json_option
def plan_command(modules: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Shows which topics there should be."""
    specs = _planned(modules, settings_of(options), options)
    if as_json:
        give({"topics": [{"name": s.name, "partitions": s.partitions, "settings": dict(s.settings)} for s in specs]})
    else:
        rows = [(s.name, s.partitions, s.replication, s.settings["retention.ms"]) for s in specs]
        table(rows, ("topic", "partitions", "replicas", "retention.ms"))


@topics_command.command("apply")
@_plan_options
@json_option
def apply_command(modules: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Creates what is missing; what exists stays as it is."""
    from orchestrator.provisioning import apply

    settings = settings_of(options)
    with closing(log_of(settings).admin()) as admin:
        created = apply(admin, _planned(modules, settings, options))
    if as_json:
        give({"created": created})
    else:
        click.echo("\n".join(f"created {name}" for name in created) or "all topics exist")


@topics_command.command("check")
@_plan_options
@json_option
def check_command(modules: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Compares the cluster with the plan. Exit code 1 if the orchestrator must not run like this."""
    from orchestrator.provisioning import check

    settings = settings_of(options)
    with closing(log_of(settings).admin()) as admin:
        findings = check(admin, settings.topic_names, _planned(modules, settings, options))
    if as_json:
        give({"findings": [{"topic": f.topic, "problem": f.problem, "remedy": f.remedy} for f in findings]})
    else:
        click.echo("\n".join(str(finding) for finding in findings) or "all topics are as planned")
    if any(finding.severe for finding in findings):
        raise click.exceptions.Exit(1)


@topics_command.command("export")
@_plan_options
@click.option("--as", "kind", type=click.Choice(["kafka-topics", "strimzi", "terraform"]), default="kafka-topics")
@click.option("--cluster", default="kafka", show_default=True, help="The Strimzi cluster's name.")
def export_command(modules: tuple[str, ...], kind: str, cluster: str, **options: Any) -> None:
    """Prints the plan as a script or as resources for other tools."""
    from orchestrator.provisioning import to_commands, to_strimzi, to_terraform

    settings = settings_of(options)
    specs = _planned(modules, settings, options)
    if kind == "strimzi":
        click.echo(to_strimzi(specs, cluster))
    elif kind == "terraform":
        click.echo(to_terraform(specs))
    else:
        click.echo(to_commands(specs, settings.bootstrap_servers or ""))
