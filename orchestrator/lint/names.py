"""What the names and expressions of a function are, as far as that is certain without running it."""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import sys
from collections.abc import Iterator, MutableSet, Set
from enum import Enum
from importlib.util import resolve_name
from pathlib import PurePath
from types import FunctionType, ModuleType, NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from orchestrator.lint.rules import CALLS, PACKAGES, Rule
from orchestrator.lint.scope import SET_OPERATORS, Binding, Scope, key_of

_SETS = (set, frozenset, Set, MutableSet)
_GIVE_SETS = {"copy", "difference", "intersection", "symmetric_difference", "union"}


class Unloaded(ModuleType):
    """What a function imports when it runs, and what is in that: known by its dotted name alone."""


class Names:
    """The names of one function, looked up where its code would find them."""

    def __init__(self, function: FunctionType, owner: type, tree: ast.Module) -> None:
        self.own = next(iter(inspect.signature(function).parameters), "")
        """What the function calls the saga: its first parameter."""
        self.is_method = "." in function.__qualname__.rpartition("<locals>.")[2]
        self._owner = owner
        self._package = str(function.__globals__.get("__package__") or "")
        self._scope = Scope(tree)
        self._busy: set[str] = set()
        """Names that are being looked up: their bindings may ask for themselves."""
        self._leans = False
        """Whether a binding has asked for such a name."""
        closure = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        self._values = {**vars(builtins), **function.__globals__, **dict(_contents(closure))}

    def path(self, node: ast.expr) -> tuple[str, Any]:
        """A dotted name from where it is defined, and what it is; ("", None) where only a run could tell."""
        if isinstance(node, ast.Name):
            if node.id in self._scope.imports:
                value = _import(self._scope.imports[node.id], self._package)
            elif node.id in self._scope.bindings:
                return self._alias(node.id)
            else:
                value = self._values.get(node.id)
            return home_of(value, node.id), value
        if isinstance(node, ast.Attribute):
            path, owner = self.path(node.value)
            if owner is None or (not isinstance(owner, ModuleType | type) and path != "os.environ"):
                return "", None
            missing = Unloaded(f"{path}.{node.attr}") if isinstance(owner, ModuleType) else None
            return f"{path}.{node.attr}", getattr(owner, node.attr, missing)
        if isinstance(node, ast.Call) and node.args and self.path(node.func)[1] is functools.partial:
            return self.path(node.args[0])
        return "", None

    def builtin(self, node: ast.expr) -> str:
        """The name of a builtin, else nothing."""
        path, value = self.path(node)
        return path.removeprefix("builtins.") if value is not None and path.startswith("builtins.") else ""

    def base_method(self, node: ast.expr) -> Any:
        """What `super().name` is."""
        if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Call) or node.value.args:
            return None
        here, order = self._values.get("__class__"), self._owner.__mro__
        if self.builtin(node.value.func) != "super" or here not in order:
            return None
        bases = order[order.index(here) + 1 :]
        found = next((vars(base)[node.attr] for base in bases if node.attr in vars(base)), None)
        return getattr(found, "__func__", found)

    def is_set(self, node: ast.expr) -> bool:
        """Whether it is certainly a set, of whatever kind."""
        return self.type_of(node) is set

    def type_of(self, node: ast.expr) -> type | None:
        """The class of an expression's value where it is certain; `set` for all kinds of sets."""
        if isinstance(node, ast.Set | ast.SetComp):
            return set
        if isinstance(node, ast.Call):
            made = self.path(node.func)[1]
            if isinstance(made, type):
                return _kind(made)
            method = node.func if isinstance(node.func, ast.Attribute) else None
            return set if method is not None and method.attr in _GIVE_SETS and self.is_set(method.value) else None
        if isinstance(node, ast.BinOp):
            left = self.type_of(node.left)
            if isinstance(node.op, ast.Div):
                return left if left is not None and issubclass(left, PurePath) else None
            return set if isinstance(node.op, SET_OPERATORS) and set in (left, self.type_of(node.right)) else None
        return self._type_of_name(node) if isinstance(node, ast.Name | ast.Attribute) else None

    def _type_of_name(self, node: ast.Name | ast.Attribute) -> type | None:
        key = key_of(node)
        if key in self._scope.bindings:
            if key == self.own and self.is_method and self._scope.bindings[key] == [Binding()]:
                return self._owner
            bound = self._type_of_bound(key)
            if bound is not None or not isinstance(node, ast.Attribute):
                return bound
        if isinstance(node, ast.Attribute):
            owner = self.type_of(node.value)
            return None if owner is None else _type_of_field(owner, node.attr)
        value = self.path(node)[1]
        return None if value is None or isinstance(value, ModuleType | type) else _kind(type(value))

    def _type_of_bound(self, key: str) -> type | None:
        """The class that all bindings of a name agree about."""
        if key in self._busy:
            self._leans = True
            return set  # as in `names = names | more`: what else it is bound to decides
        leaned, kinds, grounded = self._leans, set(), False
        self._busy.add(key)
        for each in self._scope.bindings[key]:
            self._leans = False
            kinds.add(self._type_of_binding(each))
            grounded = grounded or not self._leans
        self._busy.remove(key)
        self._leans = leaned
        return kinds.pop() if grounded and len(kinds) == 1 else None

    def _type_of_binding(self, binding: Binding) -> type | None:
        declared = binding.annotation
        if declared is not None:
            kind = _kind(self.path(declared.value if isinstance(declared, ast.Subscript) else declared)[1])
            if kind is not None:
                return kind
        return None if binding.value is None else self.type_of(binding.value)

    def _alias(self, name: str) -> tuple[str, Any]:
        """Of a name that is bound once, to another name."""
        bindings = self._scope.bindings[name]
        value = bindings[0].value
        if len(bindings) > 1 or value is None or name in self._busy:
            return "", None
        self._busy.add(name)
        found = self.path(value)
        self._busy.remove(name)
        return found


def home_of(value: Any, name: str) -> str:
    """The dotted name that `CALLS` knows something by."""
    if isinstance(value, ModuleType):
        return "os.path" if value.__name__ in ("posixpath", "ntpath") else value.__name__
    for dotted in CALLS:
        if (
            value is not None
            and dotted.rpartition(".")[2] == getattr(value, "__name__", "")
            and value == _named(dotted)
        ):
            return dotted
    module = getattr(value, "__module__", None) or type(getattr(value, "__self__", None)).__module__
    return f"{module}.{getattr(value, '__qualname__', name)}"


def rule_of(path: str, value: Any) -> Rule | None:
    """By what rule a call of this is forbidden."""
    rule = CALLS.get(path)
    if rule is not None or not path:
        return rule
    if isinstance(value, type) and issubclass(value, BaseException | Enum):
        return None
    if isinstance(value, Unloaded) and path.endswith(("Error", "Exception")):
        return None
    return PACKAGES.get(path.partition(".")[0])


def _kind(value: Any) -> type | None:
    """The class of a class, or of a generic one with its arguments."""
    origin = get_origin(value) or value
    if origin in _SETS:
        return set
    return origin if isinstance(origin, type) else None


def _type_of_field(owner: type, name: str) -> type | None:
    try:
        hint = get_type_hints(owner).get(name)
    except Exception:  # a hint may name what is there for the type checker only
        return None
    if get_origin(hint) in (Union, UnionType):
        some = [each for each in get_args(hint) if each is not NoneType]
        hint = some[0] if len(some) == 1 else None
    return _kind(hint)


def _contents(closure: Any) -> Iterator[tuple[str, Any]]:
    for name, cell in closure:
        try:
            yield name, cell.cell_contents
        except ValueError:  # not bound yet
            continue


def _import(dotted: str, package: str) -> Any:
    """A module, or what is in one; only its name, if nothing has imported it yet."""
    if dotted.startswith("."):
        if not package:
            return None
        dotted = resolve_name(dotted, package)
    if dotted in sys.modules:
        return sys.modules[dotted]
    module, _, name = dotted.rpartition(".")
    return getattr(sys.modules.get(module), name, Unloaded(dotted))


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
