"""Services that only speak HTTP: each command becomes a request, each response an outcome."""

from orchestrator.connectors.http.responses import FAILURES
from orchestrator.connectors.http.service import HttpService

__all__ = ["FAILURES", "HttpService"]
