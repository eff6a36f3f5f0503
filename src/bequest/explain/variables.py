"""Which instruction of a function reads which closure variable or global.

code -> variables_read(code) -> [Read(name, scope, file, line), ...], nested code included
"""

from __future__ import annotations

import dis
from types import CodeType

from bequest.explain.nodes import Read

_SCOPES = {
    "LOAD_GLOBAL": "global",
    "LOAD_NAME": "global",
    "LOAD_FROM_DICT_OR_GLOBALS": "global",
    "LOAD_DEREF": "closure",
    "LOAD_CLASSDEREF": "closure",  # to Python 3.11
    "LOAD_FROM_DICT_OR_DEREF": "closure",
}


def variables_read(code: CodeType) -> list[Read]:
    """Return the first instruction that reads each variable which is not the code's own, in order."""
    found: dict[tuple[str, str], Read] = {}
    _collect(code, found, set(code.co_freevars))
    return list(found.values())


def _collect(code: CodeType, found: dict[tuple[str, str], Read], free: set[str]) -> None:
    line = code.co_firstlineno
    for instruction in dis.get_instructions(code):
        position = instruction.positions
        line = (position.lineno if position is not None else None) or line
        scope = _SCOPES.get(instruction.opname)
        name = instruction.argval
        if scope is None or not isinstance(name, str) or (scope == "closure" and name not in free):
            continue
        found.setdefault((scope, name), Read(name, scope, code.co_filename, line))
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _collect(constant, found, free)
