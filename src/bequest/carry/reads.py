"""What a code object reads: globals, attributes, imports; and whether it asks for its namespace by name.

    code -> reads(code) -> Reads, nested code included, remembered for each code object

Read off the bytecode, not off `co_names`, which does not tell a global from an attribute of the same name.
"""

from __future__ import annotations

import opcode
import sys
from types import CodeType

from bequest.carry.remember import Remembered

_GLOBAL_OPS = frozenset(
    opcode.opmap[name]
    for name in ("LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
    if name in opcode.opmap
)
_IMPORT = opcode.opmap["IMPORT_NAME"]
_EXTENDED_ARG = opcode.opmap["EXTENDED_ARG"]
_NAME_OPS = frozenset(opcode.hasname)
# The low bits of some arguments are flags: LOAD_GLOBAL's since 3.11, LOAD_ATTR's since 3.12,
# LOAD_SUPER_ATTR's two since 3.12, IMPORT_NAME's two since 3.15.
_SHIFT = {opcode.opmap["LOAD_GLOBAL"]: 1}
if sys.version_info >= (3, 12):
    _SHIFT |= {opcode.opmap["LOAD_ATTR"]: 1, opcode.opmap["LOAD_SUPER_ATTR"]: 2}
if sys.version_info >= (3, 15):
    _SHIFT |= {_IMPORT: 2}

# What gives code the whole of its namespace, by names that no bytecode shows.
_ASKS = frozenset(("globals", "eval", "exec", "vars", "__import__"))
_ASKS_AS_ATTRIBUTE = frozenset(("f_globals", "__globals__"))


class Reads:
    """What one code object and those nested in it may touch beyond their own variables.

    Attributes:
        names: Globals read, written or deleted by name.
        attributes: Attribute names used on anything.
        imports: Dotted names of the modules imported inside.
        whole: Whether the code may ask for any name of its namespace (`globals()`, `eval`, `sys.modules`...).
    """

    __slots__ = ("attributes", "imports", "names", "whole")

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.imports: set[str] = set()
        self.whole = False


_known = Remembered()


def reads(code: CodeType) -> Reads:
    """Return what `code` reads; the result is shared and must not be changed."""
    known: Reads | None = _known.get(code)
    if known is not None:
        return known
    found = Reads()
    _collect(code, found)
    found.whole = bool(
        found.names & _ASKS
        or found.attributes & _ASKS_AS_ATTRIBUTE
        or ("modules" in found.attributes and "sys" in found.names | found.imports)
        or "__main__" in found.imports
    )
    _known.put(code, found)
    return found


def _collect(code: CodeType, found: Reads) -> None:
    names = code.co_names
    raw = code.co_code
    high = 0
    for position in range(0, len(raw), 2):
        op = raw[position]
        argument = raw[position + 1] | high
        high = argument << 8 if op == _EXTENDED_ARG else 0
        if op in _NAME_OPS:
            index = argument >> _SHIFT.get(op, 0)
            if index >= len(names):
                continue
            if op in _GLOBAL_OPS:
                found.names.add(names[index])
            elif op == _IMPORT:
                found.imports.add(names[index])
            else:
                found.attributes.add(names[index])
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _collect(constant, found)
