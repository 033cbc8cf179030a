"""What a run showed: one JSON object, and one page that needs nothing but a browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from orchestrator.chaos.history import Struck
from orchestrator.chaos.kept import command_of
from orchestrator.chaos.schedule import KINDS, Lane
from orchestrator.chaos.story import Story

LISTED = 50
"""Violations that the object and the page have; the rest is a number."""
_WIDTH, _LANE, _LEFT = 1_100, 26, 80
_COLORS = {
    Lane.WORKERS: "#c0392b",
    Lane.SERVICES: "#d68910",
    Lane.BROKERS: "#6c3483",
    Lane.INPUTS: "#1f618d",
    Lane.LINKS: "#117a65",
}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1f23; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.verdict { padding: .8rem 1rem; border-radius: 6px; font-size: 1.15rem; font-weight: 600; color: #fff; }
.good { background: #1e8449; } .bad { background: #b03a2e; }
table { border-collapse: collapse; width: 100%; }
td, th { padding: .25rem .6rem; text-align: left; vertical-align: top; }
tr:nth-child(even) td { background: #f4f6f7; } th { border-bottom: 2px solid #d5d8dc; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.figures { display: flex; flex-wrap: wrap; gap: .8rem; } .figure { background: #f4f6f7; border-radius: 6px;
padding: .5rem .9rem; } .figure b { display: block; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
pre { background: #f4f6f7; padding: .8rem; overflow-x: auto; border-radius: 6px; font-size: 12.5px; }
code { background: #f4f6f7; padding: 0 .25rem; } svg { width: 100%; height: auto; } text { font: 12px system-ui; }
"""


def page(result: Mapping[str, Any], faults: Sequence[Struck], stories: Sequence[Story], began_ms: int) -> str:
    """The whole page. `result` is the object that `--json` gives; `began_ms` when the load began."""
    parts = [
        _head(result),
        _figures(result),
        _stories(stories, int(result["violations"])),
        "<h2>When what was broken</h2>",
        _timeline(faults, began_ms),
        _kinds(result["faults_by_kind"]),
        _counts("How sagas stood in the end, by run", result["statuses"]),
        _counts("Sagas that ended, by type", result["sagas_by_type"]),
        _log(faults, began_ms),
        _settings(result),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Chaos</title>'
        f"<style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def _head(result: Mapping[str, Any]) -> str:
    count = int(result["violations"])
    words = "No invariant was violated." if not count else f"{count} violations of invariants."
    told = (
        f"{result['sagas']:,} sagas on {result['brokers']} brokers and {result['workers']} workers under "
        f"{result['faults']} faults of {result['fault_kinds']} kinds; seed {result['seed']}."
    )
    kind = "bad" if count else "good"
    return f'<h1>Chaos</h1>\n<p class="verdict {kind}">{words}</p>\n<p>{escape(told)}</p>'


def _figures(result: Mapping[str, Any]) -> str:
    recovery = result["recovery_ms"]
    named = [
        ("sagas", result["sagas"]),
        ("effects in the services' books", result["effects"]),
        ("decisions in the journal", result["decisions"]),
        ("journal records that do not count", result["records_dropped"]),
        ("inputs absorbed as repeats or late", result["inputs_absorbed"]),
        ("dead letters", result["dead_letters"]),
        ("starts of unknown outcome", result["starts_unknown"]),
        ("stores compared with a replay", result["stores_compared"]),
        ("journal records in the archive", result.get("records_archived", 0)),
        ("ms from kill -9 to the next decision, middle", recovery["p50"]),
        ("the same, last hundredth", recovery["p99"]),
        ("the same, longest", recovery["max"]),
        ("faults that were not done", result["faults_not_done"]),
    ]
    boxes = (f'<div class="figure"><b>{_number(value)}</b>{escape(name)}</div>' for name, value in named)
    return f'<div class="figures">{"".join(boxes)}</div>'


def _stories(stories: Sequence[Story], count: int) -> str:
    if not stories:
        return ""
    told = "".join(
        f"<p><b>{escape(story.violation)}</b></p><pre>{escape(chr(10).join(story.lines))}</pre>" for story in stories
    )
    more = f"<p>and {count - len(stories)} more</p>" if count > len(stories) else ""
    return f"<h2>Violations</h2>{told}{more}"


def _timeline(faults: Sequence[Struck], began_ms: int) -> str:
    """A bar for each fault, in the row of its lane."""
    lanes = list(Lane)
    last_ms = max([began_ms + 1_000, *(each.heal_ms or each.begin_ms for each in faults)])
    scale = (_WIDTH - _LEFT - 10) / (last_ms - began_ms)
    lane_of = {kind.name: kind.lane for kind in KINDS}
    drawn = []
    for row, lane in enumerate(lanes):
        y = row * _LANE
        drawn.append(f'<text x="0" y="{y + 17}">{lane}</text>')
        drawn.append(f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y + _LANE}" y2="{y + _LANE}" stroke="#e5e8e8"/>')
    for each in faults:
        lane = lane_of[each.kind]
        x = _LEFT + (each.begin_ms - began_ms) * scale
        width = max(2.0, ((each.heal_ms or last_ms) - each.begin_ms) * scale)
        title = escape(f"{each.number} {each.kind} {each.target} {each.note}")
        drawn.append(
            f'<rect x="{x:.1f}" y="{lanes.index(lane) * _LANE + 5}" width="{width:.1f}" height="{_LANE - 9}" '
            f'fill="{_COLORS[lane]}" fill-opacity=".8"><title>{title}</title></rect>'
        )
    seconds = (last_ms - began_ms) / 1000
    for tenth in range(0, 11, 2):
        x = _LEFT + (_WIDTH - _LEFT - 10) * tenth / 10
        drawn.append(f'<text x="{x:.0f}" y="{len(lanes) * _LANE + 16}">{seconds * tenth / 10:.0f} s</text>')
    return f'<svg viewBox="0 0 {_WIDTH} {len(lanes) * _LANE + 24}">{"".join(drawn)}</svg>'


def _kinds(counts: Mapping[str, int]) -> str:
    rows = "".join(
        f'<tr><td><code>{kind.name}</code></td><td class="number">{counts[kind.name]}</td>'
        f"<td>{escape(kind.does)}</td></tr>"
        for kind in KINDS
        if kind.name in counts
    )
    heading = '<tr><th>fault</th><th class="number">times</th><th>what it does</th></tr>'
    return f"<h2>Faults by kind</h2><table>{heading}{rows}</table>"


def _counts(title: str, counts: Mapping[str, int]) -> str:
    rows = "".join(
        f'<tr><td>{escape(name)}</td><td class="number">{count:,}</td></tr>' for name, count in counts.items()
    )
    return f"<h2>{escape(title)}</h2><table>{rows}</table>"


def _log(faults: Sequence[Struck], began_ms: int) -> str:
    rows = []
    for each in faults:
        lasted = "" if each.heal_ms is None else f"{(each.heal_ms - each.begin_ms) / 1000:.1f}"
        cells = (each.kind, each.target, each.note)
        rows.append(
            f'<tr><td class="number">{each.number}</td><td class="number">{(each.begin_ms - began_ms) / 1000:.1f}</td>'
            f'<td class="number">{lasted}</td>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        )
    names = ("number", "at, s", "lasted, s", "fault", "struck", "note")
    heading = "".join(f'<th class="{"number" if at < 3 else ""}">{name}</th>' for at, name in enumerate(names))
    return (
        f"<h2>Every fault</h2><details><summary>{len(faults)} faults</summary>"
        f"<table><tr>{heading}</tr>{''.join(rows)}</table></details>"
    )


def _settings(result: Mapping[str, Any]) -> str:
    names = (
        "seed",
        "minutes",
        "sagas_per_second",
        "brokers",
        "replication",
        "workers",
        "partitions",
        "version",
        "code",
    )
    rows = "".join(f"<tr><td>{name}</td><td>{escape(str(result[name]))}</td></tr>" for name in names if name in result)
    return f"<h2>How it was run</h2><table>{rows}</table><p>Again: <code>{escape(command_of(result))}</code></p>"


def _number(value: Any) -> str:
    return "none" if value is None else f"{value:,}"
