"""What the program wants a template to import: the names given to `set_forkserver_preload`.

    context.set_forkserver_preload(names) -> mark_as_chosen() -> a template's imports, and main's treatment

They are kept by the standard fork server, which bequest does not use otherwise. Its default is to preload
`__main__`. bequest does not run the main module again unasked, so it has to know whether the program asked.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_DEFAULT = ["__main__"]


class _Chosen(list[str]):
    """The names that the program gave: a list of another type than the default, which may be equal to it."""


def mark_as_chosen() -> None:
    """Know from here on that the names which the standard fork server holds are the program's choice."""
    server = _standard_server()
    server._preload_modules = _Chosen(server._preload_modules)


def is_main_chosen() -> bool:
    """Tell whether the program asked for its main module to be preloaded."""
    server = _standard_server()
    names = [] if server is None else server._preload_modules
    return "__main__" in names and (type(names) is _Chosen or names != _DEFAULT)


def modules() -> tuple[list[str], str]:
    """Return the modules, without the main one, and what to do where one fails (3.15): see `serve`."""
    server = _standard_server()
    if server is None:
        return [], "ignore"
    names = [name for name in server._preload_modules if name != "__main__"]
    return names, getattr(server, "_preload_on_error", "ignore")


def _standard_server() -> Any:
    standard = sys.modules.get("multiprocessing.forkserver")
    return None if standard is None else vars(standard)["_forkserver"]
