"""Contexts: `multiprocessing.context` with bequest's process classes and options.

    get_context(method, strict=, main=) -> a context -> Process, Queue, Pool ... bound to it

Subclasses of the standard contexts, so that every library that accepts one of those takes these. Which start
method is the default here is independent of multiprocessing's own default (but see `bequest.install`).
"""

from __future__ import annotations

import sys
from multiprocessing import context, process, reduction

from bequest.imports import when_imported
from bequest.launch import preload
from bequest.launch.handoff import chosen
from bequest.mirror import Primitives
from bequest.process import ForkProcess, ForkServerProcess, Process, SpawnProcess, process_class

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

__all__ = [
    "DefaultContext",
    "ForkContext",
    "ForkProcess",
    "ForkServerContext",
    "ForkServerProcess",
    "Process",
    "SpawnContext",
    "SpawnProcess",
    "default_context",
    "get_context",
    "get_start_method",
    "set_start_method",
]


class _Bequest(Primitives):
    """What every context of bequest has, over the standard one that it is mixed into.

    Attributes:
        strict: Whether a start is refused where something would be left behind.
        main: How a child gets the parent's main module: "replay", "import" or "never".
    """

    _name: ClassVar[str]
    Process: ClassVar[Any]
    strict: bool = False
    main: str = "replay"

    def get_context(self, method: str | None = None, *, strict: bool = False, main: str = "replay") -> Any:
        """Return the context of `method` (None: this one's) with the given options.

        Args:
            method: One of `get_all_start_methods()`.
            strict: Refuse to start a process where something that it can reach would be left behind.
            main: "replay": a child gets what the main module defined and set up, without running it again;
                "import": it runs the main module again, as multiprocessing does; "never": it gets only what
                is carried.

        Raises:
            ValueError: There is no such start method here, or no such value of `main`.
        """
        if method is None and not strict and main == "replay":
            return self
        return _find(self._name if method is None else method, strict, main)

    def Pool(self, *args: Any, **options: Any) -> Any:
        """Return a pool of processes of this context; see `bequest.pool.Pool` for arguments and options."""
        from bequest.pool import Pool

        options["context"] = self.get_context()
        return Pool(*args, **options)

    def freeze_support(self) -> None:
        """Be the child, in a frozen program that was started to be one; does not return then.

        To be called first thing in the main module of a program that is to be frozen into an executable.
        """
        freeze_support(self)

    def set_forkserver_preload(self, module_names: list[str], **options: Any) -> None:
        """Have `module_names` imported in the process that children of `forkserver` are forked from.

        With `"__main__"` among them the main module is imported there as well, as `main="import"` has it.

        Args:
            module_names: A name that cannot be imported is passed over.
            options: From Python 3.15 on, `on_error`: "ignore", "warn" or "fail", which lets starts fail.
        """
        set_forkserver_preload(self, module_names, **options)


def freeze_support(_context: Any) -> None:
    """Be `freeze_support` of any context, the standard library's included; see `ForkContext`'s."""
    if getattr(sys, "frozen", False):
        from multiprocessing import spawn

        spawn.freeze_support()


def set_forkserver_preload(context: Any, module_names: list[str], **options: Any) -> None:
    """Be `set_forkserver_preload` of any context, the standard library's included; see `ForkContext`'s."""
    _set_forkserver_preload(context, module_names, **options)
    preload.mark_as_chosen()


_set_forkserver_preload = context.BaseContext.set_forkserver_preload


class ForkContext(_Bequest, context.ForkContext):
    """Start method `fork`: as in multiprocessing."""

    Process = ForkProcess


class SpawnContext(_Bequest, context.SpawnContext):
    """Start method `spawn`: a new interpreter for each child."""

    Process = SpawnProcess


class ForkServerContext(_Bequest, context.ForkServerContext):
    """Start method `forkserver`: children forked from a clean process that has imported what they need."""

    Process = ForkServerProcess


class DefaultContext(_Bequest, context.DefaultContext):
    """The context that the functions of the package belong to; its start method can be set once.

    A child's default is the start method by which the child itself was started, as in `multiprocessing`.
    """

    Process: ClassVar[Any] = Process

    def __init__(self, usual: Any) -> None:
        self._default_context = (
            usual  # and not super().__init__, which would forget an inherited start method
        )

    @property
    def _actual_context(self) -> Any:
        return None if chosen.method is None else _find(chosen.method, False, "replay")

    @_actual_context.setter
    def _actual_context(self, actual: Any) -> None:
        chosen.method = actual and actual._name

    def get_context(self, method: str | None = None, *, strict: bool = False, main: str = "replay") -> Any:
        """Return the context of `method` (None: the default, which this settles) with the given options.

        See `ForkContext.get_context`.
        """
        if method is None:
            method = self.get_start_method()
        return _find(method, strict, main)

    def set_start_method(self, method: str | None, force: bool = False) -> None:
        """Set the default start method of this process and its children.

        Args:
            method: One of `get_all_start_methods()`; None, with `force`, for none again.
            force: Set it even if it has been set or used.

        While a child is being rebuilt nothing happens: a module that sets it at its top level, which under
        fork would not be imported again, must not fail there.

        Raises:
            RuntimeError: It has been set already, and `force` is false.
            ValueError: There is no such start method here.
        """
        if chosen.method is not None and not force:
            if getattr(process.current_process(), "_inheriting", False):
                return
            raise RuntimeError("context has already been set")
        if method is None and force:
            chosen.method = None
            return
        chosen.method = self.get_context(method)._name

    def get_start_method(self, allow_none: bool = False) -> Any:
        """Return the default start method, which this settles; with `allow_none`, None if it is not set."""
        if chosen.method is None and not allow_none:
            chosen.method = self._default_context._name
        return chosen.method


class _Contexts:
    """Every context that has been asked for, one for each method and options."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, bool, str], Any] = {}

    def find(self, method: str, strict: bool, main: str) -> Any:
        key = (method, strict, main)
        if key not in self._made:
            plain = _concrete_contexts.get(method)
            if plain is None:
                raise ValueError(f"cannot find context for {method!r}")
            plain._check_available()
            made = plain
            if strict or main != "replay":
                made = type(plain)()
                made.strict, made.main = strict, main
                vars(made)["Process"] = process_class(plain.Process, strict=strict, main=main)
            made = self._made.setdefault(key, made)
        return self._made[key]


_concrete_contexts: dict[str, Any] = {
    each._name: each() for each in (ForkContext, SpawnContext, ForkServerContext)
}
_find = _Contexts().find


def of_bequest(other: Any) -> Any:
    """Return the context of bequest for a plain one of the standard library; any other as it is."""
    plain = (context.ForkContext, context.SpawnContext, context.ForkServerContext)
    if isinstance(other, context.DefaultContext) and not isinstance(other, DefaultContext):
        other = other.get_context()
    return _find(other._name, False, "replay") if type(other) in plain else other


def usual_context(method: str | None = None) -> Any:
    """Return the context for who names none: that of multiprocessing where bequest is installed there.

    Args:
        method: A start method, or None for the default one.
    """
    import multiprocessing

    from bequest.install import is_installed

    return multiprocessing.get_context(method) if is_installed() else default_context.get_context(method)


default_context = DefaultContext(
    # A template is handed its requests with descriptors beside them (SCM_RIGHTS).
    _concrete_contexts["forkserver" if getattr(reduction, "HAVE_SEND_HANDLE", False) else "spawn"]
)
get_context = default_context.get_context
get_start_method = default_context.get_start_method
set_start_method = default_context.set_start_method


def _import_exiting() -> None:
    from bequest.launch import exiting  # noqa: F401 - it acts as it is imported


def _import_tracker() -> None:
    from bequest.launch import tracker  # noqa: F401 - as above


# A program that has bequest installed, and of multiprocessing no more than the
# package itself, pays for neither.
when_imported("multiprocessing.util", "exiting", _import_exiting)
# Before anything of this process is registered with it: a tracker that runs already stays as it is.
when_imported("multiprocessing.resource_tracker", "tracker", _import_tracker)
