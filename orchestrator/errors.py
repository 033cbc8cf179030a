"""Every error of the project, in one tree.

SagaError
├── BrokerUnavailable       no Kafka broker could be found or started
├── ConfigurationError      a setting is missing, malformed or not allowed
├── DefinitionError         a saga, a contract or a handler was declared wrongly
├── Failure                 raised by a handler: a business failure, there was no effect
├── RetryLater              raised by a handler: try this again
├── Pending                 raised by a handler: the work goes on elsewhere and is completed later
├── StepFailed              raised in a saga's code: a step did not succeed
├── Abort                   raised by a saga's code: stop here and undo
├── InvalidRequest          a client's request that no worker could take; nothing was sent
├── NotAcknowledged         Kafka did not confirm a client's request in time; it may have been taken
├── Disconnected            the client is closed, or Kafka refuses it
├── SagaNotFound            there is no saga of this type under the id
├── OtherSagaType           a SagaNotFound: the id belongs to a saga of another type
├── StartRejected           a SagaNotFound: its start was rejected and stands among the dead letters
├── SagaAlreadyExists       its start was refused: the id is taken, and the start says that this must not be
├── NotApplied              what a person asked for changed nothing
├── NotHeard                no worker said in time what came of what a person asked for
├── QueryFailed             a saga that exists cannot answer a query
├── UpdateRejected          a saga does not take an update: nothing has happened
├── UpdateFailed            a saga took an update and could not carry it out
├── SagaFailed              the saga a client waits for ended without a result
├── ResultTimeout           the saga a client waits for has not ended in time
└── VisibilityStopped       a journal cannot be followed into the visibility database

Canceled (a BaseException)  raised in a saga's code at what it awaits when the saga is to stop
ContinueAsNew (likewise)    raised in a saga's code to end this run and start the next
"""


class SagaError(Exception):
    """Base of all errors of this project. `code` is stable and may be matched on; the text may change."""

    code = "error"


class BrokerUnavailable(SagaError):
    """No Kafka broker could be found or started; the message names the ways out."""

    code = "broker-unavailable"


class ConfigurationError(SagaError):
    """A setting is missing, malformed or not allowed; the message names it and what to do."""

    code = "configuration"


class DefinitionError(SagaError):
    """A saga, a contract or a handler was declared wrongly; found when it is registered, never while it runs."""

    code = "definition"


class Failure(SagaError):
    """Raised by a handler: the command cannot succeed, and no execution under its key has had an effect.

    Not retried; the saga undoes what it did before. A handler that cannot know whether there was an effect raises
    `RetryLater` or lets its error through.
    """

    code = "failure"

    def __init__(self, error_type: str, message: str = "") -> None:
        super().__init__(f"{error_type}: {message}" if message else error_type)
        self.error_type = error_type
        self.message = message


class RetryLater(SagaError):
    """Raised by a handler: try this command again, `after` seconds if given, else as the step's policy says."""

    code = "retry-later"

    def __init__(self, after: float | None = None, error_type: str = "RetryLater", message: str = "") -> None:
        super().__init__(f"{error_type}: {message}" if message else error_type)
        self.after = after
        self.error_type = error_type
        self.message = message


class Pending(SagaError):
    """Raised by a handler: the work goes on elsewhere. Whoever has the context's `token` completes the command.

    Nothing is replied until then, and the command is not run again. An undo does not wait: its handler must stop the
    work.
    """

    code = "pending"


class StepFailed(SagaError):
    """A step did not succeed. Raised in the saga's code; leaving `run` it makes the saga undo what it did.

    `error_type` is the participant's, or "Timeout" and the like from the engine. `unknown`: the step may have had its
    effect all the same (it timed out or its attempts were used up), so its undo will run.
    """

    code = "step-failed"

    def __init__(self, command: str, error_type: str, message: str, *, unknown: bool) -> None:
        super().__init__(f"{command}: {error_type}" + (f": {message}" if message else ""))
        self.command = command
        self.error_type = error_type
        self.message = message
        self.unknown = unknown


class Abort(SagaError):
    """Raised by a saga's code to stop here and undo what was done."""

    code = "abort"

    def __init__(self, error_type: str, message: str = "") -> None:
        super().__init__(f"{error_type}: {message}" if message else error_type)
        self.error_type = error_type
        self.message = message


BUGS = (Exception, SystemExit)
"""What a mistake in somebody's code may raise: `sys.exit` too decides about a saga, not about its worker."""


class InvalidRequest(SagaError):
    """A client's request that no worker could take: too large, or with a malformed id. Nothing was sent."""

    code = "invalid-request"


class NotAcknowledged(SagaError):
    """Kafka did not confirm a request in time. It may have been taken: sending it again for `saga_id` is safe."""

    code = "not-acknowledged"

    def __init__(self, saga_id: str, message: str) -> None:
        super().__init__(f"saga {saga_id!r}: {message}; it may have been taken, ask again with the same id")
        self.saga_id = saga_id


class Disconnected(SagaError):
    """The client is closed, or Kafka refuses it; the message says why."""

    code = "disconnected"


class SagaNotFound(SagaError):
    """There is no saga of this type under the id, and this is why."""

    code = "saga-not-found"

    def __init__(self, saga_id: str, reason: str) -> None:
        super().__init__(f"saga {saga_id!r}: {reason}")
        self.saga_id = saga_id
        self.reason = reason


class OtherSagaType(SagaNotFound):
    """The id belongs to a saga of another type."""

    code = "other-saga-type"


class StartRejected(SagaNotFound):
    """The saga's start was rejected: its input does not fit, or is too large. It stands among the dead letters."""

    code = "start-rejected"


class SagaAlreadyExists(SagaError):
    """A start was refused: the id has a saga already, and the start's policy says that this must not be."""

    code = "saga-already-exists"

    def __init__(self, saga_id: str, reason: str) -> None:
        super().__init__(f"saga {saga_id!r}: {reason}")
        self.saga_id = saga_id
        self.reason = reason


class NotApplied(SagaError):
    """What a person asked of a saga, or of a partition, changed nothing, and this is why."""

    code = "not-applied"

    def __init__(self, saga_id: str, reason: str) -> None:
        super().__init__(f"{saga_id}: nothing was changed: {reason}")
        self.saga_id = saga_id
        self.reason = reason


class NotHeard(SagaError, TimeoutError):
    """Kafka has what a person asked for, and no worker has said in time what came of it. It may still be done."""

    code = "not-heard"

    def __init__(self, saga_id: str, timeout_s: float) -> None:
        super().__init__(
            f"{saga_id}: asked for, but no worker answered within {timeout_s:g} s; it is done once one runs, "
            "`saga show` tells"
        )
        self.saga_id = saga_id


class QueryFailed(SagaError):
    """A saga that exists cannot answer a query: its code raised, is not there, or has no such query."""

    code = "query-failed"

    def __init__(self, saga_id: str, reason: str) -> None:
        super().__init__(f"saga {saga_id!r}: {reason}")
        self.saga_id = saga_id
        self.reason = reason


class UpdateRejected(SagaError):
    """A saga does not take an update, for this reason; nothing has happened."""

    code = "update-rejected"

    def __init__(self, saga_id: str, reason: str) -> None:
        super().__init__(f"saga {saga_id!r}: {reason}")
        self.saga_id = saga_id
        self.reason = reason


class UpdateFailed(SagaError):
    """A saga took an update and could not carry it out, or ended meanwhile."""

    code = "update-failed"

    def __init__(self, saga_id: str, error_type: str, message: str) -> None:
        super().__init__(f"saga {saga_id!r}: {error_type}: {message}" if message else f"saga {saga_id!r}: {error_type}")
        self.saga_id = saga_id
        self.error_type = error_type
        self.message = message


class SagaFailed(SagaError):
    """A saga ended without a result.

    `status` is its final status, such as COMPENSATED or TERMINATED; `undone` is all, none or partial, None if not
    known; `error_type` and `error_message` are of what made it fail.
    """

    code = "saga-failed"

    def __init__(
        self, saga_id: str, run: str, status: str, undone: str | None, error_type: str, error_message: str
    ) -> None:
        detail = ": ".join(part for part in (error_type, error_message) if part)
        super().__init__(f"saga {saga_id!r} ended {status}" + (f": {detail}" if detail else ""))
        self.saga_id = saga_id
        self.run = run
        self.status = status
        self.undone = undone
        self.error_type = error_type
        self.error_message = error_message


class ResultTimeout(SagaError, TimeoutError):
    """A saga has not ended within the time a client waits. It goes on; its result can be asked for again."""

    code = "result-timeout"

    def __init__(self, saga_id: str, timeout_s: float) -> None:
        super().__init__(f"saga {saga_id!r} has not ended within {timeout_s} s; it goes on, ask again with attach")
        self.saga_id = saga_id


class VisibilityStopped(SagaError):
    """A journal cannot be followed into the visibility database; the message says which and why."""

    code = "visibility-stopped"


class Canceled(BaseException):
    """The saga is to stop: raised once at what each branch of its code awaits. `finally` blocks may still await steps.

    Like `asyncio.CancelledError` no `Exception`, so that `except Exception` does not swallow it.
    """


class ContinueAsNew(BaseException):
    """Raised by `Saga.continue_as_new`: this run ends, and the saga's next run starts with `payload` as its input.

    `hands_on`: updates under way, of which none may have begun, go to the next run instead of failing.
    Like `Canceled` no `Exception`, so that `except Exception` does not swallow it.
    """

    def __init__(self, payload: bytes, *, hands_on: bool = False) -> None:
        super().__init__("the saga continues as new")
        self.payload = payload
        self.hands_on = hands_on
