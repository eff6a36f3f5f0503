"""What programs put into the interpreter that is an object: hooks, streams, importers, additional builtins.

    parent: capture -> objects, packed with the message
    child:  restore when the message has been rebuilt

What the parent's front end has put there (a test runner's collectors, a kernel's streams) is not carried:
a child has the interpreter's own in their place.
"""

from __future__ import annotations

import builtins
import gc
import sys

from bequest.carry.ambient.adopter import Adopter, LastLook, is_front_end, is_stand_in, report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_HOOKS = (
    ("sys", "excepthook", "__excepthook__"),
    ("sys", "unraisablehook", "__unraisablehook__"),
    ("sys", "breakpointhook", "__breakpointhook__"),
    ("threading", "excepthook", "__excepthook__"),
)
_MISSING = object()


def _capture_hooks() -> dict[tuple[str, str], Any] | None:
    found = {}
    for owner, name, original in _HOOKS:
        module = sys.modules.get(owner)
        hook = getattr(module, name, None)
        if hook is not getattr(module, original, None) and not is_front_end(hook):
            found[owner, name] = hook
    return found or None


def _restore_hooks(hooks: dict[tuple[str, str], Any]) -> None:
    for (owner, name), hook in hooks.items():
        if is_stand_in(hook):
            report("%s.%s has its default: it stayed in the parent", owner, name)
        else:
            setattr(__import__(owner), name, hook)


def _capture_streams() -> dict[str, Any] | None:
    found = {}
    for name in ("stdout", "stderr"):
        native = getattr(sys, f"__{name}__", None)
        stream = getattr(sys, name, None)
        if stream is not native and not is_front_end(stream):
            found[name] = stream
        if native is not None and getattr(native, "name", None) != f"<{name}>" and not is_front_end(native):
            found[f"__{name}__"] = native
            found.setdefault(name, stream)
    return found or None


def _restore_streams(streams: dict[str, Any]) -> None:
    for name, stream in streams.items():
        if is_stand_in(stream):
            report("sys.%s is the child's own: it stayed in the parent", name)
        else:
            setattr(sys, name, stream)


def _capture_arguments() -> list[Any] | None:
    arguments: list[Any] = getattr(sys, "argv", [])
    return None if all(isinstance(word, str) for word in arguments) else arguments


def _restore_arguments(arguments: list[Any]) -> None:
    sys.argv = arguments


def _capture_gc_callbacks() -> list[Any] | None:
    return [callback for callback in gc.callbacks if not is_front_end(callback)] or None


def _restore_gc_callbacks(callbacks: list[Any]) -> None:
    gc.callbacks.extend(c for c in callbacks if c not in gc.callbacks and not is_stand_in(c))


def _interpreters_own() -> dict[str, Any]:
    """Return the builtins that the interpreter itself made, whatever was added or replaced before now."""
    return {
        name: value
        for name, value in vars(builtins).items()
        if getattr(value, "__module__", None) in ("builtins", "_io", "io", "_sitebuiltins")
        or type(value).__module__ == "_sitebuiltins"
        or name.startswith("__")
        or name in ("True", "False", "None", "Ellipsis", "NotImplemented")
    }


_OWN_BUILTINS = _interpreters_own()


def _capture_builtins() -> dict[str, Any] | None:
    # gettext's install() puts `_` here; in an interactive session that name is the last result instead.
    if vars(builtins) == _OWN_BUILTINS:
        return None
    last_result = "_" if hasattr(sys, "ps1") else ""
    found = {
        name: value
        for name, value in vars(builtins).items()
        if _OWN_BUILTINS.get(name, _MISSING) is not value
        and not name.startswith("__")
        and name != last_result
        and not is_front_end(value)
    }
    return found or None


def _restore_builtins(additions: dict[str, Any]) -> None:
    vars(builtins).update(additions)


def _is_users(finder: object) -> bool:
    from bequest.carry.modules import is_user_module

    kind = finder if hasattr(finder, "__qualname__") else type(finder)
    module = sys.modules.get(getattr(kind, "__module__", ""))
    if is_front_end(finder):
        return False
    return module is not None and (module.__name__ == "__main__" or is_user_module(module))


def _find_added(importers: Sequence[Any]) -> list[tuple[bool, Any]]:
    """Return the program's own importers, each with whether it stands before the standard ones."""
    standard = [i for i, entry in enumerate(importers) if _is_standard(entry)]
    first = standard[0] if standard else len(importers)
    return [(i < first, e) for i, e in enumerate(importers) if i not in standard and _is_users(e)]


_looks = {name: LastLook(_find_added) for name in ("meta_path", "path_hooks")}


def _capture_importers() -> dict[str, list[tuple[bool, Any]]] | None:
    # Only the program's own: packages add theirs again when they are imported.
    found = {name: look.of(tuple(getattr(sys, name))) for name, look in _looks.items()}
    return {name: added for name, added in found.items() if added} or None


def _is_standard(importer: object) -> bool:
    module = getattr(importer, "__module__", None) or type(importer).__module__
    return module in ("_frozen_importlib", "_frozen_importlib_external", "zipimport", "importlib._bootstrap")


def _restore_importers(state: dict[str, list[tuple[bool, Any]]]) -> None:
    for name, added in state.items():
        importers = getattr(sys, name)
        kinds = {type(entry) for entry in importers if not callable(entry)}
        new = [(f, e) for f, e in added if not is_stand_in(e) and e not in importers and type(e) not in kinds]
        importers[:0] = [entry for in_front, entry in new if in_front]
        importers.extend(entry for in_front, entry in new if not in_front)


def _capture_lazy_filter() -> Any:
    read = getattr(sys, "get_lazy_imports_filter", None)  # since 3.15
    return read() if read is not None else None


def _restore_lazy_filter(accept: Any) -> None:
    if not is_stand_in(accept):
        sys.set_lazy_imports_filter(accept)  # type: ignore[attr-defined]  # since 3.15


ADOPTERS = (
    Adopter("hooks", _capture_hooks, _restore_hooks),
    Adopter("builtins", _capture_builtins, _restore_builtins),
    Adopter("streams", _capture_streams, _restore_streams),
    Adopter("arguments", _capture_arguments, _restore_arguments),
    Adopter("gc callbacks", _capture_gc_callbacks, _restore_gc_callbacks),
    Adopter("importers", _capture_importers, _restore_importers),
    Adopter("lazy imports", _capture_lazy_filter, _restore_lazy_filter),
)
