"""Starting sagas from an application, waiting for them and acting on them, over Kafka alone.

`async with Client.connect("localhost:9092") as client:` gives a client, `await client.start(OrderFulfilment, order)` a
handle, `await handle.result()` what the saga returned.
"""

from orchestrator.client.client import Client
from orchestrator.client.handle import Handle

__all__ = ["Client", "Handle"]
