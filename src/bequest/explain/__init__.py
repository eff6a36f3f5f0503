"""What a child inherits, made visible: `bequest.explain(...)`, and what the command line shows of it.

    explain(target | process | object) -> Inheritance -> text, HTML, JSON

The package can be called: importing a submodule binds its name in the package above, and `bequest.explain`
must be the function whether or not that has happened (as with `bequest.install`).
"""

from __future__ import annotations

import sys
import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from bequest.explain.nodes import Inheritance


def explain(
    what: Any,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    context: Any = None,
    as_message: bool = False,
) -> Inheritance:
    """Return the tree of what would be carried, were `what` started or sent now. Nothing is started or sent.

    The pass is the very one that packs, so users' own `__reduce__` and `__getstate__` run as they would, and
    the sizes add up to what is really sent.

    Args:
        what: A process that is not started; or a function, method, class or `functools.partial`, explained as
            the target of a process (as is anything that comes with arguments); or any other object, explained
            as an item of a queue.
        args: Positional arguments of the target.
        kwargs: Named arguments of the target.
        context: A context of bequest with start method `spawn` or `forkserver`; by default that of the
            process, or the default context. Where that is `fork`, which carries nothing, `spawn` is taken.
        as_message: Whether `what` is an item of a queue even though it can be called.

    Returns:
        The caller's own. Where a start or send would be refused, its `error` says so; the tree is there all
        the same.

    Raises:
        ValueError: The process has been started already.
        Exception: Whatever a user's own code raises while a message is packed.
    """
    from bequest.explain import rehearse

    return rehearse.explain(what, args, kwargs or {}, context=context, as_message=as_message)


class _CallableModule(types.ModuleType):
    """The type of this package: `bequest.explain(...)` is `bequest.explain.explain(...)`."""

    def __call__(self, *args: Any, **options: Any) -> Inheritance:
        return explain(*args, **options)


_CallableModule.__call__.__doc__ = explain.__doc__
_CallableModule.__call__.__wrapped__ = explain  # type: ignore[attr-defined]  # for `inspect.signature`
sys.modules[__name__].__class__ = _CallableModule
