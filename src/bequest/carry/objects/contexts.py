"""Context variables, contexts and tokens.

    ContextVar -> the module's global that it is, or a token -> one object per process, whoever brings it
    Context    -> its variables and their values
    Token      -> the change that it undoes, made again in the receiver's context

`assign` is how the receiver's context gets the values that were current in the sender: it keeps what a Token
that arrives later (or has arrived) needs to bring back "not set".
"""

from __future__ import annotations

import gc
import sys
from contextvars import Context, ContextVar, Token, copy_context
from types import ModuleType

from bequest.carry import identity
from bequest.carry.registry import NotCarriedError, carries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bequest.carry.registry import Packing, Reduced

# Variables are never collected in practice: keeping them here holds nothing back.
_Token = tuple[str, str]  # who first sent a variable and a name there, or module and name of a global

_variables: dict[_Token, ContextVar[Any]] = {}
_tokens: dict[ContextVar[Any], _Token] = {}
_places: dict[ContextVar[Any], tuple[str, str]] = {}
_first: dict[ContextVar[Any], Token[Any]] = {}
"""The token of the first assignment to each variable in this process's own context."""

_NO_ARGUMENT: tuple[()] = ()


@carries("_contextvars.ContextVar", "contextvars.ContextVar")
def reduce_variable(variable: ContextVar[Any], packing: Packing) -> Reduced:
    """By the module's global that it is; the others by a token, with name and default.

    A variable of `__main__` goes by token too: its global is bound to what this makes.
    """
    if _is_decimals(variable):
        return decimal_variable, ()
    place = _place_of(variable)
    if place is not None:
        return find_variable, (*place, variable.name)
    token = _tokens.get(variable)
    if token is None:
        token = _tokens[variable] = (identity.maker(), f"context variable {len(_tokens)}")
        _variables[token] = variable
    return make_variable, (token, variable.name, _default_of(variable))


def _is_decimals(variable: ContextVar[Any]) -> bool:
    """Tell whether it is the one that decimal keeps in C, where no module shows it."""
    return variable.name == "decimal_context" and "decimal" in sys.modules and decimal_variable() is variable


def _default_of(variable: ContextVar[Any]) -> tuple[Any, ...]:
    """Return the default in a tuple, or an empty one; the collector is shown the name, then the default."""
    parts = [part for part in gc.get_referents(variable) if part is not ContextVar]
    return tuple(parts[1:2])


def _place_of(variable: ContextVar[Any]) -> tuple[str, str] | None:
    place = _places.get(variable)
    if place is not None and getattr(sys.modules.get(place[0]), place[1], None) is variable:
        return place
    for module_name, module in list(sys.modules.items()):
        if not isinstance(module, ModuleType) or module_name in ("__main__", "__mp_main__"):
            continue
        for name, value in list(module.__dict__.items()):
            if value is variable and _can_be_imported(module_name):
                _places[variable] = (module_name, name)
                return module_name, name
    return None


def _can_be_imported(module_name: str) -> bool:
    from bequest.carry import modules

    return modules.is_importable(sys.modules[module_name])


def find_variable(module: str, name: str, own_name: str) -> ContextVar[Any]:
    """Return the variable that is a global of a module."""
    import importlib

    found = getattr(importlib.import_module(module), name, None)
    return found if isinstance(found, ContextVar) else make_variable((module, name), own_name, _NO_ARGUMENT)


def make_variable(token: _Token, name: str, default: tuple[Any, ...]) -> ContextVar[Any]:
    """Return the variable known by `token` in this process, made at the first call."""
    found = _variables.get(token)
    if found is None:
        found = ContextVar(name, default=default[0]) if default else ContextVar(name)
        _variables[token] = found
        _tokens[found] = token
    return found


def decimal_variable() -> ContextVar[Any]:
    """Return the variable in which this process's decimal keeps its context."""
    import decimal

    decimal.getcontext()  # from now on the variable is set in this context
    return next(variable for variable in copy_context() if variable.name == "decimal_context")


def assign(variable: ContextVar[Any], value: Any) -> None:
    """Set a variable in this process's own context to what it was in the sender's."""
    token = variable.set(value)
    _first.setdefault(variable, token)


# -- contexts


@carries("_contextvars.Context", "contextvars.Context")
def reduce_context(context: Context, packing: Packing) -> Reduced:
    """Its variables and their values."""
    return Context, (), list(context.items()), None, None, fill_context


def fill_context(context: Context, items: list[tuple[ContextVar[Any], Any]]) -> None:
    """Set variables in a context that is not entered."""
    context.run(_set_all, items)


def _set_all(items: list[tuple[ContextVar[Any], Any]]) -> None:
    for variable, value in items:
        variable.set(value)


# -- tokens


_probe: ContextVar[object] = ContextVar("bequest probe")


@carries("_contextvars.Token", "contextvars.Token")
def reduce_token(token: Token[Any], packing: Packing) -> Reduced:
    """The value that it brings back, and the present one; only a token of the present context can be used."""
    if not packing.starting or not _is_of_this_context(token):
        raise NotCarriedError(
            "it undoes a change in a context of this process",
            "Pass the old value, and set the variable to it",
        )
    is_missing = token.old_value is Token.MISSING
    old = () if is_missing else (token.old_value,)
    present = (token.var.get(),) if token.var in copy_context() else ()
    return make_token, (token.var, old, present, " used " in repr(token).partition("var=")[0])


def _is_of_this_context(token: Token[Any]) -> bool:
    """Tell whether a change made now is seen in the context of `token`, which only the collector is shown."""
    context = next((part for part in gc.get_referents(token) if isinstance(part, Context)), None)
    mark = object()
    undo = _probe.set(mark)
    try:
        return context is not None and context.get(_probe) is mark
    finally:
        _probe.reset(undo)


def make_token(
    variable: ContextVar[Any], old: tuple[Any, ...], present: tuple[Any, ...], used: bool
) -> Token[Any]:
    """Return a token that brings back `old`, leaving the variable at `present`."""
    if old:
        assign(variable, old[0])
        token = variable.set(present[0] if present else old[0])
    elif variable in _first and not used:
        token = _first[variable]  # the one token that can bring back "not set"
    else:
        token = variable.set(present[0] if present else None)
        _first.setdefault(variable, token)
    if used:
        again = variable.get()
        variable.reset(token)
        if present:
            variable.set(again)
    return token
