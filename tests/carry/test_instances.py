"""Instances arrive with what they hold, and without running a line of their class."""

from __future__ import annotations

import copyreg
import datetime
from collections.abc import Callable
from typing import Any

import pytest
import sent
import sent_derived

from bequest.carry.pickler import dumps, pack
from receiving import Receiver

BUILTINS: dict[type, Any] = {
    int: 3,
    float: 1.5,
    complex: 2j,
    str: "text",
    bytes: b"bytes",
    tuple: (1, 2),
    list: [1, 2],
    dict: {"a": 1},
    set: {1},
    frozenset: frozenset((1,)),
    bytearray: bytearray(b"x"),
}


@pytest.mark.parametrize("kind", BUILTINS, ids=lambda kind: kind.__name__)
def test_class_derived_from_a_builtin(receiver: Receiver, kind: type) -> None:
    """What a builtin base holds comes along, and so do attributes beside it."""
    made = sent.of_builtin(kind, BUILTINS[kind])
    question = f"({kind.__name__}(it), it.tag, isinstance(it, {kind.__name__}))"

    assert receiver.ask(question, dumps(made)) == (BUILTINS[kind], "tagged", True)


@pytest.mark.parametrize("name", sent_derived.LIBRARY)
def test_class_derived_from_one_of_the_library(receiver: Receiver, name: str) -> None:
    """The library's class makes it there: value, attributes and slots arrive, no constructor of it runs."""
    base, made_of, value = sent_derived.LIBRARY[name]
    it = sent_derived.derived(base, *made_of)
    data = dumps(it)
    question = f"({value}, it.note, it.tag[0] is it, type(it).__name__)"

    assert receiver.ask(question, data) == (eval(value), "note", True, "Derived")


def test_own_way_to_be_pickled_is_asked_in_messages(receiver: Receiver) -> None:
    """Where the user's class says how it is pickled, that is how it goes to a running process."""

    class Day(datetime.date):
        def __reduce__(self) -> Any:
            return str, ("a day",)

    assert receiver.ask("it", dumps(Day(2020, 1, 2))) == "a day"


@pytest.mark.parametrize("make", [sent.demanding, lambda: sent.of_builtin(list, [1])])
def test_no_line_of_the_class_runs_there(receiver: Receiver, make: Callable[[], Any]) -> None:
    """Neither `__new__` nor `__init__` nor `__setattr__` of the user runs in the receiver."""
    assert receiver.ask("__import__('sent').CALLS", dumps(make())) == []


def test_object_that_takes_part_in_everything(receiver: Receiver) -> None:
    """A class with demanding `__new__`, wrong `__getattr__` and a refusing `__setattr__` is no obstacle."""
    assert receiver.ask("it.must", dumps(sent.demanding())) == "x"


@pytest.mark.parametrize(
    "question",
    [
        "[town in town.near and it[1 - place] in town.near for place, town in enumerate(it)]",
        "[town.ways[town][0] is town for town in it]",
        "[it[1].ways[it[0]] == it, it[1] in it[1].further]",
    ],
)
def test_member_of_a_set_that_hangs_off_itself(receiver: Receiver, question: str) -> None:
    """What an object is hashed by is there before a set or dict in which it lies is filled."""
    assert receiver.ask(question, dumps(sent.towns())) == [True, True]


def test_slots(receiver: Receiver) -> None:
    """Slots of all bases, mangled names included, come along; unset ones stay unset."""
    assert receiver.ask("it.tell()", dumps(sent.slotted())) == (1, 2, False, False)


def test_frozen_dataclass(receiver: Receiver) -> None:
    """A frozen dataclass with slots arrives equal and frozen."""
    pair = sent.frozen_slots()(1, [2])

    assert receiver.ask("(it.left, it.right)", dumps(pair)) == (1, [2])
    with pytest.raises(Exception, match="FrozenInstanceError"):
        receiver.ask("setattr(it, 'left', 3)")


def test_cycle(receiver: Receiver) -> None:
    """An object that reaches itself through an attribute, a list and a closure is one object."""
    question = "it.me is it and it.children[0] is it and it.call() is it"

    assert receiver.ask(question, dumps(sent.cyclic()))


def test_identity_within_a_message(receiver: Receiver) -> None:
    """What is one object here is one object there."""
    box = sent.Imported([])

    assert receiver.ask("it[0] is it[1] and it[0].content is it[2]", dumps((box, box, box.content)))


def test_locks_arrive_free_to_use(receiver: Receiver) -> None:
    """A lock that hangs on an object arrives as a lock, a thread-local as a thread-local."""
    assert receiver.ask("it.enter()", dumps(sent.in_lock())) == "entered"


def test_starting_copies_what_pickle_would_drop(receiver: Receiver) -> None:
    """For a process that starts, an object is copied whole, as fork has it."""
    data = pack(sent.dropping(), starting=True).data

    assert receiver.ask("(it.kept, it.dropped)", data, starting=True) == (1, 2)


def test_message_asks_the_class(receiver: Receiver) -> None:
    """For a message, `__getstate__` of the user decides, as in multiprocessing."""
    assert receiver.ask("(it.kept, hasattr(it, 'dropped'))", dumps(sent.dropping())) == (1, False)


def test_object_that_refuses_its_way_is_copied_at_a_start(receiver: Receiver) -> None:
    """A process that starts gets a user's object whose `__reduce_ex__` raises by what it holds."""
    assert receiver.ask("it.content", pack(sent.refusing(), starting=True).data) == 1


def test_error_of_the_users_own_way_goes_on_from_a_message() -> None:
    """What a user's `__reduce_ex__` raises reaches who sends the object to a running process, as it is."""
    with pytest.raises(TypeError, match="this one stays here"):
        dumps(sent.refusing())


def test_registered_reducer_of_copyreg_is_honoured(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a program registered with `copyreg` decides how its class travels."""
    monkeypatch.setitem(copyreg.dispatch_table, sent.Imported, lambda box: (sent.Imported, ("registered",)))

    assert receiver.ask("it.content", dumps(sent.Imported(1))) == "registered"


def test_registered_reducer_of_multiprocessing_is_honoured(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a program registered with `ForkingPickler.register` decides how its class travels."""
    from multiprocessing.reduction import ForkingPickler

    registered: dict[type, Any] = ForkingPickler._extra_reducers  # type: ignore[attr-defined]
    monkeypatch.setitem(registered, sent.Imported, lambda box: (sent.Imported, ("registered",)))

    assert receiver.ask("it.content", dumps(sent.Imported(1))) == "registered"


ERRORS: dict[str, tuple[Callable[[], BaseException], str, Any]] = {
    "demanding constructor": (
        lambda: sent.DemandingError(4, reason="no"),
        "(it.code, it.reason, str(it))",
        (4, "no", "4: no"),
    ),
    "system error": (lambda: OSError(2, "gone", "file"), "(it.errno, it.filename)", (2, "file")),
    "chosen subclass": (lambda: OSError(2, "gone"), "type(it).__name__", "FileNotFoundError"),
    "unicode error": (
        lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        "(it.object, it.reason)",
        (b"\xff", "bad"),
    ),
    "syntax error": (lambda: SyntaxError("bad", ("f.py", 3, 1, "x")), "(it.msg, it.lineno)", ("bad", 3)),
    "stop with a value": (lambda: StopIteration(5), "it.value", 5),
    "missing import": (lambda: ImportError("no", name="x", path="y"), "(it.name, it.path)", ("x", "y")),
    "group": (
        lambda: ExceptionGroup("g", [ValueError(1)]),
        "(it.message, it.exceptions[0].args)",
        ("g", (1,)),
    ),
    "cause": (lambda: sent.raised(ValueError("second")), "repr(it.__cause__)", "KeyError('first')"),
    "context": (lambda: sent.raised(ValueError("second")), "it.__context__ is it.__cause__", True),
    "traceback": (lambda: sent.raised(ValueError("second")), "it.__traceback__", None),
}


@pytest.mark.parametrize("name", ERRORS)
def test_exception_arrives_with_all_that_it_tells(receiver: Receiver, name: str) -> None:
    """Fields, cause and context of an exception come along, whatever its constructor asks for."""
    make, question, answer = ERRORS[name]

    assert receiver.ask(question, dumps(make())) == answer


def test_notes_of_an_exception_come_along(receiver: Receiver) -> None:
    """What `add_note` added is there."""
    error = ValueError("x")
    error.add_note("a note")

    assert receiver.ask("it.__notes__", dumps(error)) == ["a note"]
