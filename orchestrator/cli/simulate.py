"""`saga simulate`."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.output import give, json_option, say


@click.command("simulate")
@click.option("--seeds", default=1_000, show_default=True, help="How many seeds.")
@click.option("--from", "first", default=0, show_default=True, help="The first seed.")
@click.option("--jobs", default=1, show_default=True, help="Processes.")
@click.option("--merge", "merges", is_flag=True, help="Run nothing: add up what --json printed for several ranges.")
@click.argument(
    "reports", nargs=-1, metavar="[REPORT...]", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@json_option
def simulate_command(seeds: int, first: int, jobs: int, merges: bool, reports: tuple[Path, ...], as_json: bool) -> None:
    """Runs the whole system in memory under faults, one world for each seed, and checks every invariant.

    A seed gives the same run on every machine of the same commit. Exit code 1 if any seed violates an invariant.
    """
    from orchestrator.simulation.merging import merge, read_reports
    from orchestrator.simulation.run import simulate

    if merges != bool(reports):
        raise click.UsageError("--merge goes with the files of the reports, and they with --merge")
    if merges:
        result = merge(read_reports(reports))
    else:
        report = simulate(first, seeds, jobs, lambda done: say(f"{done} seeds") if done % 500 == 0 else None)
        result = report.as_json()
    for violation in result["violation_list"]:
        say(f"seed {violation['seed']}: {violation['violations'][0]}\n  repeat: {violation['repeat']}")
    if as_json:
        give(result)
    else:
        click.echo(
            f"{result['seeds']} seeds in {result['seconds']} s ({result['seeds_per_minute']} a minute), "
            f"{result['violations']} violations, {result['decisions_median']} decisions at the median, "
            f"{len(result['faults_by_kind'])} kinds of faults, "
            f"{result['transitions_covered']} of {result['transitions_total']} transitions"
        )
    if result["violations"]:
        raise click.exceptions.Exit(1)
