"""Pack a message: anything that goes to a process that runs, or all that a process starts with.

    dumps(obj) -> bytes that `pickle.loads` reads wherever bequest can be imported
    message(obj) -> the same, but for large data, which goes beside it (`buffers`)
    pack(obj, starting=True, ...) -> Packed: the same for a process about to start, and what was left behind

The C pickler makes the pass (`graph`); where an object graph is too deep for its recursion, the pass is made
again by the Python one (`deep`), whose depth is memory alone. What was left behind on the way is refused here
or allowed.
"""

from __future__ import annotations

import pickle
import sys
from typing import Any

from bequest.carry.buffers import Stream, message_of
from bequest.carry.dependence import Dependence
from bequest.carry.graph import PROTOCOL, PackingPickler, Remake
from bequest.carry.instances import ATOMS
from bequest.carry.leftbehind import LeftObject
from bequest.carry.path import Path
from bequest.errors import CarryError, SharingError

_CHANCES = 10
_CHANGED_MEANWHILE = ("changed size during iteration", "mutated during iteration", "changed during iteration")


class Packed:
    """A packed message.

    Attributes:
        stream: The pickle, in parts, and the buffers that are beside it.
        keep: Objects that must stay alive here until the receiver has rebuilt the message.
        left: What was left behind.
        shared: Descriptors that wait in `multiprocessing.resource_sharer` for the receiver.
        named: Names of modules that the receiver imports.
        dependence: Tells whether the message would be another one now.
    """

    __slots__ = ("dependence", "keep", "left", "named", "shared", "stream")

    @property
    def data(self) -> bytes:
        """Return the pickle."""
        return self.stream.joined()

    def __init__(self, stream: Stream, pickler: Any) -> None:
        self.stream = stream
        self.keep: list[object] = pickler.kept
        self.left: list[LeftObject] = list(pickler.left.values())
        self.shared: list[Any] = pickler.shared
        self.named: set[str] = pickler.named
        self.dependence: Dependence = pickler.dependence


class _CPickler(PackingPickler, pickle.Pickler):
    """The pass in C."""


def dumps(obj: Any) -> bytes:
    """Pack `obj` as a message: what a queue item, a pipe message, a task or a result is.

    Args:
        obj: Anything. It is not changed, and what it is at this moment is what the receiver gets.

    Returns:
        A pickle for `pickle.loads` in any process of the same Python that can import bequest.

    Raises:
        CarryError: Some part of `obj` cannot exist in another process; says which, where it stands and why.
            Nothing has been sent.
    """
    if type(obj) in ATOMS:
        return pickle.dumps(obj, PROTOCOL)
    return pack(obj).data


def message(obj: Any) -> bytes:
    """Pack `obj` as a message whose large data may go beside it, for a receiver that gets descriptors.

    Args:
        obj: As for `dumps`.

    Returns:
        A `buffers.Message`, where something is large and the system has room for it; else as `dumps`.

    Raises:
        CarryError: As in `dumps`.
    """
    if type(obj) in ATOMS and not isinstance(obj, bytes | str):
        return pickle.dumps(obj, PROTOCOL)
    return message_of(pack(obj, beside=True).stream)


def pack(
    obj: Any,
    *,
    root: Any = None,
    starting: bool = False,
    strict: bool = False,
    remake: Remake | None = None,
    beside: bool = False,
    observer: Any = None,
) -> Packed:
    """Pack `obj`, with all that stands for this message.

    Args:
        obj: What is packed.
        root: What paths are told from, where that is not `obj`: the process object that is about to start.
        starting: Whether the receiver is a process about to start; then fork's promise holds.
        strict: Whether anything left behind is refused.
        remake: See `Remake`; None where nothing is made again.
        beside: Whether large buffers are kept out of the pickle.
        observer: None, or what watches the pass (see `bequest.explain`): `watching(kind)` returns the class
            to use in place of the pickler class `kind`; `done(pickler, stream)` is called at the end of the
            pass, before anything is refused.

    Raises:
        CarryError: As in `dumps`; when `starting`, only for what the child is bound to use.
    """
    options: dict[str, Any] = {
        "starting": starting,
        "root": obj if root is None else root,
        "remake": remake,
        "lightens": beside and not starting,
    }
    first_gift = count_gifts()
    packed, paths = _pass_over(obj, options, beside, observer)
    for entry in packed.left:
        path = paths.get(id(entry.obj))  # none for what is only there with module state
        if path is not None and (strict or _is_refused(path, starting or entry.often_held)):
            about = entry.explanation
            give_up_descriptors(packed.shared, first_gift)
            if entry.is_own and entry.cause is not None:
                raise entry.cause
            error = SharingError if isinstance(entry.cause, RuntimeError) else CarryError
            raise error(about.path, about.kind, about.reason, about.remedy) from entry.cause
    return packed


def pack_leniently(obj: Any) -> bytes:
    """Pack `obj` as a message; a stand-in takes the place of what cannot be carried."""
    options = {"starting": False, "root": obj, "remake": None, "lightens": True}
    packed, _ = _pass_over(obj, options, False, None)
    return packed.data


def _pass_over(
    obj: Any, options: dict[str, Any], beside: bool, observer: Any
) -> tuple[Packed, dict[int, Path]]:
    """Make the pass: in C, else in Python; again, where another thread has changed a container meanwhile."""
    make: Any = _CPickler
    chances = _CHANCES
    first_gift = count_gifts()
    while True:
        stream = Stream(beside=beside)
        pickler = (make if observer is None else observer.watching(make))(stream, **options)
        shared = pickler.shared
        try:
            pickler.pack(obj)
            if observer is not None:
                observer.done(pickler, stream)
            paths = {key: path for key, path in pickler.paths.items() if key in pickler.payload_left}
            return Packed(stream, pickler), paths
        except RecursionError:
            give_up_descriptors(shared, first_gift)
            if make is not _CPickler:
                raise
            from bequest.carry.deep import DeepPickler as make
        except RuntimeError as error:
            give_up_descriptors(shared, first_gift)
            chances -= 1
            if chances == 0 or not any(words in str(error) for words in _CHANGED_MEANWHILE):
                raise
        except BaseException:
            give_up_descriptors(shared, first_gift)
            raise
        finally:
            vars(pickler).clear()  # its parts refer to it: what it holds must not wait for the collector


def _start_in_force() -> Any:
    """Return what takes descriptors along for a child that is about to start, or None."""
    context = sys.modules.get("multiprocessing.context")
    popen = None if context is None else context.get_spawning_popen()
    return popen if hasattr(popen, "give_up_gifts") else None  # a start of multiprocessing duplicates nothing


def count_gifts() -> int:
    """Return how many duplicates the start in force has taken along: an outer pass's, in a nested one."""
    start = _start_in_force()
    return 0 if start is None else start.count_gifts()


def give_up_descriptors(shared: list[Any], first_gift: int) -> None:
    """Close the duplicates of descriptors that were made for a message which is not sent, or packed anew.

    A pass may be made within another, by a reducer that packs something; the other's duplicates stay.
    """
    start = _start_in_force()
    if start is not None:
        start.give_up_gifts(first_gift)
    for descriptor in shared:  # they wait in the resource sharer for a receiver
        from multiprocessing import resource_sharer

        sharer: Any = resource_sharer._resource_sharer  # type: ignore[attr-defined]  # private, in all versions
        with sharer._lock:
            _, close = sharer._cache.pop(descriptor._id[1], (None, None))
        if close is not None:
            close()


def _is_refused(path: Path, lenient: bool) -> bool:
    """Tell whether leaving an object behind is refused where the message is packed.

    A start has fork's promise to keep, so only what the child is bound to use is refused; of any other
    message all is, but for what only hangs on a global that carried code reads.
    """
    return path.is_bound_to_be_used if lenient else not path.goes_through_global
