"""Which ambient state matters to a child that touches these modules.

"logs: logging", {"logging", ...} -> ambient_matters -> True
"""

from __future__ import annotations

import importlib

# What spawn hands over as well, what the probe has otherwise than a child would, or what no program reads.
_NEVER = (
    "interpreter: arguments", "interpreter: stream modes", "interpreter: path", "interpreter: thread name",
    "system: root", "system: working directory", "system: scheduling", "system: priority", "system: affinity",
    "system: process group", "system: credentials", "hooks: arguments", "hooks: importers",
    "libraries: faulthandler",
)  # fmt: skip
_NEED = {
    "interpreter: filters": ("warnings",),
    "interpreter: attributes": ("sys",),
    "libraries: context": ("contextvars", "_contextvars"),
    "system: environment": ("os", "subprocess"),
    "system: umask": ("os", "pathlib", "io"),
    "system: limits": ("resource",),
    "system: time zone": ("time", "datetime"),
    "signals: signals": ("signal", "os"),
    "signals: handlers": ("signal", "os"),
}


def ambient_matters(name: str, touched: set[str]) -> bool:
    """Tell whether a difference in a piece of ambient state is one that the code may notice.

    Args:
        name: "family: name" of the piece.
        touched: Names of the modules that the code touches.
    """
    if name in _NEVER:
        return False
    need = _NEED.get(name)
    if need is None:
        owner = _owner(name)
        need = (owner,) if owner is not None else ()
    return not need or any(each == t or t.startswith(f"{each}.") for each in need for t in touched)


def _owner(name: str) -> str | None:
    family, _, piece = name.partition(": ")
    module = importlib.import_module(f"bequest.carry.ambient.{family}")
    found = next((adopter.owner for adopter in module.ADOPTERS if adopter.name == piece), None)
    return None if found is None else str(found)
