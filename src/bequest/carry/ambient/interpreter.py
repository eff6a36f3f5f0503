"""Settings of the interpreter that are plain values: search path, arguments, limits, filters, thread name.

    parent: capture -> marshal-able values
    child:  restore before anything is unpickled, and once more when the message is there, because modules
            that unpickling imports may have set them their own way, as they once did in the parent

Hooks and replaced streams are objects: see `hooks`.
"""

from __future__ import annotations

import _thread
import gc
import os
import sys
import warnings

from bequest.carry.ambient.adopter import Adopter, LastLook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


def _set_gc(on: bool) -> None:
    (gc.enable if on else gc.disable)()


def _stack_size() -> int:
    # Asking for the size sets the default: so it is put back in the same breath.
    size = _thread.stack_size()
    if size:
        _thread.stack_size(size)
    return size


def _settings() -> tuple[tuple[Callable[[], Any], Callable[[Any], object]], ...]:
    pairs: list[tuple[Callable[[], Any], Callable[[Any], object]]] = [
        (sys.getrecursionlimit, sys.setrecursionlimit),
        (sys.getswitchinterval, sys.setswitchinterval),
        (sys.get_int_max_str_digits, sys.set_int_max_str_digits),
        (sys.get_coroutine_origin_tracking_depth, sys.set_coroutine_origin_tracking_depth),
        (gc.isenabled, _set_gc),
        (gc.get_debug, gc.set_debug),
        (gc.get_threshold, lambda thresholds: gc.set_threshold(*thresholds)),
        (_stack_size, _thread.stack_size),
    ]
    if hasattr(sys, "setdlopenflags"):
        pairs.append((sys.getdlopenflags, sys.setdlopenflags))
    if hasattr(sys, "set_lazy_imports"):  # since 3.15
        pairs.append((sys.get_lazy_imports, sys.set_lazy_imports))  # type: ignore[attr-defined]  # as above
    return tuple(pairs)


# Parent and child run the same interpreter, so the order says what is what.
_SETTINGS = _settings()


def _capture_settings() -> list[Any]:
    return [read() for read, _ in _SETTINGS]


def _restore_settings(state: list[Any]) -> None:
    for (read, write), wanted in zip(_SETTINGS, state, strict=True):
        if read() != wanted:
            write(wanted)


# Attributes of sys that programs assign. `tracebacklimit` does not exist until somebody does.
_ATTRIBUTES = ("dont_write_bytecode", "pycache_prefix", "tracebacklimit")


def _capture_attributes() -> dict[str, Any]:
    values = vars(sys)
    return {name: values[name] for name in _ATTRIBUTES if type(values.get(name)) in (bool, int, str)}


def _restore_attributes(state: dict[str, Any]) -> None:
    values = vars(sys)
    for name in _ATTRIBUTES:
        if name in state:
            values[name] = state[name]
        elif name == "tracebacklimit":
            values.pop(name, None)
        else:
            values[name] = None


def _capture_path() -> dict[str, Any]:
    # As the standard library does it: '' meant the directory that the program was started in.
    process = sys.modules.get("multiprocessing.process")
    origin = getattr(process, "ORIGINAL_DIR", None)
    path, is_relative = _path.of((origin, *sys.path))
    return {"origin": origin, "path": path, "places": _places(path) if is_relative else {}}


def _search_path(found: Sequence[Any]) -> tuple[list[str], bool]:
    """Return the search path, of what '' stands for and the entries; and whether any is relative."""
    here, *entries = found
    path = [_exact(p) or here or "" for p in entries if isinstance(p, str)]
    return path, not all(p.startswith(os.sep) for p in path)


_path = LastLook(_search_path)


def _places(path: list[str]) -> dict[str, str]:
    """Return where each relative entry was when it was first looked into: there it stays, wherever we go."""
    finders = ((p, sys.path_importer_cache.get(p)) for p in path if not p.startswith(os.sep))
    places = ((p, getattr(finder, "path", None)) for p, finder in finders)
    return {p: _exact(place) for p, place in places if isinstance(place, str) and os.path.isabs(place)}


def set_path(path: list[str], places: dict[str, str]) -> None:
    """Make `path` the search path, its relative entries looked for in the folders that `places` names."""
    if sys.path != path:
        sys.path[:] = path
    for entry, place in places.items():
        known = sys.path_importer_cache.get(entry)
        if getattr(known, "path", None) != place:
            sys.path_importer_cache[entry] = _finder_of(place)


def _finder_of(place: str) -> Any:
    for hook in sys.path_hooks:
        try:
            return hook(place)
        except ImportError:  # not a place of that hook's kind
            continue
    return None


def _restore_path(state: dict[str, Any]) -> None:
    process = sys.modules.get("multiprocessing.process")
    if process is not None and state["origin"] is not None:
        vars(process)["ORIGINAL_DIR"] = state["origin"]
    forget_absent_folders()
    set_path(state["path"], state["places"])


def forget_absent_folders() -> None:
    """Have folders looked into again that did not exist at the first look, and so are known as empty."""
    for entry in [name for name, finder in sys.path_importer_cache.items() if finder is None]:
        del sys.path_importer_cache[entry]


def _exact(text: str) -> str:
    return str.__str__(text)  # marshal takes no subclasses


def _capture_arguments() -> list[str] | None:
    arguments = getattr(sys, "argv", None)
    if type(arguments) is not list or not all(isinstance(word, str) for word in arguments):
        return None  # left to `hooks`, which carries objects
    return [_exact(word) for word in arguments]


def _restore_arguments(state: list[str]) -> None:
    sys.argv[:] = state


def _stream_modes(name: str) -> list[Any] | None:
    # Only of the interpreter's own stream; one that was put in its place is an object.
    stream: Any = getattr(sys, f"__{name}__", None)
    if getattr(stream, "name", None) != f"<{name}>" or not hasattr(stream, "reconfigure") or stream.closed:
        return None
    return [stream.encoding, stream.errors, stream.line_buffering, stream.write_through]


def _capture_modes() -> dict[str, Any]:
    return {name: _stream_modes(name) for name in ("stdout", "stderr")}


def _restore_modes(state: dict[str, Any]) -> None:
    for name, wanted in state.items():
        own = _stream_modes(name)
        if wanted is None or own is None or own == wanted:
            continue
        encoding, errors, line_buffering, write_through = wanted
        stream: Any = getattr(sys, f"__{name}__")
        stream.reconfigure(
            encoding=encoding, errors=errors, line_buffering=line_buffering, write_through=write_through
        )


def _capture_thread_name() -> str | None:
    # The thread that forks is the main thread of the child, and keeps its name. Not by `current_thread()`,
    # which makes an entry for a thread that it does not know.
    threading: Any = sys.modules.get("threading")
    if threading is None:
        return None
    thread = threading._active.get(_thread.get_ident())  # private, the same in all versions
    if thread is None or type(thread) is threading._DummyThread or thread.name == "MainThread":
        return None
    return _exact(thread.name)


def _restore_thread_name(name: str) -> None:
    import threading

    threading.main_thread().name = name


def active_filters() -> list[Any]:
    """Return the list of warning filters that is in force for this thread; not a copy."""
    current = getattr(warnings, "_get_filters", None)  # since 3.14 a context may have its own
    found: list[Any] = warnings.filters if current is None else current()  # type: ignore[assignment]
    return found


def install_filters(wanted: list[Any]) -> None:
    """Put `wanted` in the place of the warning filters that are in force."""
    active_filters()[:] = wanted
    warnings._filters_mutated()  # type: ignore[attr-defined]  # or the C half goes on with what it has cached


def _capture_filters() -> list[Any]:
    filters = tuple(active_filters())
    encoded: list[Any] | None = _filters.of(filters)
    if encoded is None:
        encoded = [_encode_filter(entry) for entry in filters]
    return [entry for entry in encoded if entry is not None]


_HEAPTYPE = 1 << 9


def _encode_filters(filters: Sequence[Any]) -> list[Any] | None:
    """Return the filters encoded; None where that depends on what a category's module holds at the time."""
    builtin = all(isinstance(entry[2], type) and not entry[2].__flags__ & _HEAPTYPE for entry in filters)
    return [_encode_filter(entry) for entry in filters] if builtin else None


_filters = LastLook(_encode_filters)


def filters_without_name() -> list[tuple[int, Any]]:
    """Return position and entry of each filter whose category only the program has: it goes as an object."""
    filters = active_filters()
    if _filters.of(tuple(filters)) is not None:
        return []
    return [(i, entry) for i, entry in enumerate(filters) if _encode_category(entry[2]) is None]


def _encode_filter(entry: Any) -> list[Any] | None:
    action, message, category, module, line = entry
    name = _encode_category(category)
    return name and [action, _encode_pattern(message), name, _encode_pattern(module), line]


def _encode_category(category: Any) -> list[str] | None:
    owner, name = getattr(category, "__module__", None), getattr(category, "__name__", None)
    if not isinstance(owner, str) or not isinstance(name, str) or owner == "__main__":
        return None
    return [owner, name] if getattr(sys.modules.get(owner), name, None) is category else None


def _encode_pattern(pattern: Any) -> Any:
    # The interpreter's first filter has a plain string where all others have compiled patterns.
    return pattern if pattern is None or type(pattern) is str else (pattern.pattern, pattern.flags)


def _decode_pattern(pattern: Any) -> Any:
    if pattern is None or type(pattern) is str:
        return pattern
    import re

    return re.compile(*pattern)


def _restore_filters(state: list[Any]) -> None:
    if len(active_filters()) == len(state) and _capture_filters() == state:
        return
    wanted = [_decode_filter(entry) for entry in state]
    install_filters([entry for entry in wanted if entry is not None])
    for position, entry in enumerate(wanted):
        if entry is None:
            _await_category(state[position], [later for later in wanted[position + 1 :] if later is not None])


def _decode_filter(encoded: list[Any]) -> tuple[Any, ...] | None:
    action, message, (owner, name), module, line = encoded
    category = getattr(sys.modules.get(owner), name, None)
    if category is None:
        return None
    return (action, _decode_pattern(message), category, _decode_pattern(module), line)


def _await_category(encoded: list[Any], followers: list[Any]) -> None:
    # Nothing can be warned of in a category that is not loaded, and importing numpy for its sake is dear.
    from bequest.carry.ambient import waiting

    def insert(late: list[Any]) -> None:
        entry, active = _decode_filter(late), active_filters()
        if entry is not None and entry not in active:
            places = [i for i, present in enumerate(active) if present in followers]
            active.insert(places[0] if places else len(active), entry)
            install_filters(list(active))

    waiting.wait_for(encoded[2][0], ("interpreter", f"filter {encoded}"), encoded, insert)


ADOPTERS = (
    Adopter("settings", _capture_settings, _restore_settings, plain=True),
    Adopter("attributes", _capture_attributes, _restore_attributes, plain=True),
    Adopter("arguments", _capture_arguments, _restore_arguments, plain=True),
    Adopter("stream modes", _capture_modes, _restore_modes, plain=True),
    Adopter("filters", _capture_filters, _restore_filters, plain=True),
    Adopter("path", _capture_path, _restore_path, plain=True),
    Adopter("thread name", _capture_thread_name, _restore_thread_name, plain=True),
)
