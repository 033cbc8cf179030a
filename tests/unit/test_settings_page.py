"""`docs/settings.md` against the code: every setting, no metric that is not there."""

import re
from pathlib import Path

from orchestrator import telemetry
from orchestrator.config import ENVIRONMENT, Settings

PAGE = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()


def test_every_setting_stands_in_the_page() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(SAGA_\w+)` \|", PAGE, re.MULTILINE)
    assert rows == [(name, ENVIRONMENT + name.upper()) for name in Settings.model_fields]


def test_every_metric_of_the_page_is_served() -> None:
    sources = "".join(path.read_text() for path in Path(telemetry.__file__).parent.glob("*.py"))
    named = [
        name for row in re.findall(r"^\| (`saga_.*?) \|", PAGE, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    ]
    assert len(named) > 20
    assert [name for name in named if f'"{re.sub("^saga_(participant|source)_", "", name)}"' not in sources] == []
