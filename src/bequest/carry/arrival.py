"""What arrives with a message beside its object, and how it is laid over what the receiver has.

    first(object, ModuleState)      ModuleState.extend(items)      explain(stand-in)      make_again(global)
    take_fd(a shared descriptor)

The other end of `reach` and `pickler`, in a module of its own so that a child need not import those.
"""

from __future__ import annotations

import sys
from types import CellType, FunctionType, ModuleType

from bequest.carry import bindings, namespaces
from bequest.carry.deferred import UNDER_WAY, Deferred
from bequest.carry.objects import originals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bequest.carry.leftbehind import Explanation


def first(obj: Any, tail: Any) -> Any:
    """Return the object that a message was made of; the state behind it is in place by then."""
    return obj


def explain(explanation: Explanation, path: str) -> None:
    """Complete a stand-in's explanation in the receiver."""
    explanation.path = path


def take_fd(shared: Any) -> int:
    """Return this process's own duplicate of a descriptor of the sender; whoever gets it closes it."""
    return int(shared.detach())


def make_again(name: str, statement: str, needs: Any) -> Any:
    """Run the top-level statement of the main module that makes global `name`, and return what it made."""
    namespace = namespaces.main_namespace()
    if needs is not None:
        bindings.bind(namespace, needs)
    exec(compile(statement, namespace.get("__file__") or "<main>", "exec"), namespace)
    return namespace[name]


def cell_contents(cell: CellType) -> tuple[Any, ...]:
    """Return the content of a cell, as a tuple of one; of an empty cell, none."""
    try:
        return (cell.cell_contents,)
    except ValueError:  # an empty cell
        return ()


class ModuleState:
    """Where the items of `Reach.items` arrive in the receiver; each is laid over as it comes."""

    def append(self, item: Any) -> None:
        """Lay one item over."""
        self.extend((item,))

    def extend(self, items: Any) -> None:
        """Lay items over, in order."""
        for item in items:
            if item is not None:
                _LAY[item[0]](*item[1:])


def _lay_globals(module_name: str, packed: tuple[str, str, dict[str, Any], tuple[int, ...]]) -> None:
    namespace = namespaces.import_module(module_name).__dict__
    sender, key, values, numbers = packed
    for name, number in zip(list(values), numbers, strict=True):
        new = values.pop(name)
        if bindings.wins(namespace, (key, name), sender, number, is_owner=_is_owner(new)):
            if type(new) is Deferred and (new := new.fetch()) is UNDER_WAY:
                continue
            originals.displace(module_name, name, namespace.get(name))
            namespace[name] = value = _merged(namespace.get(name), new)
            bindings.note((key, name), sender, number, value)


def _is_owner(new: Any) -> bool:
    """Tell whether what has come releases something when it goes: what the import has made here stays."""
    return type(new) is Deferred and new.releases


_laid: set[tuple[str, str]] = set()


def _may_lay(sender: str, key: str, name: str) -> bool:
    """Tell whether state is laid over: the first time that the starter of this process sends it."""
    if not bindings.is_from_starter(sender) or (key, name) in _laid:
        return bindings.phase.starting
    _laid.add((key, name))
    return True


def _lay_class(sender: str, kind: type, attributes: dict[str, Any]) -> None:
    key = f"{kind.__module__}:{kind.__qualname__}"
    for name in list(attributes):
        new = attributes.pop(name)
        if name in kind.__dict__ and _is_owner(new):
            continue
        if _may_lay(sender, key, name):
            if type(new) is Deferred and (new := new.fetch()) is UNDER_WAY:
                continue
            value = _merged(kind.__dict__.get(name), new)
            if kind.__dict__.get(name) is not value:
                type.__setattr__(kind, name, value)


def _lay_member(sender: str, kind: type, name: str, attributes: dict[str, Any]) -> None:
    """Lay attributes over those of an enum's member."""
    member = kind.__dict__.get("_member_map_", {}).get(name)
    key = f"{kind.__module__}:{kind.__qualname__}.{name}"
    for attribute in list(attributes) if member is not None else ():
        new = attributes.pop(attribute)
        if _may_lay(sender, key, attribute):
            member.__dict__[attribute] = _merged(member.__dict__.get(attribute), new)


def _lay_kept(module_name: str, path: str, kept: str) -> None:
    """Delete what the import has bound in a module, or in the class at `path` there, beyond `kept`."""
    found: Any = sys.modules.get(module_name)  # one that is imported later has all its names
    for part in path.split(".") if path else ():
        found = getattr(found, "__dict__", {}).get(part)
    names = set(kept.split(" "))
    for name, value in list(getattr(found, "__dict__", {}).items()):
        # A submodule is an attribute of its package because it is loaded, whoever has loaded it.
        if name in names or name.startswith("__") or isinstance(value, ModuleType):
            continue
        if isinstance(found, type):
            type.__delattr__(found, name)
        else:
            del found.__dict__[name]


def step(found: Any, name: int | str) -> Any:
    """Return what a route leads to next: a cell's content, or an attribute; None where there is none."""
    if isinstance(name, int):
        cells = getattr(found, "__closure__", None) or ()
        return next(iter(cell_contents(cells[name])), None) if name < len(cells) else None
    own = getattr(found, "__dict__", {})
    return own[name] if name in own else getattr(found, name, None)


def _lay_function(
    sender: str, root: Any, route: tuple[int | str, ...], made_as: str | None, state: dict[int | str, Any]
) -> None:
    """Lay state over the function at the end of a route of cells (numbers) and attributes (names)."""
    key = f"{root.__module__}:{root.__qualname__}"
    if not _may_lay(sender, key, repr(route)):
        return
    function = root
    for name in route:
        function = step(function, name)
    if not isinstance(function, FunctionType) or made_as not in (None, function.__code__.co_qualname):
        return  # another one than the import made here: that came by value, where it came at all
    if "__code__" in state:
        function.__code__ = state.pop("__code__")
    for name in ("__defaults__", "__kwdefaults__"):
        if name in state:
            _lay_defaults(function, name, *state.pop(name))
    _lay_held(function, state)


def _lay_held(function: FunctionType, state: dict[int | str, Any]) -> None:
    """Lay state over what a function closes over (by number) and over its attributes (by name)."""
    uses = {id(new): sum(other is new for other in state.values()) - 1 for new in state.values()}
    laid: dict[int, Any] = {}  # what two places share is merged once
    for name in list(state):
        new = state.pop(name)
        if type(new) is Deferred and (new.releases or (new := new.fetch()) is UNDER_WAY):
            continue
        if id(new) not in laid:
            laid[id(new)] = _merged(step(function, name), new, uses[id(new)])
        value = laid[id(new)]
        if isinstance(name, str):
            function.__dict__[name] = value
        else:
            (function.__closure__ or ())[name].cell_contents = value


def _lay_defaults(
    function: FunctionType, name: str, keys: tuple[int | str, ...], values: dict[int | str, Any]
) -> None:
    """Lay defaults over a function's: `values`, of all that the sender's has, which are `keys`."""
    present = getattr(function, name) or ()
    old = dict(enumerate(present)) if isinstance(present, tuple) else present
    if any(key not in old and key not in values for key in keys):
        return
    laid = {}
    for key in keys:
        if key in values:
            new = values.pop(key)  # held by this name and the memo alone, if by nothing else: see `_SOLE`
            laid[key] = _merged(old.get(key), new)
        else:
            laid[key] = old[key]
    setattr(function, name, tuple(laid.values()) if name == "__defaults__" else laid)


def _lay_plain_defaults(module_name: str, found: dict[str, tuple[int, Any, Any]]) -> None:
    """Set the defaults of functions of a module: path -> (first line, positional ones, those by keyword)."""
    module = namespaces.import_module(module_name)
    for path, (line, positional, named) in found.items():
        function: Any = module
        for name in path.split("."):
            function = step(function, name)
        if isinstance(function, FunctionType) and function.__code__.co_firstlineno == line:
            function.__defaults__, function.__kwdefaults__ = positional, named


def _lay_alias(name: str, module: Any) -> None:
    if bindings.phase.starting or name not in sys.modules:
        sys.modules[name] = module


def _lay_new(module_name: str, values: dict[str, Any]) -> None:
    from bequest.carry.ambient import patches

    patches.bind_or_wait(module_name, [("", name, value, True) for name, value in values.items()])


def _import_submodule(name: str) -> None:
    namespaces.import_module(name)


def _merged(old: Any, new: Any, uses: int = 0) -> Any:
    """Return `old` brought up to date where both are containers of one kind and the message has no other use
    of `new` than `uses` more places that are laid over as well.

    What the import made may be known elsewhere in its module (a default argument, an alias), so it stays the
    object that it is. `_SOLE` is the reference count of an object that only the message holds.
    """
    if old is new or type(old) is not type(new) or sys.getrefcount(new) > _SOLE + uses:
        return new
    if isinstance(new, dict):
        old.clear()
        old.update(new)
    elif isinstance(new, list):
        old[:] = new
    elif isinstance(new, set):
        old.clear()
        old |= new
    else:
        return new
    return old


_LAY: dict[str, Any] = {
    "import": _import_submodule,
    "global": _lay_globals,
    "class": _lay_class,
    "function": _lay_function,
    "defaults": _lay_plain_defaults,
    "member": _lay_member,
    "kept": _lay_kept,
    "alias": _lay_alias,
    "new": _lay_new,
}


def _references(old: Any, new: Any, uses: int = 0) -> int:
    return sys.getrefcount(new)


def _references_of_sole() -> int:
    """Count what `_merged` counts for an object that only the memo and the caller hold besides the call."""
    values: dict[str, Any] = {"x": []}
    memo = [values["x"]]
    new = values.pop("x")
    return _references(memo[:0], new)


# Found out, not written down: versions differ in what a call's arguments count for (3.14 borrows them).
_SOLE = _references_of_sole()
