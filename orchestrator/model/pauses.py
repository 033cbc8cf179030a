"""Rules that pause many sagas at once: a type, a service, a step, a partition. Each partition keeps its own.

A rule is text: `partition`, `type:Order`, `service:payments`, `step:payments.charge`, or for that step of one type
`step:Order:payments.charge`. Under the first two a saga is paused when it would go on, under the others when it would
send such a command, be it a do or an undo. What is under way already is still answered, and recorded.
"""

from __future__ import annotations

from collections.abc import Collection

PARTITION = "partition"
MAX_RULES = 200
"""Rules of one partition: they stand in its record in the store, which is written every half second."""

_MAX_CHARACTERS = 500


def rule_of(type: str | None = None, service: str | None = None, step: str | None = None) -> str:
    """The rule for what is named, the whole partition where nothing is. Raises `ValueError`, saying what is wrong."""
    if step is not None and service is not None:
        raise ValueError("a step names its service already: `service.command`")
    if step is not None:
        rule = f"step:{step}" if type is None else f"step:{type}:{step}"
    elif service is not None and type is not None:
        raise ValueError("a type and a service are two rules; one step of a type is named by type and step")
    else:
        rule = f"service:{service}" if service is not None else PARTITION if type is None else f"type:{type}"
    check_rule(rule)
    return rule


def check_rule(rule: str) -> None:
    """Raises `ValueError` for what is no rule."""
    kind, *names = rule.split(":")
    fits = len(names) == 1 if kind in ("type", "service") else kind == "step" and len(names) in (1, 2)
    if kind == "step" and fits:
        names += names.pop().split(".")
        fits = len(names) == rule.count(":") + 1
    whole = all(name and not any(map(str.isspace, name)) for name in names)
    if rule != PARTITION and (not fits or not whole or len(rule) > _MAX_CHARACTERS):
        raise ValueError(f"{rule[:60]!r} is no rule: a step is `service.command`, names have no blanks and no colons")


def type_in(rule: str) -> str:
    """The saga type that a rule names, empty where it names none."""
    kind, *names = rule.split(":")
    return names[0] if kind == "type" or (kind == "step" and len(names) == 2) else ""


def over_saga(rules: Collection[str], saga_type: str) -> str:
    """The rule under which sagas of this type wait; empty if there is none."""
    if PARTITION in rules:
        return PARTITION
    rule = f"type:{saga_type}"
    return rule if rule in rules else ""


def over_command(rules: Collection[str], saga_type: str, service: str, command: str) -> str:
    """The rule under which this command waits; empty if there is none."""
    for rule in (f"service:{service}", f"step:{service}.{command}", f"step:{saga_type}:{service}.{command}"):
        if rule in rules:
            return rule
    return ""
