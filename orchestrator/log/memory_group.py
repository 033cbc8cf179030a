"""Consumer groups of the log in memory: who should own which partition, and what was committed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from orchestrator.log.base import TopicPartition, TopicState


class Member(Protocol):
    """What the group needs of a reader: its subscription and a way to tell it what changed."""

    @property
    def topics(self) -> Collection[str]: ...

    def tell_granted(self, partitions: tuple[TopicPartition, ...]) -> None: ...

    def tell_revoked(self, partitions: tuple[TopicPartition, ...], lost: bool) -> None: ...


class Group:
    """Splits every subscribed topic evenly among its members in the order they joined.

    Who has a partition keeps it where the even split allows, as Kafka's sticky assignors do. Takes effect at once:
    another member may be granted what this one has not yet heard to be revoked.
    """

    def __init__(self, topics: Mapping[str, TopicState]) -> None:
        self.offsets: dict[TopicPartition, tuple[int, str]] = {}
        self._topics = topics
        self._owned: dict[Member, set[TopicPartition]] = {}

    def owned(self, member: Member) -> Collection[TopicPartition] | None:
        """What the member should own; None if it is no member, or not any more."""
        return self._owned.get(member)

    def join(self, member: Member) -> None:
        self._owned[member] = set()
        self.balance()

    def leave(self, member: Member) -> None:
        if self._owned.pop(member, None) is not None:
            self.balance()

    def expire(self, member: Member) -> None:
        """Ends a membership without asking: others are granted at once what the member is only told to be lost."""
        owned = self._owned.pop(member, None)
        if owned is not None:
            self.balance()
            member.tell_revoked(tuple(sorted(owned)), lost=True)

    def balance(self) -> None:
        """Splits again, after members or topics changed, and tells each member the difference."""
        targets = self._split()
        before = self._owned
        self._owned = targets
        for member, target in targets.items():
            if revoked := before[member] - target:
                member.tell_revoked(tuple(sorted(revoked)), lost=False)
        for member, target in targets.items():
            if granted := target - before[member]:
                member.tell_granted(tuple(sorted(granted)))

    def _split(self) -> dict[Member, set[TopicPartition]]:
        targets: dict[Member, set[TopicPartition]] = {member: set() for member in self._owned}
        for name in sorted({name for member in targets for name in member.topics} & set(self._topics)):
            members = [member for member in targets if name in member.topics]
            free = {(name, partition) for partition in range(self._topics[name].partitions)}
            each, extra = divmod(len(free), len(members))
            rooms = []
            for index, member in enumerate(members):
                quota = each + (index < extra)
                kept = sorted(free & self._owned[member])[:quota]
                targets[member].update(kept)
                free.difference_update(kept)
                rooms.append(quota - len(kept))
            turns = [
                member for turn in range(each + 1) for member, room in zip(members, rooms, strict=True) if room > turn
            ]
            for partition, member in zip(sorted(free), turns, strict=True):
                targets[member].add(partition)
        return targets
