"""What a worker, participant or source tells about itself: Prometheus metrics, and probes as Kubernetes wants them.

Everything is read at the time of a request, from numbers that the engine's thread keeps anyway.
"""

from orchestrator.telemetry.participant import ParticipantMetrics, participant_readiness
from orchestrator.telemetry.server import Pulse, Telemetry
from orchestrator.telemetry.source import SourceMetrics, source_readiness
from orchestrator.telemetry.worker import WorkerMetrics, worker_readiness

__all__ = [
    "ParticipantMetrics",
    "Pulse",
    "SourceMetrics",
    "Telemetry",
    "WorkerMetrics",
    "participant_readiness",
    "source_readiness",
    "worker_readiness",
]
