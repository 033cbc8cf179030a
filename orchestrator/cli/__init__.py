"""The command `saga`. Each verb is a module, imported when it is used, so that `saga --help` stays quick."""

from __future__ import annotations

import importlib
import sys

import click

from orchestrator.errors import SagaError

_VERBS: dict[str, tuple[str, str]] = {
    "acls": ("acls", "List and give the permissions of a role on a secured cluster"),
    "backup": ("backup", "Copy a whole installation, while it works, to a directory or an object store"),
    "bench": ("bench", "Measure throughput, latency and CPU beside a floor in the same run"),
    "cancel": ("operate", "Stop a saga and undo what it did"),
    "chaos": ("chaos", "Break brokers, workers and services under thousands of sagas, and check every one"),
    "count": ("look", "Count sagas, by status, type or a search attribute"),
    "dead-letters": ("dead_letters", "List, show and redrive what could not be handled"),
    "compensate": ("operate", "Undo what a saga did, whatever its code would do next"),
    "demo": ("demo", "Run a thousand orders while a worker and a service are killed, and check every one"),
    "dev": ("dev", "Broker, worker, services and client in one command"),
    "doctor": ("doctor", "Check Java, broker, topics and versions"),
    "follow": ("follow", "Print what a saga publishes, until it has ended"),
    "init": ("init", "Make a small project: a saga, a service, a test"),
    "lint": ("lint", "Read sagas for what a replay could not repeat"),
    "list": ("look", "List sagas by status"),
    "locks": ("locks", "Say who holds a key, and take it from them"),
    "move-version": ("operate", "Have a saga go on with another version of its code"),
    "park": ("operate", "Decide about a parked saga: retry, skip, set-result"),
    "participant": ("participant", "Run a service's handlers"),
    "replay-check": ("replay_check", "Replay the open runs of a live cluster with new code, before it is deployed"),
    "redrive": ("runs", "Have a saga that failed go on, with what still stands"),
    "reset": ("runs", "Undo a saga from a step on, and have it go on from there"),
    "restore": ("backup", "Make an installation from its backup, in another cluster"),
    "restart": ("runs", "Run a saga that has ended again"),
    "fork": ("runs", "Start another saga with the first results of this one"),
    "reschedule": ("operate", "Move the time at which a delayed saga begins"),
    "pause": ("operate", "Keep a saga, a type, a service, a step or a partition where it is"),
    "resume": ("operate", "Let go on what was paused"),
    "query": ("operate", "Ask a saga about itself"),
    "schedule": ("schedule", "Start sagas at given times: create, list, show, pause, trigger, backfill, ..."),
    "show": ("look", "Show a saga with its steps and history"),
    "promise": ("operate", "Keep or fail a promise that a saga waits for"),
    "signal": ("operate", "Tell a running saga something"),
    "simulate": ("simulate", "Run the whole system under faults from seeds"),
    "source": ("source", "Start and tell sagas what is on a business topic"),
    "start": ("start", "Start a saga, and wait for its result if asked"),
    "tasks": ("tasks", "List, show, claim and complete what sagas wait for people to do"),
    "terminate": ("operate", "End a saga at once, without undo"),
    "topics": ("topics", "Plan, apply, check and export the topics"),
    "update": ("operate", "Have a saga do something, and say what came of it"),
    "versions": ("look", "Count sagas by the version of their code"),
    "why": ("why", "Say what a saga waits for, since when, and what would free it"),
    "worker": ("worker", "Own partitions and drive sagas"),
}
"""Verb → (module, help)."""


class _Verbs(click.Group):
    """Knows every verb's help without importing it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        module = importlib.import_module(f"orchestrator.cli.{_VERBS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_") + "_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, _VERBS[name][1]) for name in self.list_commands(ctx)])


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="saga-orchestrator")
def saga() -> None:
    """Durable sagas on Kafka. Begin with `saga demo`, then `saga init shop`."""


def main() -> None:
    """Runs the command line; an error of ours is one line and exit code 1, not a traceback."""
    try:
        code = saga(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except SagaError as error:
        click.echo(f"saga: {error}", err=True)
        sys.exit(1)
    except Exception as error:
        from orchestrator.log.base import AdminFailed  # not before it is needed: help stays quick

        if not isinstance(error, AdminFailed):
            raise
        click.echo(f"saga: the cluster did not do it ({error}); `saga doctor` says more", err=True)
        sys.exit(1)
    if isinstance(code, int) and code:  # what `click.exceptions.Exit` carried
        sys.exit(code)
