"""Callables and descriptors of C find in the receiver what they are in the sender."""

from __future__ import annotations

import collections
import ctypes
import functools
import gc
import math
import operator
import os
import pickle
import sys
import time
import types
from typing import Any

import pytest

from bequest.carry.objects import originals
from bequest.carry.pickler import pack


def again(obj: Any, *, starting: bool = True) -> Any:
    """Return `obj` as a child (or, with `starting=False`, a running process) would have it."""
    return pickle.loads(pack(obj, starting=starting, strict=True).data)


OPTIONS: list[dict[str, Any]] = [
    {"maxsize": 4},
    {"maxsize": None},
    {"maxsize": 4, "typed": True},
    {"maxsize": None, "typed": True},
    {"maxsize": 0},
    {"maxsize": 1},
]
CALLS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((1,), {}),
    (("x",), {}),
    ((1.0,), {}),
    ((1, 2), {"b": 3}),
    ((), {}),
    ((), {"z": 1, "y": 2}),
    (((1, 2),), {}),
    ((1,), {}),
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_cache_arrives_warm(options: dict[str, Any]) -> None:
    """What is cached is a hit in a child, in the same order of use and with the same counts."""

    @functools.lru_cache(**options)  # type: ignore[untyped-decorator]  # options of any kind
    def echo(*args: Any, **named: Any) -> tuple[Any, ...]:
        return args, sorted(named.items())

    for args, named in CALLS:
        echo(*args, **named)

    arrived = again(echo)

    assert arrived.cache_info() == echo.cache_info()
    assert arrived.cache_parameters() == echo.cache_parameters()
    assert arrived.__name__ == "echo"
    for args, named in reversed(CALLS):
        assert arrived(*args, **named) == echo(*args, **named)
    assert arrived.cache_info() == echo.cache_info()


def test_cache_arrives_cold_in_other_messages() -> None:
    """A running process gets the function and the options, not the content."""
    cache = functools.lru_cache(lambda n: n * n)
    cache(3)
    assert again(cache, starting=False).cache_info().currsize == 0


def test_cache_of_a_recursive_function() -> None:
    """A cached function that calls itself finds its own cache."""

    @functools.cache
    def fibonacci(n: int) -> int:
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    fibonacci(30)
    before = fibonacci.cache_info()
    arrived = again(fibonacci)
    assert arrived(30) == 832040
    assert arrived.cache_info().hits == before.hits + 1


NAMED: list[Any] = [
    len,
    math.sin,
    time.gmtime,
    os.getpid,
    sys.exit,
    gc.collect,
    open,
    operator.add,
    functools.reduce,
    str.upper,
    str.__len__,
    str.maketrans,
    dict.fromkeys,
    bytes.fromhex,
    object.__new__,
    object.__init__,
    type.mro,
    collections.deque.append,
    vars(dict)["fromkeys"],
    vars(int)["real"],
    vars(types.FunctionType)["__code__"],
]


@pytest.mark.parametrize("function", NAMED, ids=repr)
def test_function_of_c_is_itself(function: Any) -> None:
    """Functions, methods and descriptors of builtin types are found again."""
    assert again(function) == function


def test_bound_methods_keep_their_object() -> None:
    """A bound method of C is bound to the object that came with it."""
    items = [1]
    arrived, append, length = again((items, items.append, items.__len__))
    append(2)
    assert (arrived, length()) == ([1, 2], 2)
    assert append.__self__ is arrived


class Loud(list[int]):
    """A list that overrides what it calls on its base."""

    def append(self, item: int) -> None:
        """Refuse."""
        raise AssertionError(item)

    def __len__(self) -> int:
        return 99

    def base_methods(self) -> tuple[Any, Any, Any]:
        """Return methods of the list under it."""
        return super().append, super().__len__, super()


def test_methods_of_the_base_are_not_taken_for_the_override() -> None:
    """`super().append` is `list.append` in the receiver too."""
    loud = Loud()
    arrived, append, length, above = again((loud, *loud.base_methods()))
    append(4)
    above.append(5)
    assert (list(arrived), length()) == ([4, 5], 2)


def test_unbound_super() -> None:
    """A super object without an object stays so."""
    assert again(super(Loud)).__self__ is None


def test_partial_method_and_dispatch() -> None:
    """partialmethod, singledispatch and singledispatchmethod of local code work."""

    @functools.singledispatch
    def describe(value: Any) -> str:
        return "other"

    describe.register(int, lambda value: "int")

    class Owner:
        fixed = functools.partialmethod(lambda self, value: value, 4)

        @functools.singledispatchmethod
        def kind(self, value: Any) -> str:
            return "other"

        @kind.register
        def _(self, value: int) -> str:
            return "int"

    arrived, owner = again((describe, Owner()))
    assert (arrived(3), arrived("x")) == ("int", "other")
    assert (owner.fixed(), owner.kind(3), owner.kind("x")) == (4, "int", "other")


def test_ufunc_of_a_lambda() -> None:
    """What `numpy.frompyfunc` and `numpy.vectorize` made of a lambda computes; numpy's own go by name."""
    numpy = pytest.importorskip("numpy")
    factor = 3
    assert again(numpy.frompyfunc(lambda n: factor * n, 1, 1))(numpy.array([1, 2])).tolist() == [3, 6]
    assert again(numpy.vectorize(lambda n: 2 * n))([1, 2]).tolist() == [2, 4]
    assert again(numpy.add) is numpy.add


Compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))


def test_callback_and_library() -> None:
    """A callback made of a lambda is called by a function of a library that was opened by name."""
    library, compare = again((ctypes.CDLL(None), Compare(lambda a, b: a[0] - b[0])))
    numbers = (ctypes.c_int * 3)(3, 1, 2)
    library.qsort(numbers, 3, ctypes.sizeof(ctypes.c_int), compare)
    assert list(numbers) == [1, 2, 3]


def test_function_of_a_library_keeps_its_types() -> None:
    """A function set up in the sender is set up in the receiver, and is the one that its library has."""
    library = ctypes.CDLL(None)
    library.abs.argtypes, library.abs.restype = [ctypes.c_long], ctypes.c_long
    arrived, absolute = again((library, library.abs))
    assert arrived.abs is absolute
    assert (absolute(-4), absolute.restype) == (4, ctypes.c_long)
    assert again(ctypes.pythonapi) is ctypes.pythonapi


def test_classes_that_ctypes_keeps_one_of() -> None:
    """Pointer, array and function types are the receiver's own of their kind."""
    for kind in (
        ctypes.POINTER(ctypes.c_int),
        ctypes.c_int * 3,
        Compare,
        ctypes.CFUNCTYPE(None, use_errno=True),
    ):
        assert again(kind) is kind


def test_original_of_a_replaced_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was saved of a function of C before it was replaced is that function in any receiver."""
    saved = time.time, print, math.sqrt
    monkeypatch.setattr(time, "time", lambda: 5)
    monkeypatch.setattr("builtins.print", lambda *words: saved[1](*words))
    monkeypatch.setattr(math, "sqrt", max)

    assert again(saved) == saved
    assert again(saved, starting=False) == saved


def test_original_that_a_message_has_displaced() -> None:
    """A function that nobody holds any more, as a message has replaced it, is found where that has put it."""
    originals.displace("math", "sqrt", math.floor)  # another's name: of no account
    originals.displace("math", "floor", math.floor)

    assert originals.original("math", "floor") is math.floor
    assert originals.original("math", "sqrt") is math.sqrt
    with pytest.raises(ImportError, match="math.nothing"):
        originals.original("math", "nothing")


def test_original_of_a_replaced_function_of_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for functions of numpy's that dispatch."""
    numpy: Any = pytest.importorskip("numpy")
    saved = numpy.sum, numpy.dot, numpy.add
    for function in saved:
        monkeypatch.setattr(numpy, function.__name__, lambda *args, **named: None)

    assert again(saved) == saved
