"""Names of `__main__` that no message has brought to a child: then the main module is run there after all.

    __main__.name -> ChildMain.__getattr__ -> the module's code, as `__mp_main__` -> what it defines

A child has the names that what it was given reads. Who looks for others goes by name alone: pickles that
another pickler has made, in a queue of a library's own or in a file. Under the standard library's `spawn` and
`forkserver` these names are there, as the child has run the guarded main module; so it is run then, once.
What has come from the parent stays as it is; what is new comes from that run, not from the parent's state.
"""

from __future__ import annotations

import _thread
from types import CodeType, FunctionType, ModuleType

from bequest.carry import modules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any
else:
    Any = object


class ChildMain(ModuleType):
    """The `__main__` of a child.

    It may be asked for names that it does not have; see the module's docstring.
    """

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__") and _complete(self, name):
            return vars(self)[name]
        raise AttributeError(f"module '__main__' has no attribute {name!r}")


class _Completion:
    """Whether the main module is to be run where a name is missing, and how it is found.

    Attributes:
        way: As `mainmodule.describe` says; () where it cannot be run, or has been.
        names: What its code mentions, once that has been read.
        lock: Held by the thread that runs it.
    """

    def __init__(self) -> None:
        self.way: tuple[str, ...] = ()
        self.names: frozenset[str] | None = None
        self.lock = _thread.RLock()


completion = _Completion()


def _complete(main: ModuleType, name: str) -> bool:
    """Run the main module if it may define `name`; tell whether that is there now."""
    from multiprocessing import process

    with completion.lock:  # another thread may be running it
        # Not while the child is being set up: what is missing then is about to come.
        is_set_up = not getattr(process.current_process(), "_inheriting", False)
        if completion.way and is_set_up and (completion.names is None or name in completion.names):
            _look_for(name, main)
        return name in vars(main)


def _look_for(name: str, main: ModuleType) -> None:
    from bequest.carry.mainmodule import log

    try:
        code = _code(*completion.way)
    except (OSError, ImportError, SyntaxError, ValueError) as error:
        log(f"the main module cannot be run for its {name!r} ({error})")
        return
    completion.names = frozenset(() if code is None else code.co_names)
    if code is None or name not in completion.names:
        return
    completion.way = ()
    try:
        _run(code, main)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's code; told by what is missing then
        log(f"the main module, run for its {name!r}, failed: {type(error).__name__}: {error}")


def _code(kind: str, where: str) -> CodeType | None:
    """Return the main module's code; None for what the standard library does not run in a child either."""
    if kind == "name":
        from importlib.util import find_spec

        if where == "__main__" or where.endswith(".__main__"):
            return None
        spec = find_spec(where)
        loader: Any = None if spec is None else spec.loader
        found: CodeType | None = loader.get_code(where) if hasattr(loader, "get_code") else None
        return found
    from io import open_code

    with open_code(where) as file:
        return compile(file.read(), where, "exec", dont_inherit=True)


class _View(dict[str, Any]):
    """What the top level of the main module reads and binds: the namespace, but for what is there already.

    Attributes:
        space: The namespace.
        new: The names that have been bound.
    """

    def __init__(self, space: dict[str, Any]) -> None:
        super().__init__()
        self.space, self.before, self.new = space, frozenset(space), set[str]()

    def __getitem__(self, name: str) -> Any:
        return "__mp_main__" if name == "__name__" else self.space[name]

    def __setitem__(self, name: str, value: Any) -> None:
        if name not in self.before:
            self.space[name] = value
            self.new.add(name)

    def __delitem__(self, name: str) -> None:
        if name not in self.before:
            del self.space[name]
            self.new.discard(name)


def _run(code: CodeType, main: ModuleType) -> None:
    """Run the main module's code in its namespace, where what is there already stays."""
    import dis
    from multiprocessing import process

    view = _View(vars(main))
    # What a function declares `global` is bound in the namespace itself, past the view.
    declared = {step.argval for step in dis.get_instructions(code) if step.opname == "STORE_GLOBAL"}
    before = {name: view.space[name] for name in declared & view.before}
    current: Any = process.current_process()
    # While it is set a start is refused, with what the standard library says of a missing guard.
    current._inheriting = True
    try:
        exec(code, view.space, view)
    finally:
        del current._inheriting
        view.space.update(before)
        for name in view.new:
            value = view.space.get(name)
            if isinstance(value, FunctionType | type) and value.__module__ == "__main__":
                modules.go_by_name(value)
