"""Views, weak references and ctypes objects refer in the receiver to the objects that came with them."""

from __future__ import annotations

import array
import ctypes
import gc
import pickle
import sys
import types
import weakref
from typing import Any

import pytest

from bequest.carry.pickler import pack
from bequest.errors import CarryError


def again(obj: Any, *, starting: bool = True) -> Any:
    """Return `obj` as a child (or, with `starting=False`, a running process) would have it."""
    return pickle.loads(pack(obj, starting=starting, strict=True).data)


class Thing:
    """Something to refer to."""

    name = "thing"

    def method(self) -> Thing:
        """Return what it is bound to."""
        return self


# -- memoryview


def _views(under: Any) -> list[memoryview[Any]]:
    view: Any = memoryview(under)
    octets = view.cast("B")
    return [
        view,
        view[1:4],
        view[::-1],
        view[5:0:-2],
        view[2:2],
        view.toreadonly()[1:3],
        octets[4:12].cast("I"),
        octets.cast("H")[1::3],
        octets.cast("H")[::-2],
        octets.cast("B", (2, 3, 4)),
        octets[0:4].cast("i", ()),
    ]


@pytest.mark.parametrize(
    "under", [bytes(range(24)), bytearray(range(24)), array.array("i", range(6))], ids=type
)
def test_view_shows_the_object_that_came_with_it(under: Any) -> None:
    """Place, format, shape and writability of a view are kept, and its object is the message's."""
    for view in _views(under):
        arrived_under, arrived = again((under, view))
        assert arrived.obj is arrived_under
        assert (arrived.tolist(), arrived.format, arrived.shape) == (view.tolist(), view.format, view.shape)
        assert arrived.readonly == view.readonly


def test_released_view_stays_released() -> None:
    """A view that has been released cannot be read."""
    view = memoryview(b"abc")
    view.release()
    with pytest.raises(ValueError, match="released"):
        again(view).tobytes()


# -- mappingproxy and frames


def test_proxy_follows_its_dict() -> None:
    """A mappingproxy shows what is put into the dict that came with it."""
    table = {"a": 1}
    arrived, proxy = again((table, types.MappingProxyType(table)))
    arrived["b"] = 2
    assert dict(proxy) == {"a": 1, "b": 2}


def test_namespace_of_a_class() -> None:
    """The mappingproxy of a class is that of the receiver's class."""
    assert again(vars(str))["upper"] is str.upper
    assert again(vars(Thing))["name"] == "thing"


def test_frames_stay() -> None:
    """Frames and tracebacks are refused."""
    with pytest.raises(CarryError, match="stack"):
        again(sys._getframe())
    try:
        raise LookupError
    except LookupError as error:
        with pytest.raises(CarryError, match="format_exception"):
            again(error.__traceback__)


# -- weak references


@pytest.mark.parametrize("reference_first", [True, False])
def test_reference_dies_with_the_last_holder(reference_first: bool) -> None:
    """Where all holders came along, the referent goes with them."""
    box = [Thing()]
    if reference_first:
        reference, proxy, arrived = again((weakref.ref(box[0]), weakref.proxy(box[0]), box))
    else:
        arrived, reference, proxy = again((box, weakref.ref(box[0]), weakref.proxy(box[0])))
    assert reference() is arrived[0]
    assert proxy.name == "thing"

    arrived.clear()
    gc.collect()

    assert reference() is None


@pytest.mark.parametrize("with_box", [True, False])
def test_referent_with_a_holder_elsewhere_lives(with_box: bool) -> None:
    """Where the sender has another holder, the referent lives in a child, as under fork."""
    held = Thing()
    box = [held]
    reference, arrived = again((weakref.ref(held), box if with_box else None))
    if with_box:
        arrived.clear()
    gc.collect()
    assert reference().name == "thing"


def test_referent_in_a_cycle_lives() -> None:
    """References of a referent to itself are not taken for holders elsewhere, nor the other way round."""
    node: Any = Thing()
    node.itself = node
    reference = again(weakref.ref(node))
    gc.collect()
    assert reference() is not None


def test_running_process_keeps_no_referent() -> None:
    """In a message to a running process, a referent that nothing else holds is dead on arrival."""
    held = Thing()
    reference = again(weakref.ref(held), starting=False)
    gc.collect()
    assert reference() is None


def test_reference_that_leads_back_to_itself() -> None:
    """An object that holds a weak reference to itself arrives as one cycle, from wherever it is entered."""
    thing: Any = Thing()
    thing.itself = weakref.ref(thing)
    reference = again(thing.itself)
    assert reference().itself is reference


class Tagged(weakref.ref):  # type: ignore[type-arg]  # generic for type checkers only
    """A reference with an attribute."""

    tag: str


def test_reference_of_a_subclass_and_with_callback() -> None:
    """Subclass, attributes and callback are kept."""
    heard: list[str] = []

    def hear(gone: object) -> None:
        heard.append("gone")

    box = [Thing()]
    tagged = Tagged(box[0], hear)
    tagged.tag = "red"
    arrived, copy = again((box, tagged))
    assert (type(copy), copy.tag, copy.__callback__) == (
        Tagged,
        "red",
        hear,
    )  # a function comes home as itself
    arrived.clear()
    gc.collect()
    assert heard == ["gone"]
    assert tagged() is box[0]


def test_dead_reference_and_proxy() -> None:
    """What is dead arrives dead."""
    reference, proxy = weakref.ref(Thing()), weakref.proxy(Thing())
    gc.collect()
    assert again(reference)() is None
    with pytest.raises(ReferenceError):
        _ = again(proxy).name


def test_weak_method() -> None:
    """A weak method is bound to the object that came with it."""
    box = [Thing()]
    arrived, method = again((box, weakref.WeakMethod(box[0].method)))
    assert method()() is arrived[0]
    arrived.clear()
    gc.collect()
    assert method() is None


@pytest.mark.parametrize("containers_first", [True, False])
def test_weak_containers(containers_first: bool) -> None:
    """Weak containers hold the objects that came with them, weakly."""
    items = [Thing(), Thing()]
    containers = (
        weakref.WeakValueDictionary(a=items[0], b=items[1]),
        weakref.WeakKeyDictionary({items[1]: 7}),
        weakref.WeakSet(items),
    )
    if containers_first:
        (by_name, by_item, members), arrived = again((containers, items))
    else:
        arrived, (by_name, by_item, members) = again((items, containers))
    assert (by_name["a"] is arrived[0], by_item[arrived[1]], len(members)) == (True, 7, 2)

    arrived.clear()
    gc.collect()

    assert (len(by_name), len(by_item), len(members)) == (0, 0, 0)


class Registry(weakref.WeakValueDictionary[str, Thing]):
    """A weak container that takes arguments and items its own way."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self.title = title


def test_weak_container_of_a_subclass() -> None:
    """No code of a subclass runs, and its attributes are kept."""
    registry, thing = Registry("things"), Thing()
    registry["one"] = thing
    arrived, same = again((registry, thing))
    assert (type(arrived), arrived.title, arrived["one"] is same) == (Registry, "things", True)


def test_finalizer_is_alive_and_silent() -> None:
    """A finalizer is alive in the receiver and can be called, but does not go off there by itself."""
    heard: list[str] = []
    thing = Thing()
    finalizer = weakref.finalize(thing, heard.append, "sender")
    box, arrived = again(([thing], finalizer))
    assert arrived.alive
    assert arrived.peek()[0] is box[0]
    arrived_heard = arrived.peek()[1].__self__
    del box
    gc.collect()
    assert (heard, arrived_heard) == ([], [])
    assert finalizer.alive
    finalizer.detach()


# -- ctypes


class Pair(ctypes.Structure):
    """Two numbers."""

    _fields_ = (("a", ctypes.c_int), ("b", ctypes.c_int))


class Node(ctypes.Structure):
    """One of a ring."""


Node._fields_ = (
    ("n", ctypes.c_int),
    ("next", ctypes.POINTER(Node)),
    ("name", ctypes.c_char_p),
    ("held", ctypes.py_object),
)


def test_pointer_points_to_what_came_with_it() -> None:
    """A pointer shares memory with its target, and a null pointer is null."""
    pair = Pair(1, 2)
    arrived, pointer, null = again((pair, ctypes.pointer(pair), ctypes.POINTER(Pair)()))
    arrived.a = 5
    assert pointer.contents.a == 5
    assert not null


def test_cast_pointer_and_field_share_memory() -> None:
    """So do a cast pointer, a nested field and an object over a bytearray."""
    numbers = (ctypes.c_int * 4)(1, 2, 3, 4)
    arrived, pointer = again((numbers, ctypes.cast(numbers, ctypes.POINTER(ctypes.c_int))))
    arrived[2] = 77
    assert pointer[2] == 77
    buffer = bytearray(8)
    arrived_buffer, number = again((buffer, ctypes.c_int.from_buffer(buffer, 4)))
    number.value = 1
    assert arrived_buffer[4] == 1


def test_ring_of_structures() -> None:
    """Structures that point to each other do so in the receiver; strings and objects in them are kept."""
    one, two = Node(1), Node(2)
    one.next, two.next = ctypes.pointer(two), ctypes.pointer(one)
    one.name, one.held = b"one", {"any": "object"}
    arrived = again(one)
    assert arrived.next.contents.next.contents.n == 1
    assert (arrived.name, arrived.held) == (b"one", {"any": "object"})


@pytest.mark.parametrize(
    "address", [ctypes.c_void_p(1234), ctypes.cast(1234, ctypes.POINTER(ctypes.c_int))], ids=type
)
def test_bare_address_is_refused(address: Any) -> None:
    """What is reached by address alone cannot be carried."""
    with pytest.raises(CarryError, match="points to|address"):
        again(address)


def test_numbers_in_the_other_byte_order() -> None:
    """A structure of the other byte order, whose classes of numbers no import finds; a number's class."""

    kind: Any = ctypes.BigEndianStructure if sys.byteorder == "little" else ctypes.LittleEndianStructure

    class Swapped(kind):  # type: ignore[misc]  # typing cannot tell which of the two
        _fields_ = (("n", ctypes.c_short),)

    class Number(ctypes.c_short):
        def doubled(self) -> int:
            return int(self.value) * 2

    sent = Swapped(258), Number(4), Number.__ctype_be__(1), Number.__ctype_le__(1)
    swapped, number, *ordered = again(sent)
    assert bytes(swapped) == bytes(sent[0])
    assert number.doubled() == 8
    assert [bytes(one) for one in ordered] == [b"\0\1", b"\1\0"]


def test_structure_defined_in_a_function() -> None:
    """A structure class that no import finds comes with its fields."""

    class Local(ctypes.Structure):
        _fields_ = (("n", ctypes.c_int),)

        def doubled(self) -> int:
            return int(self.n) * 2

    assert again(Local(4)).doubled() == 8
