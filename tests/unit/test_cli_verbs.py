"""All verbs: each loads and explains itself; help stays quick because it loads none; exit codes come through."""

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from orchestrator import cli
from orchestrator.errors import ConfigurationError
from orchestrator.log.base import AdminFailed, Failure


@pytest.mark.parametrize("verb", sorted(cli._VERBS))
def test_every_verb_explains_itself(verb: str) -> None:
    result = CliRunner().invoke(cli.saga, [verb, "--help"])
    assert result.exit_code == 0, result.output
    assert f"saga {verb}" in result.output


def test_the_help_names_every_verb() -> None:
    result = CliRunner().invoke(cli.saga, ["--help"])
    assert result.exit_code == 0
    listed = {line.split()[0] for line in result.output.partition("Commands:")[2].splitlines() if line.strip()}
    assert listed >= cli._VERBS.keys()


def test_an_unknown_verb_is_an_error_of_usage() -> None:
    assert CliRunner().invoke(cli.saga, ["frobnicate"]).exit_code == 2


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from orchestrator.cli import saga\n"
        "saga(['--help'], standalone_mode=False)\n"
        "print([name for name in ('pydantic', 'confluent_kafka', 'asyncio', 'sqlite3', 'orchestrator.config')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=50)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_verbs_exit_code_is_the_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command("fail")
    def fail() -> None:
        raise click.exceptions.Exit(3)

    monkeypatch.setattr(cli._Verbs, "get_command", lambda self, ctx, name: fail)
    monkeypatch.setattr(sys, "argv", ["saga", "fail"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 3


def test_a_cluster_that_refuses_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command("fail")
    def fail() -> None:
        raise AdminFailed(Failure.UNAUTHORIZED, "saga.inbox")

    monkeypatch.setattr(cli._Verbs, "get_command", lambda self, ctx, name: fail)
    monkeypatch.setattr(sys, "argv", ["saga", "fail"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    assert capsys.readouterr().err.startswith("saga: the cluster did not do it (missing authorization: saga.inbox)")


def test_an_archive_without_snapshots_is_refused_before_a_worker_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGA_ARCHIVE", "/srv/archive")
    arguments = ["worker", "orchestrator.sagas.order_fulfilment", "-b", "127.0.0.1:1", "--development"]
    refused = CliRunner().invoke(cli.saga, arguments)
    assert isinstance(refused.exception, ConfigurationError)
    assert "archive: set snapshots too" in str(refused.exception)
