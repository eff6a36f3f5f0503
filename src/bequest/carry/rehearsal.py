"""A message made up, with which a start can be rehearsed ahead of time, to no effect.

    template: rehearse() -> the modules that every child needs are imported, what is looked up once is known
    a child that waits: message() -> taken as a start is -> the memory that a start writes to is its own

After a fork each page of memory is copied when it is first written to, and Python writes to all that it
touches: that is most of what a child does before its first instruction. The message has the form of any
start's (see `start`) and nothing of the program in it, and sets what this process has already.
"""

from __future__ import annotations

import marshal
from multiprocessing import process

from bequest.carry import (
    ambient,
    arrival,
    bindings,
    functions,
    instances,
    mainmodule,
    modules,
    namespaces,
    wellknown,
)
from bequest.carry.start import open_

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KEY = "bequest rehearsal"


class _Call:
    """Pickled as a call of what it was made of: what an object's reducer returned."""

    def __init__(self, *reduced: Any) -> None:
        self._reduced = reduced

    def __reduce__(self) -> tuple[Any, ...]:
        return self._reduced


class _Made:
    """The body, which is the same for all rehearsals; made once, in the template."""

    body = b""


def message() -> tuple[dict[str, Any], bytes]:
    """Return header and body of a start that sets what this process has already."""
    current: Any = process.current_process()
    header = {
        "plain": ambient.capture_plain(),
        "main": mainmodule.established(),
        "name": current.name,
        "sender": "",
        "authkey": bytes(current.authkey),
        "log_level": None,
        "log_to_stderr": False,
        "installed": None,
        "beside": None,
    }
    return header, _Made.body


def rehearse() -> None:
    """Open the message here, so that what it takes is imported and known."""
    import _io
    import _pickle

    file = _io.BytesIO()
    head, memo = wellknown.head(True)
    file.write(head)
    pickler = _pickle.Pickler(file, 5)
    pickler.memo = memo
    pickler.dump(_body())
    _Made.body = file.getvalue()
    open_(*message())
    settle()


def settle() -> None:
    """Forget what the message has bound, and find out what each child would: to be called after imports."""
    bindings.forget(_KEY)
    modules.user_modules()
    ambient.know_plain()


def _body() -> _Call:
    """Return what the pickler makes of a process whose target is a function of the main module."""
    code = _Call(functions.load_code, (marshal.dumps(_body.__code__),))
    made: tuple[Any, ...] = (code, {}, "rehearsed", None, ((_KEY, 0, None, 0), None))
    attributes = {"__qualname__": "rehearsed", "__module__": "__main__", "__defaults__": None}
    bound = ("", _KEY, {"time": _Call(namespaces.import_module, ("time",))}, (1,))
    target = _Call(functions.make_function, made, (attributes, bound), None, None, functions.set_function)
    state = {
        "_identity": (1,),
        "_config": {
            "authkey": _Call(vars(process)["AuthenticationString"], (bytes(32),)),
            "semprefix": "/mp",
        },
        "_parent_pid": 0,
        "_popen": None,
        "_target": target,
        "_args": ("",),
        "_kwargs": {},
    }
    kind = process.BaseProcess
    filled = (state, None, None)
    rebuilt = _Call(instances.create, (kind, object, None), filled, None, None, instances.fill)
    tail = _Call(arrival.ModuleState, (), None, iter((None, None, None)))
    return _Call(arrival.first, (({}, None, rebuilt), tail))
