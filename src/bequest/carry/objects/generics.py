"""Type variables and type aliases, which say that they are a global of a module, but may be of `__main__` or
a function.

TypeVar -> make_variable(kind, name, arguments, token): one object in each process, whichever message brings
it
TypeAliasType -> make_alias(kind, name, what computes its value or the value, token): the same
"""

from __future__ import annotations

from types import FunctionType

from bequest.carry import identity, modules, namespaces
from bequest.carry.registry import carries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bequest.carry.registry import Packing, Reduced


@carries("typing.TypeVar", "typing.ParamSpec", "typing.TypeVarTuple")
def reduce_variable(variable: Any, packing: Packing) -> Reduced:
    """Reduce a type variable: by name where an import finds it, else by what it was made of."""
    if _is_found_by_import(variable):
        return namespaces.find_attribute, (variable.__module__, variable.__name__)
    options = {
        option: getattr(variable, f"__{option}__")
        for option in ("bound", "covariant", "contravariant", "infer_variance")
        if getattr(variable, f"__{option}__", None)
    }
    has_default = getattr(variable, "has_default", None)  # since 3.13
    if has_default is not None and has_default():
        options["default"] = variable.__default__
    constraints = getattr(variable, "__constraints__", ())
    token = identity.token_of(variable)
    made_of = (variable.__name__, constraints, options)
    return make_variable, (type(variable), made_of, variable.__module__, token)


def _is_found_by_import(named: Any) -> bool:
    import sys

    module = sys.modules.get(named.__module__ or "")
    return (
        module is not None and modules.is_importable(module) and module.__dict__.get(named.__name__) is named
    )


def make_variable(
    kind: Any, made_of: tuple[str, tuple[Any, ...], dict[str, Any]], module: str, token: identity.Token
) -> Any:
    """Make the type variable that `token` stands for, or find the one that is here already."""
    name, constraints, options = made_of
    known = identity.find(token, kind)
    if known is not None:
        return known
    made = kind(name, *constraints, **options)
    try:
        made.__module__ = module
    except AttributeError:  # read-only since 3.12, which reads the caller's module at the call
        pass
    identity.remember(made, token)
    return made


# -- aliases, since 3.12

_AliasToken = tuple[str, int]  # which process first sent one, and a number there

# Aliases cannot be referred to weakly. They are few, and as good as never collected.
_aliases: dict[_AliasToken, Any] = {}
_alias_tokens: dict[Any, _AliasToken] = {}


@carries("typing.TypeAliasType")
def reduce_alias(alias: Any, packing: Packing) -> Reduced:
    """Reduce what a `type` statement has made: by name where an import finds it, else by what computes it."""
    if _is_found_by_import(alias):
        return namespaces.find_attribute, (alias.__module__, alias.__name__)
    token = _alias_tokens.get(alias)
    if token is None:
        token = (identity.maker(), len(_aliases))
        _aliases[token], _alias_tokens[alias] = alias, token
    compute = _computing(alias)
    what = alias.__value__ if compute is None else compute
    made_of = (alias.__name__, alias.__type_params__, alias.__module__)
    return make_alias, (type(alias), made_of, (compute is None, what), token)


def _computing(alias: Any) -> FunctionType | None:
    """Return the function that computes the value, which only the collector is shown, or None."""
    import gc

    for part in gc.get_referents(alias):
        if isinstance(part, FunctionType) and part.__code__.co_name == alias.__name__:
            return part
    return None


def make_alias(
    kind: Any, made_of: tuple[str, tuple[Any, ...], str], value: tuple[bool, Any], token: _AliasToken
) -> Any:
    """Make the alias that `token` stands for, or find the one that is here already.

    Args:
        kind: The class of aliases.
        made_of: Its name, type parameters and module.
        value: Whether it was made of a value, and that value, or the function that computes it.
        token: Its token.
    """
    known = _aliases.get(token)
    if known is not None:
        return known
    (name, parameters, module), (is_given, what) = made_of, value
    if is_given:
        # An alias takes the name of its module from its caller's globals.
        space = {"__name__": module, "kind": kind, "name": name, "what": what, "parameters": parameters}
        made = eval("kind(name, what, type_params=parameters)", space)
    else:
        made = _make_lazily(name, parameters, what)
    _aliases[token], _alias_tokens[made] = made, token
    return made


def _make_lazily(name: str, parameters: tuple[Any, ...], compute: FunctionType) -> Any:
    """Do what a `type` statement does, with a given function, which may refer to the alias, and parameters.

    No call does that, only an instruction of the interpreter: that of the statement is put in the place of
    one that takes a single operand as well.
    """
    statement = compile("type A = 0", "<alias>", "exec").co_code
    template = (lambda parts: +parts).__code__
    code = bytearray(template.co_code)
    code[_place_of_intrinsic(code) + 1] = statement[_place_of_intrinsic(statement) + 1]
    make = FunctionType(template.replace(co_code=bytes(code)), {})
    return make((name, parameters or None, compute))


def _place_of_intrinsic(code: bytes | bytearray) -> int:
    import opcode

    wanted = opcode.opmap["CALL_INTRINSIC_1"]
    return next(place for place in range(0, len(code), 2) if code[place] == wanted)
