"""A command's requests without a cluster: what it asks of a client is asked of a stand-in, and answered at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

import pytest


def take_requests(monkeypatch: pytest.MonkeyPatch, module: ModuleType, client: object) -> None:
    """Has the commands of a module ask `client`, whose answers wait for nothing."""

    def send(options: dict[str, Any], act: Callable[[Any], Awaitable[None]]) -> None:
        with pytest.raises(StopIteration):
            act(client).__await__().send(None)

    monkeypatch.setattr(module, "send", send)
