"""What a process that starts is given: its parent's ambient state, its `__main__`, and itself.

    parent: pack(process, options) -> Parcel(header, body, ...)      child: open_(header, body) -> process

The header is plain data, applied before anything is unpickled; the body is one pickle. Where either is large,
it is in sealed memory, whose descriptors travel as the user's do (`buffers`, `copies`). A template prepares
what all its children share: the main module's skeleton and replay, and the modules that earlier messages
imported.
"""

from __future__ import annotations

import gc
import sys
from itertools import islice

from bequest.carry import bindings, identity, namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.process import BaseProcess
    from typing import Any

    from bequest.carry.buffers import Stream

_ASKS_FOR_NAMES = ("exec", "eval", "globals", "locals", "vars", "dir", "compile", "__import__")

_learned: list[str] = []


class StartOptions:
    """How a context starts its processes.

    Attributes:
        method: Start method.
        strict: Whether anything that cannot be carried is refused, rather than left behind.
        main: What is done about the effects of the main module's top level: "replay", "import" or "never".
    """

    __slots__ = ("main", "method", "strict")

    def __init__(self, method: str, strict: bool = False, main: str = "replay") -> None:
        self.method, self.strict, self.main = method, strict, main


class Parcel:
    """A packed start.

    Attributes:
        header: Marshal-able; what the child applies before it reads the body.
        body: A pickle, for `open_`; empty where it is in sealed memory.
        keep: Objects (semaphores, proxies) that must live here until the child holds them.
        left_behind: Pairs of path and type name, of what was left behind.
        template: Marshal-able; what a template must have prepared before it forks this child.
    """

    __slots__ = ("body", "header", "keep", "left_behind", "template")

    def __init__(
        self,
        header: dict[str, Any],
        body: bytes,
        keep: list[object],
        left_behind: tuple[tuple[str, str], ...],
        template: dict[str, Any],
    ) -> None:
        self.header, self.body, self.keep = header, body, keep
        self.left_behind, self.template = left_behind, template


def pack(process_obj: BaseProcess, *, context: StartOptions, observer: Any = None) -> Parcel:
    """Pack a process that is about to start, with the state that a forked child would have.

    Args:
        process_obj: Not started yet; `multiprocessing.context.set_spawning_popen` is in force.
        context: How it is started.
        observer: As in `pickler.pack`.

    Raises:
        CarryError: The child is bound to use something that cannot be carried. Nothing has been started.
    """
    from multiprocessing import process, util

    from bequest.carry import ambient, mainmodule, pickler

    main = sys.modules["__main__"]
    description = mainmodule.describe(main, context.main)
    current: Any = process.current_process()
    logger = util._logger  # type: ignore[attr-defined]  # private, the same in all versions
    header = {
        "plain": ambient.capture_plain(),
        "main": description,
        "name": process_obj.name,
        "sender": identity.maker(),
        "authkey": bytes(current.authkey),
        "log_level": None if logger is None else logger.getEffectiveLevel(),
        "log_to_stderr": util._log_to_stderr,  # type: ignore[attr-defined]  # as above
        "installed": _installed_options(),
    }
    payload = (ambient.capture(), _main_state(main, process_obj), process_obj)
    packed = pickler.pack(
        payload,
        root=process_obj,
        starting=True,
        strict=context.strict,
        remake=_remaker(main, context.main),
        beside=True,
        observer=observer,
    )
    header["beside"], body = _stored(packed.stream)
    left = tuple((entry.explanation.path, entry.explanation.kind) for entry in packed.left)
    for path, kind in left:
        util.info("left behind, as it cannot be carried: %s (%s)", path, kind)
    interpreter = header["plain"]["interpreter"]
    found = interpreter["path"]
    # User modules are left to the children, until one has shown that they can be imported: see `learned`.
    wanted = sorted(name for name in packed.named if _is_library(sys.modules.get(name)))
    template = {
        "main": description,
        "installed": header["installed"],
        "path": (found["path"], found["places"]),
        # For a main module that runs again; of no account otherwise, and no reason for another template.
        "arguments": interpreter["arguments"] if context.main == "import" else None,
        "modules": wanted,
    }
    return Parcel(header, body, packed.keep, left, template)


def _stored(stream: Stream) -> tuple[bytes | None, bytes]:
    """Put what is large in a message into sealed memory.

    Returns:
        A pickle of what `_unpickle` needs to find it, or None where nothing is large or there is no room; and
        the body.
    """
    from bequest.carry import buffers
    from bequest.carry.copies import between_starts

    if not stream.is_large:
        between_starts.keep_only([])
        return None, stream.joined()
    try:
        stored = buffers.store(stream, between_starts)
    except OSError:
        between_starts.forget()
        return None, b"".join(buffers.inline(stream))
    between_starts.keep_only(stored.segments)
    import pickle
    from multiprocessing import reduction

    # Duplicates that go with the start; the originals may be closed.
    shared = [reduction.DupFd(segment.fd) for segment in stored.segments]
    return pickle.dumps((shared, stored.pickle, stored.places)), b""


def _unpickle(body: Any, beside: bytes | None) -> Any:
    import _pickle

    if beside is None:
        return _pickle.loads(body)
    from bequest.carry import buffers
    from bequest.carry.segments import OwnedFd

    shared, pickle, places = _pickle.loads(beside)
    return buffers.load(pickle, places, [OwnedFd(each.detach()) for each in shared])


def _is_library(module: Any) -> bool:
    from bequest.carry import modules

    return module is not None and not modules.is_user_module(module)


def _installed_options() -> dict[str, Any] | None:
    install = sys.modules.get("bequest.install")
    return install.installed_options() if install is not None and install.is_installed() else None


def _remaker(main: Any, mode: str) -> Callable[[str], tuple[str, tuple[str, ...]] | None] | None:
    """Return what finds the source that makes a global again, and the names that it reads."""
    from bequest.carry import mainmodule

    def remake(name: str) -> tuple[str, tuple[str, ...]] | None:
        source = mainmodule.remake_statement(main, name)
        return None if source is None else (source, mainmodule.remake_reads(main, name))

    return remake if mode == "replay" else None


def _main_state(main: Any, process_obj: Any) -> Any:
    """Return the class of a main module that has been given another, and all names where the target asks."""
    kind = None if type(main).__module__.partition(".")[0] in ("builtins", "bequest") else type(main)
    target = process_obj.__dict__.get("_target")
    asks = getattr(target, "__module__", None) == "builtins" and target.__name__ in _ASKS_FOR_NAMES
    if kind is None and not asks:
        return None
    names = namespaces.own_names(main.__dict__) if asks else ()
    return kind, bindings.pack("__main__", main.__dict__, names)


def prepare_template(template: dict[str, Any]) -> None:
    """Do in a template, before it forks, what all its children share.

    Args:
        template: `Parcel.template` of the start at hand. A repetition costs next to nothing.
    """
    from bequest.carry import mainmodule
    from bequest.carry.ambient import interpreter

    interpreter.set_path(*template["path"])
    if template["arguments"] is not None:
        sys.argv[:] = template["arguments"]
    _install(template["installed"])
    filters = _silence_warnings()
    try:
        mainmodule.establish(template["main"])
    finally:
        _hear_warnings(filters)


def open_(header: dict[str, Any], body: Any) -> Any:
    """Apply the ambient state, set up `__main__`, and rebuild the process object, in the child.

    Args:
        header: `Parcel.header`.
        body: `Parcel.body`, any buffer.

    Raises:
        Exception: Whatever a user's class or module raises while it is rebuilt or imported.
    """
    from bequest.carry import ambient, mainmodule

    before = (len(sys.modules), mainmodule.established())
    ambient.restore_plain(header["plain"])
    _set_up_process(header)
    _install(header["installed"])
    filters, collects = _silence_warnings(), gc.isenabled()
    gc.disable()  # what is being rebuilt is all in use: each pass over it would be for nothing
    try:
        if header["main"] is not None:
            mainmodule.establish(header["main"])
        bindings.phase.starting = True
        state, main_state, process_obj = _unpickle(body, header["beside"])
    finally:
        if not gc.get_freeze_count():
            # What has come is as old as its originals: the next collection of the young passes it over.
            gc.freeze()
            gc.unfreeze()
        if collects:
            gc.enable()
        bindings.end_start(header["sender"], _user_namespaces())
        _hear_warnings(filters)
    if main_state is not None:
        namespaces.fill_module(sys.modules["__main__"], main_state)
    ambient.restore(state, again=(len(sys.modules), mainmodule.established()) != before)
    # Newest first: to look at all of them would have a forked child copy the memory that they are in.
    _learned[:] = [*islice(reversed(sys.modules), max(0, len(sys.modules) - before[0]))][::-1]
    return process_obj


def _user_namespaces() -> Iterator[tuple[str, dict[str, Any]]]:
    from bequest.carry import modules

    for name, module in modules.user_modules():
        yield name, {own: module.__dict__.get(own) for own in namespaces.own_names(module.__dict__)}


def learned() -> list[str]:
    """Return the names of the modules that the last `open_` made this child import."""
    return list(_learned)


def _set_up_process(header: dict[str, Any]) -> None:
    from multiprocessing import process, util

    current: Any = process.current_process()
    current.name = header["name"]
    current.authkey = header["authkey"]
    if header["log_to_stderr"] and not util._log_to_stderr:  # type: ignore[attr-defined]
        util.log_to_stderr()
    if header["log_level"] is not None:
        util.get_logger().setLevel(header["log_level"])


def _install(options: dict[str, Any] | None) -> None:
    if options is not None:
        from bequest.install import install

        install(**options)


def _silence_warnings() -> Any:
    """Keep quiet about what the parent's imports have warned of already; a forked child does not import."""
    from bequest.carry.ambient import interpreter

    interpreter.forget_absent_folders()
    filters = interpreter.active_filters()[:]
    interpreter.install_filters([("ignore", None, Warning, None, 0)])
    return filters


def _hear_warnings(filters: Any) -> None:
    from bequest.carry.ambient import interpreter

    interpreter.install_filters(filters)
