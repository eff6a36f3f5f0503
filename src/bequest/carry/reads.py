"""What a code object reads: globals, attributes, imports; and where it may read by names that it computes.

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

# What reads or writes an attribute whose name is its second argument, or one of its arguments.
_BY_SECOND = frozenset(("getattr", "hasattr", "setattr", "delattr"))
_BY_STRINGS = _BY_SECOND | {"attrgetter", "methodcaller"}
# What gives all attributes of an object, by names that no bytecode shows.
_GIVES_ALL = frozenset(("vars", "dir", "__dict__", "getmembers", "getmembers_static"))
# What evaluates annotations that are text; the last is an argument of `inspect.signature`.
_EVALUATES = frozenset(
    ("get_type_hints", "get_annotations", "evaluate_forward_ref", "ForwardRef", "__annotations__", "eval_str")
)
_IMPORTS_BY_STRING = frozenset(("import_module", "__import__", "modules"))

_LOADS_GLOBAL = frozenset(
    opcode.opmap[name]
    for name in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
    if name in opcode.opmap
)
_CONSTANT = opcode.opmap["LOAD_CONST"]
_CALL = opcode.opmap["CALL"]
_USES_ATTRIBUTE = frozenset(
    opcode.opmap[name]
    for name in ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR", "DELETE_ATTR")
    if name in opcode.opmap
)
_LOADS_FROM = frozenset(opcode.opmap[name] for name in ("LOAD_ATTR", "LOAD_METHOD") if name in opcode.opmap)
_LOADS_VARIABLE = _LOADS_GLOBAL | {
    op
    for name, op in opcode.opmap.items()
    if name.startswith(("LOAD_FAST", "LOAD_DEREF", "LOAD_CLASSDEREF")) and name.count("LOAD_") == 1
}
_LOADS_FAST = frozenset(
    opcode.opmap[name] for name in ("LOAD_FAST", "LOAD_FAST_BORROW") if name in opcode.opmap
)
# Two variables at once, in halves of the argument; since 3.13.
_LOADS_TWO_FAST = frozenset(
    opcode.opmap[name]
    for name in ("LOAD_FAST_LOAD_FAST", "LOAD_FAST_BORROW_LOAD_FAST_BORROW")
    if name in opcode.opmap
)
_LOADS_ONE = _LOADS_VARIABLE | {
    opcode.opmap[name]
    for name in ("LOAD_CONST", "LOAD_SMALL_INT", "LOAD_COMMON_CONSTANT")
    if name in opcode.opmap
}
# Between a name and what is done with it: caches, prefixes, and the copy that `name.attribute += 1` makes.
_NOT_SEEN = frozenset(
    opcode.opmap[name]
    for name in ("CACHE", "EXTENDED_ARG", "PUSH_NULL", "NOP", "COPY", "PRECALL", "NOT_TAKEN")
    if name in opcode.opmap
)


class Reads:
    """What one code object and those nested in it may touch beyond their own variables.

    Attributes:
        names: Globals read, written or deleted by name.
        attributes: Attribute names used on anything.
        imports: Dotted names of the modules imported inside.
        sought: Dotted names that it may import modules by, or look them up in `sys.modules`.
        handed: Those of `names` whose objects are handed on as they are, to be read by whatever names.
        evaluates: Whether it may evaluate annotations that are text.
        computed: Whether it may read attributes of objects by names that are in no bytecode.
        computed_of_self: The same of `self` or `cls` alone, which are no modules.
        whole: Whether the code may ask for any name of its namespace (`globals()`, `eval`, `sys.modules`...).
    """

    __slots__ = (
        "attributes",
        "computed",
        "computed_of_self",
        "evaluates",
        "handed",
        "imports",
        "names",
        "sought",
        "whole",
    )

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.imports: set[str] = set()
        self.sought: set[str] = set()
        self.handed: set[str] = set()
        self.computed = False
        self.computed_of_self = False
        self.evaluates = False
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
    steps: list[tuple[int, int]] = []  # operations with their arguments: for names, the index of the name
    own: set[str] = set()
    for position in range(0, len(raw), 2):
        op = raw[position]
        argument = raw[position + 1] | high
        high = argument << 8 if op == _EXTENDED_ARG else 0
        if op in _NAME_OPS:
            argument >>= _SHIFT.get(op, 0)
            if argument >= len(names):
                continue
            own.add(names[argument])
            if op in _GLOBAL_OPS:
                found.names.add(names[argument])
            elif op == _IMPORT:
                found.imports.add(names[argument])
            else:
                found.attributes.add(names[argument])
        if op not in _NOT_SEEN:
            steps.append((op, argument))
    _follow_names(code, steps, found)
    _read_strings(code, own, found)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _collect(constant, found)


def _follow_names(code: CodeType, steps: list[tuple[int, int]], found: Reads) -> None:
    """Find out which names are handed on, and whether an attribute's name is computed."""
    names = code.co_names
    asks = -1  # where the object begins that an attribute of a constant name is read of
    for at, (op, argument) in enumerate(steps):
        if op not in _LOADS_GLOBAL or argument >= len(names):
            if op in _USES_ATTRIBUTE and names[argument] in _GIVES_ALL:
                _note_computed(code, steps[at - 1 : at], found)
            continue
        if names[argument] in _BY_SECOND:
            asks = at + 1 if _is_asked_by_constant(code, steps, at + 1) else -1
            if asks < 0:
                _note_computed(code, _first_alone(steps[at + 1 : at + 3]), found)
        elif names[argument] in _GIVES_ALL:
            _note_computed(code, _first_alone(steps[at + 1 : at + 3]), found)
        elif at != asks and not _uses_one_attribute(code, steps, at + 1):
            found.handed.add(names[argument])


def _first_alone(steps: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the first of two steps, unless the second reads an attribute of what it loads."""
    return steps[:1] if all(op not in _USES_ATTRIBUTE for op, _ in steps[1:]) else []


def _note_computed(code: CodeType, step: list[tuple[int, int]], found: Reads) -> None:
    """Note that names of what this step loads are computed."""
    for op, argument in step:
        index = argument if op in _LOADS_FAST else argument >> 4 if op in _LOADS_TWO_FAST else -1
        if index == 0 and code.co_varnames[0] in ("self", "cls"):
            found.computed_of_self = True
            return
    found.computed = True


def _is_asked_by_constant(code: CodeType, steps: list[tuple[int, int]], at: int) -> bool:
    """Tell whether the arguments from `at` on are a variable, or an attribute of one, and a constant string.

    Perhaps with one thing more, a default; anything longer may be the computation of a name.
    """
    if at >= len(steps) or steps[at][0] not in _LOADS_VARIABLE:
        return False
    at += 1
    while at < len(steps) and steps[at][0] in _LOADS_FROM:
        at += 1
    if at >= len(steps) or steps[at][0] != _CONSTANT or not isinstance(code.co_consts[steps[at][1]], str):
        return False
    after = [op for op, _ in steps[at + 1 : at + 3]]
    return after[:1] == [_CALL] or (after[1:] == [_CALL] and after[0] in _LOADS_ONE)


def _uses_one_attribute(code: CodeType, steps: list[tuple[int, int]], at: int) -> bool:
    if at >= len(steps) or steps[at][0] not in _USES_ATTRIBUTE:
        return False
    return code.co_names[steps[at][1]] not in _GIVES_ALL


def _read_strings(code: CodeType, own: set[str], found: Reads) -> None:
    """Take constant strings for names where code reads attributes or imports modules by strings."""
    keywords = (constant for constant in code.co_consts if type(constant) is tuple)
    if not own.isdisjoint(_EVALUATES) or any("eval_str" in given for given in keywords):
        found.evaluates = True
    reads_attributes = not own.isdisjoint(_BY_STRINGS)
    imports = not own.isdisjoint(_IMPORTS_BY_STRING)
    if not reads_attributes and not imports:
        return
    for text in code.co_consts:
        if isinstance(text, str):
            parts = text.split(".")
            if all(part.isidentifier() for part in parts):
                found.attributes.update(parts if reads_attributes else ())
                found.sought.update((text,) if imports else ())
