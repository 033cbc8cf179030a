"""`saga lint`."""

from __future__ import annotations

import click

from orchestrator.cli.application import load_sagas
from orchestrator.cli.output import give, json_option, say


@click.command("lint")
@click.argument("modules", nargs=-1, required=True, metavar="MODULE...")
@json_option
def lint_command(modules: tuple[str, ...], as_json: bool) -> None:
    """Reads the sagas that MODULE... define for what a replay could not repeat, as a worker does when it loads them.

    Exit code 1 if there is an error; a warning is only told. A line is allowed by `# saga: allow`.
    """
    from orchestrator.lint import findings

    sagas = load_sagas(modules)
    found = list(dict.fromkeys(finding for saga in sagas for finding in findings(saga)))
    errors = sum(finding.rule.is_error for finding in found)
    if as_json:
        lines = [
            {
                "file": each.file,
                "line": each.line,
                "where": each.where,
                "what": each.what,
                "rule": each.rule.name,
                "advice": each.rule.advice,
                "level": "error" if each.rule.is_error else "warning",
            }
            for each in found
        ]
        give({"sagas": len(sagas), "errors": errors, "warnings": len(found) - errors, "findings": lines})
    else:
        for each in found:
            click.echo(f"{'error' if each.rule.is_error else 'warning'}: {each}")
        say(f"{len(sagas)} sagas read: {errors} errors, {len(found) - errors} warnings")
    if errors:
        raise click.exceptions.Exit(1)
