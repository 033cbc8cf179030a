"""Contracts that the tests of the core share."""

from __future__ import annotations

from pydantic import BaseModel

from orchestrator.service import Service, command


class Work(BaseModel):
    what: str = ""


class Receipt(BaseModel):
    number: int


class Refund(BaseModel):
    receipt: Receipt | None = None


class Shop(Service):
    reserve = command(Work, str)
    release = command(Work)
    charge = command(Work, Receipt)
    refund = command(Refund)
    ship = command(Work, str)
    note = command(Work)
