"""What one piece of ambient state is to the rest: a name, how a parent reads it, how a child sets it.

    family module -> ADOPTERS -> bequest.carry.ambient, which walks them

Holds what every family shares: the `Adopter` itself, how a failure is reported, and two questions about
objects (is it the front end's own, is it a stand-in). It knows no piece of state.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # typing is not imported in a child for the sake of annotations
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

# What these install watches or serves the parent's own front end (a kernel's sockets, a test runner's
# collectors, a running event loop). A child gets the interpreter's default in its place: carrying them
# would drag the whole front end along, to talk to something that is not there.
FRONT_ENDS = frozenset({
    "asyncio", "_pytest", "pytest", "IPython", "ipykernel", "idlelib", "pydevd", "_pydevd_bundle", "debugpy",
    "bdb", "pdb", "bequest", "_pydev_bundle", "_pydev_runfiles", "pydevconsole", "ipywidgets", "traitlets",
})  # fmt: skip


class Adopter:
    """One piece of ambient state.

    Attributes:
        name: What it is called in a state and in reports; unique within its family.
        capture: Reads it in the parent; None means that there is nothing to restore.
        restore: Sets it in the child; what is so already costs next to nothing.
        owner: The module that must be loaded in the parent for it to matter. Where a child has not loaded it,
            the state waits until it does, unless `eager`.
        plain: Whether the captured value is marshal-able and restored before anything is unpickled.
        eager: Whether the child imports the owner at once instead of waiting.
        vital: Whether a child must not go on without it; a failure to restore is then raised.
    """

    __slots__ = ("capture", "eager", "name", "owner", "plain", "restore", "vital")

    def __init__(
        self,
        name: str,
        capture: Callable[[], Any],
        restore: Callable[[Any], None],
        *,
        owner: str | None = None,
        plain: bool = False,
        eager: bool = False,
        vital: bool = False,
    ) -> None:
        self.name, self.capture, self.restore = name, capture, restore
        self.owner, self.plain, self.eager, self.vital = owner, plain, eager, vital


class LastLook:
    """What was made of some objects at the last look: mostly they are the same at the next.

    Args:
        make: Makes it, of nothing but the objects themselves and what of them never changes.
    """

    __slots__ = ("_last", "_make")

    def __init__(self, make: Callable[[Sequence[Any]], Any]) -> None:
        self._make = make
        self._last: tuple[list[int] | None, Sequence[Any], Any] = (None, (), None)

    def of(self, objects: Sequence[Any]) -> Any:
        """Return what `make` makes of `objects`, kept and compared by identity with the last ones."""
        ids = [*map(id, objects)]
        last = self._last  # at one go: threads start processes side by side
        if ids != last[0]:
            last = self._last = (ids, objects, self._make(objects))
        return last[2]


def report(text: str, *args: object) -> None:
    """Tell multiprocessing's logger, at level INFO, of state that was left out."""
    from multiprocessing import util

    util.info("bequest: " + text, *args)


def attempt(what: str, act: Callable[..., object], *args: Any) -> None:
    """Call `act(*args)`; what the system refuses is reported, never raised.

    Made for settings that a child may lawfully be unable to take over, such as a lower nice value.
    """
    try:
        act(*args)
    except (OSError, ValueError) as error:
        report("%s is not as in the parent: %s", what, error)


def is_front_end(obj: Any) -> bool:
    """Return whether a hook, handler or stream was put there by the parent's front end.

    Asks `obj` for attributes only where its type is known: proxies answer such questions with anything.
    """
    kind = type(obj)
    while (kind.__module__, kind.__name__) == ("functools", "partial"):
        obj = obj.func
        kind = type(obj)
    if kind.__name__ in ("method", "builtin_function_or_method"):
        bound = type(obj.__self__).__module__
        module = obj.__module__ if bound in ("builtins", "types") else bound
    else:
        module = obj.__module__ if kind.__name__ == "function" or isinstance(obj, type) else kind.__module__
    return isinstance(module, str) and module.partition(".")[0] in FRONT_ENDS


def is_stand_in(obj: object) -> bool:
    """Return whether `obj` stands for something that was left behind in the parent."""
    module = sys.modules.get("bequest.carry.leftbehind")
    return module is not None and type(obj) is module.LeftBehind
