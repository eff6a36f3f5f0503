"""The top level of a module's source: its statements in order, what binds its globals, its guards.

    ast -> flat(body), inner(statement), bindings(tree), is_guard(statement), guarded_lines(body)

It says what stands there, and knows nothing of what a child is to do with it: that is `replay`'s.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def inner(statement: ast.stmt) -> Iterator[ast.stmt]:
    """Yield the statements inside a compound statement: those of all its branches, handlers and cases."""
    for child in ast.iter_child_nodes(statement):
        if isinstance(child, ast.stmt):
            yield child
        elif isinstance(child, ast.ExceptHandler | ast.match_case):
            yield from child.body


def flat(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of the top level in order; those of a `try` as if they stood alone."""
    for statement in body:
        if isinstance(statement, ast.Try | ast.TryStar):
            yield from flat([*statement.body, *statement.orelse, *statement.finalbody])
        else:
            yield statement


def bindings(tree: ast.Module) -> dict[str, int]:
    """Count how often each global is bound: by the top level, and by functions that declare it `global`."""
    counts: dict[str, int] = {}
    for node in _walk_top_level(tree):
        for name in _bound_by(node):
            counts[name] = counts.get(name, 0) + 1
    return counts


def _walk_top_level(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield the nodes that run with the module, and of what runs later only its `global` statements."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, (*DEFINITIONS, ast.Lambda)):
            body = node.body if isinstance(node.body, list) else [node.body]
            yield from (n for part in body for n in ast.walk(part) if isinstance(n, ast.Global))
        else:
            waiting.extend(ast.iter_child_nodes(node))


def _bound_by(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            yield name
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in names)
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Global(names=names):
            yield from names
        case ast.ExceptHandler(name=str(name)):
            yield name


def is_guard(statement: ast.stmt) -> bool:
    """Tell whether a statement asks, with `if`, `and` or `if else`, whether this is the main module."""
    tested: ast.AST
    match statement:
        case ast.If(test=test) | ast.Expr(value=ast.IfExp(test=test)):
            tested = test
        case ast.Expr(value=ast.BoolOp(values=[test, *_])):
            tested = test
        case _:
            return False
    return any(isinstance(node, ast.Compare) and _compares_name(node) for node in ast.walk(tested))


def _compares_name(compare: ast.Compare) -> bool:
    nodes = [part for side in (compare.left, *compare.comparators) for part in ast.walk(side)]
    names = any(isinstance(node, ast.Name) and node.id == "__name__" for node in nodes)
    return names and any(isinstance(node, ast.Constant) and node.value == "__main__" for node in nodes)


def guarded_lines(body: Iterable[ast.stmt]) -> set[int]:
    """Return the lines that guards span."""
    guards = [statement for statement in flat(body) if is_guard(statement)]
    return {line for guard in guards for line in range(guard.lineno, (guard.end_lineno or 0) + 1)}
