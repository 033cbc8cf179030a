"""Processes that a test runs: what they wrote is shown where it fails, and they must end well."""

from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.demo.processes import Process
from tests.waiting import eventually

READY_WITHIN_S = 120.0


@contextmanager
def running(process: Process) -> Iterator[Process]:
    """Starts it, and stops it in the end; it must then end with 0."""
    process.start()
    try:
        yield process
    except BaseException:
        print(process.tail(40))
        process.kill()
        raise
    assert process.stop() == 0, process.tail(40)


def wait_for_dev(process: Process) -> None:
    """Until `saga dev` has said that all runs."""
    assert eventually(lambda: not process.running or "Ctrl-C ends it" in process.tail(40), READY_WITHIN_S), (
        process.tail(40)
    )
    assert process.running, process.tail(40)
