"""The stand-in for an object that could not leave its process.

    sender: Explanation(path, kind, reason, remedy) -> receiver: LeftBehind(explanation)

The child may store it, pass it on, compare it by identity, print it: every real use raises `LeftBehindError`.
"""

from __future__ import annotations

from collections.abc import Callable

from bequest.errors import LeftBehindError


class Explanation:
    """What was left behind, where it stood, why, and what to do.

    Attributes:
        path: As in `CarryError`; empty until the message that brings it has been read to its end.
        kind: Qualified type name of the object.
        reason: Why it was left, as a clause.
        remedy: What the user can do, as an imperative.
    """

    __slots__ = ("kind", "path", "reason", "remedy")

    def __init__(self, path: str, kind: str, reason: str, remedy: str) -> None:
        self.path, self.kind, self.reason, self.remedy = path, kind, reason, remedy

    def __reduce__(self) -> tuple[object, ...]:
        return Explanation, (self.path, self.kind, self.reason, self.remedy)

    def error(self, use: str) -> LeftBehindError:
        """Return the error that a use of the object raises."""
        return LeftBehindError(self.path, self.kind, self.reason, self.remedy, use)


class LeftObject:
    """An object that was left behind, in the process that packed the message.

    Attributes:
        obj: The object itself.
        explanation: What the receiver's stand-in says; its path is filled in when the message is complete.
        cause: What its own way to be pickled raised, or None.
        often_held: As in `NotCarriedError`.
        is_own: Whether the program's own code raised the cause: then that is what a refusal raises.
    """

    __slots__ = ("cause", "explanation", "is_own", "obj", "often_held")

    def __init__(
        self,
        obj: object,
        explanation: Explanation,
        cause: BaseException | None,
        often_held: bool,
        *,
        is_own: bool,
    ) -> None:
        self.obj, self.explanation, self.cause = obj, explanation, cause
        self.often_held, self.is_own = often_held, is_own


class LeftBehind:
    """In a child, in the place of an object that stayed in the parent.

    `repr`, `bool` (True), identity, equality with itself, hashing, copying and passing on work; all else
    raises `LeftBehindError`.
    """

    __slots__ = ("__weakref__", "_explanation")

    def __init__(self, explanation: Explanation) -> None:
        object.__setattr__(self, "_explanation", explanation)

    def __getattribute__(self, name: str) -> object:
        if name in _PASSIVE:
            return object.__getattribute__(self, name)
        raise explanation_of(self).error(f"attribute {name!r}")

    def __setattr__(self, name: str, value: object) -> None:
        raise explanation_of(self).error(f"setting attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        raise explanation_of(self).error(f"deleting attribute {name!r}")

    def __repr__(self) -> str:
        about = explanation_of(self)
        return f"<left behind: {about.path} ({about.kind})>"

    def __bool__(self) -> bool:
        return True

    def __reduce_ex__(self, protocol: object) -> tuple[object, ...]:
        return LeftBehind, (explanation_of(self),)

    def __copy__(self) -> LeftBehind:
        return self

    def __deepcopy__(self, memo: object) -> LeftBehind:
        return self


_PASSIVE = frozenset(("__class__", "__reduce_ex__", "__reduce__", "__copy__", "__deepcopy__", "__repr__"))


def explanation_of(stand_in: LeftBehind) -> Explanation:
    """Return what a stand-in stands for, without using it."""
    about: Explanation = object.__getattribute__(stand_in, "_explanation")
    return about


_USES = {
    "call": "call",
    "iter next reversed aiter anext": "iteration",
    "getitem setitem delitem contains missing": "item access",
    "enter exit aenter aexit": "use in a with statement",
    "await": "await",
    "len length_hint": "len()",
    "int float complex index round trunc floor ceil bytes fspath": "conversion",
    "lt le gt ge": "comparison",
    "add radd iadd sub rsub isub mul rmul imul matmul rmatmul imatmul truediv rtruediv itruediv floordiv "
    "rfloordiv ifloordiv mod rmod imod divmod rdivmod pow rpow ipow lshift rlshift ilshift rshift rrshift "
    "irshift and rand iand xor rxor ixor or ror ior neg pos abs invert": "arithmetic",
    "get set delete": "use as a descriptor",
}


def _refusing(use: str) -> Callable[..., object]:
    def refuse(self: LeftBehind, *args: object, **named: object) -> object:
        raise explanation_of(self).error(use)

    return refuse


def _refuse_all_uses() -> None:
    for names, use in _USES.items():
        for name in names.split():
            setattr(LeftBehind, f"__{name}__", _refusing(use))


_refuse_all_uses()
