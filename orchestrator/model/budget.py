"""How much one decision may say and cause."""

from __future__ import annotations

MAX_EFFECTS = 200
MAX_EVENTS = 2_000
MAX_BYTES = 256 * 1024
"""The budget of one decision: effects, events, bytes of payloads.

The first payload of a decision is taken whatever the budget, a reply together with the undo made of it, each of at most
`MAX_BYTES`: 512 KiB, and about 50 KiB for the events themselves. So one journal record stays under Kafka's default
limit of 1 MiB.
"""
