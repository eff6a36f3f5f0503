"""How exceptions are reduced: by what they hold, so that a demanding `__init__` cannot lose one on the way.

    exception -> make_exception(class, builtin base, args), then attributes, notes, cause and context

An exception class that says itself how it is pickled is asked, except by a process that starts.
"""

from __future__ import annotations

from bequest.carry import instances

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bequest.carry.graph import PackingPickler

# Set by C code from the arguments; read back here, since `args` may have been changed or may not tell them.
_FIELDS = (
    "errno",
    "strerror",
    "filename",
    "filename2",
    "winerror",
    "characters_written",  # OSError
    "name",
    "path",
    "name_from",
    "obj",  # ImportError, AttributeError, NameError
    "msg",
    "lineno",
    "offset",
    "text",
    "end_lineno",
    "end_offset",
    "print_file_and_line",  # SyntaxError
    "encoding",
    "object",
    "start",
    "end",
    "reason",  # UnicodeError
    "code",
    "value",  # SystemExit, StopIteration
)


def reduce_exception(error: BaseException, packing: PackingPickler) -> Any:
    """Reduce an exception, cause and context included; its traceback stays behind."""
    kind = type(error)
    base: Any = instances.solid_base(kind)
    own_way = kind.__reduce__ is not base.__reduce__ or kind.__reduce_ex__ is not base.__reduce_ex__
    if own_way and not packing.starting:
        return packing.own_way(error)
    fields = _fields(error, base)
    made: tuple[Any, ...] = error.args
    if isinstance(error, BaseExceptionGroup):
        made = (error.message, list(error.exceptions))
    state = {
        "dict": instances.instance_dict(error) or None,
        "slots": instances.read_slots(error) or None,
        "fields": fields or None,
        "args": error.args,
        "cause": error.__cause__,
        "context": error.__context__,
        "suppress": error.__suppress_context__ or None,
    }
    state = {name: value for name, value in state.items() if value is not None}
    return make_exception, (kind, base, made), state, None, None, set_exception


def _fields(error: BaseException, base: type) -> dict[str, Any]:
    if base in (BaseException, Exception):
        return {}
    found = {}
    for name in _FIELDS:
        if type(base.__dict__.get(name)).__name__ in ("member_descriptor", "getset_descriptor") or any(
            name in above.__dict__
            for above in base.__mro__
            if above not in (object, BaseException, Exception)
        ):
            try:
                value = getattr(error, name)
            except AttributeError:  # a C field that was never set
                continue
            # Read as None, those of an OSError may never have been set: its text tells which have.
            if value is not None or not issubclass(base, OSError):
                found[name] = value
    return found


def make_exception(kind: type[BaseException], base: Any, args: tuple[Any, ...]) -> BaseException:
    """Make an exception without calling its class's `__new__` or `__init__`."""
    made: BaseException = base.__new__(kind, *args)
    return made


def set_exception(error: BaseException, state: dict[str, Any]) -> None:
    """Set what an exception holds."""
    if not isinstance(error, BaseExceptionGroup):
        object.__setattr__(error, "args", state["args"])  # the class may be frozen
    for name, value in (state.get("fields") or {}).items():
        try:
            object.__setattr__(error, name, value)
        except (AttributeError, TypeError):  # read-only in this class: it was made from `args`
            continue
    instances.fill(error, (state.get("dict"), state.get("slots"), None))
    object.__setattr__(error, "__cause__", state.get("cause"))
    object.__setattr__(error, "__context__", state.get("context"))
    object.__setattr__(error, "__suppress_context__", bool(state.get("suppress")))
