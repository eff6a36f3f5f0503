"""Which state of imported modules the carried code can see, and how it is laid over the receiver's.

    sender:   Reach: every code, class and module met while packing  -> items(), packed last
    receiver: arrival.ModuleState.extend(items): in-place updates of what the import made, or new bindings

Functions and classes of importable modules go by name; what they read does not go with them. So the globals
of user modules that the code reads, the attributes of their classes, the contents of their closures, and
attributes of any module that user code has visibly replaced travel behind the message. Nobody has noted what
the import made, so what may be otherwise is sent; what goes by name costs a few bytes.
"""

from __future__ import annotations

import os
import sys
from types import CodeType, FunctionType, ModuleType

from bequest.carry import arrival, identity, instances, modules, namespaces
from bequest.carry.reads import reads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from bequest.carry.graph import PackingPickler

    Route = tuple[int | str, ...]  # from an importable function or class: cells by number, attributes by name

_ATOMS: tuple[type, ...] = (*instances.ATOMS, range, type(...))
_FOUND_BY_IMPORT = (ModuleType, staticmethod, classmethod, property)
_HEAPTYPE = 1 << 9
_PARTS = ("__func__", "fget", "fset", "fdel", "func")  # of descriptors that hold functions
_LONGEST_ROUTE = 50
_MADE_BY_ENUM = frozenset(("_name_", "_value_", "__objclass__", "_sort_order_"))
_MODULE_HOOKS = frozenset(("__getattr__", "__dir__"))  # run for names that their module does not have


class Reach:
    """What the code of one message can see beyond the message; see the module's docstring."""

    def __init__(self, packing: PackingPickler) -> None:
        self._packing = packing
        self._codes: set[int] = set()
        self._kept: list[Any] = []  # what the ids above belong to
        self._attributes: set[str] = set()
        self._names: dict[str, set[str]] = {}  # user module -> globals read by name
        self._modules: dict[str, ModuleType] = {}
        self._classes: dict[int, type] = {}
        self.kinds: dict[type, None] = {}  # of the instances met
        self._functions: dict[int, tuple[FunctionType, Any, Route]] = {}
        self._aliases: dict[str, ModuleType] = {}
        self._computed = False  # whether any code reads attributes by names that it computes
        self._computed_of_self = False
        self._specials: dict[int, list[str]] = {}  # class -> special methods that were put on it
        self._held: set[str] = set()  # modules that such code may be given
        self._handed: set[str] = set()  # modules of which any name may be read
        self._evaluates = False  # whether any code evaluates annotations that are text
        self._annotated: dict[int, Any] = {}  # functions and classes whose annotations that may be
        self._done: set[tuple[str, str]] = set()

    def code(self, code: CodeType, namespace: dict[str, Any]) -> None:
        """Note what a code object that is carried, or found by name, reads."""
        if id(code) in self._codes:
            return
        self._codes.add(id(code))
        self._kept.append(code)
        found = reads(code)
        self._attributes |= found.attributes
        self._computed = self._computed or found.computed
        self._computed_of_self = self._computed_of_self or found.computed or found.computed_of_self
        self._evaluates = self._evaluates or found.evaluates
        package = namespace.get("__package__")
        for name in found.imports:
            self._imported(name)
            self._imported_from(package if isinstance(package, str) else "", name)
        for name in found.sought:
            module = sys.modules.get(name)
            if isinstance(module, ModuleType) and modules.is_user_module(module):
                self._imported(name)
        home = modules.namespace_module(namespace)
        if home is not None and not modules.is_main(home) and modules.is_user_module(home):
            self._modules[home.__name__] = home
            wanted = self._names.setdefault(home.__name__, set())
            wanted |= set(namespaces.own_names(namespace)) if found.whole else found.names
        for name in found.names:
            value = namespace.get(name)
            if isinstance(value, ModuleType):
                noted = self.module(value)
                if noted is not None and name in found.handed:
                    self._handed.add(noted)
            elif value is None and name not in namespace:
                self._names.setdefault("builtins", set()).add(name)

    def _imported(self, dotted: str) -> None:
        parts = dotted.split(".")
        for count in range(1, len(parts) + 1):
            name = ".".join(parts[:count])
            module = sys.modules.get(name)
            if not isinstance(module, ModuleType):
                continue
            self.held_module(module)
            is_users, is_importable = modules.is_user_module(module), modules.is_importable(module)
            is_alias = module.__dict__.get("__name__", name) != name
            if (is_alias and (is_importable or is_users)) or (is_users and not is_importable):
                self._aliases[name] = module

    def _imported_from(self, package: str, name: str) -> None:
        """Follow a relative import: its level is not known here, so from the package and those above it."""
        while package:
            self._imported(f"{package}.{name}" if name else package)
            package = package.rpartition(".")[0]

    def module(self, module: ModuleType) -> str | None:
        """Note a module that carried code can touch, and return its name, or None."""
        name = getattr(module, "__name__", None)
        if isinstance(name, str) and sys.modules.get(name) is module and not modules.is_main(module):
            self._modules[name] = module
            return name
        return None

    def held_module(self, module: ModuleType) -> None:
        """Note a module that carried code is given as an object."""
        name = self.module(module)
        if name is not None:
            self._held.add(name)

    def annotated(self, obj: Any) -> None:
        """Note a function or class whose annotations carried code may ask for."""
        self._annotated[id(obj)] = obj

    def by_name(self, obj: Any) -> None:
        """Note a function or class that the receiver imports."""
        module = sys.modules.get(obj.__module__)
        if module is None or not modules.is_user_module(module):
            return
        self._modules[module.__name__] = module
        if isinstance(obj, type):
            self._class(obj)
        elif isinstance(obj, FunctionType):
            self._function(obj, obj, ())

    def _function(self, function: FunctionType, root: Any, route: Route) -> None:
        """Note a function that a route leads to and those that it holds; without recursion, for the many."""
        ahead = [(function, root, route)]
        while ahead:
            function, root, route = ahead.pop()
            if id(function) in self._functions or len(route) > _LONGEST_ROUTE:
                continue
            if route and modules.goes_by_name(function):
                root, route = function, ()
            self._functions[id(function)] = (function, root, route)
            self._packing.dependence.on_function(function)
            self.annotated(function)
            self.code(function.__code__, function.__globals__)
            for name, value in _held(function):
                ahead += [(part, root, (*route, name, *way)) for way, part in _functions_in(value)]

    def _class(self, kind: type) -> None:
        if id(kind) in self._classes:
            return
        self._classes[id(kind)] = kind
        self.annotated(kind)
        for base in (*kind.__bases__, type(kind)):
            if base.__flags__ & _HEAPTYPE:
                self.by_name(base)
        for name, value in list(kind.__dict__.items()):
            if _is_special(name) and type(value) is FunctionType and value.__module__ != kind.__module__:
                self._specials.setdefault(id(kind), []).append(name)
            for way, part in _functions_in(value):
                self._function(part, kind, (name, *way))

    def items(self) -> Iterator[Any]:
        """Yield what lays the state over the receiver's, until nothing new comes into reach.

        The consumer packs each item before it asks for the next but one, and packing may bring more into
        reach.
        """
        extent = None
        while extent != self._extent():
            extent = self._extent()
            yield from [("alias", name, self._aliases.pop(name)) for name in list(self._aliases)]
            yield from self._hint_items() if self._evaluates else ()
            yield from [*self._global_items(), *self._class_items(), *self._closure_items()]
            yield from [*self._member_items(), *(self._kept_items() if self._packing.starting else ())]
            yield from (None, None, None)

    def _extent(self) -> tuple[int, ...]:
        names = sum(map(len, self._names.values()))
        seen: tuple[Any, ...] = (
            self._codes,
            self._attributes,
            self._modules,
            self._classes,
            self._functions,
            self._done,
            self._handed,
            self._held,
            self._annotated,
        )
        return (names, self._computed, self._computed_of_self, self._evaluates, *map(len, seen))

    def _global_items(self) -> Iterator[Any]:
        for module_name, module in list(self._modules.items()):
            if modules.is_user_module(module):
                if modules.is_importable(module):  # one that is not comes as a whole, where it comes at all
                    yield from self._user_globals(module_name, module, self._wanted(module_name, module))
            else:
                yield from self._replaced(module_name, module, self._attributes)
        import builtins

        yield from self._replaced("builtins", builtins, self._names.get("builtins", set()))

    def _wanted(self, module_name: str, module: ModuleType) -> set[str]:
        """Return the names of a user module that may be read."""
        if module_name in self._handed or (self._computed and module_name in self._held):
            return set(module.__dict__)
        return self._names.get(module_name, set()) | self._attributes | _MODULE_HOOKS

    def _user_globals(self, module_name: str, module: ModuleType, wanted: set[str]) -> Iterator[Any]:
        namespace = module.__dict__
        self._packing.dependence.on_names(namespace, wanted)
        for name in [n for n in namespaces.own_names(namespace) if n in wanted]:
            if (module_name, name) in self._done:
                continue
            self._done.add((module_name, name))
            value = namespace.get(name)  # another thread may have unbound it
            if isinstance(value, ModuleType):
                yield from self._submodule(module_name, value)
            elif isinstance(value, FunctionType | type) and modules.goes_by_name(value):
                self.by_name(value)
                if value.__module__ == module_name and value.__qualname__ == name:
                    continue  # what the receiver finds there goes by that very name
            yield self._item(module, module_name, name, value)

    def _replaced(self, module_name: str, module: ModuleType, wanted: set[str]) -> Iterator[Any]:
        namespace = getattr(module, "__dict__", {})
        atoms = {}
        self._packing.dependence.on_names(namespace, wanted & namespace.keys())
        for name in wanted & namespace.keys():
            if (module_name, name) in self._done:
                continue
            value = namespace.get(name)
            if isinstance(value, ModuleType):
                self._done.add((module_name, name))
                yield from self._submodule(module_name, value)
            elif _is_atom(value):
                self._done.add((module_name, name))
                atoms[name] = value
            elif _is_from_user_code(value):
                self._done.add((module_name, name))
                yield self._item(module, module_name, name, value)
        if atoms:  # the receiver knows which of them its own import has not made
            yield "new", module_name, atoms

    def _submodule(self, module_name: str, found: ModuleType) -> Iterator[Any]:
        """Follow a module that is an attribute of another; code that reads `a.b` may not import it itself."""
        self.module(found)
        name = modules.listed_name(found)
        if name is not None and name.startswith(module_name + ".") and modules.is_importable(found):
            yield "import", name

    def _item(self, module: ModuleType, module_name: str, name: str, value: Any) -> Any:
        packed = self._packing.lenient_bindings(module, (name,))
        return ("global", module_name, packed) if packed is not None else None

    def _class_items(self) -> Iterator[Any]:
        for kind in list(self._classes.values()):
            key = f"{kind.__module__}:{kind.__qualname__}"
            attributes = {}
            for name in self._attribute_names(kind):
                if (key, name) in self._done:
                    continue
                self._done.add((key, name))
                value = kind.__dict__.get(name)
                if not _is_made_by_class_statement(kind, name, value):
                    attributes[name] = value
            if attributes:
                packed = self._packing.lightened(self._packing.carriable(attributes), kind)
                yield "class", identity.maker(), kind, packed
        yield from self._library_class_items()

    def _attribute_names(self, kind: type) -> list[str]:
        """Return the attributes of a user module's class that may be read and may not be as imported."""
        names = kind.__dict__.keys()
        wanted = list(names) if self._computed_of_self else names & self._attributes
        return [name for name in wanted if not _is_special(name)] + self._specials.get(id(kind), [])

    def _hint_items(self) -> Iterator[Any]:
        """Yield the main module's globals that annotations mention as text; note those of user modules."""
        from bequest.carry import hints

        for key, obj in list(self._annotated.items()):
            module = hints.home(obj)
            if module is None or ("", str(key)) in self._done:
                continue
            self._done.add(("", str(key)))
            names = hints.mentioned(obj)
            if modules.is_main(module):
                fresh = [n for n in names if n in module.__dict__ and ("__main__", n) not in self._done]
                self._done.update(("__main__", name) for name in fresh)
                packed = self._packing.lenient_bindings(module, fresh)
                if packed is not None:
                    yield "global", "__main__", packed
            elif modules.is_user_module(module):
                self._names.setdefault(module.__name__, set()).update(names)

    def _member_items(self) -> Iterator[Any]:
        """Yield what has been set on the members of enums."""
        for kind in list(self._classes.values()):
            for member in kind.__dict__.get("_member_map_", {}).values():
                held = getattr(member, "__dict__", {})
                wanted = held.keys() if self._computed_of_self else held.keys() & self._attributes
                key = f"{kind.__module__}:{kind.__qualname__}.{member._name_}"
                names = [name for name in wanted - _MADE_BY_ENUM if (key, name) not in self._done]
                self._done.update((key, name) for name in names)
                if names:
                    packed = self._packing.carriable({name: held[name] for name in names})
                    yield "member", identity.maker(), kind, member._name_, packed

    def _kept_items(self) -> Iterator[Any]:
        """Yield the names that user modules and their classes have: all others have been deleted."""
        for module_name, module in list(self._modules.items()):
            if (module_name, "") not in self._done and modules.is_user_module(module):
                self._done.add((module_name, ""))
                yield "kept", module_name, "", _joined(namespaces.own_names(module.__dict__))
        for kind in list(self._classes.values()):
            key = f"{kind.__module__}:{kind.__qualname__}"
            if (key, "") not in self._done and modules.goes_by_name(kind):
                self._done.add((key, ""))
                yield "kept", kind.__module__, kind.__qualname__, _joined(list(kind.__dict__))

    def _library_class_items(self) -> Iterator[Any]:
        """Yield what user code has put on classes of libraries (an accessor, a patched method)."""
        for kind in list(self.kinds):
            for base in kind.__mro__:
                key = f"{base.__module__}:{base.__qualname__}"
                for name in self._attributes & base.__dict__.keys() if base.__flags__ & _HEAPTYPE else ():
                    value = base.__dict__.get(name)
                    if (
                        (key, name) in self._done
                        or modules.is_users_class(base)
                        or not _holds_user_code(value)
                    ):
                        continue
                    self._done.add((key, name))
                    yield "class", identity.maker(), base, self._packing.carriable({name: value})

    def _closure_items(self) -> Iterator[Any]:
        plain: dict[str, dict[str, Any]] = {}
        for function, root, route in list(self._functions.values()):
            key = (f"{root.__module__}:{root.__qualname__}", repr(route))
            if key in self._done:
                continue
            self._done.add(key)
            path = [step for step in (root.__qualname__, *route) if isinstance(step, str)]
            if self._packing.starting and len(path) > len(route) and _has_plain_defaults(function):
                line = function.__code__.co_firstlineno
                defaults = (line, function.__defaults__, function.__kwdefaults__)
                plain.setdefault(root.__module__, {})[".".join(path)] = defaults
            state = {name: value for name, value in _held(function) if _is_state(name, value)}
            packed = self._packing.lightened(self._packing.carriable(state), root, *route)
            packed |= self._own_state(function)
            if packed and modules.goes_by_name(root):
                made_as = None if "__code__" in packed else function.__code__.co_qualname
                yield "function", identity.maker(), root, route, made_as, packed
        yield from (("defaults", module_name, found) for module_name, found in plain.items())

    def _own_state(self, function: FunctionType) -> dict[int | str, Any]:
        """Return what a function is made of and may not be as imported: its defaults and its code.

        Plain defaults, which most functions have, go together: see `_closure_items`.
        Of defaults, a process that runs gets only what can have grown: a sentinel must stay the one it has.
        """
        state: dict[int | str, Any] = {}
        if _is_given_code(function):
            state["__code__"] = function.__code__
        if _has_plain_defaults(function) or not (function.__defaults__ or function.__kwdefaults__):
            return state
        positional = dict(enumerate(function.__defaults__ or ()))
        for name, defaults in (("__defaults__", positional), ("__kwdefaults__", function.__kwdefaults__)):
            values = {
                key: value
                for key, value in (defaults or {}).items()
                if (_is_state(key, value) if self._packing.starting else _can_have_grown(value))
            }
            packed = self._packing.carriable(values)
            if packed and defaults is not None:
                state[name] = tuple(defaults), packed
        return state


def _is_special(name: object) -> bool:
    return not isinstance(name, str) or (name.startswith("__") and name.endswith("__"))


def _joined(names: list[Any]) -> str:
    return " ".join(name for name in names if isinstance(name, str))  # one string is packed in no time


def _held(function: FunctionType) -> list[tuple[int | str, Any]]:
    """Return what a function holds, each under the step of a route that leads there."""
    cells = enumerate(function.__closure__ or ())
    held: list[tuple[int | str, Any]] = [
        (i, content) for i, c in cells for content in arrival.cell_contents(c)
    ]
    return held + list(function.__dict__.items())


def _functions_in(value: Any) -> list[tuple[Route, FunctionType]]:
    """Return the functions that a value is or, as a descriptor, holds, with the rest of the route to each."""
    if isinstance(value, FunctionType):
        return [((), value)]
    if not isinstance(value, staticmethod | classmethod | property):
        held = getattr(value, "__dict__", {}) if hasattr(type(value), "__get__") else {}
        return [((n,), held[n]) for n in _PARTS if isinstance(held.get(n), FunctionType)]
    parts = ((name, getattr(value, name, None)) for name in _PARTS)
    return [((name,), part) for name, part in parts if isinstance(part, FunctionType)]


def _is_state(name: int | str, value: Any) -> bool:
    """Tell whether what a function holds may be other than what the import gave it."""
    if isinstance(value, FunctionType | type):
        return name != "__wrapped__" and (modules.goes_by_name(value) or _is_from_main(value))
    return not isinstance(value, _FOUND_BY_IMPORT)


def _has_plain_defaults(function: FunctionType) -> bool:
    """Tell whether a function has defaults, and nothing but numbers, strings and the like."""
    positional, named = function.__defaults__ or (), function.__kwdefaults__ or {}
    return bool(positional or named) and all(_is_atom(value) for value in (*positional, *named.values()))


def _can_have_grown(value: Any) -> bool:
    """Tell whether a default is a builtin container that holds something."""
    return type(value) in (dict, list, set) and bool(value)


def _is_given_code(function: FunctionType) -> bool:
    """Tell whether a function of a module runs code that was compiled for another place.

    Code that a decorator or `exec` has compiled names neither the function nor, mostly, the module's file.
    """
    code = function.__code__
    file = function.__globals__.get("__file__")
    if not code.co_filename.startswith("<") and isinstance(file, str):
        if code.co_filename != file and os.path.splitext(code.co_filename)[0] != os.path.splitext(file)[0]:
            return True
        return "<locals>" not in code.co_qualname and code.co_qualname != function.__qualname__
    return "<locals>" not in code.co_qualname and code.co_name != function.__name__


def _is_from_main(value: Any) -> bool:
    module = sys.modules.get(value.__module__)
    return module is not None and modules.is_main(module)


def _is_made_by_class_statement(kind: type, name: str, value: Any) -> bool:
    functions = [function for _, function in _functions_in(value)]
    if functions:
        path = f"{kind.__qualname__}.{name}"
        return all(f.__module__ == kind.__module__ and f.__qualname__ == path for f in functions)
    return isinstance(value, property) or type(value).__name__ in ("member_descriptor", "getset_descriptor")


def _is_atom(value: Any) -> bool:
    parts = value if type(value) is tuple else (value,)
    return all(type(part) in _ATOMS for part in parts)


def _is_from_user_code(value: Any) -> bool:
    """Tell whether a module's attribute says that it is user code, which must have put it there."""
    if isinstance(value, _ATOMS):
        return False
    if not isinstance(value, FunctionType | type) and not callable(value):
        return False
    for place in (getattr(value, "__module__", None), type(value).__module__):
        if place == "unittest.mock" and not isinstance(value, FunctionType | type):
            return True
        module = sys.modules.get(place) if isinstance(place, str) else None
        if module is not None and (modules.is_main(module) or modules.is_user_module(module)):
            return True
    return False


def _holds_user_code(value: Any) -> bool:
    """Tell whether a class's attribute comes from user code: itself, or (a descriptor) in what it holds."""
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    if _is_from_user_code(value):
        return True
    held = value.__dict__ if hasattr(type(value), "__get__") and hasattr(value, "__dict__") else {}
    return any(_is_from_user_code(part) for part in held.values())
