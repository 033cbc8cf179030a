"""The pure state machine: from one input to the events it causes, and from events to state and outward effects.

Standard library only; no IO, threads, asyncio, clock or randomness. Read in this order: `messages` (what comes in),
`events` (what is recorded), `state` with its transition table, `evolve`, `driver` (a saga's code as a coroutine),
`decide`, `effects` (what goes out), `rule` (which journal records count).
"""
