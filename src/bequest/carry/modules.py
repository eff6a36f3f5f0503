"""Which modules a child can import by itself, which of them are the user's, and what goes by name.

    function or class -> by_name() -> True: pickle writes `module.qualname`; False: it is carried by value

Nothing here imports a module on the sender's behalf: only `sys.modules` and the finders are asked.
"""

from __future__ import annotations

import os
import sys
from _weakref import ref
from types import ModuleType

from bequest.carry.remember import Remembered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LIBRARY_ROOT = os.path.dirname(os.__file__) + os.sep
_SITE_FOLDERS = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_MAIN_NAMES = ("__main__", "__mp_main__")

_user = Remembered()  # whether a module is the user's
_importable = Remembered()  # the path on which a child can import it, of modules


def main_module() -> ModuleType:
    """Return this process's `__main__`, as `sys.modules` has it now (a notebook may have replaced it)."""
    return sys.modules["__main__"]


def is_main(module: object) -> bool:
    """Tell whether `module` is this process's `__main__`."""
    return module is sys.modules.get("__main__")


def is_user_module(module: ModuleType) -> bool:
    """Tell whether `module` is the user's own: neither of the standard library nor installed from a package.

    `__main__` does not count, and neither does bequest, wherever it is installed.
    """
    known: bool | None = _user.get(module)
    return bool(_user.put(module, _looks_like_the_users(module))) if known is None else known


_listing: dict[str, Any] = {"state": None, "modules": []}


def user_modules() -> list[tuple[str, ModuleType]]:
    """Return the importable user modules with their names; looked for anew where there may be others."""
    if _listing["state"] != (len(sys.modules), sys.path):
        found = [
            (name, ref(module))
            for name, module in list(sys.modules.items())
            if isinstance(module, ModuleType) and is_user_module(module) and is_importable(module)
        ]
        _listing.update(state=(len(sys.modules), _copy_of_path()), modules=found)
    listed = [(name, weak()) for name, weak in _listing["modules"]]
    return [(name, module) for name, module in listed if module is not None]


def _looks_like_the_users(module: ModuleType) -> bool:
    name = getattr(module, "__name__", None)
    if not isinstance(name, str) or name in _MAIN_NAMES or is_main(module):
        return False
    top = name.partition(".")[0]
    if top == "bequest" or top in sys.builtin_module_names:
        return False
    file = getattr(module, "__file__", None)
    if not isinstance(file, str):
        return top not in sys.stdlib_module_names and not _is_installed_namespace(module)
    file = os.path.abspath(file)
    if any(folder in file for folder in _SITE_FOLDERS):
        return False
    return not file.startswith(_LIBRARY_ROOT) and not file.startswith("<")


def is_users_class(kind: type) -> bool:
    """Tell whether a class is user code: of `__main__`, of a user module, or of one that nobody finds."""
    module = sys.modules.get(kind.__module__)
    return module is None or is_main(module) or is_user_module(module)


def _is_installed_namespace(module: ModuleType) -> bool:
    """Tell whether a package without a file (a namespace package) lies in a site folder."""
    paths = list(getattr(module, "__path__", ()))
    return bool(paths) and all(any(s in path + os.sep for s in _SITE_FOLDERS) for path in paths)


def listed_name(module: ModuleType) -> str | None:
    """Return the name under which `sys.modules` has a module: mostly its own (`_io` says that it is `io`)."""
    name = getattr(module, "__name__", None)
    if isinstance(name, str) and sys.modules.get(name) is module:
        return name
    return next((key for key, value in list(sys.modules.items()) if value is module), None)


def is_importable(module: ModuleType) -> bool:
    """Tell whether a child that has our `sys.path` gets an equal module by importing its name."""
    name = listed_name(module)
    if name is None or name in _MAIN_NAMES or is_main(module):
        return False
    if _importable.get(module) == sys.path:
        return True
    # A library may have put a folder of its own on the path for a while (what debuggers vendor, say).
    if name.partition(".")[0] not in sys.stdlib_module_names and not _finders_know(module, name):
        return False
    _importable.put(module, _copy_of_path())
    return True


_path: list[list[str]] = [[]]


def _copy_of_path() -> list[str]:
    """Return the search path as it is now, one copy for all modules."""
    if _path[0] != sys.path:
        _path[0] = list(sys.path)
    return _path[0]


def _finders_know(module: ModuleType, name: str) -> bool:
    """Ask the finders of `sys.meta_path` as an import in a child would."""
    parent = sys.modules.get(name.rpartition(".")[0])
    path = getattr(parent, "__path__", None) if "." in name else None
    if "." in name and (path is None or parent is None or not is_importable(parent)):
        return False
    for finder in sys.meta_path:
        if is_users_class(finder if isinstance(finder, type) else type(finder)):
            continue  # a child has it only when its message has been read
        find_spec = getattr(finder, "find_spec", None)
        spec = find_spec(name, path) if find_spec is not None else None
        if spec is not None:
            own = getattr(module, "__spec__", None)
            return own is None or spec.origin is None or own.origin is None or spec.origin == own.origin
    return False


def namespace_module(namespace: dict[str, object]) -> ModuleType | None:
    """Return the module whose namespace this very dict is, or None for one of `exec` or of a lost module."""
    main = main_module()
    if main.__dict__ is namespace:
        return main
    name = namespace.get("__name__")
    module = sys.modules.get(name) if isinstance(name, str) else None
    return module if module is not None and getattr(module, "__dict__", None) is namespace else None


def goes_by_name(obj: object) -> bool:
    """Tell whether a child finds this very function, class or callable under its qualified name."""
    if _by_name.get(obj) is not None:
        return True
    name = getattr(obj, "__module__", None)
    path = getattr(obj, "__qualname__", None)
    if not isinstance(name, str) or not isinstance(path, str):
        return False
    found: object = sys.modules.get(name)
    if not isinstance(found, ModuleType) or not is_importable(found) or _is_registered_by_value(name):
        return False
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            return False
    return found is obj


_by_name = Remembered()


def go_by_name(obj: object) -> None:
    """Have a function or class of `__main__` found by its name from now on: it is not the parent's own."""
    _by_name.put(obj, True)


def _is_registered_by_value(name: str) -> bool:
    """Honour `cloudpickle.register_pickle_by_value`, which programs written for cloudpickle use."""
    cloudpickle = sys.modules.get("cloudpickle")
    if cloudpickle is None:
        return False
    registered: set[str] = cloudpickle.list_registry_pickle_by_value()
    return any(name == entry or name.startswith(entry + ".") for entry in registered)
