"""C12, the other half: what waits for a time does not wait much longer.

A timer may ring once it is due, its partition has an owner, and nothing holds its run back: who is paused, parked or
without code goes on by a decision, so it is counted from the run's last one. A step that waits for its service's
circuit is none of these and left out.
"""

from __future__ import annotations

from orchestrator.checker.evidence import Evidence, Verdict
from orchestrator.checker.journal import Accepted

RUNG_WITHIN_MS = 6_000
"""What came before a timer is consumed first, and a dead letter among it has to be acknowledged: simulated links keep
one back for 2.5 s, or lose six, each of which is sent again after half a second."""


def check_lateness(evidence: Evidence, accepted: Accepted, verdict: Verdict) -> None:
    """Of timers that rang when nothing was broken any more, where it is known since when."""
    if evidence.healed_ms is None:
        return
    for rung in accepted.rung:
        late_ms = rung.at_ms - max(rung.since_ms, evidence.healed_ms)
        if late_ms > RUNG_WITHIN_MS:
            verdict.blame("C12", f"{rung.saga_id}: {rung.what}, due {rung.due_ms}, came {late_ms} ms late")
