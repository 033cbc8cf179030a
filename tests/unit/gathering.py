"""A store, and what decisions changed since it was written."""

from orchestrator.model import events as ev
from orchestrator.model.events import Status
from orchestrator.model.state import SagaState
from orchestrator.runtime.materialize import Gathered
from orchestrator.store import keys
from orchestrator.store.memory import MemoryStore, MemoryStores


class Gathering:
    """Takes decisions about one saga or several, and writes them when it is told to."""

    def __init__(self) -> None:
        self.store: MemoryStore = MemoryStores().open(0)
        self.gathered = Gathered()

    def take(self, offset: int, message_id: str, *events: ev.Event, saga_id: str) -> None:
        """A decision took an external input."""
        self.gathered.message(ev.Decision(saga_id, "1-0-0", 1_000, events, message_id), offset)

    def run(self, offset: int, saga_id: str) -> SagaState:
        """A decision had a run begin and end."""
        state = SagaState(saga_id, f"1-{offset}-0")
        state.phase = Status.COMPLETED
        self.gathered.run(state, offset)
        return state

    def forget(self, state: SagaState, offset: int) -> None:
        """A decision had a run forgotten."""
        state.forgotten = True
        self.gathered.run(state, offset)

    def write(self) -> None:
        self.store.write(self.gathered.changes(self.store))
        self.gathered = Gathered()

    def known(self, saga_id: str) -> set[str]:
        """The inputs that the store has of a saga."""
        prefix = keys.messages(saga_id)
        return {key[len(prefix) :].decode() for key, _ in self.store.scan(prefix)}
