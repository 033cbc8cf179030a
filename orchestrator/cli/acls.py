"""`saga acls`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator.acls import Role, acls_of, missing
from orchestrator.cli.application import connection_options, log_of, settings_of
from orchestrator.cli.output import give, json_option, table
from orchestrator.cli.topics import services_in, sources_in

if TYPE_CHECKING:
    from orchestrator.config import Settings
    from orchestrator.log.acl import Acl

F = TypeVar("F", bound=Callable[..., Any])


@click.group("acls")
def acls_command() -> None:
    """List and give the permissions that a role needs on a secured cluster.

    MODULE... are those that define services; their topics are included, as are those of every --service. For the role
    source they are those that define what is read.
    """


def _role_options(command: F) -> F:
    for option in (
        click.argument("modules", nargs=-1, metavar="[MODULE...]"),
        click.option("--service", "services", multiple=True, metavar="NAME", help="May be given several times."),
        click.option("--principal", required=True, metavar="TYPE:NAME", help="Who is to have them, as User:worker."),
        click.option("--role", type=click.Choice([role.value for role in Role]), required=True),
    ):
        command = option(command)
    return connection_options(command)


def _needed(settings: Settings, options: dict[str, Any]) -> list[Acl]:
    services = [*services_in(options["modules"]), *options["services"]]
    read = [(source.topic, source.name) for source in sources_in(options["modules"]).values()]
    return acls_of(
        Role(options["role"]),
        options["principal"],
        settings.topic_names,
        services,
        read,
        archive=bool(settings.archive),
    )


def _as_json(acls: list[Acl]) -> list[dict[str, str]]:
    return [
        {"principal": acl.principal, "operation": acl.operation.value, "resource": acl.resource.value, "name": acl.name}
        for acl in acls
    ]


@acls_command.command("list")
@_role_options
@json_option
def list_acls_command(as_json: bool, **options: Any) -> None:
    """Shows what the role needs; asks the cluster nothing."""
    acls = _needed(settings_of(options), options)
    if as_json:
        give({"acls": _as_json(acls)})
    else:
        rows = [(acl.principal, acl.operation.value, acl.resource.value, acl.name) for acl in acls]
        table(rows, ("principal", "operation", "on", "name"))


@acls_command.command("apply")
@_role_options
@json_option
def apply_acls_command(as_json: bool, **options: Any) -> None:
    """Gives what is missing; what the principal has beyond that it keeps."""
    settings = settings_of(options)
    with closing(log_of(settings).admin()) as admin:
        created = missing(_needed(settings, options), admin.permissions(options["principal"]))
        admin.permit(created)
    if as_json:
        give({"created": _as_json(created)})
    else:
        click.echo("\n".join(f"created {acl}" for acl in created) or "all permissions exist")
