"""What a saga's code must not do, found by reading it before it runs.

A replay gives the code the recorded outcomes again; whatever else it learns must be the same each time. `findings`
reads `run`, updates and an entity's operations, the methods and functions they call, and what is nested in them. What
only looks, a query or a validator, is no part of the history and is not read. Names are looked up where the code would
find them, so `from time import time as clock` is known for what it is. What is meant all the same is marked on its
line, or on the `def` for a whole function: `# saga: allow`, or `# saga: allow clock` for one rule.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from types import FunctionType
from typing import Any
from weakref import WeakSet

from orchestrator.errors import DefinitionError
from orchestrator.lint.reader import Finding as Finding
from orchestrator.lint.reader import Reader
from orchestrator.questions import Method, Query
from orchestrator.saga import Saga
from orchestrator.signals import declared_by

log = logging.getLogger(__name__)


def findings(saga: type[Saga[Any, Any]]) -> list[Finding]:
    """What is wrong in a saga's code, by line. Where the source cannot be had, nothing."""
    found: list[Finding] = []
    seen: set[object] = set()
    waiting: list[tuple[Callable[..., Any], type]] = [(saga.run, saga)]
    asked = declared_by(saga, Method).values()
    waiting += [(each.function, saga) for each in asked if not isinstance(each, Query)]
    for around in saga._around:
        waiting += [(type(around).run, type(around)), (type(around).step, type(around))]
    while waiting:
        function, owner = waiting.pop()
        function = inspect.unwrap(function)
        if function in seen or not isinstance(function, FunctionType) or not _is_users(function, saga):
            continue
        seen.add(function)
        reader = Reader.of(function, owner)
        if reader is not None:
            found.extend(reader.read())
            waiting.extend((called, owner) for called in reader.called)
    return sorted(found, key=lambda finding: (finding.file, finding.line, finding.what))


_checked: WeakSet[type] = WeakSet()


def check(saga: type[Saga[Any, Any]]) -> None:
    """Raises `DefinitionError` with every error in a saga's code; warnings are logged, once for a class."""
    if saga in _checked:
        return
    errors = []
    for finding in findings(saga):
        if finding.rule.is_error:
            errors.append(str(finding))
        else:
            log.warning("%s", finding)
    if errors:
        raise DefinitionError(
            f"{saga.definition.name} would not replay as it ran:\n  " + "\n  ".join(errors) + "\n"
            "what is meant so is marked on its line: # saga: allow"
        )
    _checked.add(saga)


def _is_users(function: FunctionType, saga: type[Saga[Any, Any]]) -> bool:
    """Whether a function belongs to the saga's own code: its module's, or its package's."""
    module, own = function.__module__ or "", {base.__module__ for base in saga.__mro__}
    if module.partition(".")[0] == "orchestrator":
        return module in own and module != Saga.__module__
    return module in own or module.partition(".")[0] == saga.__module__.partition(".")[0]
