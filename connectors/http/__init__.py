"""Services that only speak HTTP: each command becomes a request, each response an outcome."""

from orchestrator.connectors.http.service import HttpService, Route

__all__ = ["HttpService", "Route"]
