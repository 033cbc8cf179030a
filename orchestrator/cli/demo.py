"""`saga demo`."""

from __future__ import annotations

import logging
import time

import click

from orchestrator.cli.output import give, json_option, say


@click.command("demo")
@click.option("--orders", default=1_000, show_default=True)
@json_option
def demo_command(orders: int, as_json: bool) -> None:
    """Runs orders as sagas over a real Kafka broker while a worker and a service are killed under them.

    One order in ten is declined at payment and undone. At the end a checker reads every topic and the services' own
    books and says whether each order had its outcome, once. The exit code is its verdict.
    """
    from orchestrator.demo.run import Demo

    logging.getLogger("orchestrator").setLevel(logging.ERROR)
    began = time.monotonic()
    outcome = Demo(orders, lambda text: say(f"{time.monotonic() - began:6.1f} s  {text}")).run()
    result = outcome.as_json()
    if as_json:
        give(result)
    else:
        _print(result)
    if outcome.verdict.violations:
        say(f"logs and books are kept in {outcome.folder}")
        raise click.exceptions.Exit(1)


def _print(result: dict[str, object]) -> None:
    statuses = result["statuses"]
    assert isinstance(statuses, dict)
    recovery = result["recovery_s"]
    assert isinstance(recovery, dict)
    rows = [
        ("orders completed", statuses.get("COMPLETED", 0)),
        ("orders undone", statuses.get("COMPENSATED", 0)),
        ("other outcomes", sum(n for status, n in statuses.items() if status not in ("COMPLETED", "COMPENSATED"))),
        ("effects in the services' books", result["effects"]),
        ("duplicates absorbed", result["duplicates_absorbed"]),
        ("decisions in the journal", result["decisions"]),
        ("journal records dropped", result["records_dropped"]),
        ("recovery after kill -9", f"{max(recovery.values()):.1f} s" if recovery else "no partition changed hands"),
        ("seconds", result["seconds"]),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"  {name.ljust(width)}  {value}")
    violations = result["violations"]
    assert isinstance(violations, list)
    if violations:
        click.echo(f"VERDICT: {len(violations)} violations")
        for violation in violations[:20]:
            click.echo(f"  {violation}")
    else:
        click.echo("VERDICT: every order has exactly one outcome, every effect happened once, nothing was lost")
