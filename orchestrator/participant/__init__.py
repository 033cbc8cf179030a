"""The participant SDK: handlers of a service's commands, its memory, and what runs them.

    payments = Participant(Payments)

    @payments.handles(Payments.charge)
    async def charge(request: Charge) -> Receipt: ...

`saga participant shop:payments` runs it. `engine` is the same without threads and clock, for simulation.
"""

from orchestrator.errors import Failure, Pending, RetryLater
from orchestrator.participant.handlers import HandlerContext, Inbox, Participant
from orchestrator.participant.providing import inject, per_call
from orchestrator.participant.settings import ParticipantSettings

__all__ = [
    "Failure",
    "HandlerContext",
    "Inbox",
    "Participant",
    "ParticipantSettings",
    "Pending",
    "RetryLater",
    "inject",
    "per_call",
]
