"""Classes derived from those of C and of the standard library, with constructors of their own."""

from __future__ import annotations

import abc
import array
import collections
import datetime
import decimal
import io
import random
from typing import Any


def derived(base: Any, *made_of: Any) -> Any:
    """Return an instance of a local class whose constructor nobody else knows how to call."""

    class Slotted(base):  # type: ignore[misc]
        __slots__ = ("note",)

    class Derived(Slotted):
        def __new__(cls, must: Any, *, by_name: Any) -> Any:
            assert (must, by_name) == ("must", "by name")
            return base.__new__(cls, *made_of)

        def __init__(self, must: Any, *, by_name: Any) -> None:
            if base.__init__ is not object.__init__:
                base.__init__(self, *made_of)
            self.note, self.tag = "note", [self]

    return Derived("must", by_name="by name")


# The value that an instance stands for, as an expression about `it`.
LIBRARY: dict[str, tuple[Any, tuple[Any, ...], str]] = {
    "date": (datetime.date, (2020, 1, 2), "it.isoformat()"),
    "datetime": (datetime.datetime, (2020, 1, 2), "it.isoformat()"),
    "time": (datetime.time, (3, 4), "it.isoformat()"),
    "timedelta": (datetime.timedelta, (3,), "it.days"),
    "tzinfo": (datetime.tzinfo, (), "it is not None"),
    "decimal": (decimal.Decimal, ("1.10",), "str(it)"),
    "defaultdict": (collections.defaultdict, (list, {"a": 1}), "(it['b'], it['a'])"),
    "ordered": (collections.OrderedDict, ([("b", 1), ("a", 2)],), "list(it.items())"),
    "deque": (collections.deque, ([1, 2, 3], 2), "(list(it), it.maxlen)"),
    "array": (array.array, ("i", [1, 2]), "(list(it), it.typecode)"),
    "text": (io.StringIO, ("text",), "it.getvalue()"),
    "octets": (io.BytesIO, (b"octets",), "it.getvalue()"),
    "random": (random.Random, (5,), "it.random()"),
}


class _Typed(property):
    """A property that knows the type of its value, and one more function."""

    def __init__(self, function: Any, kind: type) -> None:
        super().__init__(function)
        self.kind = kind


class _OfClass(property):
    def __get__(self, obj: Any, kind: Any = None) -> Any:
        assert self.fget is not None
        return self.fget(kind)


class _Command(staticmethod):  # type: ignore[type-arg]
    def __init__(self, function: Any, name: str) -> None:
        super().__init__(function)
        self.name = name


def with_descriptors() -> Any:
    """Return a local class with descriptors of classes derived from the builtin ones."""

    class Typed(_Typed):
        pass

    class Described:
        size = Typed(lambda self: 3, int)
        kind = _OfClass(lambda cls: cls.__name__)
        run = _Command(lambda: "ran", "command")

    return Described


def with_abstract_property() -> Any:
    """Return an abstract local class that uses what the library derives from property."""

    class Shape(abc.ABC):
        @abc.abstractproperty
        def size(self) -> int: ...

    return Shape


def claiming() -> Any:
    """Return an instance of a local class that says it is of another, as proxies do."""

    class Claiming:
        @property  # type: ignore[misc]  # typeshed has a property that can be set
        def __class__(self) -> Any:
            return int

        def __init__(self) -> None:
            self.value = 1

    return Claiming()


def like_its_metaclass() -> Any:
    """Return a class with attributes for which its metaclass has descriptors."""

    class Meta(type):
        @property
        def label(cls) -> str:
            return "of all"

    class Labelled(metaclass=Meta):
        label = "own"
        __name__ = "n"

    return Labelled


def property_error() -> Any:
    """Return a function that returns what the error about a property without a setter says."""

    class Sized:
        size = property(lambda self: 1)

    def ask() -> str:
        try:
            Sized().size = 2
        except AttributeError as error:
            return str(error).replace("property_error.<locals>.", "")
        return "it was set"

    return ask
