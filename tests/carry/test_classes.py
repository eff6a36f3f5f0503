"""Classes that no import finds arrive verbatim, and nothing of theirs runs on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sent
import sent_derived

from bequest.carry.pickler import dumps
from receiving import Receiver

WORKING: dict[str, tuple[Callable[[], Any], str, Any]] = {
    "methods": (sent.local_class, "it(1, 2).swapped().x", 2),
    "property": (sent.local_class, "it(1, 2).total", 3),
    "class method": (sent.local_class, "type(it.origin()) is it", True),
    "static method": (sent.local_class, "it.name()", "point"),
    "documentation": (sent.local_class, "it.__doc__", "A point."),
    "qualified name": (sent.local_class, "it.__qualname__", "local_class.<locals>.Point"),
    "super and __class__": (sent.class_tree, "it().tell()", "Last middle base"),
    "derived from property": (
        sent_derived.with_descriptors,
        "(it().size, it.__dict__['size'].kind)",
        (3, int),
    ),
    "property of the class": (sent_derived.with_descriptors, "it.kind", "Described"),
    "derived from staticmethod": (
        sent_derived.with_descriptors,
        "(it.run(), it.__dict__['run'].name)",
        ("ran", "command"),
    ),
    "abstract property": (sent_derived.with_abstract_property, "sorted(it.__abstractmethods__)", ["size"]),
    "claims another class": (
        sent_derived.claiming,
        "(it.value, it.__class__, type(it).__name__)",
        (1, int, "Claiming"),
    ),
    "names of the metaclass": (
        sent_derived.like_its_metaclass,
        "(it.label, it().label, it().__name__)",
        ("of all", "own", "n"),
    ),
    "name of a property": (
        sent_derived.property_error,
        "it()",
        "property 'size' of 'Sized' object has no setter",
    ),
    "metaclass": (sent.with_metaclass, "it.shout()", "MADE"),
    "enum by name": (sent.colour, "it['GREEN'].value", 2),
    "enum alias": (sent.colour, "it.ROUGE is it.RED", True),
    "enum by value": (sent.colour, "it(2).shout()", "GREEN!"),
    "enum members": (sent.colour, "[m.name for m in it]", ["RED", "GREEN"]),
    "flags": (sent.flags, "(it.READ | it.WRITE).value", 6),
    "frozen dataclass with slots": (sent.frozen_slots, "it(1) == it(1, [])", True),
    "abstract class": (sent.abstract, "it[1]().area()", 4),
    "registered with an abstract class": (sent.abstract, "issubclass(range, it[0])", True),
    "abstract subclass": (sent.abstract, "issubclass(it[1], it[0])", True),
    "named tuple": (sent.named_tuple, "it(1, 2)._asdict()", {"a": 1, "b": 2}),
    "generic": (sent.generic, "it[int](3).content", 3),
}


@pytest.mark.parametrize("name", WORKING)
def test_class_works_in_another_process(receiver: Receiver, name: str) -> None:
    """A class that was sent can be used there as here."""
    make, question, answer = WORKING[name]

    assert receiver.ask(question, dumps(make())) == answer


@pytest.mark.parametrize(
    ("question", "error"),
    [("it[0]()", "TypeError"), ("it[1]().missing", "AttributeError")],
)
def test_abstract_class_still_refuses(receiver: Receiver, question: str, error: str) -> None:
    """An abstract class refuses to be instantiated there too, and a class has no more than it had."""
    with pytest.raises(Exception, match=error):
        receiver.ask(question, dumps(sent.abstract()))


@pytest.mark.parametrize("make", [sent.registering, sent.with_metaclass, lambda: sent.local_class()(1)])
def test_nothing_of_the_class_runs_there(receiver: Receiver, make: Callable[[], Any]) -> None:
    """No metaclass, `__init_subclass__` or `__init__` runs a second time."""
    assert receiver.ask("__import__('sent').CALLS", dumps(make())) == []


def test_what_a_subclass_hook_did_is_there(receiver: Receiver) -> None:
    """The registry that `__init_subclass__` filled in the sender comes along."""
    assert receiver.ask("it.known", dumps(sent.registering())) == ["One"]


def test_what_a_metaclass_did_is_there(receiver: Receiver) -> None:
    """The attribute that a metaclass added in the sender comes along."""
    made = sent.with_metaclass()

    assert receiver.ask("it.stamp", dumps(made)) == made.stamp


def test_class_and_instance_agree(receiver: Receiver) -> None:
    """A class and its instance that travel together still belong together."""
    kind = sent.local_class()

    assert receiver.ask("type(it[1]) is it[0]", dumps((kind, kind(1))))


def test_importable_class_goes_by_name(receiver: Receiver) -> None:
    """A class that an import finds is the import's own there."""
    assert receiver.ask("it is __import__('sent').Imported", dumps(sent.Imported))


def test_enum_member_has_its_identity(receiver: Receiver) -> None:
    """A member that travels beside its enum is that enum's member."""
    kind = sent.colour()

    assert receiver.ask("it[1] is it[0].RED", dumps((kind, kind.RED)))


@pytest.mark.parametrize("kind", [type(None), type(...), type(NotImplemented), int, type, range])
def test_builtin_class_is_itself(receiver: Receiver, kind: type) -> None:
    """Classes of the interpreter are found there, not made."""
    assert receiver.ask("it.__qualname__", dumps(kind)) == kind.__qualname__


def test_attribute_set_later_is_sent_again(receiver: Receiver) -> None:
    """A class that changed since it was last sent is brought up to date there, not made a second time."""
    kind = sent.local_class()
    receiver.ask("first.made", dumps(kind), "first")
    kind.made = 5

    assert receiver.ask("(it is first, it.made)", dumps(kind)) == (True, 5)


def test_attribute_removed_later_is_gone_there(receiver: Receiver) -> None:
    """An attribute that a class has lost since it was last sent is lost there too."""
    kind = sent.local_class()
    assert receiver.ask("hasattr(it, 'made')", dumps(kind))
    del kind.made

    assert not receiver.ask("hasattr(it, 'made')", dumps(kind))


def test_receivers_own_change_stays(receiver: Receiver) -> None:
    """What the receiver set on its class is not undone by a message in which the class is unchanged."""
    kind = sent.local_class()
    receiver.ask("setattr(it, 'made', 9)", dumps(kind))

    assert receiver.ask("it.made", dumps(kind)) == 9
