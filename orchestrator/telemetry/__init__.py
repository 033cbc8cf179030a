"""What a worker or a participant tells about itself: Prometheus metrics and the probes of an orchestrator such as

Kubernetes. Everything is read at the time of a request, from numbers that the engine's thread keeps anyway.
"""

from orchestrator.telemetry.participant import ParticipantMetrics, participant_readiness
from orchestrator.telemetry.server import Pulse, Telemetry
from orchestrator.telemetry.worker import WorkerMetrics, worker_readiness

__all__ = [
    "ParticipantMetrics",
    "Pulse",
    "Telemetry",
    "WorkerMetrics",
    "participant_readiness",
    "worker_readiness",
]
