"""What a client says of a cluster that it cannot reach."""

import asyncio

import pytest

from orchestrator.broker.probe import HOST, pick_free_ports
from orchestrator.client import Client
from orchestrator.errors import ConfigurationError


def test_where_nobody_answers_the_address_is_named() -> None:
    (port,) = pick_free_ports(1)

    async def main() -> None:
        async with Client.connect(f"{HOST}:{port}", timeout_s=1.0):
            pass

    with pytest.raises(ConfigurationError) as caught:
        asyncio.run(main())
    assert f"nobody answers at {HOST}:{port} " in str(caught.value)
    assert "`saga doctor` checks" in str(caught.value)
    assert "topic" not in str(caught.value)
