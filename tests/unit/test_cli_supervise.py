"""What the children of a supervisor are told."""

import pytest

from orchestrator.cli.supervise import child_arguments


@pytest.mark.parametrize("given", [["--processes", "2"], ["--processes=2"], ["--processes", "3", "--processes=2"]])
def test_a_child_gets_all_but_the_number_of_processes(given: list[str]) -> None:
    told = child_arguments(["participant", "--concurrency", "2", "shop:payments", *given, "--prefix", "2"])
    assert told == ["participant", "--child", "--concurrency", "2", "shop:payments", "--prefix", "2"]


def test_a_child_is_one_also_where_the_options_end_early() -> None:
    told = child_arguments(["worker", "--processes", "2", "--", "shop"])
    assert told == ["worker", "--child", "--", "shop"]
