"""Reads one function of a saga's code, and finds what a replay could take another way."""

from __future__ import annotations

import ast
import inspect
import math
import re
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import FunctionType
from typing import Any

from orchestrator.lint.names import Names, Unloaded, home_of, rule_of
from orchestrator.lint.rules import (
    AWAIT,
    AWAITED,
    ENVIRONMENT,
    GLOBAL,
    GROUPS,
    IO,
    METHODS,
    ORDER,
    ORDERED,
    PASSING,
    PATH_METHODS,
    RANDOM,
    RECORDED,
    TIME_ARGUMENT,
    UNORDERED,
    Rule,
)
from orchestrator.questions import Method
from orchestrator.saga import Saga

_MARK = re.compile(r"#\s*saga:\s*allow\b([ \w,-]*)")

Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a saga's code that a replay could take another way."""

    file: str
    line: int
    where: str
    what: str
    rule: Rule

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.where} {self.what}: {self.rule.advice} [{self.rule.name}]"


class Reader(ast.NodeVisitor):
    """Reads one function, with what is nested in it."""

    def __init__(self, function: FunctionType, owner: type, tree: ast.Module, lines: list[str]) -> None:
        self.called: list[Callable[..., Any]] = []
        self._function = function
        self._owner = owner
        self._tree = tree
        self._lines = lines
        self._first = function.__code__.co_firstlineno
        self._found: list[Finding] = []
        self._names = Names(function, owner, tree)
        self._free: set[ast.expr] = set()
        """Where the order of a set does not show."""
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        given = {name for call in calls if self._own_method(call.func) in RECORDED for name in _names_in(call.args)}
        self._outside = given - _names_in(call.func for call in calls)
        """Nested functions that only run outside of the saga's code."""
        methods = [call.func for call in calls if isinstance(call.func, ast.Attribute) and not _has_key(call)]
        self._sorted = _names_in(method.value for method in methods if method.attr == "sort")
        """Lists that are sorted in place, by all that they hold."""

    @classmethod
    def of(cls, function: FunctionType, owner: type) -> Reader | None:
        try:
            lines, _ = inspect.getsourcelines(function)
            tree = ast.parse(textwrap.dedent("".join(lines)))
        except (OSError, TypeError, SyntaxError):
            return None
        return cls(function, owner, tree, lines)

    def read(self) -> list[Finding]:
        self.visit(self._tree)
        head = self._tree.body[0] if self._tree.body else None
        if not isinstance(head, ast.FunctionDef | ast.AsyncFunctionDef):
            return self._found
        defined = range(head.lineno, head.body[0].lineno)
        whole = [self._allowed(line) for line in defined]
        return [finding for finding in self._found if not any(_names_rule(mark, finding.rule) for mark in whole)]

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if node.name not in self._outside:
            self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        own = self._own_method(node.func)
        name = self._names.builtin(node.func)
        if own in RECORDED:
            for argument in [*node.args[1:], *(each.value for each in node.keywords if each.arg != "undo")]:
                if not isinstance(argument, ast.Lambda):
                    self.visit(argument)
            return
        if own is not None:
            self._look_at_own(node, own)
        else:
            self._look_at(node)
        if name in UNORDERED:
            self._look_at_unordered(node, name)
        if name in ORDERED and node not in self._free:
            self._ordered(*node.args)
        self._ordered(*(each.value for each in node.args if isinstance(each, ast.Starred) and each not in self._free))
        if isinstance(node.func, ast.Attribute):
            if node.func.attr == "join":
                self._ordered(*node.args)
            if node.func.attr == "pop" and not node.args:
                self._ordered(node.func.value)
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if self._names.type_of(node.value) is self._owner:
            found = inspect.getattr_static(self._owner, node.attr, None)
            getter = found.fget if isinstance(found, property) else None
            getter = found.func if isinstance(found, cached_property) else getter
            if isinstance(getter, FunctionType):
                self.called.append(getter)
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            if isinstance(target, ast.Name) and target.id in self._sorted:
                self._release(node.value)
            if isinstance(target, ast.Tuple | ast.List) and _takes_order(target):
                self._ordered(node.value)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        if all(isinstance(operator, ast.In | ast.NotIn) for operator in node.ops):
            self._release(*node.comparators)
        self.generic_visit(node)

    def visit_List(self, node: ast.List) -> None:
        self._display(node)

    def visit_Tuple(self, node: ast.Tuple) -> None:
        self._display(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call) and (call := self._forgotten(node.value.func)) is not None:
            self._report(node, f"does not await {call}", AWAIT)
        self.generic_visit(node)

    def visit_For(self, node: ast.For) -> None:
        self._ordered(node.iter)
        self.generic_visit(node)

    def visit_SetComp(self, node: ast.SetComp) -> None:
        self._release(node)
        self._comprehension(node)

    def visit_ListComp(self, node: ast.ListComp) -> None:
        self._comprehension(node)

    def visit_DictComp(self, node: ast.DictComp) -> None:
        self._comprehension(node)

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> None:
        self._comprehension(node)

    def visit_Global(self, node: ast.Global) -> None:
        self._report(node, f"changes the module's {', '.join(node.names)}", GLOBAL)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if self._names.path(node.value)[0] == "os.environ":
            self._report(node, "reads os.environ", ENVIRONMENT)
        self.generic_visit(node)

    def _comprehension(self, node: Comprehension) -> None:
        if node not in self._free:
            self._ordered(*(each.iter for each in node.generators))
        self.generic_visit(node)

    def _display(self, node: ast.List | ast.Tuple) -> None:
        if isinstance(node.ctx, ast.Load) and node not in self._free:
            self._ordered(*(each.value for each in node.elts if isinstance(each, ast.Starred)))
        self.generic_visit(node)

    def _release(self, *nodes: ast.expr) -> None:
        """The order of what these give does not show, unless something is asked for on the way."""
        for node in nodes:
            passes = not isinstance(node, ast.Call) or self._names.builtin(node.func) in PASSING
            if not passes or any(map(self._asks, ast.walk(node))):
                continue
            self._free.add(node)
            if isinstance(node, ast.Starred):
                self._release(node.value)
            elif isinstance(node, ast.List | ast.Tuple):
                self._release(*node.elts)
            elif isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp):
                self._release(*(each.iter for each in node.generators))
            elif isinstance(node, ast.Call):
                self._release(*node.args)

    def _asks(self, node: ast.AST) -> bool:
        """Whether it is a step or the like, or takes the next of what is random."""
        if isinstance(node, ast.Call):
            own = self._own_method(node.func)
            return own is not None and own != "now" and hasattr(Saga, own)
        return isinstance(node, ast.Await) or (isinstance(node, ast.Attribute) and self._own_method(node) == "random")

    def _look_at(self, node: ast.Call) -> None:
        path, value = self._names.path(node.func)
        base = self._names.base_method(node.func)
        self.called += [each for each in (value, base) if isinstance(each, FunctionType)]
        rule = rule_of(path, value)
        if rule is RANDOM and path.endswith(".Random") and (node.args or node.keywords):
            return  # seeded by what the code knows
        if len(node.args) >= TIME_ARGUMENT.get(path, math.inf):
            return  # of a time that the code knows
        if rule is not None:
            self._report(node, f"calls {path.removeprefix('builtins.')}()", rule)
        elif isinstance(node.func, ast.Attribute) and (value is None or isinstance(value, Unloaded)):
            if node.func.attr in METHODS:
                self._report(node, f"calls {node.func.attr}()", IO)
            elif node.func.attr in PATH_METHODS and issubclass(self._names.type_of(node.func.value) or object, Path):
                self._report(node, f"calls Path.{node.func.attr}()", IO)

    def _look_at_unordered(self, node: ast.Call, name: str) -> None:
        if _has_key(node):
            self._ordered(*node.args, what="compares a set by a key, so what is alike stays in its order")
        elif name == "sum" and not any(map(self._sums_whole, node.args)):
            self._ordered(*node.args, what="sums a set up, and rounds in its order")
        else:
            self._release(*node.args)

    def _sums_whole(self, node: ast.expr) -> bool:
        """Whether these are certainly whole numbers, whose sum is the same in any order."""
        if not isinstance(node, ast.ListComp | ast.GeneratorExp):
            return False
        each = node.elt
        if isinstance(each, ast.Call):
            return self._names.builtin(each.func) in ("int", "len")
        return isinstance(each, ast.Compare) or (isinstance(each, ast.Constant) and isinstance(each.value, int))

    def _look_at_own(self, node: ast.Call, name: str) -> None:
        method = self._method(name)
        if name in GROUPS and method is inspect.getattr_static(Saga, name):
            self._ordered(*node.args[:1], *(each.value for each in node.keywords if each.arg == GROUPS[name]))
        if isinstance(method, FunctionType):
            self.called.append(method)
        if inspect.isroutine(method):
            path = home_of(method, name)
            rule = rule_of(path, method)
            if rule is not None:
                self._report(node, f"calls {path}()", rule)

    def _forgotten(self, node: ast.expr) -> str | None:
        """A call of the saga's that does nothing by itself, where it is a statement."""
        if not self._names.is_method:
            return None  # a function's first argument may be anything
        own = self._own_method(node)
        if own is not None:
            method = self._method(own)
            lazy = own in AWAITED and method is inspect.getattr_static(Saga, own)
            return f"{self._names.own}.{own}()" if lazy or inspect.iscoroutinefunction(method) else None
        if isinstance(node, ast.Attribute) and node.attr == "call" and isinstance(node.value, ast.Call):
            return f"{self._names.own}.entity().call()" if self._own_method(node.value.func) == "entity" else None
        return None

    def _method(self, name: str) -> Any:
        """What stands behind `self.name`: of an update, or an operation, its function."""
        found = inspect.getattr_static(self._owner, name, None)
        return found.function if isinstance(found, Method) else getattr(found, "__func__", found)

    def _own_method(self, node: ast.expr) -> str | None:
        """The method's name in `self.method`."""
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == self._names.own:
            return node.attr
        return None

    def _ordered(self, *nodes: ast.expr, what: str = "takes the order of a set") -> None:
        for node in nodes:
            if self._names.is_set(node):
                self._report(node, what, ORDER)

    def _allowed(self, line: int) -> str | None:
        """What a line's mark allows: the rules' names, "" for all; None without a mark."""
        mark = _MARK.search(self._lines[line - 1])
        return None if mark is None else mark[1]

    def _report(self, node: ast.expr | ast.stmt, what: str, rule: Rule) -> None:
        lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
        if any(_names_rule(self._allowed(line), rule) for line in lines):
            return
        file, where = Path(self._function.__code__.co_filename).name, self._function.__qualname__
        name = where.rpartition("<locals>.")[2]
        self._found.append(Finding(file, self._first + node.lineno - 1, name, what, rule))


def _names_in(nodes: Iterable[ast.expr]) -> set[str]:
    return {node.id for node in nodes if isinstance(node, ast.Name)}


def _has_key(node: ast.Call) -> bool:
    return any(each.arg == "key" for each in node.keywords)


def _takes_order(target: ast.Tuple | ast.List) -> bool:
    """Whether what is unpacked has more than one element."""
    return len(target.elts) > 1 or any(isinstance(each, ast.Starred) for each in target.elts)


def _names_rule(mark: str | None, rule: Rule) -> bool:
    if mark is None:
        return False
    names = mark.replace(",", " ").split()
    return not names or rule.name in names
