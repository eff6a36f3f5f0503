"""The command line: `python -m bequest run` runs an unmodified program on bequest's `multiprocessing`.

`explain`, `check` and `doctor` are handed to `bequest.explain`; the rest of this module is `run`.

    sys.argv -> _RunOptions -> install() -> a new `__main__`, sys.argv, sys.path[0] -> the program

The program meets what it would meet under plain Python: the attributes of `__main__`, its arguments, its
search path, its exit status, its tracebacks. It runs inside `main()`, which then returns, so that the
interpreter itself joins the threads, calls what `atexit` holds and takes the modules down. Only what looks
down the stack (`sys._getframe`, `traceback.print_stack`) can tell the difference. Parsed by hand: `argparse`
would cost the program more than all the rest of this module.
"""

from __future__ import annotations

import _frozen_importlib
import _frozen_importlib_external
import builtins
import os
import sys
from types import ModuleType

TYPE_CHECKING = False  # as typing's, whose import would delay the program
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import CodeType, TracebackType
    from typing import Any

USAGE = """\
usage: python -m bequest run [--start METHOD] [--strict] PROGRAM [ARGUMENT ...]
       python -m bequest explain [OPTION ...] PROGRAM [ARGUMENT ...]
       python -m bequest check [OPTION ...] PROGRAM [ARGUMENT ...]
       python -m bequest doctor

run:     run an unmodified program with bequest in place of multiprocessing
explain: the same, and say what each process that it starts is given; see explain --help
check:   the same, and say what plain Python 3.14 would have done; see check --help
doctor:  say what of this system matters to processes, and what would be slow or fail here

PROGRAM is one of
  script.py        a script, a .pyc file, a zip file or a folder with a __main__.py
  -m MODULE        a module or a package
  -c CODE          a program given as text
  -                a program read from standard input

options:
  --start METHOD   fork, spawn or forkserver, whatever the program itself asks for:
                   its calls of set_start_method are then accepted and ignored
  --strict         refuse what cannot be carried, where it would be left behind
  -h, --help       show this and leave
"""

_METHODS = ("fork", "spawn", "forkserver")
_USAGE_STATUS = 2


class _UsageError(Exception):
    """The command line cannot be understood; its text says what is wrong with it."""


class _RunOptions:
    """What `bequest run` was asked for.

    Attributes:
        kind: `"script"`, `"module"`, `"command"` or `"stdin"`.
        program: The script's path, the module's name or the program's text.
        arguments: What the program finds in `sys.argv[1:]`.
        start: The start method that wins over the program's own, or None.
        strict: Whether what cannot be carried is refused.
    """

    def __init__(
        self, kind: str, program: str, arguments: tuple[str, ...], *, start: str | None, strict: bool
    ) -> None:
        self.kind, self.program, self.arguments = kind, program, arguments
        self.start, self.strict = start, strict


def main(arguments: Sequence[str] | None = None) -> int | None:
    """Run one command of `python -m bequest`.

    A program that ends by an exception (`SystemExit` and `KeyboardInterrupt` among them) leaves through it:
    the interpreter then reports it and ends as it does for a program of its own.

    Args:
        arguments: The command line without the program's name; `sys.argv[1:]` by default.

    Returns:
        The exit status; None where the program has ended well.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in ("-h", "--help"):
        return _tell(sys.stdout, USAGE, 0)
    if given and given[0] in ("explain", "check", "doctor"):
        return _hand_over(given[0], given[1:])
    try:
        if not given or given[0] != "run":
            raise _UsageError(f"unknown command {given[0]!r}" if given else "a command is missing")
        options = _parse_run(given[1:])
    except _UsageError as error:
        return _tell(sys.stderr, f"{USAGE}\nbequest: {error}\n", _USAGE_STATUS)
    return _tell(sys.stdout, USAGE, 0) if options is None else _run(options)


def _hand_over(command: str, given: Sequence[str]) -> int:
    if command == "doctor":
        from bequest.explain.doctor import main as examine

        return examine(given)
    from bequest.explain.commands import main as watch

    return watch(command, given)


def _tell(stream: Any, text: str, status: int) -> int:
    stream.write(text)
    return status


def _parse_run(given: Sequence[str]) -> _RunOptions | None:
    """Return what the arguments after `run` ask for; None where they ask for help."""
    start, strict, place = None, False, 0
    while place < len(given) and given[place].startswith("-"):
        option, _, value = given[place].partition("=")
        if option in ("-h", "--help"):
            return None
        if option == "--strict" and not value:
            strict = True
        elif option == "--start":
            if not value:
                place += 1
                value = given[place] if place < len(given) else ""
            if value not in _METHODS:
                raise _UsageError(f"--start takes one of {', '.join(_METHODS)}")
            start = value
        else:
            break
        place += 1
    kind, program, arguments = _parse_program(given[place:])
    return _RunOptions(kind, program, arguments, start=start, strict=strict)


def _parse_program(given: Sequence[str]) -> tuple[str, str, tuple[str, ...]]:
    """Read what to run, and its own arguments, as Python's command line does (`-mjson.tool` included)."""
    if not given:
        raise _UsageError("what to run is missing")
    first, rest = given[0], tuple(given[1:])
    if first == "-":
        return "stdin", "<stdin>", rest
    for flag, kind in (("-m", "module"), ("-c", "command")):
        if first.startswith(flag):
            if first != flag:
                return kind, first[len(flag) :], rest
            if not rest:
                raise _UsageError(f"an argument of {flag} is missing")
            return kind, rest[0], rest[1:]
    if first.startswith("-"):
        raise _UsageError(f"unknown option {first}")
    return "script", first, rest


def _run(options: _RunOptions) -> int | None:
    _forget_start_folder()
    from bequest.install import install  # not at the top: usage and help need no multiprocessing

    install(start_method=options.start, strict=options.strict)
    _reach_programs_started(options)
    runner: Callable[[_RunOptions], int | None] = {
        "script": _run_script,
        "module": _run_module,
        "command": _run_command,
        "stdin": _run_stdin,
    }[options.kind]
    return runner(options)


def _reach_programs_started(options: _RunOptions) -> None:
    """Let the Python programs that this one starts have bequest too; see `startup/sitecustomize.py`."""
    home = os.path.dirname(os.path.abspath(__file__))
    before = os.environ.get("PYTHONPATH")
    folders = [os.path.join(home, "startup"), *([before] if before else [])]
    os.environ["PYTHONPATH"] = os.pathsep.join(folders)
    os.environ["BEQUEST_RUN"] = f"{options.start or ''}:{'strict' if options.strict else ''}"


def _forget_start_folder() -> None:
    """Drop from `sys.path` what Python put there for this command: it is not where the program is."""
    if sys.flags.safe_path or not sys.path:
        return
    as_module = getattr(sys.modules["__main__"], "__spec__", None) is not None
    folder = _current_folder() if as_module else os.path.dirname(os.path.realpath(sys.argv[0]))
    if sys.path[0] == folder:
        del sys.path[0]


def _current_folder() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it has been removed: Python then adds nothing to the path either
        return None


def _enter(first_argument: str, options: _RunOptions, path: str | None) -> dict[str, Any]:
    """Set `sys.argv`, `sys.path[0]` and a new `__main__`; return the namespace of that module.

    Args:
        first_argument: What `sys.argv[0]` is to be.
        options: Where the other arguments come from.
        path: What goes to the front of `sys.path`, where Python's options allow that; None for nothing.
    """
    sys.argv[:] = [first_argument, *options.arguments]
    if path is not None and not sys.flags.safe_path:
        sys.path.insert(0, path)
    started = vars(sys.modules["__main__"])
    module = ModuleType("__main__")
    module.__loader__ = _frozen_importlib.BuiltinImporter
    namespace = vars(module)
    if "__annotations__" in started:  # to Python 3.13; made on demand later
        namespace["__annotations__"] = {}
    namespace["__builtins__"] = builtins
    sys.modules["__main__"] = module
    return namespace


def _enter_file(namespace: dict[str, Any], file: str, loader: str | None) -> None:
    """Set what a `__main__` that comes from a file has besides.

    Args:
        namespace: The namespace of `__main__`.
        file: Its `__file__`.
        loader: The name of its loader's class; None where the loader stays as it is.
    """
    namespace["__file__"] = file
    if sys.version_info < (3, 15):  # which no longer sets it
        namespace["__cached__"] = None
    if loader is not None:
        namespace["__loader__"] = getattr(_frozen_importlib_external, loader)("__main__", file)


def _run_script(options: _RunOptions) -> int | None:
    script = options.program
    # As Python does since 3.9: __file__ is absolute, sys.argv[0] is what was typed.
    file = script if os.path.isabs(script) else os.path.join(os.getcwd(), script)
    if _is_archive(file):
        _run_archive(file, options)
        return None
    try:
        with open(file, "rb") as stream:
            content = stream.read()
    except OSError as error:
        reason = f"can't open file {file!r}: [Errno {error.errno}] {error.strerror}"
        return _tell(sys.stderr, f"{sys.orig_argv[0]}: {reason}\n", 2)
    namespace = _enter(script, options, os.path.dirname(os.path.realpath(script)))
    if _is_compiled(file, content):
        _enter_file(namespace, file, "SourcelessFileLoader")
        code = _decode_compiled(content)
    else:
        _enter_file(namespace, file, "SourceFileLoader")
        code = _call(compile, content, file, "exec", dont_inherit=True)
    _call(exec, code, namespace)
    return None


def _is_archive(file: str) -> bool:
    """Tell whether `file` is what Python can import from: a folder or a zip file."""
    for hook in sys.path_hooks:
        try:
            hook(file)
        except ImportError:
            continue
        return True
    return False


def _run_archive(file: str, options: _RunOptions) -> None:
    _enter(options.program, options, None)
    sys.path.insert(0, file)  # even under -P: it is where the program is
    _run_by_runpy("__main__", replace_argument=False)


def _run_module(options: _RunOptions) -> None:
    _enter("-m", options, _current_folder())
    _run_by_runpy(options.program, replace_argument=True)


def _run_by_runpy(name: str, *, replace_argument: bool) -> None:
    """Run a module as `python -m` does, in the `__main__` that stands in `sys.modules`."""
    import runpy

    _call(runpy._run_module_as_main, name, replace_argument)  # type: ignore[attr-defined]  # what `-m` calls


def _run_command(options: _RunOptions) -> None:
    namespace = _enter("-c", options, "")
    text = options.program
    if sys.version_info >= (3, 14) and text.lstrip("\n")[:1].isspace():
        import textwrap

        text = textwrap.dedent(text)  # python -c does so since 3.14
    code = _call(compile, text + "\n", "<string>", "exec", dont_inherit=True)
    if sys.version_info >= (3, 13):
        import linecache

        # So that tracebacks show lines of the text. 3.13.0 files them by name, later ones by the code itself.
        by_code = hasattr(linecache, "_interactive_cache")
        linecache._register_code(code if by_code else "<string>", text, "<string>")
    _call(exec, code, namespace)


def _run_stdin(options: _RunOptions) -> None:
    namespace = _enter("-", options, "")
    _enter_file(namespace, "<stdin>", None)
    code = _call(compile, sys.stdin.buffer.read(), "<stdin>", "exec", dont_inherit=True)
    _call(exec, code, namespace)


def _is_compiled(file: str, content: bytes) -> bool:
    # By the content too, as Python does; two bytes of the magic number suffice for it.
    return file.endswith(".pyc") or content[:2] == _frozen_importlib_external.MAGIC_NUMBER[:2]


def _decode_compiled(content: bytes) -> CodeType:
    if content[:4] != _frozen_importlib_external.MAGIC_NUMBER:
        error = RuntimeError("Bad magic number in .pyc file")
        _show_only(error, None)
        raise error
    import marshal

    code: CodeType = _call(marshal.loads, content[16:])
    return code


def _call(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call `function`; an exception that leaves it is shown without the frames from here outwards."""
    try:
        return function(*arguments, **options)
    except SystemExit:
        raise
    except BaseException as error:
        traceback = error.__traceback__
        _show_only(error, traceback.tb_next if traceback is not None else None)
        raise


def _show_only(error: BaseException, shown: TracebackType | None) -> None:
    """Have the interpreter, once `error` has ended the program, report it with `shown` as its traceback.

    The frames of this module are added while the error leaves it, after any moment at which they could be cut
    off. So the hook that the interpreter calls last of all is replaced, until that very call.
    """
    hook = sys.excepthook

    def show(kind: type[BaseException], value: BaseException, traceback: TracebackType | None) -> None:
        sys.excepthook = hook
        if value is error:
            traceback = shown
            value.__traceback__ = sys.last_traceback = shown
        try:
            hook(kind, value, traceback)
        except SystemExit:
            raise
        except BaseException as failure:  # noqa: BLE001 - reported here, as the interpreter does for a broken hook
            own = failure.__traceback__
            failure.__traceback__ = own.tb_next if own is not None else None
            _report_broken_hook(failure, value)

    sys.excepthook = show


def _report_broken_hook(failure: BaseException, original: BaseException) -> None:
    for title, error in (("Error in sys.excepthook:", failure), ("\nOriginal exception was:", original)):
        sys.stderr.write(f"{title}\n")
        sys.__excepthook__(type(error), error, error.__traceback__)
