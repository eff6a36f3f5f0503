"""Type variables, which say that they are a global of the module that made them, but of `__main__` or a
function.

TypeVar -> make_variable(kind, name, arguments, token): one object in each process, whichever message brings
it
"""

from __future__ import annotations

from bequest.carry import identity, modules, namespaces
from bequest.carry.registry import carries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bequest.carry.registry import Packing, Reduced


@carries("typing.TypeVar", "typing.ParamSpec", "typing.TypeVarTuple")
def reduce_variable(variable: Any, packing: Packing) -> Reduced:
    """Reduce a type variable: by name where an import finds it, else by what it was made of."""
    import sys

    module = sys.modules.get(variable.__module__ or "")
    name = variable.__name__
    if module is not None and modules.is_importable(module) and module.__dict__.get(name) is variable:
        return namespaces.find_attribute, (module.__name__, name)
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
    return make_variable, (type(variable), (name, constraints, options), variable.__module__, token)


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
