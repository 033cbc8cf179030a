"""Sagas started and told by what is on a business topic already: a mapping of its records, and what carries it out.

    orders = FromTopic("shop.orders", OrderPlaced)
    orders.starts(OrderFulfilment, id=lambda r: r.value.number, input=lambda r: Order(id=r.value.number, ...))

`saga source shop:orders` runs it. `engine` is the same without threads and clock, for tests.
"""

from orchestrator.sources.mapping import FromTopic, SourceRecord

__all__ = ["FromTopic", "SourceRecord"]
