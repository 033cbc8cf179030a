"""One `saga dev` in a folder at a time."""

import os
from pathlib import Path

import pytest

from orchestrator.cli.dev import only_one
from orchestrator.errors import ConfigurationError


def test_a_second_one_in_the_same_folder_is_told_of_the_first(tmp_path: Path) -> None:
    with only_one(tmp_path / "state"):
        with (
            pytest.raises(ConfigurationError, match=rf"already \(process {os.getpid()}\)"),
            only_one(tmp_path / "state"),
        ):
            pass
        with only_one(tmp_path / "other"):
            pass
    with only_one(tmp_path / "state"):
        pass
