"""Run-time registries and settings of the standard library, logging apart.

    parent: capture -> what differs from a fresh import, or None
    child:  restore, at once or when the module is imported there

Looked at only where the parent has loaded the module that owns it.
"""

from __future__ import annotations

import functools
import sys

from bequest.carry.ambient.adopter import Adopter, LastLook, is_front_end, is_stand_in, report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType
    from typing import Any


# --- warnings: what `interpreter` cannot send as plain data

_WARNING_HOOKS = ("showwarning", "formatwarning", "_showwarnmsg_impl")


def _capture_warnings() -> dict[str, Any] | None:
    from bequest.carry.ambient.interpreter import filters_without_name

    warnings = sys.modules["warnings"]
    state: dict[str, Any] = {}
    filters = filters_without_name()
    if filters:
        state["filters"] = filters
    hooks = {name: getattr(warnings, name) for name in _WARNING_HOOKS if not _is_original(warnings, name)}
    if hooks:
        state["hooks"] = hooks
    if warnings.onceregistry:
        state["once"] = warnings.onceregistry
    if warnings.defaultaction != "default":
        state["action"] = warnings.defaultaction
    log = _recording(warnings)
    if log is not None:
        state["log"] = log
    return state or None


def _is_original(warnings: ModuleType, name: str) -> bool:
    hook = getattr(warnings, name)
    module = getattr(hook, "__module__", None)
    return module in ("warnings", "_py_warnings") and getattr(hook, "__name__", None) == name


def _recording(warnings: ModuleType) -> list[Any] | None:
    # catch_warnings(record=True) keeps its list in a context since 3.14, where the interpreter is told so.
    context = warnings._get_context() if getattr(warnings, "_use_context", False) else None
    return None if context is None else context.log


def _restore_warnings(state: dict[str, Any]) -> None:
    from bequest.carry.ambient.interpreter import active_filters, install_filters

    warnings = sys.modules["warnings"]
    for name, hook in state.get("hooks", {}).items():
        if is_stand_in(hook):
            report("warnings.%s is the original: it stayed in the parent", name)
        else:
            setattr(warnings, name, hook)
    warnings.onceregistry.update(state.get("once", {}))
    if "action" in state:
        warnings.defaultaction = state["action"]  # type: ignore[attr-defined]
    if "log" in state:
        _, context = warnings._new_context()
        context.log = state["log"]
    filters = list(active_filters())
    for position, entry in state.get("filters", ()):
        if entry not in filters:
            filters.insert(position, entry)
    if len(filters) != len(active_filters()):
        install_filters(filters)


class _Probe(Warning):
    """Its warnings are what the filters' version is found out by."""


def _filters_version() -> int:
    """Return the number by which the interpreter knows a registry as being of the present filters.

    It is kept in C alone: a registry that is looked into gets it. The filter is put in past what counts.
    """
    import warnings

    from bequest.carry.ambient.interpreter import active_filters

    filters, own = active_filters(), ("ignore", None, _Probe, None, 0)
    registry: dict[Any, Any] = {}
    filters.insert(0, own)
    try:
        warnings.warn_explicit("", _Probe, "", 0, registry=registry)
    finally:
        filters.remove(own)
    return int(registry.get("version", -1))


def _capture_shown() -> dict[str, dict[Any, Any]] | None:
    """Return what warnings the main module and user modules have shown, by module."""
    from bequest.carry import modules

    places = [("__main__", modules.main_module()), *modules.user_modules()]
    shown = {name: vars(place)["__warningregistry__"] for name, place in places if _has_registry(place)}
    if not shown:
        return None
    version = _filters_version()  # of older filters, a registry is as good as empty
    return {
        name: {key: value for key, value in list(registry.items()) if key != "version"}
        for name, registry in shown.items()
        if registry.get("version") == version
    } or None


def _has_registry(module: ModuleType) -> bool:
    return type(vars(module).get("__warningregistry__")) is dict


def _restore_shown(state: dict[str, dict[Any, Any]]) -> None:
    version = _filters_version()
    for name, shown in state.items():
        module = sys.modules.get(name)  # one that is not loaded yet can warn of its import anew
        if module is not None:
            vars(module)["__warningregistry__"] = {"version": version, **shown}


# --- contexts

# Kept by C code as capsules or as what other adopters carry.
_OTHERS_VARIABLES = frozenset({"decimal_context", "numpy.ufunc.extobj", "warnings_context"})


def _capture_context() -> list[tuple[Any, Any]] | None:
    context = sys.modules["_contextvars"].copy_context()
    if not context:
        return None
    numpys = getattr(sys.modules.get("numpy._core.printoptions"), "format_options", None)
    return [
        (variable, value)
        for variable, value in context.items()
        if variable.name not in _OTHERS_VARIABLES and variable is not numpys and not is_front_end(value)
    ] or None


def _restore_context(state: list[tuple[Any, Any]]) -> None:
    # A value that is a stand-in is set all the same: whoever reads it learns what is missing, and why.
    from bequest.carry.objects.contexts import assign

    for variable, value in state:
        if not is_stand_in(variable):
            assign(variable, value)


_PLAIN_DECIMAL = (28, "ROUND_HALF_EVEN", -999999, 999999, 1, 0)
_PLAIN_TRAPS = {"InvalidOperation", "DivisionByZero", "Overflow"}


def _capture_decimal() -> dict[str, Any] | None:
    decimal = sys.modules["decimal"]
    found = {
        "current": _decimal_state(decimal.getcontext()),
        "default": _decimal_state(decimal.DefaultContext),
    }
    return {name: state for name, state in found.items() if state is not None} or None


def _decimal_state(context: Any) -> tuple[Any, ...] | None:
    _, (*numbers, flags, traps) = context.__reduce__()
    names = [signal.__name__ for signal in flags], [signal.__name__ for signal in traps]
    if tuple(numbers) == _PLAIN_DECIMAL and not names[0] and set(names[1]) == _PLAIN_TRAPS:
        return None
    return (*numbers, *names)


def _restore_decimal(state: dict[str, Any]) -> None:
    import decimal

    targets = {"current": decimal.getcontext(), "default": decimal.DefaultContext}
    for name, (prec, rounding, low, high, capitals, clamp, flags, traps) in state.items():
        context = targets[name]
        context.prec, context.rounding, context.Emin, context.Emax = prec, rounding, low, high
        context.capitals, context.clamp = capitals, clamp
        for switches, set_ in ((context.flags, flags), (context.traps, traps)):
            for signal in list(switches):
                switches[signal] = signal.__name__ in set_


# --- registries of functions: the entries that the owning module did not make itself


def _additions(attribute: str, maker: Callable[[Any], Any]) -> Callable[[ModuleType], dict[Any, Any]]:
    def find(module: ModuleType) -> dict[Any, Any]:
        entries = list(getattr(module, attribute, {}).items())
        return {key: value for key, value in entries if _foreign(maker(value), module)}

    return find


def _foreign(function: Any, module: ModuleType) -> bool:
    made_in = getattr(function, "__module__", None)
    return made_in != module.__name__ and not str(made_in).startswith(module.__name__ + ".")


def _registry(name: str, module: str, attribute: str, maker: Callable[[Any], Any]) -> Adopter:
    find = _additions(attribute, maker)

    def capture() -> dict[Any, Any] | None:
        return find(sys.modules[module]) or None

    def restore(entries: dict[Any, Any]) -> None:
        getattr(sys.modules[module], attribute).update(entries)

    return Adopter(name, capture, restore, owner=module)


_MADE_BY_CLASS = 1 << 9  # Py_TPFLAGS_HEAPTYPE


def _capture_copyreg() -> dict[Any, Any] | None:
    # Packages register theirs again when they are imported; what the program has registered comes along.
    table = sys.modules["copyreg"].dispatch_table.copy()  # at one go: other threads may import
    return _registered.of((*table, *table.values())) or None


def _find_programs(table: Sequence[Any]) -> dict[Any, Any]:
    """Return what the program has registered, of all classes and behind them their reducers."""
    pairs = zip(table, table[len(table) // 2 :], strict=False)
    return {kind: reduce for kind, reduce in pairs if _is_programs(kind, reduce)}


_registered = LastLook(_find_programs)


def _is_programs(kind: type, reduce: Any) -> bool:
    from bequest.carry.modules import is_user_module

    name = getattr(reduce, "__module__", None)
    if name == "__main__":
        return True
    if not kind.__flags__ & _MADE_BY_CLASS:  # an extension's type, registered by the package that defines it
        return False
    module = sys.modules.get(name) if isinstance(name, str) else None
    return module is not None and is_user_module(module)


def _restore_copyreg(entries: dict[Any, Any]) -> None:
    sys.modules["copyreg"].dispatch_table.update(entries)


# --- csv, socket, calendar, mimetypes, tempfile, gettext, xml: plain values

_CSV_OWN = frozenset({"excel", "excel-tab", "unix"})
_CSV_FIELDS = (
    "delimiter", "doublequote", "escapechar", "lineterminator",
    "quotechar", "quoting", "skipinitialspace", "strict",
)  # fmt: skip
_CSV_LIMIT = 131_072  # characters in a field, unless set otherwise


def _capture_csv() -> tuple[dict[str, Any], int] | None:
    csv = sys.modules["csv"]
    added = [name for name in csv.list_dialects() if name not in _CSV_OWN]
    dialects = {name: {f: getattr(csv.get_dialect(name), f) for f in _CSV_FIELDS} for name in added}
    limit = csv.field_size_limit()
    return (dialects, limit) if dialects or limit != _CSV_LIMIT else None


def _restore_csv(state: tuple[dict[str, Any], int]) -> None:
    import csv

    dialects, limit = state
    for name, fields in dialects.items():
        csv.register_dialect(name, **fields)
    csv.field_size_limit(limit)


def _capture_timeout() -> float | None:
    timeout: float | None = sys.modules["socket"].getdefaulttimeout()
    return timeout


def _restore_timeout(seconds: float) -> None:
    sys.modules["socket"].setdefaulttimeout(seconds)


def _capture_weekday() -> int | None:
    return int(sys.modules["calendar"].firstweekday()) or None  # Monday, 0, unless set otherwise


def _restore_weekday(day: int) -> None:
    sys.modules["calendar"].setfirstweekday(day)


def _mime_maps(database: Any) -> list[dict[str, str]]:
    return [database.types_map[False], database.types_map[True], database.encodings_map, database.suffix_map]


@functools.cache  # reading the system's files takes a millisecond
def _fresh_mime_maps() -> list[dict[str, str]]:
    mimetypes = sys.modules["mimetypes"]
    database = mimetypes.MimeTypes()
    for path in mimetypes.knownfiles:
        try:
            database.read(path)
        except OSError:  # most of the places where such a file may be do not have one
            continue
    return _mime_maps(database)


def _capture_mimetypes() -> list[tuple[dict[str, str], list[str]]] | None:
    mimetypes = sys.modules["mimetypes"]
    if not mimetypes.inited or mimetypes._db is None:
        return None
    now, fresh = _mime_maps(mimetypes._db), _fresh_mime_maps()
    if now == fresh:
        return None
    return [
        ({k: v for k, v in mine.items() if plain.get(k) != v}, [k for k in plain if k not in mine])
        for mine, plain in zip(now, fresh, strict=True)
    ]


def _restore_mimetypes(state: list[tuple[dict[str, str], list[str]]]) -> None:
    import mimetypes

    if not mimetypes.inited:
        mimetypes.init()
    database: Any = mimetypes._db  # type: ignore[attr-defined]
    for strict, (added, _) in zip((False, True), state, strict=False):
        for extension, kind in added.items():
            database.add_type(kind, extension, strict)
    for entries, (added, removed) in zip(_mime_maps(database), state, strict=True):
        entries.update(added)
        for key in removed:
            entries.pop(key, None)


def _capture_tempdir() -> str | bytes | None:
    import os

    chosen: str | bytes | None = sys.modules["tempfile"].tempdir
    usual = next(filter(None, map(os.environ.get, ("TMPDIR", "TEMP", "TMP"))), "/tmp")
    return None if chosen == usual else chosen


def _restore_tempdir(chosen: str | bytes) -> None:
    sys.modules["tempfile"].tempdir = chosen  # type: ignore[attr-defined]


def _capture_gettext() -> tuple[str, dict[str, str]] | None:
    gettext = sys.modules["gettext"]
    if gettext._current_domain == "messages" and not gettext._localedirs:
        return None
    return (gettext._current_domain, dict(gettext._localedirs))


def _restore_gettext(state: tuple[str, dict[str, str]]) -> None:
    gettext = sys.modules["gettext"]
    gettext.textdomain(state[0])
    gettext._localedirs.update(state[1])


_XML_OWN = frozenset({"xml", "html", "rdf", "wsdl", "xs", "xsi", "dc"})


def _capture_namespaces() -> dict[str, str] | None:
    names = sys.modules["xml.etree.ElementTree"]._namespace_map
    return {uri: prefix for uri, prefix in names.items() if prefix not in _XML_OWN} or None


def _restore_namespaces(names: dict[str, str]) -> None:
    for uri, prefix in names.items():
        sys.modules["xml.etree.ElementTree"].register_namespace(prefix, uri)


# --- single objects


def _capture_opener() -> Any:
    request = sys.modules["urllib.request"]
    opener = request._opener
    if opener is None:
        return None
    # urlopen() makes a plain one by itself; a child will do the same.
    own = [type(handler).__module__ == "urllib.request" for handler in opener.handlers]
    configured = any(getattr(handler, "cookiejar", None) is not None for handler in opener.handlers)
    return None if all(own) and not configured and len(opener.addheaders) == 1 else opener


def _restore_opener(opener: Any) -> None:
    if is_stand_in(opener):
        report("urllib has no opener installed: it stayed in the parent")
    else:
        sys.modules["urllib.request"].install_opener(opener)


def _capture_loop_policy() -> type | None:
    # The policy itself holds the threads' loops; what matters in another process is its kind.
    policy = sys.modules["asyncio.events"]._event_loop_policy
    kind = type(policy)
    return None if policy is None or kind.__module__.startswith("asyncio.") else kind


def _restore_loop_policy(kind: Any) -> None:
    events = sys.modules["asyncio.events"]
    install = (
        getattr(events, "_set_event_loop_policy", None) or events.set_event_loop_policy
    )  # 3.14 deprecates it
    if type(events._event_loop_policy) is not kind:
        install(kind())


def _capture_faulthandler() -> bool | None:
    return sys.modules["faulthandler"].is_enabled() or None


def _restore_faulthandler(_enabled: bool) -> None:
    import faulthandler

    if not faulthandler.is_enabled() and sys.__stderr__ is not None:
        faulthandler.enable(sys.__stderr__)


ADOPTERS = (
    Adopter("warnings", _capture_warnings, _restore_warnings, owner="warnings"),
    Adopter("context", _capture_context, _restore_context, owner="_contextvars", eager=True),
    Adopter("decimal", _capture_decimal, _restore_decimal, owner="decimal"),
    _registry("sqlite3 adapters", "sqlite3", "adapters", lambda adapt: adapt),
    _registry("sqlite3 converters", "sqlite3", "converters", lambda convert: convert),
    _registry("archive formats", "shutil", "_ARCHIVE_FORMATS", lambda entry: entry[0]),
    _registry("unpack formats", "shutil", "_UNPACK_FORMATS", lambda entry: entry[1]),
    Adopter("copyreg", _capture_copyreg, _restore_copyreg, owner="copyreg", eager=True),
    Adopter("csv", _capture_csv, _restore_csv, owner="csv"),
    Adopter("first day of the week", _capture_weekday, _restore_weekday, owner="calendar"),
    Adopter("socket timeout", _capture_timeout, _restore_timeout, owner="socket"),
    Adopter("mime types", _capture_mimetypes, _restore_mimetypes, owner="mimetypes"),
    Adopter("temporary directory", _capture_tempdir, _restore_tempdir, owner="tempfile"),
    Adopter("gettext", _capture_gettext, _restore_gettext, owner="gettext"),
    Adopter("xml namespaces", _capture_namespaces, _restore_namespaces, owner="xml.etree.ElementTree"),
    Adopter("urllib opener", _capture_opener, _restore_opener, owner="urllib.request"),
    Adopter("event loop policy", _capture_loop_policy, _restore_loop_policy, owner="asyncio.events"),
    Adopter("faulthandler", _capture_faulthandler, _restore_faulthandler, owner="faulthandler", eager=True),
    # Last: whatever changes the filters makes what has been shown count for nothing.
    Adopter("warnings shown", _capture_shown, _restore_shown, owner="warnings"),
)
