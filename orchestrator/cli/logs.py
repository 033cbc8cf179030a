"""Structured logs: one line an event, with saga, step and partition where they are known, never a payload."""

from __future__ import annotations

import json
import logging
import sys
import time

_CONTEXT = ("saga_id", "step", "partition")


class _Formatter(logging.Formatter):
    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        context = {name: getattr(record, name) for name in _CONTEXT if hasattr(record, name)}
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + self.formatException(record.exc_info)
        if self._as_json:
            line = {"time": when, "level": record.levelname.lower(), "logger": record.name, "message": message}
            return json.dumps({**line, **context})
        details = "".join(f" {name}={value}" for name, value in context.items())
        return f"{when} {record.levelname.lower():8} {record.name.removeprefix('orchestrator.')}: {message}{details}"


def configure_logs(level: str, *, as_json: bool) -> None:
    """Sends all logs to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(as_json=as_json))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
