"""What a function binds, with what is nested in it."""

from __future__ import annotations

import ast
from dataclasses import dataclass

SET_OPERATORS = ast.BitOr | ast.BitAnd | ast.Sub | ast.BitXor


@dataclass(frozen=True, slots=True)
class Binding:
    """One place where a name gets a value. Both None: nothing is known of it, as of a loop's variable."""

    value: ast.expr | None = None
    annotation: ast.expr | None = None


def key_of(node: ast.expr) -> str | None:
    """The name that is bound: `x`, or `self.x`."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return f"{node.value.id}.{node.attr}"
    return None


class Scope(ast.NodeVisitor):
    """The bindings by name, and what is imported in the function. Nested functions count as the same scope."""

    def __init__(self, tree: ast.Module) -> None:
        self.bindings: dict[str, list[Binding]] = {}
        self.imports: dict[str, str] = {}
        self._whole = tree.body[0] if tree.body else None
        self.visit(tree)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._define(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._define(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._define(node)

    def visit_arguments(self, node: ast.arguments) -> None:
        for each in (node.vararg, node.kwarg):
            if each is not None:
                self._bind(each.arg)
        for each in (*node.posonlyargs, *node.args, *node.kwonlyargs):
            self._bind(each.arg, Binding(annotation=each.annotation))
        for default in (*node.defaults, *node.kw_defaults):
            if default is not None:
                self.visit(default)

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self._target(target, Binding(node.value))
        self.visit(node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._target(node.target, Binding(node.value, node.annotation))
        if node.value is not None:
            self.visit(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if not isinstance(node.op, SET_OPERATORS):  # by these a set stays one
            self._target(node.target, Binding())
        self.visit(node.value)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self._target(node.target, Binding(node.value))
        self.visit(node.value)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self._bind(node.id)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        key = key_of(node)
        if key is not None and isinstance(node.ctx, ast.Store):
            self._bind(key)
        self.generic_visit(node)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        self._bind(node.name)
        self.generic_visit(node)

    def visit_MatchAs(self, node: ast.MatchAs) -> None:
        self._bind(node.name)
        self.generic_visit(node)

    def visit_MatchStar(self, node: ast.MatchStar) -> None:
        self._bind(node.name)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            first = alias.name.partition(".")[0]
            self.imports[alias.asname or first] = alias.name if alias.asname else first

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = "." * node.level + (node.module or "")
        for alias in node.names:
            self.imports[alias.asname or alias.name] = f"{module}.{alias.name}" if node.module else module + alias.name

    def _define(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        if node is not self._whole:
            self._bind(node.name)
        self.generic_visit(node)

    def _target(self, node: ast.expr, binding: Binding) -> None:
        key = key_of(node)
        if key is None:
            self.visit(node)
        else:
            self._bind(key, binding)

    def _bind(self, name: str | None, binding: Binding | None = None) -> None:
        if name is not None:
            self.bindings.setdefault(name, []).append(binding or Binding())
