"""How what waits is carried: selectors, asyncio's objects, and generators and coroutines that have not begun.

    selector -> made anew, with the receiver's copies of what was registered
    asyncio Lock, Event, Queue ... -> copied, of no loop, with nobody who waits
    generator, coroutine, async generator that has not begun -> its function and the arguments, called again
    one that has begun; a task; a loop that runs -> a refusal: its stack belongs to its process

The functions that rebuild are at the end.
"""

from __future__ import annotations

from types import FunctionType

from bequest.carry.registry import NotCarriedError, carries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bequest.carry.registry import Packing, Reduced


# -- selectors -----------------------------------------------------------------------------------------------


@carries("selectors._BaseSelectorImpl", subclasses=True)
def reduce_selector(selector: Any, packing: Packing) -> Reduced:
    """Reduce a selector to what is registered, but for numbers, which mean nothing elsewhere."""
    from bequest.carry.instances import reduce_by_state

    own = ("_fd_to_key", "_map", "_selector", "_readers", "_writers", "_max_events")
    make, args, state, *_ = reduce_by_state(selector, drop=own)
    keys = None
    if selector.get_map() is not None:  # that is how a closed one tells
        found = [(key.fileobj, key.events, key.data) for key in list(selector._fd_to_key.values())]
        keys = [key for key in found if not isinstance(key[0], int)]
    return make, args, (keys, state), None, None, set_selector


@carries("select.epoll")
def reduce_epoll(epoll: Any, packing: Packing) -> Reduced:
    """Reduce an epoll object that watches nothing to a fresh one, and a closed one to a closed one."""
    if epoll.closed:
        return make_epoll, (True,)
    if _watches_something(epoll.fileno()):
        raise NotCarriedError(
            "it watches descriptors by numbers that mean nothing elsewhere", "Make it in the child"
        )
    return make_epoll, (False,)


def _watches_something(fd: int) -> bool:
    try:
        with open(f"/proc/self/fdinfo/{fd}") as info:
            return "tfd:" in info.read()
    except OSError:  # no /proc: it cannot be told
        return True


@carries("select.poll")
def reduce_poll(poll: Any, packing: Packing) -> Reduced:
    """Refuse a poll object."""
    raise NotCarriedError(
        "what it watches cannot be read from it", "Use a selector of selectors, or make it in the child"
    )


# -- asyncio -------------------------------------------------------------------------------------------------


@carries("asyncio.mixins._LoopBoundMixin", "asyncio.locks._ContextManagerMixin", subclasses=True)
def reduce_asyncio(obj: Any, packing: Packing) -> Reduced:
    """Reduce asyncio's locks and queues: of no loop, with nobody who waits."""
    from bequest.carry.instances import reduce_by_state

    waiting = {"_waiters", "_getters", "_putters"}
    fresh = {
        name: _emptied(value) for name, value in vars(obj).items() if name in waiting and value is not None
    }
    return reduce_by_state(obj, replace=fresh, drop=("_loop",))


def _emptied(waiting: Any) -> Any:
    return type(waiting)()


@carries("asyncio.base_events.BaseEventLoop", subclasses=True)
def reduce_loop(loop: Any, packing: Packing) -> Reduced:
    """Reduce an event loop that does not run and has nothing to do to a fresh one; a closed one is closed."""
    if loop.is_closed():
        return make_loop, (type(loop), True)
    if loop.is_running():
        raise NotCarriedError("it runs in this process", "Call asyncio.run() in the child")
    if loop._ready or loop._scheduled:
        raise NotCarriedError("it has callbacks to run in this process", "Make a loop in the child")
    return make_loop, (type(loop), False)


@carries(
    "_asyncio.Task",
    "_asyncio.Future",
    "asyncio.tasks.Task",
    "asyncio.futures.Future",
    "asyncio.events.Handle",
    "asyncio.transports.BaseTransport",
    "asyncio.streams.StreamReader",
    "asyncio.streams.StreamWriter",
    "asyncio.taskgroups.TaskGroup",
    subclasses=True,
)
def reduce_task(task: Any, packing: Packing) -> Reduced:
    """Refuse what belongs to a loop."""
    raise NotCarriedError(
        "it belongs to an event loop of this process", "Make it in the child, or pass its result"
    )


# -- generators ----------------------------------------------------------------------------------------------


@carries("builtins.generator")
def reduce_generator(generator: Any, packing: Packing) -> Reduced:
    """Reduce a generator that has not begun, or is over."""
    return _reduce_suspended(generator, "gi", "Make a list of it first")


@carries("builtins.coroutine")
def reduce_coroutine(coroutine: Any, packing: Packing) -> Reduced:
    """Reduce a coroutine that has not begun, or is over."""
    return _reduce_suspended(coroutine, "cr", "Pass its function and arguments, and await it in the child")


@carries("builtins.async_generator")
def reduce_async_generator(generator: Any, packing: Packing) -> Reduced:
    """Reduce an asynchronous generator that has not begun, or is over."""
    return _reduce_suspended(generator, "ag", "Pass its function and arguments to the child")


@carries(
    "builtins.coroutine_wrapper",
    "builtins.async_generator_asend",
    "builtins.async_generator_athrow",
    "builtins.anext_awaitable",
    "builtins.async_generator_wrapped_value",
)
def reduce_awaiting(awaiting: Any, packing: Packing) -> Reduced:
    """Refuse the iterators by which awaiting is done."""
    raise NotCarriedError("it is part of an await of this process", "Await in the child")


def _reduce_suspended(obj: Any, prefix: str, remedy: str) -> Reduced:
    names = (obj.__name__, obj.__qualname__)
    frame = getattr(obj, prefix + "_frame")
    if frame is None:
        return make_finished, (prefix, *names)
    if getattr(obj, prefix + "_running") or _is_suspended(obj, prefix, frame):
        raise NotCarriedError("it has begun, and its stack belongs to the process that runs it", remedy)
    function = _function_of(obj, frame.f_code)
    if function is None:
        raise NotCarriedError("its function cannot be reached", remedy)
    return make_unstarted, (prefix, names, function, *_arguments_of(frame))


def _is_suspended(obj: Any, prefix: str, frame: Any) -> bool:
    """Tell whether a frame that does not run has begun."""
    try:
        return bool(getattr(obj, prefix + "_suspended"))
    except (
        AttributeError
    ):  # 3.11, of asynchronous generators: it stands at the instruction that made it, or behind
        import dis

        return bool(frame.f_code.co_code[frame.f_lasti] != dis.opmap["RETURN_GENERATOR"])


def _function_of(obj: Any, code: Any) -> Any:
    """Return the function that was called, which the frame shows to the garbage collector alone."""
    import gc

    found = (found for found in gc.get_referents(obj) if isinstance(found, FunctionType))
    return next((function for function in found if function.__code__ is code), None)


def _arguments_of(frame: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a frame that has not begun; its locals are nothing else."""
    code, values = frame.f_code, frame.f_locals
    names = code.co_varnames
    positional, keyword_only = code.co_argcount, code.co_kwonlyargcount
    args = [values[name] for name in names[:positional]]
    kwargs = {name: values[name] for name in names[positional : positional + keyword_only]}
    rest = list(names[positional + keyword_only :])
    if code.co_flags & 0x04:  # CO_VARARGS
        args += values[rest.pop(0)]
    if code.co_flags & 0x08:  # CO_VARKEYWORDS
        kwargs |= values[rest.pop(0)]
    return tuple(args), kwargs


# -- rebuilding ----------------------------------------------------------------------------------------------


def set_selector(selector: Any, state: tuple[list[tuple[Any, int, Any]] | None, Any]) -> None:
    """Make a selector ready, or leave it closed, and register again what was registered."""
    from bequest.carry.instances import fill

    keys, attributes = state
    kind: Any = next(kind for kind in type(selector).__mro__ if kind.__module__ == "selectors")
    kind.__init__(selector)
    fill(selector, attributes)
    if keys is None:
        kind.close(selector)
        return
    late = [key for key in keys if not _register(kind, selector, key)]
    if late:
        _register_later(kind, selector, late)


def _register(kind: Any, selector: Any, key: tuple[Any, int, Any]) -> bool:
    """Register; False where the file object is not whole yet, because it is what holds the selector."""
    try:
        kind.register(selector, *key)
    except (AttributeError, ValueError):
        return False
    return True


_FIRST_USES = ("select", "register", "unregister", "modify", "get_key", "get_map")


def _register_later(kind: Any, selector: Any, keys: list[tuple[Any, int, Any]]) -> None:
    """Let the first use of the selector register what could not be registered while the message was read."""

    def first(name: str) -> Any:
        def use(*args: Any, **kwargs: Any) -> Any:
            for other in _FIRST_USES:
                selector.__dict__.pop(other, None)
            for key in keys:
                _register(kind, selector, key)
            return getattr(selector, name)(*args, **kwargs)

        return use

    selector.__dict__.update({name: first(name) for name in _FIRST_USES})


def make_epoll(closed: bool) -> Any:
    """Make an epoll object that watches nothing."""
    import select

    epoll = select.epoll()
    if closed:
        epoll.close()
    return epoll


def make_loop(kind: Any, closed: bool) -> Any:
    """Make an event loop of the class given."""
    loop = kind()
    if closed:
        loop.close()
    return loop


# Coroutines that came in messages: that the receiver drops one without awaiting it is no reason for the
# warning that the interpreter would print. They are closed when it exits.
_coroutines: list[Any] = []


def make_unstarted(
    prefix: str, names: tuple[str, str], function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Call a function again: what it returns has not begun, so nothing of it has run."""
    made = function(*args, **kwargs)
    made.__name__, made.__qualname__ = names
    if prefix == "cr":
        _keep(made)
    return made


def _keep(coroutine: Any) -> None:
    if not _coroutines:
        import atexit

        atexit.register(_close_unstarted)
    _coroutines.append(coroutine)


def _close_unstarted() -> None:
    while _coroutines:
        coroutine = _coroutines.pop()
        if not coroutine.cr_running and not coroutine.cr_suspended:
            coroutine.close()


def make_finished(prefix: str, name: str, qualname: str) -> Any:
    """Make a generator, coroutine or asynchronous generator that is over."""
    made: Any = {"gi": _generator, "cr": _coroutine, "ag": _async_generator}[prefix]()
    if prefix == "ag":
        _finish(made)
    else:
        made.close()
    made.__name__, made.__qualname__ = name, qualname
    return made


def _finish(generator: Any) -> None:
    """Close an asynchronous generator that has not begun, which awaits nothing."""
    try:
        generator.aclose().send(None)
    except StopIteration:  # this is how an await ends
        return


def _generator() -> Any:
    yield


async def _coroutine() -> None:
    return


async def _async_generator() -> Any:
    yield
