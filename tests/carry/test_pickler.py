"""The pass over the graph: any depth, plain pickles, snapshots, and one identity on every way."""

from __future__ import annotations

import copyreg
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import sent

from bequest.carry import identity
from bequest.carry.pickler import dumps, pack
from bequest.errors import CarryError
from receiving import Receiver

LONG_LIST = 50_000
LONG_CHAIN = 3_000


def test_long_linked_list(receiver: Receiver) -> None:
    """A linked list that is deeper than any recursion limit crosses."""
    head = sent.linked_list(LONG_LIST)
    data = dumps(head)
    sent.taken_apart(head)

    assert receiver.ask("__import__('sent').list_length(it)", data) == LONG_LIST
    assert receiver.ask("__import__('sent').taken_apart(it)")


def test_many_closures_in_a_chain(receiver: Receiver) -> None:
    """Thousands of closures that hang on one another cross."""
    data = dumps(sent.chain(LONG_CHAIN))

    assert receiver.ask("__import__('sent').chain_length(it)", data) == LONG_CHAIN


def test_recursion_limit_is_given_back() -> None:
    """A deep message leaves the recursion limit as it was."""
    limit = sys.getrecursionlimit()
    head = sent.linked_list(LONG_LIST)
    dumps(head)
    sent.taken_apart(head)

    assert sys.getrecursionlimit() == limit


class _Endless:
    """Makes another one of its kind whenever it is asked what it is made of."""

    def __reduce__(self) -> Any:
        return list, (_Endless(),)


def test_objects_that_are_made_without_end_are_refused() -> None:
    """An object whose parts are always new ones ends in an error, not in the memory's end."""
    with pytest.raises(RecursionError, match="without end"):
        pack(_Endless())


def test_refusal_in_a_deep_graph_is_told() -> None:
    """What cannot be carried at the bottom of a deep graph is named, by a path that a person can read."""
    head: Any = sent.running_generator()
    for _ in range(5_000):
        head = [head]
    with pytest.raises(CarryError, match="generator") as caught:
        dumps(head)

    assert len(str(caught.value)) < 2_000
    while isinstance(head, list):
        head = head.pop()


@pytest.mark.parametrize("value", [None, 1, "text", 2.5, [1, {"a": (2, {3})}], 10**5000], ids=type)
def test_plain_values(value: Any) -> None:
    """Plain values come out of `pickle.loads` equal."""
    assert pickle.loads(dumps(value)) == value


def test_message_is_a_snapshot(receiver: Receiver) -> None:
    """What is done to an object after it was packed does not reach the receiver."""
    found = {"a": [1]}
    data = dumps(lambda: found)
    found["a"].append(2)

    assert receiver.ask("it()", data) == {"a": [1]}


def test_each_message_is_a_snapshot(receiver: Receiver) -> None:
    """A closure sent twice arrives twice, each as it was when it was sent."""
    up, _ = sent.counter()
    first = dumps(up)
    up()
    receiver.ask("first is None", first, "first")

    assert receiver.ask("(first(), it())", dumps(up)) == (1, 2)


def test_packing_changes_nothing() -> None:
    """Packing leaves the object as it was."""
    point = sent.local_class()(1, 2)
    before = dict(vars(point)), set(vars(type(point)))
    dumps(point)

    # What copyreg notes on a class, for the next time, is no change that a program can see.
    assert (dict(vars(point)), set(vars(type(point))) - {"__slotnames__"}) == before


@pytest.mark.parametrize("make", [sent.local_class, sent.documented, sent.colour, sent.with_metaclass])
def test_it_comes_home_as_itself(receiver: Receiver, make: Callable[[], Any]) -> None:
    """A class or function that the receiver sends back is the very one that was sent."""
    thing = make()
    back = receiver.ask("__import__('bequest').dumps(it)", dumps(thing))

    assert pickle.loads(back) is thing


def test_instance_comes_home_with_its_class(receiver: Receiver) -> None:
    """An instance made by the receiver is of the sender's own class."""
    kind = sent.local_class()
    back = receiver.ask("__import__('bequest').dumps(it(4, 5))", dumps(kind))
    point = pickle.loads(back)

    assert type(point) is kind
    assert (point.x, point.y) == (4, 5)


def test_class_is_the_same_in_every_message(receiver: Receiver) -> None:
    """Instances of one class that come in several messages are of one class there."""
    kind = sent.local_class()
    receiver.ask("first.x", dumps(kind(1)), "first")

    assert receiver.ask("type(first) is type(it)", dumps(kind(2)))


def test_older_message_takes_no_attribute_away(receiver: Receiver) -> None:
    """A message that has been overtaken by a newer one does not remove what the newer one has brought."""
    kind: Any = sent.local_class()
    older = dumps(kind)
    kind.added = "later"
    newer = dumps(kind)

    assert receiver.ask("it.added", newer) == "later"
    assert receiver.ask("it.added", older) == "later"
    del kind.added
    assert not receiver.ask("hasattr(it, 'added')", dumps(kind))


def test_namespaces_are_references(receiver: Receiver) -> None:
    """The dict of `__main__`, `sys.modules` and the builtins arrive as the receiver's own."""
    import builtins

    data = dumps([sys.modules["__main__"].__dict__, sys.modules, builtins.__dict__, sys.modules["__main__"]])
    modules = "__import__('sys').modules"

    assert receiver.ask(f"it[0] is vars(main) and it[1] is {modules} and it[3] is main", data)
    assert receiver.ask("it[2] is vars(__import__('builtins'))")


def test_module_arrives_as_the_receivers_own(receiver: Receiver) -> None:
    """A module is found there by its name."""
    assert receiver.ask("it is __import__('sent')", dumps(sent))


def test_threads_may_pack_deep_graphs_at_once() -> None:
    """Deep messages packed by several threads do not disturb each other."""
    results: list[int] = []

    def work() -> None:
        head = sent.linked_list(20_000)
        data = dumps(head)
        sent.taken_apart(head)
        results.append(len(data))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert len(set(results)) == 1
    assert len(results) == 3


def nested(depth: int, last: Any = None) -> Any:
    """Return a list in a list, and so on."""
    for _ in range(depth):
        last = [last]
    return last


class PacksDeep:
    """Packs something deep when it is packed itself."""

    def __reduce__(self) -> tuple[Any, ...]:
        return len, (str(len(dumps(nested(LONG_LIST)))),)


def test_deep_message_within_a_deep_message() -> None:
    """An object at the bottom of a deep graph may pack a deep graph of its own."""
    limit = sys.getrecursionlimit()
    within = len(str(len(dumps(nested(LONG_LIST)))))
    read = pickle.loads(dumps([nested(LONG_LIST, PacksDeep())]))
    while isinstance(read, list):
        read = read.pop()

    assert read == within
    assert sys.getrecursionlimit() == limit


class Waits:
    """Waits, while it is packed, until it may go on."""

    reached, released = threading.Event(), threading.Event()

    def __reduce__(self) -> tuple[Any, ...]:
        self.reached.set()
        self.released.wait(60)
        return object, ()


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_fork_during_a_deep_message() -> None:
    """A child forked while a thread packs a deep graph can pack one, under the usual recursion limit."""
    limit = sys.getrecursionlimit()
    head = nested(LONG_LIST, Waits())
    thread = threading.Thread(target=dumps, args=(head,))
    thread.start()
    assert Waits.reached.wait(60)
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # ends it where it waits for the thread that it does not have
        code = 0 if sys.getrecursionlimit() == limit and dumps(nested(LONG_LIST)) else 1
        os._exit(code)
    Waits.released.set()
    thread.join(60)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_threads_give_a_class_one_token() -> None:
    """A class that several threads send for the first time at once has one identity."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(200):
            kind, barrier = type("Local", (), {}), threading.Barrier(4)
            tokens: set[Any] = set()

            def work(kind: type = kind, tokens: set[Any] = tokens, barrier: Any = barrier) -> None:
                barrier.wait(60)
                tokens.add(identity.token_of(kind))

            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            assert len(tokens) == 1
    finally:
        sys.setswitchinterval(interval)


def test_reading_needs_no_heavy_module(receiver: Receiver) -> None:
    """A receiver that rebuilds a closure has not loaded the packing side."""
    receiver.ask("it(1)", dumps(sent.add(1)))
    heavy = ("bequest.carry.pickler", "cloudpickle", "rich")
    loaded = f"[name for name in {heavy} if name in __import__('sys').modules]"

    assert receiver.ask(loaded) == []


def test_nothing_is_left_of_a_plain_start() -> None:
    """A start of what can be carried leaves nothing behind."""
    assert pack([sent.add(1), sent.local_class()], starting=True).left == []


class Registered:
    """Has a reducer that is registered."""


def test_reducer_that_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reducer that was registered last is the one that serves."""
    monkeypatch.setitem(copyreg.dispatch_table, Registered, lambda _: (str, ("first",)))
    first = pickle.loads(dumps(Registered()))
    monkeypatch.setitem(copyreg.dispatch_table, Registered, lambda _: (str, ("second",)))

    assert (first, pickle.loads(dumps(Registered()))) == ("first", "second")
