"""Whether the topics are still those that the journal was made for, as it was made for them.

A topic that was deleted and created again has its name and another id. Where it has grown past a position since,
reading goes on without an error, and everything below is lost without a word: only the ids tell.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.log.base import TopicState
from orchestrator.topics import TopicNames


def pinned_topics(names: TopicNames) -> list[str]:
    """The topics whose ids a journal's genesis records: itself, and those that its positions are of."""
    return [names.journal, names.inbox, names.replies, names.internal, names.operations]


def recreated(pinned: Mapping[str, str], current: Mapping[str, str]) -> str:
    """What is wrong and what to do where a topic's id is another one; empty if all are the same.

    A topic that is missing in either is not compared: a missing topic fails by itself.
    """
    others = sorted(topic for topic in pinned.keys() & current.keys() if pinned[topic] != current[topic])
    if not others:
        return ""
    changes = ", ".join(f"{topic} (made for id {pinned[topic]}, now {current[topic]})" for topic in others)
    return (
        f"deleted and created again since the journal was made: {changes}; what was in it is lost and positions do not "
        "fit. Stop all workers, then restore all saga topics from one backup; or, if no saga is to be kept, delete "
        "them all and the workers' state directories and run `saga topics apply`"
    )


def altered(states: Mapping[str, TopicState], partitions: int) -> str:
    """What was changed about the topics that nobody can go on with, and what to do; empty if nothing was.

    What a worker refuses when it starts is more: most of that endangers what comes, and is no reason to stand still.
    """
    problems = []
    for topic, state in sorted(states.items()):
        policy = state.settings.get("cleanup.policy", "")
        if "compact" in policy:
            problems.append(
                f"{topic} is compacted (cleanup.policy={policy}), which removes records that are needed: set it to "
                "delete at once, then start all workers again; what was removed by then, only a backup has"
            )
        if state.partitions != partitions:
            problems.append(
                f"{topic} has {state.partitions} partitions, not {partitions}, and sagas are found by a partition's "
                "number: stop all workers and restore the topics from one backup, for none can be taken away again"
            )
    return "; ".join(problems)
