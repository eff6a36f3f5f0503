"""Functions of every kind arrive in another process as what they were."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import sent

from bequest.carry.pickler import dumps
from receiving import Receiver

WORKING: dict[str, tuple[Callable[[], Any], str, Any]] = {
    "lambda with a closure": (lambda: sent.add(3), "it(4)", 7),
    "recursive closure": (sent.factorial, "it(5)", 120),
    "empty cell": (sent.with_empty_cell, "it()", "empty"),
    "generator function": (sent.generator, "list(it(4))", [0, 1, 4, 9]),
    "coroutine function": (sent.coroutine, "it(4)", 8),
    "defaults": (sent.with_defaults, "it()", ((1, 2), {"three": 3})),
    "cache": (sent.cached, "(it(4), it.cache_info().maxsize)", (8, 4)),
    "decorated": (sent.wrapped, "it(1)", ("noted", 2)),
    "partial of a lambda": (sent.partial, "it(2)", (1, 2, 3)),
    "attributes of a partial": (sent.noted_partial, "(it.note, it.me is it, it(2))", ("note", True, (1, 2))),
    "bound method of a local class": (lambda: sent.local_class()(1, 2).swapped, "it().x", 2),
    "class method": (lambda: sent.local_class().origin, "it().total", 0),
    "static method": (lambda: sent.local_class().name, "it()", "point"),
    "bound method of a builtin": (lambda: [3, 1].count, "it(3)", 1),
    "builtin": (lambda: len, "it([1])", 1),
    "importable": (lambda: sent.read_level, "it()[0]", "as imported"),
    "method of a base": (lambda: super(type(x := sent.class_tree()()), x).tell, "it()", "middle base"),
}


@pytest.mark.parametrize("name", WORKING)
def test_function_works_in_another_process(receiver: Receiver, name: str) -> None:
    """A function that was sent does there what it does here."""
    make, question, answer = WORKING[name]

    assert receiver.ask(question, dumps(make())) == answer


def test_shared_cell_stays_shared(receiver: Receiver) -> None:
    """Two closures over one variable go on sharing it."""
    assert receiver.ask("(it[0](), it[0](), it[1]())", dumps(sent.counter())) == (1, 2, 2)


def test_sent_closure_is_a_copy(receiver: Receiver) -> None:
    """What the receiver's closure does to its variable does not reach the sender's."""
    up, now = sent.counter()
    receiver.ask("it()", dumps(up))

    assert now() == 0


@pytest.mark.parametrize(
    "name", ["__name__", "__qualname__", "__module__", "__doc__", "__annotations__", "tag"]
)
def test_attributes_come_along(receiver: Receiver, name: str) -> None:
    """Name, documentation, annotations and attributes of the user's own are those of the original."""
    function = sent.documented()

    assert receiver.ask(f"it.{name}", dumps(function)) == getattr(function, name)


def test_wrapped_function_comes_along(receiver: Receiver) -> None:
    """The function under a decorator is reachable, as `inspect.signature` needs it."""
    signature = "__import__('inspect').signature(it)"

    assert receiver.ask(f"str({signature})", dumps(sent.wrapped())) == str(inspect.signature(sent.wrapped()))


def test_function_in_its_own_attribute(receiver: Receiver) -> None:
    """A function that holds itself is one object there."""
    function = sent.documented()
    function.me = function

    assert receiver.ask("it.me is it", dumps(function))


def test_replaced_code_is_what_is_sent(receiver: Receiver) -> None:
    """A function whose code was replaced at run time runs the new code."""
    function = sent.documented()
    function.__code__ = (lambda number=0: f"replaced {number}").__code__

    assert receiver.ask("it(1)", dumps(function)) == "replaced 1"


def test_code_with_foreign_constants(receiver: Receiver) -> None:
    """A constant that only `code.replace` can have put into code is carried as well."""
    function = sent.documented()
    box = sent.Imported(5)
    plain = (lambda: "constant").__code__
    constants = tuple(box if constant == "constant" else constant for constant in plain.co_consts)
    if box not in constants:
        pytest.skip("this Python keeps such a constant elsewhere")
    function.__code__ = plain.replace(co_consts=constants)

    assert receiver.ask("it().content", dumps(function)) == 5


def test_function_of_exec_takes_its_namespace_along(receiver: Receiver) -> None:
    """A function made by exec in a dict of its own sees that dict."""
    space: dict[str, Any] = {"factor": 3}
    exec("def scale(number):\n    return number * factor", space)

    assert receiver.ask("it(2)", dumps(space["scale"])) == 6


def test_importable_function_goes_by_name(receiver: Receiver) -> None:
    """A function that an import finds is the import's own there."""
    assert receiver.ask("it is __import__('sent').read_level", dumps(sent.read_level))


def test_many_closures_of_one_function_stay_apart(receiver: Receiver) -> None:
    """Closures made by one function each keep what they closed over."""
    assert receiver.ask("[f(0) for f in it]", dumps([sent.add(n) for n in range(5)])) == [0, 1, 2, 3, 4]
