"""What a saga's code awaits that is not durable, and the name of the call it should have been."""

from __future__ import annotations

_IN_GENERAL = (
    "Await self.step(...) for work in a service, self.sleep(...) for time, self.receive(...) for a signal, "
    "self.gather(...) for several at once"
)
_CALLS = {
    "sleep": "self.sleep(...)",
    "gather": "self.gather(...)",
    "_GatheringFuture": "self.gather(...)",
    "wait": "self.gather(...)",
    "create_task": "self.gather(...)",
    "ensure_future": "self.gather(...)",
    "_ensure_future": "self.gather(...)",
    "Task": "self.gather(...)",
    "TaskGroup": "self.gather(...)",
    "timeout": "self.step(..., start_to_close=...)",
    "wait_for": "self.step(..., start_to_close=...)",
    "Timeout": "self.step(..., start_to_close=...)",
    "to_thread": "self.step(...)",
    "run_in_executor": "self.step(...)",
    "Queue": "self.receive(...)",
    "Event": "self.wait_until(...)",
    "Condition": "self.wait_until(...)",
    "Lock": "self.lock(...)",
    "Semaphore": "self.each(..., concurrency=...)",
}
"""By the name of a function or class of asyncio."""
_DECLARED = {
    "Call": "self.step(...)",
    "Command": "self.step(...)",
    "Signal": "self.receive(...)",
    "Promise": "self.promise(...)",
}
"""What a saga hands to `self`, by the name of its class."""
_OUTSIDE = ("httpx", "httpcore", "aiohttp", "anyio", "sniffio", "psycopg", "asyncpg", "redis", "aiokafka")
"""Packages that talk to others: that is a service's work."""


class ForeignAwait(Exception):
    """The code awaited something that is not durable."""


def refusal(asked: object) -> ForeignAwait:
    """For what the code awaited and the driver does not know."""
    kind, package = type(asked).__name__, type(asked).__module__.partition(".")[0]
    if asked is None:
        kind, instead = "asyncio.sleep(0)", "self.sleep(...)"
    elif package in _OUTSIDE:
        instead = "self.step(...) and let a service do it"
    else:
        instead = _CALLS.get(kind, "")
    return _said(kind, instead)


def no_branch(body: object) -> ForeignAwait:
    """For what a group was given and nobody can await."""
    kind = type(body).__name__
    return _by_itself(kind) or ForeignAwait(f"a group takes steps and coroutines, not {kind}")


def _by_itself(kind: str) -> ForeignAwait | None:
    instead = _DECLARED.get(kind)
    return None if instead is None else ForeignAwait(f"a saga cannot await {kind} by itself: await {instead}")


def _not_awaitable(kind: str) -> tuple[str, str]:
    """Python's words, up to 3.13 and since."""
    return f"object {kind} can't be used in 'await' expression", f"'{kind}' object can't be awaited"


def refused_by_itself(error: BaseException) -> ForeignAwait | None:
    """For an error that something foreign raised by itself since no event loop runs; None for any other error."""
    text = str(error)
    if isinstance(error, TypeError) and "await" in text:
        refused = next((_by_itself(kind) for kind in _DECLARED if text in _not_awaitable(kind)), None)
        return None if refused is None else refused.with_traceback(error.__traceback__)
    if not (
        (isinstance(error, RuntimeError) and "event loop" in text)
        or "async library" in text
        or (isinstance(error, RuntimeError) and text.startswith("Timeout should be used inside a task"))
        or (isinstance(error, AttributeError) and "create_future" in text)  # of a queue, an event or a lock
    ):
        return None
    trace = error.__traceback__
    while trace is not None:
        module, name = trace.tb_frame.f_globals.get("__name__", ""), trace.tb_frame.f_code.co_name
        package = module.partition(".")[0]
        if package in _OUTSIDE:
            return _said(package, "self.step(...) and let a service do it")
        if package == "asyncio":
            owner = trace.tb_frame.f_locals.get("self")
            kind = type(owner).__name__
            known = name if owner is None or (name in _CALLS and kind not in _CALLS) else kind
            return _said(f"asyncio.{known}", _CALLS.get(known, ""))
        trace = trace.tb_next
    return _said("asyncio", "")


def _said(what: str, instead: str) -> ForeignAwait:
    advice = f"await {instead} instead" if instead else _IN_GENERAL
    return ForeignAwait(f"a saga cannot await {what}: it would not survive a crash. {advice[0].upper()}{advice[1:]}")
