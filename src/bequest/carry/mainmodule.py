"""What `__main__` is in a child: never run again, but shaped alike, with what it had set up around it.

    parent: describe(main, mode) -> dict that marshal takes -> header of the message
    child:  establish(dict) -> sys.modules["__main__"], the imports and calls of `replay` done

Nothing of the parent's bindings travels here: they are laid over what `establish` leaves. The analysis of the
main module's source is `replay`'s, which only a parent imports.
"""

from __future__ import annotations

import builtins
import os
import sys
from io import open_code as _open_code
from types import FunctionType, ModuleType

from bequest.carry import absent
from bequest.carry.modules import is_user_module

TYPE_CHECKING = False  # as typing's, whose import would delay a child
if TYPE_CHECKING:
    from typing import Any, Protocol, TypeAlias

    Step: TypeAlias = tuple[int, str, str]  # line, "import" or "run", name of the module or source
    Plan: TypeAlias = tuple[Step, ...]

    class Program(Protocol):
        """What is known of a main module.

        Attributes:
            is_guarded: Whether its own work stands behind `if __name__ == "__main__"`.
        """

        is_guarded: bool

        def plan(self, main: ModuleType) -> Plan:
            """Return what a child does, in the order of the source."""

        def remake(self, main: ModuleType, name: str) -> tuple[str, tuple[str, ...]] | None:
            """Return the source that makes the global `name` again and the globals it reads, or None."""


MODES = ("replay", "import", "never")
_ATTRIBUTES = ("__file__", "__package__", "__doc__", "__cached__")


class _Established:
    """What this process's `__main__` has been made from; one per process.

    Attributes:
        module: The module that `establish` made, None before.
        description: What it was made from.
        done: The steps that are done, so that a longer plan does only the rest.
        failed_in: The process in which steps failed, None where none did. A template may lack what they need
            and a child that it forks have it (environment, folder, search path), so that one tries again.
        space: What they were run in. A namespace of its own: what they bind is no part of the child's
            `__main__`, which is to have the names that the parent's message gives it and no others.
    """

    def __init__(self) -> None:
        self.module: ModuleType | None = None
        self.description: dict[str, Any] = {}
        self.done: set[Step] = set()
        self.failed_in: int | None = None
        self.space: dict[str, Any] = {}


_established = _Established()
# By the module's id: the module itself (ids come again), a stamp of its source, and what was made of them.
_programs: dict[int, tuple[ModuleType, tuple[object, ...], Program]] = {}
_descriptions: dict[tuple[int, str], dict[str, Any]] = {}


def describe(main: ModuleType, mode: str) -> dict[str, Any]:
    """Return what a child needs to set up its own `__main__`.

    Costs a parse of the main module's source once, and again when the file has changed; else microseconds.

    Args:
        main: The parent's `__main__`.
        mode: `"replay"`, `"import"` (the standard library's way: the main module runs again as `__mp_main__`)
            or `"never"` (the attributes of `__main__` and nothing else).

    Returns:
        A dict that `marshal` takes. It is shared between calls: equal states give the same object, so the
        caller must not change it.

    Raises:
        ValueError: `mode` is none of the three.
    """
    if mode not in MODES:
        raise ValueError(f"main={mode!r} is none of {', '.join(MODES)}")
    shape = _shape(main)
    steps = _plan(main) if mode == "replay" else ()
    known = _descriptions.get((id(main), mode))
    if known is not None and known["shape"] == shape and known["steps"] == steps:
        return known
    made = {"mode": mode, "shape": shape, "steps": steps, "import": ()}
    if mode == "import" or (mode == "replay" and _is_guarded(main)):
        made["import"] = _way_to_import(main)
    _descriptions[id(main), mode] = made
    return made


def remake_statement(main: ModuleType, name: str) -> str | None:
    """Return the source that makes the global `name` of a guarded main module again, in a child.

    That is the one top-level assignment which made it, followed by the assignments of the top level to its
    attributes and items. It reads nothing but what `remake_reads` names.

    Returns:
        Source for `exec` in the child's `__main__`; None where no statement can safely be run again. What can
        is said in `replay`.
    """
    remade = _remake(main, name)
    return None if remade is None else remade[0]


def remake_reads(main: ModuleType, name: str) -> tuple[str, ...]:
    """Return the globals that the child must have before `remake_statement(main, name)` is run there."""
    remade = _remake(main, name)
    return () if remade is None else remade[1]


def establish(description: dict[str, Any]) -> ModuleType:
    """Set up this process's `__main__`, known as `__mp_main__` too, and return it.

    The user modules that the parent's main module imported are imported, and its configuration is replayed.
    An import or a call that fails is logged (`multiprocessing.util.info`) and skipped. Calling it again with
    an equal description does nothing: a template has called it for the children that it forks.

    Args:
        description: What `describe` returned in the parent.
    """
    main = sys.modules.get("__main__")
    if main is not None and main is _established.module and _established.description == description:
        if _established.failed_in not in (None, os.getpid()):
            _replay(main, description)
        return main
    if description["mode"] == "import":
        module = _import_main(description)
    else:
        module = _shaped(description["shape"])
        absent.completion.way = description["import"]
        _replay(module, description)
    _established.module, _established.description = module, description
    return module


def established() -> dict[str, Any] | None:
    """Return the description of this process's `__main__`, None where `establish` has not made it."""
    return _established.description if _established.module is not None else None


# In the parent


def _shape(main: ModuleType) -> tuple[Any, ...]:
    """Return the attributes of `__main__` that code may look at, and how to make its spec and its loader."""
    namespace = vars(main)
    values = tuple([_plain(namespace.get(name)) for name in _ATTRIBUTES])
    spec = namespace.get("__spec__")
    if spec is not None:
        spec = tuple(_plain(getattr(spec, name, None)) for name in ("name", "origin", "cached"))
    return (values, spec, _loader_shape(namespace.get("__loader__")))


def _plain(value: object) -> str | None:
    return value if type(value) is str else None


def _loader_shape(loader: object) -> tuple[str | None, ...] | None:
    kind = getattr(loader if isinstance(loader, type) else type(loader), "__name__", None)
    if kind in ("SourceFileLoader", "SourcelessFileLoader"):
        return (kind, _plain(getattr(loader, "name", None)), _plain(getattr(loader, "path", None)))
    if kind == "zipimporter":
        return (kind, _plain(getattr(loader, "archive", None)))
    return (kind,) if kind == "BuiltinImporter" else None


def _plan(main: ModuleType) -> Plan:
    """Return the imports and statements that a child does again, in the order of the source."""
    if main is _established.module:  # our own parent has seen the source run: its plan holds for our children
        steps: Plan = _established.description["steps"]
        return steps
    return _program(main).plan(main)


def _is_guarded(main: ModuleType) -> bool:
    """Tell whether a child may run the main module for names that have not come; see `absent`."""
    if main is _established.module:
        return bool(_established.description["import"])
    return _program(main).is_guarded


def _program(main: ModuleType) -> Program:
    """Return the analysis of the main module, made again where its source file has changed."""
    known = _programs.get(id(main))
    stamp = _stamp(vars(main).get("__file__"))
    if known is not None and known[0] is main and known[1] == stamp:
        return known[2]
    program = _read_program(main)
    _programs[id(main)] = (main, stamp, program)
    return program


def _stamp(file: object) -> tuple[object, ...]:
    if not isinstance(file, str):
        return ()
    try:
        status = os.stat(file)
    except OSError:  # in a zip file, or removed since: what was read, if anything, stands
        return (file,)
    return (file, status.st_mtime_ns, status.st_size)


def _remake(main: ModuleType, name: str) -> tuple[str, tuple[str, ...]] | None:
    return _program(main).remake(main, name)


def _way_to_import(main: ModuleType) -> tuple[str, ...]:
    """Return what the standard library's preparation data says of the main module: name or path."""
    name = getattr(vars(main).get("__spec__"), "name", None)
    if isinstance(name, str):
        return ("name", name)
    file = vars(main).get("__file__")
    if not isinstance(file, str):
        return ()
    from multiprocessing import process

    folder = getattr(process, "ORIGINAL_DIR", None)  # where the program was started
    if folder is not None:
        file = os.path.join(folder, file)
    return ("path", os.path.normpath(file))


def _read_program(main: ModuleType) -> Program:
    try:
        source = _source(main)
        if source is not None:
            from bequest.carry.replay import SourceProgram

            return SourceProgram(source, vars(main))
    except (
        OSError,
        SyntaxError,
        ValueError,
        ImportError,
    ) as error:  # not what has run, or no longer to be had
        log(f"the main module's source cannot be read ({error}): nothing of it is replayed")
    return _NamespaceProgram()


def _source(main: ModuleType) -> bytes | str | None:
    """Return the main module's source, None where it has none: a notebook, `-c`, a compiled file."""
    loader = vars(main).get("__loader__")
    if type(loader).__name__ == "zipimporter":
        name = getattr(vars(main).get("__spec__"), "name", None) or "__main__"
        text: str | None = loader.get_source(name)  # type: ignore[union-attr]  # it is a zipimporter
        return text
    file = vars(main).get("__file__")
    if not isinstance(file, str) or type(loader).__name__ != "SourceFileLoader":
        return None
    with _open_code(file) as stream:  # a program may have put a function of its own in the place of `open`
        return stream.read()


class _NamespaceProgram:
    """A main module without source, such as a notebook's: its globals show its user modules."""

    is_guarded = False

    def __init__(self) -> None:
        self._seen: tuple[int, tuple[str, ...]] = (-1, ())

    def plan(self, main: ModuleType) -> Plan:
        """See `Program`; the namespace is looked through again only when it has grown or shrunk."""
        space = vars(main)
        if len(space) != self._seen[0]:
            names = [_home_of(value) for value in list(space.values())]
            self._seen = (len(space), tuple(dict.fromkeys(name for name in names if name is not None)))
        return tuple((0, "import", name) for name in self._seen[1] if is_for_child(name))

    def remake(self, main: ModuleType, name: str) -> None:
        """See `Program`; there is no statement to run."""


def _home_of(value: object) -> str | None:
    """Return the module that a module, class or function of a namespace has been imported from."""
    if isinstance(value, ModuleType):
        return value.__name__
    name = getattr(value, "__module__", None) if isinstance(value, type | FunctionType) else None
    return name if isinstance(name, str) else None


def is_for_child(name: str) -> bool:
    """Tell whether `name` is a user module whose import this process has brought to its end.

    One that is still being imported is the program itself, which must not begin again in a child.
    """
    module = sys.modules.get(name)
    if not isinstance(module, ModuleType) or not is_user_module(module):
        return False
    return not getattr(module.__spec__, "_initializing", False)


class Imports:
    """The imports of a main module, of which those are a child's that `is_for_child` at the time."""

    def __init__(self, steps: list[Step]) -> None:
        self._steps = steps
        self._names = [name for _, _, name in steps]
        self._libraries: list[Any] = []  # what their modules were when none of them was the user's

    def for_child(self) -> Plan:
        """Return the steps that a child does."""
        found = [*map(sys.modules.get, self._names)]
        if found and found == self._libraries:  # in C, where lists compare by identity first
            return ()
        steps = tuple([step for step in self._steps if is_for_child(step[2])])
        users = any(isinstance(module, ModuleType) and is_user_module(module) for module in found)
        self._libraries = [] if users else found
        return steps


def line_of_top_level(space: dict[str, Any]) -> int | None:
    """Return the line at which the main module's own code stands, None where it no longer runs.

    It runs in the main thread, which need not be the one that asks.
    """
    import threading

    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None:
        if frame.f_globals is space and frame.f_code.co_name == "<module>":
            return frame.f_lineno
        frame = frame.f_back
    return None


def log(text: str) -> None:
    """Tell who asked `multiprocessing` for its log."""
    from multiprocessing import util

    util.info(f"bequest: {text}")


# In the child


def _import_main(description: dict[str, Any]) -> ModuleType:
    from multiprocessing import spawn

    if description["import"]:
        kind, where = description["import"]
        getattr(spawn, f"_fixup_main_from_{kind}")(where)
        return sys.modules["__main__"]
    return _shaped(description["shape"])


def _shaped(shape: tuple[Any, ...]) -> ModuleType:
    """Return a `__main__` with the attributes of the parent's; the one that stands there if made so."""
    main = _established.module
    if (
        main is not None
        and sys.modules.get("__main__") is main
        and _established.description["shape"] == shape
    ):
        return main
    values, spec, loader = shape
    module = absent.ChildMain("__main__")
    namespace = vars(module)
    namespace.update({k: v for k, v in zip(_ATTRIBUTES, values, strict=True) if v is not None})
    namespace["__loader__"] = _make_loader(loader)
    namespace["__spec__"] = None if spec is None else _make_spec(spec, namespace["__loader__"])
    namespace["__builtins__"] = builtins
    _established.done, _established.space = set(), dict(namespace)
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module
    return module


def _make_loader(shape: tuple[Any, ...] | None) -> object:
    if shape is None:
        return None
    kind, *arguments = shape
    if kind == "BuiltinImporter":
        import _frozen_importlib

        return _frozen_importlib.BuiltinImporter
    if kind == "zipimporter":
        import zipimport

        try:
            return zipimport.zipimporter(*arguments)
        except zipimport.ZipImportError:  # the archive is gone: nothing can be loaded from it any more
            return None
    import _frozen_importlib_external

    return getattr(_frozen_importlib_external, kind)(*arguments)


def _make_spec(shape: tuple[Any, ...], loader: object) -> object:
    import _frozen_importlib

    name, origin, cached = shape
    spec = _frozen_importlib.ModuleSpec(name, loader, origin=origin)  # type: ignore[arg-type]  # any loader will do
    spec.has_location = origin is not None
    if cached is not None:
        spec.cached = cached
    return spec


def _replay(module: ModuleType, description: dict[str, Any]) -> None:
    """Do the steps of the plan in the order of the source: some modules can be imported only after a call."""
    file = vars(module).get("__file__") or "<main module>"
    failed = False
    for step in description["steps"]:
        if step in _established.done:
            continue
        line, kind, text = step
        if kind == "import":
            done = _try(f"import of {text}", __import__, text)
        else:
            done = _try(f"line {line} of {file}", _run, text, file, line, _established.space)
        if done:
            _established.done.add(step)
        failed = failed or not done
    _established.failed_in = os.getpid() if failed else None


def _run(source: str, file: str, line: int, space: dict[str, Any]) -> None:
    exec(compile("\n" * (line - 1) + source, file, "exec", dont_inherit=True), space)


def _try(what: str, function: Any, *arguments: Any) -> bool:
    try:
        function(*arguments)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's code; the parent got past it
        log(f"replaying the main module, {what} failed: {type(error).__name__}: {error}")
        return False
    return True
