"""Puts bequest into the running interpreter's multiprocessing and concurrent.futures, and takes it out again.

    install() -> once multiprocessing is imported, what it offers is bequest's (`bequest.replacing`)
    a child   -> `installed_options()` of its parent travel in its header; it installs with the same

A program that never imports multiprocessing pays for this module alone. `uninstall` puts every replaced
object back.

The module can be called, as `bequest.install(...)`: importing a submodule binds its name in the package, and
`bequest.install` must be the function whether or not that has happened.
"""

from __future__ import annotations

import os
import sys

from bequest.imports import forget, when_imported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MULTIPROCESSING, _EXECUTOR = "multiprocessing", "concurrent.futures.process"
_WATCHED = "BEQUEST_WATCH"  # as in `bequest.launch.watched`

# Start methods that are known to be there, so that multiprocessing need not be asked.
_SURE = (None, "fork", "spawn", "forkserver") if hasattr(os, "fork") else (None, "spawn")


class _Installation:
    """Whether `install` is in force, and how far it has come.

    Attributes:
        options: Its arguments; None where it is not in force.
        is_done: Whether multiprocessing has been changed, rather than is awaited.
    """

    options: dict[str, Any] | None = None
    is_done = False


_installation = _Installation()


def install(start_method: str | None = None, strict: bool = False) -> None:
    """Make multiprocessing and concurrent.futures of this process, and of its children, be bequest's.

    The default start method becomes bequest's ('forkserver' where there is one), unless the program chose
    one or does so later. Calling it again changes the options, if they differ. Call it before there are
    threads.

    Args:
        start_method: The default start method whatever the program says: its calls of `set_start_method` are
            accepted and have no effect. A context that it asks for by name is the one that it asked for.
        strict: Refuse at a start what would be left behind.

    Raises:
        ValueError: There is no such start method here; nothing has changed.
    """
    options = {"start_method": start_method, "strict": strict}
    if _installation.options == options:
        return
    if start_method not in _SURE:
        import multiprocessing

        multiprocessing.get_context(start_method)
    uninstall()
    _installation.options = options
    when_imported(_MULTIPROCESSING, "install", _put_in)
    # It imports multiprocessing, when it is too late to ask for a word about its own import.
    when_imported(_EXECUTOR, "install", _put_in_executor)


def _put_in() -> None:
    from bequest.replacing import put_in

    assert _installation.options is not None
    _installation.is_done = True
    put_in(**_installation.options)
    if _WATCHED in os.environ:
        from bequest.explain import watch

        watch.begin(os.environ[_WATCHED])


def _put_in_executor() -> None:
    from bequest.replacing import put_in_executor

    put_in_executor()


def uninstall() -> None:
    """Put back everything that `install` replaced; a start method chosen since then stays chosen.

    That does not hold for the default of bequest: whether it was chosen or only used cannot be told.
    """
    if _installation.options is None:
        return
    _installation.options = None
    for name in (_MULTIPROCESSING, _EXECUTOR):
        forget(name, "install")
    if not _installation.is_done:
        return
    from bequest.replacing import take_out

    _installation.is_done = False
    take_out()


def is_installed() -> bool:
    """Whether `install` is in force in this process."""
    return _installation.options is not None


def installed_options() -> dict[str, Any]:
    """Return the arguments of the `install` in force, for a child to do the same; empty if there is none."""
    return dict(_installation.options or {})


class _CallableModule(type(sys)):  # type: ignore[misc]  # types.ModuleType, without an import of types
    """The type of this module: `bequest.install(...)` is `bequest.install.install(...)`."""

    def __call__(self, start_method: str | None = None, strict: bool = False) -> None:
        install(start_method, strict)


sys.modules[__name__].__class__ = _CallableModule
