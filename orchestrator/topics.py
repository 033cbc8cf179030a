"""Names of topics and groups, in one place: a prefix before all of them, any one replaced by configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TopicNames:
    """`prefix` stands before every name; `overrides` gives whole names, by the default name without the prefix.

    `TopicNames("test-").inbox` is `test-saga.inbox`; `TopicNames(overrides={"payments.commands": "pay"})` renames one.
    """

    prefix: str = ""
    overrides: Mapping[str, str] = field(default_factory=dict)

    def name(self, default: str) -> str:
        """A topic by its default name, such as `saga.inbox` or `payments.commands`."""
        return self.overrides.get(default) or self.prefix + default

    @property
    def inbox(self) -> str:
        return self.name("saga.inbox")

    @property
    def replies(self) -> str:
        return self.name("saga.replies")

    @property
    def internal(self) -> str:
        return self.name("saga.internal")

    @property
    def operations(self) -> str:
        return self.name("saga.operations")

    @property
    def journal(self) -> str:
        return self.name("saga.journal")

    @property
    def lifecycle(self) -> str:
        return self.name("saga.lifecycle")

    @property
    def answers(self) -> str:
        return self.name("saga.answers")

    @property
    def dead_letters(self) -> str:
        return self.name("saga.dead-letters")

    def commands(self, service: str) -> str:
        """Where the owners send the step and undo commands of one service."""
        return self.name(f"{service}.commands")

    def ledger(self, service: str) -> str:
        """Where the participants of one service keep their memory."""
        return self.name(f"{service}.ledger")

    def group(self, service: str) -> str:
        """The consumer group of a service's participants. Not a topic, so it has no override."""
        return self.prefix + service

    def source_group(self, name: str) -> str:
        """The consumer group that reads a business topic."""
        return f"{self.prefix}saga-source.{name}"
