"""Reads one function of a saga's code, and finds what a replay could take another way."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from orchestrator.lint.rules import (
    AWAIT,
    AWAITED,
    CALLS,
    ENVIRONMENT,
    GLOBAL,
    IO,
    METHODS,
    ORDER,
    ORDERED,
    PACKAGES,
    RANDOM,
    RECORDED,
    Rule,
)
from orchestrator.questions import Method
from orchestrator.saga import Saga

_MARK = re.compile(r"#\s*saga:\s*allow\b([ \w,-]*)")


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

    def __init__(self, function: FunctionType, owner: type, tree: ast.AST, lines: list[str]) -> None:
        self.called: list[Callable[..., Any]] = []
        self._function = function
        self._owner = owner
        self._tree = tree
        self._lines = lines
        self._first = function.__code__.co_firstlineno
        self._found: list[Finding] = []
        scope = _Scope(tree)
        self._locals, self._sets, self._imports = scope.names, scope.sets, scope.imports
        self._self = next(iter(inspect.signature(function).parameters), "")
        closure = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        self._names = {**vars(builtins), **function.__globals__, **dict(_contents(closure))}

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
        head = self._tree.body[0] if isinstance(self._tree, ast.Module) and self._tree.body else None
        if not isinstance(head, ast.FunctionDef | ast.AsyncFunctionDef):
            return self._found
        defined = range(head.lineno, head.body[0].lineno)
        whole = [self._allowed(line) for line in defined]
        return [finding for finding in self._found if not any(_names_rule(mark, finding.rule) for mark in whole)]

    def visit_Call(self, node: ast.Call) -> None:
        own = self._own_method(node.func)
        if own in RECORDED:
            return
        if own is not None:
            method = self._method(own)
            if isinstance(method, FunctionType):
                self.called.append(method)
        else:
            self._look_at(node)
        if isinstance(node.func, ast.Name) and node.func.id in ORDERED:
            for argument in node.args:
                self._ordered(argument)
        for argument in node.args:
            if isinstance(argument, ast.Starred):
                self._ordered(argument.value)
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call) and (call := self._forgotten(node.value.func)) is not None:
            self._report(node, f"does not await {call}", AWAIT)
        self.generic_visit(node)

    def visit_For(self, node: ast.For) -> None:
        self._ordered(node.iter)
        self.generic_visit(node)

    def visit_ListComp(self, node: ast.ListComp) -> None:
        self._comprehension(node)

    def visit_DictComp(self, node: ast.DictComp) -> None:
        self._comprehension(node)

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> None:
        self._comprehension(node)

    def visit_Global(self, node: ast.Global) -> None:
        self._report(node, f"changes the module's {', '.join(node.names)}", GLOBAL)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if self._path(node.value)[0] == "os.environ":
            self._report(node, "reads os.environ", ENVIRONMENT)
        self.generic_visit(node)

    def _comprehension(self, node: ast.ListComp | ast.DictComp | ast.GeneratorExp) -> None:
        for each in node.generators:
            self._ordered(each.iter)
        self.generic_visit(node)

    def _look_at(self, node: ast.Call) -> None:
        path, value = self._path(node.func)
        if isinstance(value, FunctionType):
            self.called.append(value)
        rule = _rule_of(path, value)
        if rule is RANDOM and path.endswith(".Random") and node.args:
            return  # seeded by what the code knows
        if rule is not None:
            self._report(node, f"calls {path.removeprefix('builtins.')}()", rule)
        elif isinstance(node.func, ast.Attribute) and node.func.attr in METHODS and value is None:
            self._report(node, f"calls {node.func.attr}()", IO)

    def _forgotten(self, node: ast.expr) -> str | None:
        """A call of the saga's that does nothing by itself, where it is a statement."""
        if "." not in self._function.__qualname__.rpartition("<locals>.")[2]:
            return None  # a function's first argument may be anything
        own = self._own_method(node)
        if own is not None:
            method = self._method(own)
            lazy = own in AWAITED and method is inspect.getattr_static(Saga, own)
            return f"{self._self}.{own}()" if lazy or inspect.iscoroutinefunction(method) else None
        if isinstance(node, ast.Attribute) and node.attr == "call" and isinstance(node.value, ast.Call):
            return f"{self._self}.entity().call()" if self._own_method(node.value.func) == "entity" else None
        return None

    def _method(self, name: str) -> Any:
        """What stands behind `self.name`: of an update, or an operation, its function."""
        found = inspect.getattr_static(self._owner, name, None)
        return found.function if isinstance(found, Method) else getattr(found, "__func__", found)

    def _own_method(self, node: ast.expr) -> str | None:
        """The method's name in `self.method`."""
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == self._self:
            return node.attr
        return None

    def _path(self, node: ast.expr) -> tuple[str, Any]:
        """A dotted name from where it is defined, and what it is; ("", None) where only a run could tell."""
        if isinstance(node, ast.Name):
            if node.id in self._imports:
                value = _import(self._imports[node.id])
            elif node.id in self._locals:
                return "", None
            else:
                value = self._names.get(node.id)
            return _home_of(value, node.id), value
        if isinstance(node, ast.Attribute):
            path, owner = self._path(node.value)
            if owner is None or (not isinstance(owner, ModuleType | type) and path != "os.environ"):
                return "", None
            return f"{path}.{node.attr}", getattr(owner, node.attr, None)
        return "", None

    def _ordered(self, node: ast.expr) -> None:
        if self._is_set(node):
            self._report(node, "takes the order of a set", ORDER)

    def _is_set(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Set | ast.SetComp):
            return True
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            return node.func.id in ("set", "frozenset") and node.func.id not in self._locals
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr | ast.BitAnd | ast.Sub | ast.BitXor):
            return self._is_set(node.left) or self._is_set(node.right)
        return isinstance(node, ast.Name) and node.id in self._sets

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


class _Scope(ast.NodeVisitor):
    """The names that a function binds itself: which of them are sets, and which are imported there."""

    def __init__(self, tree: ast.AST) -> None:
        self.names: set[str] = set()
        self.sets: set[str] = set()
        self.imports: dict[str, str] = {}
        self.visit(tree)

    def visit_arg(self, node: ast.arg) -> None:
        self.names.add(node.arg)
        self._annotated(node.arg, node.annotation)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self.names.add(node.id)

    def visit_Assign(self, node: ast.Assign) -> None:
        made = node.value
        is_set = isinstance(made, ast.Set | ast.SetComp) or (
            isinstance(made, ast.Call) and isinstance(made.func, ast.Name) and made.func.id in ("set", "frozenset")
        )
        if is_set:
            self.sets.update(target.id for target in node.targets if isinstance(target, ast.Name))
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if isinstance(node.target, ast.Name):
            self._annotated(node.target.id, node.annotation)
        self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.imports[alias.asname or alias.name.partition(".")[0]] = (
                alias.name if alias.asname else alias.name.partition(".")[0]
            )

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            self.imports[alias.asname or alias.name] = f"{node.module}.{alias.name}"

    def _annotated(self, name: str, annotation: ast.expr | None) -> None:
        kind = annotation.value if isinstance(annotation, ast.Subscript) else annotation
        if isinstance(kind, ast.Name) and kind.id in ("set", "frozenset", "Set", "AbstractSet"):
            self.sets.add(name)


def _contents(closure: Any) -> Iterator[tuple[str, Any]]:
    for name, cell in closure:
        try:
            yield name, cell.cell_contents
        except ValueError:  # not bound yet
            continue


def _import(dotted: str) -> Any:
    """A module, or what is in one, if it has been imported."""
    if dotted in sys.modules:
        return sys.modules[dotted]
    module, _, name = dotted.rpartition(".")
    return getattr(sys.modules.get(module), name, None)


def _home_of(value: Any, name: str) -> str:
    """The dotted name that `CALLS` knows something by."""
    if isinstance(value, ModuleType):
        return value.__name__
    for dotted in CALLS:
        if (
            value is not None
            and dotted.rpartition(".")[2] == getattr(value, "__name__", "")
            and value == _named(dotted)
        ):
            return dotted
    module = getattr(value, "__module__", None) or type(getattr(value, "__self__", None)).__module__
    return f"{module}.{getattr(value, '__qualname__', name)}"


def _named(dotted: str) -> Any:
    value: Any = None
    parts = dotted.split(".")
    for end in range(len(parts) - 1, 0, -1):
        value = sys.modules.get(".".join(parts[:end]))
        if value is not None:
            for part in parts[end:]:
                value = getattr(value, part, None)
            return value
    return value


def _rule_of(path: str, value: Any) -> Rule | None:
    rule = CALLS.get(path)
    if rule is not None or not path:
        return rule
    if isinstance(value, type) and issubclass(value, BaseException | Enum):
        return None
    return PACKAGES.get(path.partition(".")[0])


def _names_rule(mark: str | None, rule: Rule) -> bool:
    if mark is None:
        return False
    names = mark.replace(",", " ").split()
    return not names or rule.name in names
