"""Every error of the project, in one tree.

SagaError
├── BrokerUnavailable       no Kafka broker could be found or started
├── ConfigurationError      a setting is missing, malformed or not allowed
├── DefinitionError         a saga, a contract or a handler was declared wrongly
├── Failure                 raised by a handler: a business failure, there was no effect
├── RetryLater              raised by a handler: try this again
├── StepFailed              raised in a saga's code: a step did not succeed
└── Abort                   raised by a saga's code: stop here and undo

Canceled (a BaseException)  raised in a saga's code at what it awaits when the saga is to stop
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


class Canceled(BaseException):
    """The saga is to stop: raised once at what each branch of its code awaits. `finally` blocks may still await steps.

    Like `asyncio.CancelledError` no `Exception`, so that `except Exception` does not swallow it.
    """
