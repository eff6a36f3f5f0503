"""What the tests of the carrying core send: makers of functions, classes and objects that no import finds."""

from __future__ import annotations

import abc
import asyncio
import collections
import dataclasses
import enum
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

CALLS: list[str] = []  # what ran in this process: carrying must run none of it anywhere
TABLE = {"one": 1}
LEVEL = "as imported"


def read_level() -> tuple[str, dict[str, int]]:
    """Return two globals of this module."""

    return LEVEL, TABLE


def table_by_default(table: dict[str, int] = TABLE) -> dict[str, int]:
    """Return a global that is known here by a default argument as well."""

    return table


# -- functions -----------------------------------------------------------------------------------------------


def add(amount: int) -> Callable[[int], int]:
    """Return a lambda over a number."""

    return lambda number: number + amount


def counter() -> tuple[Callable[[], int], Callable[[], int]]:
    """Return two closures over one variable: one that counts up, one that looks."""

    count = 0

    def up() -> int:
        nonlocal count
        count += 1
        return count

    return up, lambda: count


def factorial() -> Callable[[int], int]:
    """Return a closure that calls itself."""

    def times(number: int) -> int:
        return 1 if number < 2 else number * times(number - 1)

    return times


def with_empty_cell() -> Callable[[], str]:
    """Return a closure over a variable that was never set."""

    def ask() -> str:
        try:
            return str(late)
        except NameError:
            return "empty"

    if not TABLE:
        late = "never"
    return ask


def generator() -> Callable[[int], Iterator[int]]:
    """Return a local generator function."""

    def squares(count: int) -> Iterator[int]:
        for number in range(count):
            yield number * number

    return squares


def coroutine() -> Callable[[int], int]:
    """Return a closure over a local coroutine function."""

    async def twice(number: int) -> int:
        await asyncio.sleep(0)
        return 2 * number

    return lambda number: asyncio.run(twice(number))


def with_defaults() -> Callable[..., Any]:
    """Return a lambda with defaults of both kinds."""

    return lambda a=(1, 2), *, b={"three": 3}: (a, b)


def documented() -> Any:
    """Return a function with documentation, annotations and an attribute."""

    def work(number: int = 0) -> str:
        """Do the work."""
        return str(number)

    work.tag = ["x"]  # type: ignore[attr-defined]
    return work


def cached() -> Any:
    """Return a local function under `lru_cache`."""

    @functools.lru_cache(maxsize=4)
    def double(number: int) -> int:
        return 2 * number

    return double


def wrapped() -> Any:
    """Return a local function under a decorator that uses `functools.wraps`."""

    def noting(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def inner(*args: Any) -> Any:
            return "noted", function(*args)

        return inner

    @noting
    def work(number: int) -> int:
        """Work."""
        return number + 1

    return work


def partial() -> Any:
    """Return a partial of a lambda."""

    return functools.partial(lambda a, b, c: (a, b, c), 1, c=3)


def noted_partial() -> Any:
    """Return a partial with attributes, one of which is itself."""
    made: Any = functools.partial(lambda *args: args, 1)
    made.note, made.me = "note", made
    return made


def chain(length: int) -> Callable[[], int]:
    """Return the last of `length` closures, each of which holds the one before."""
    function: Callable[[], Any] = lambda: 0  # noqa: E731 - the first link is no different from the others
    for number in range(length):
        function = _link(function, number)
    return function


def _link(before: Any, number: int) -> Callable[[], Any]:
    return lambda: (before, number)


def chain_length(function: Any) -> int:
    """Return how many closures hang on one another."""
    length = 0
    while function.__closure__:
        function = function()[0]
        length += 1
    return length


def linked_list(length: int) -> Any:
    """Return the head of a list of nested pairs."""
    head: Any = None
    for number in range(length):
        head = [number, head]
    return head


def list_length(head: Any) -> int:
    """Return the length of a linked list."""
    length = 0
    while head is not None:
        length, head = length + 1, head[1]
    return length


def taken_apart(head: Any) -> bool:
    """Free a linked list link by link: older Pythons free a deep one by recursion in C."""
    while head is not None:
        rest, head[1] = head[1], None
        head = rest
    return True


# -- classes -------------------------------------------------------------------------------------------------


def local_class() -> Any:
    """Return a class with methods of every kind; its constructor tells `CALLS`."""

    class Point:
        """A point."""

        made = 0

        def __init__(self, x: int, y: int = 0) -> None:
            CALLS.append("__init__")
            self.x, self.y = x, y

        def swapped(self) -> Any:
            return type(self)(self.y, self.x)

        @property
        def total(self) -> int:
            return self.x + self.y

        @classmethod
        def origin(cls) -> Any:
            return cls(0, 0)

        @staticmethod
        def name() -> str:
            return "point"

    return Point


def class_tree() -> Any:
    """Return the last of three local classes, each of which uses `super()`."""

    class Base:
        def tell(self) -> str:
            return "base"

    class Middle(Base):
        def tell(self) -> str:
            return "middle " + super().tell()

    class Last(Middle):
        def tell(self) -> str:
            return f"{__class__.__name__} {super().tell()}"  # type: ignore[name-defined]

    return Last


def registering() -> Any:
    """Return a class whose base registers its subclasses."""

    class Plugin:
        known: list[str] = []

        def __init_subclass__(cls, **named: Any) -> None:
            super().__init_subclass__(**named)
            Plugin.known.append(cls.__name__)
            CALLS.append(cls.__name__)

    class One(Plugin):
        pass

    return One


def with_metaclass() -> Any:
    """Return a class of a local metaclass that changes what it makes."""

    class Meta(type):
        def __new__(mcs, name: str, bases: tuple[type, ...], space: dict[str, Any]) -> Any:
            CALLS.append(name)
            return super().__new__(mcs, name, bases, {**space, "stamp": len(CALLS)})

        def shout(cls) -> str:
            return cls.__name__.upper()

    class Made(metaclass=Meta):
        pass

    return Made


def colour() -> Any:
    """Return a local enum with an alias and a method."""

    class Colour(enum.Enum):
        RED = 1
        GREEN = 2
        ROUGE = 1

        def shout(self) -> str:
            return self.name + "!"

    return Colour


def flags() -> Any:
    """Return a local enum of flags."""

    class Access(enum.IntFlag):
        READ = 4
        WRITE = 2

    return Access


def frozen_slots() -> Any:
    """Return a local frozen dataclass with slots."""

    @dataclasses.dataclass(frozen=True, slots=True)
    class Pair:
        left: int
        right: Any = dataclasses.field(default_factory=list)

    return Pair


def abstract() -> Any:
    """Return a local abstract class, with which `range` is registered, and a concrete subclass."""

    class Shape(abc.ABC):
        @abc.abstractmethod
        def area(self) -> int: ...

    class Square(Shape):
        def area(self) -> int:
            return 4

    Shape.register(range)
    return Shape, Square


def named_tuple() -> Any:
    """Return a class made by `namedtuple`."""

    return collections.namedtuple("Local", "a b")


def generic() -> Any:
    """Return a local generic class."""

    from typing import Generic, TypeVar

    item = TypeVar("item")

    class Box(Generic[item]):
        def __init__(self, content: item) -> None:
            self.content = content

    return Box


class Imported:
    """A class that goes by its name."""

    setting = "as imported"

    def __init__(self, content: Any = None) -> None:
        self.content = content


# -- instances -----------------------------------------------------------------------------------------------


def demanding() -> Any:
    """Return an instance of a class that takes part in everything an instance's life has."""

    class Demanding:
        def __new__(cls, must: str) -> Any:
            CALLS.append("__new__")
            return super().__new__(cls)

        def __init__(self, must: str) -> None:
            CALLS.append("__init__")
            object.__setattr__(self, "must", must)

        def __getattr__(self, name: str) -> Any:
            raise KeyError(name)  # the wrong error, which ends copies that ask

        def __setattr__(self, name: str, value: Any) -> None:
            raise TypeError("read only")

    return Demanding("x")


def slotted() -> Any:
    """Return an instance with slots of two classes, a mangled one and unset ones among them."""

    class Base:
        __slots__ = ("a", "b")

    class Slotted(Base):
        __slots__ = ("__hidden", "c")

        def __init__(self) -> None:
            self.a = 1
            self.__hidden = 2

        def tell(self) -> tuple[int, int, bool, bool]:
            return self.a, self.__hidden, hasattr(self, "b"), hasattr(self, "c")

    return Slotted()


def of_builtin(kind: Any, content: Any) -> Any:
    """Return an instance of a local class derived from a builtin one, with an attribute."""

    class Derived(kind):  # type: ignore[misc]
        def __init__(self, *args: Any) -> None:
            CALLS.append("__init__")
            if kind in (list, dict, set, bytearray):
                super().__init__(*args)

    made = Derived(content)
    made.tag = "tagged"
    return made


def refusing() -> Any:
    """Return an object whose class refuses to be pickled."""

    class Refusing:
        content = 1

        def __reduce_ex__(self, protocol: Any) -> Any:
            raise TypeError("this one stays here")

    return Refusing()


def dropping() -> Any:
    """Return an object that drops a field when it is pickled."""

    class Dropping:
        def __init__(self) -> None:
            self.kept, self.dropped = 1, 2

        def __getstate__(self) -> dict[str, Any]:
            return {"kept": self.kept}

    return Dropping()


class DemandingError(Exception):
    """An exception that its default way to be pickled cannot rebuild."""

    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code, self.reason = code, reason


def raised(error: BaseException) -> BaseException:
    """Return `error` as it is after it has been raised while another was handled."""
    try:
        try:
            raise KeyError("first")
        except KeyError as first:
            raise error from first
    except type(error) as caught:
        return caught


def cyclic() -> Any:
    """Return an object that reaches itself in several ways."""

    class Node:
        def __init__(self) -> None:
            self.me = self
            self.children: list[Any] = [self]
            self.call: Callable[[], Any] = lambda: self

    return Node()


def running_generator() -> Any:
    """Return a generator that has been started."""
    found = (number for number in [1, 2, 3])
    next(found)
    return found


def in_lock() -> Any:
    """Return an object that holds a lock and a thread-local."""

    class Guarded:
        def __init__(self) -> None:
            self.lock = threading.Lock()
            self.local = threading.local()

        def enter(self) -> str:
            with self.lock:
                return "entered"

    return Guarded()


class Town:
    """A node of a graph: hashed by what it holds, and a member of sets that hang off itself."""

    def __init__(self, name: str) -> None:
        self.name, self.key = name, (name.lower(), [1])
        self.near: set[Town] = {self}
        self.ways: dict[Town, list[Town]] = {self: [self]}

    def __hash__(self) -> int:
        return hash((self.name, self.key[0], tuple(self.key[1])))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Town) and self.name == other.name


class TownInSlots(Town):
    """The same without a `__dict__` of its own."""

    __slots__ = ("further",)

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.further = frozenset((self, Town("far")))


def towns() -> list[Town]:
    """Return two towns that know each other."""
    first, second = Town("First"), TownInSlots("Second")
    first.near.add(second)
    second.near.add(first)
    second.ways[first] = [first, second]
    return [first, second]
