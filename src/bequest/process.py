"""Process classes, and what a started process is in another process: a handle.

    ctx.Process(...).start() -> Popen of the start method
    a started process in a message -> reduce_process -> the same class, following the same process by pidfd

Light on purpose: a child imports this module to rebuild its own process object. It does not start anything
itself.
"""

from __future__ import annotations

import os
import sys
from multiprocessing import context, process

from bequest.errors import CarryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

_MAINS = ("replay", "import", "never")
_OWN_TO_ITS_PROCESS = ("_popen", "_sentinel", "_parent_pid", "left_behind")


class _Inheritor(process.BaseProcess):
    """What bequest's process classes have in common.

    Attributes:
        left_behind: After `start()`, what could not be carried and was replaced by a stand-in; empty before,
            and with start method `fork`.
    """

    _strict: ClassVar[bool] = False
    _main: ClassVar[str] = "replay"
    left_behind: tuple[Any, ...] = ()

    def start(self) -> None:
        """Start the process; see `multiprocessing.Process.start`.

        Raises:
            CarryError: The child is bound to use what cannot be carried. Nothing has been started, and the
                process may be started again.
        """
        if "multiprocessing.queues" in sys.modules:
            from bequest import (
                queues,  # an executor's own queue, of the standard class, is among the arguments
            )

            queues.adopt(getattr(self, "_args", ()))  # none any more where it has been started before
        try:
            super().start()
        except CarryError as error:
            raise error.with_traceback(None) from error.__cause__  # it says all: see `errors.branch`

    def _bootstrap(self, parent_sentinel: Any = None) -> Any:
        from bequest.launch import handoff

        if self._start_method is not None:  # type: ignore[attr-defined]  # of every concrete class
            handoff.chosen.method = self._start_method  # type: ignore[attr-defined]
        return super()._bootstrap(parent_sentinel=parent_sentinel)  # type: ignore[misc]

    def __reduce_ex__(self, protocol: Any) -> Any:
        if type(self).__reduce__ is not object.__reduce__:  # a subclass knows better
            return super().__reduce_ex__(protocol)
        if self._popen is not None:  # type: ignore[attr-defined]
            return reduce_process(self)
        reduced = super().__reduce_ex__(protocol)
        if context.get_spawning_popen() is not None or not isinstance(reduced, tuple) or len(reduced) < 3:
            return reduced
        return (*reduced[:2], _without_key(reduced[2]), *reduced[3:])


class Process(_Inheritor, context.Process):
    """A process started by the start method that is the default when it starts."""

    @classmethod
    def _Popen(cls, process_obj: Any) -> Any:
        from bequest.contexts import default_context

        return default_context.get_context().Process._Popen(process_obj)

    @staticmethod
    def _after_fork() -> None:
        from bequest.launch import handoff

        if handoff.chosen.method == "fork":
            process.BaseProcess._after_fork()  # type: ignore[attr-defined]


class ForkProcess(_Inheritor, context.ForkProcess):
    """A process forked from this one."""

    @classmethod
    def _Popen(cls, process_obj: Any) -> Any:
        from bequest.launch.fork import Popen

        return Popen(process_obj)


class SpawnProcess(_Inheritor, context.SpawnProcess):
    """A process in a new interpreter."""

    @classmethod
    def _Popen(cls, process_obj: Any) -> Any:
        from bequest.launch.spawn import Popen

        return Popen(process_obj, strict=cls._strict, main=cls._main)


class ForkServerProcess(_Inheritor, context.ForkServerProcess):
    """A process forked from a clean one, the template."""

    @classmethod
    def _Popen(cls, process_obj: Any) -> Any:
        from bequest.launch.template import Popen

        return Popen(process_obj, strict=cls._strict, main=cls._main)

    @staticmethod
    def _after_fork() -> None:
        """Nothing to do: the fork was over before any of the process's own objects existed."""


class _Variants:
    """Classes with other options, made once each; pickle finds them by name: `SpawnProcess_strict_never`."""

    def __init__(self) -> None:
        self._made: dict[str, type] = {}

    def find(self, name: str) -> type:
        """Return the class called `name`.

        Raises:
            KeyError: The name is not one that `process_class` gives.
        """
        if name not in self._made:
            base_name, strict, main = name.split("_") if name.count("_") == 2 else ("", "", "")
            base = _CONCRETE[base_name]
            if strict not in ("strict", "lenient") or main not in _MAINS:
                raise KeyError(name)
            options = {
                "_strict": strict == "strict",
                "_main": main,
                "__module__": __name__,
                "__doc__": base.__doc__,
            }
            self._made.setdefault(name, type(name, (base,), options))
        return self._made[name]


_CONCRETE: dict[str, type] = {each.__name__: each for each in (ForkProcess, SpawnProcess, ForkServerProcess)}
_variants = _Variants()


def process_class(base: type, *, strict: bool, main: str) -> type:
    """Return `base`, a concrete process class, with these options bound; the same class for the same options.

    Raises:
        ValueError: `main` is none of "replay", "import" and "never".
    """
    if main not in _MAINS:
        raise ValueError(f"main must be one of {', '.join(map(repr, _MAINS))}, not {main!r}")
    if not strict and main == "replay":
        return base
    return _variants.find(f"{base.__name__}_{'strict' if strict else 'lenient'}_{main}")


def __getattr__(name: str) -> Any:
    try:
        return _variants.find(name)
    except KeyError:
        # The rest is multiprocessing.process, whose names change their values as time goes on.
        return getattr(process, name)


# A started process in another process


def reduce_process(started: Any) -> tuple[Any, ...]:
    """Return what pickle needs to make a handle of `started` in another process.

    Serves every `BaseProcess` whose `_popen` is not None, multiprocessing's own as well. The handle is of the
    same class and has the same attributes, less what belongs to this process and its authentication key.
    """
    popen = started._popen
    code = popen.poll()
    began = None
    if code is None:
        from bequest.launch.pidfd import started_ticks

        began = started_ticks(popen.pid)
    state = _without_key(started.__getstate__())
    return rebuild_process, (type(started), popen.pid, began, code), _map_dict(state, _less_own)


def rebuild_process(kind: Any, pid: int, began: int | None, code: int | None) -> Any:
    """Return a handle of process `pid`, or the very process object where the receiver started that process.

    Args:
        kind: The class of the process object.
        pid: The process's id.
        began: Its start time in clock ticks since boot, which tells it from a later process of the same id.
        code: Its exit code, as far as it was known when it was packed.
    """
    for child in vars(process)["_children"]:
        if type(child) is kind and child._popen is not None and child._popen.pid == pid:
            return child
    handle: Any = kind.__new__(kind)
    from bequest.launch.foreign import ForeignPopen

    handle._popen = ForeignPopen(pid, began, code)
    handle._sentinel = handle._popen.sentinel
    handle._parent_pid = os.getpid()  # join() and is_alive() ask for it; here they work by pidfd
    handle._closed = False
    handle._config = {"authkey": process.current_process().authkey}
    process._dangling.add(handle)  # type: ignore[attr-defined]
    return handle


def _map_dict(state: Any, change: Any) -> Any:
    """Apply `change` to the instance dictionary in `state`, as `object.__getstate__` returns it."""
    if isinstance(state, dict):
        return change(state)
    if isinstance(state, tuple) and len(state) == 2 and isinstance(state[0], dict):
        return change(state[0]), state[1]
    return state


def _without_key(state: Any) -> Any:
    return _map_dict(state, _less_key)


def _less_key(attributes: dict[str, Any]) -> dict[str, Any]:
    config = attributes.get("_config")
    if not isinstance(config, dict):
        return attributes
    return attributes | {"_config": {key: value for key, value in config.items() if key != "authkey"}}


def _less_own(attributes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attributes.items() if key not in _OWN_TO_ITS_PROCESS}
