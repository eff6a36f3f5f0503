"""What of a main module's top level a child does again, read off its source; only a parent imports this.

    source -> ast -> SourceProgram -> plan():   names of modules to import, statements to replay
                                   -> remake(): the one statement that makes a global again

Nothing is run here. What counts, and what never does:

- Imported are the user modules that the top level names (inside `if`, `try`, `with` and loops too, but not
  behind the guard, which is the program that runs once), as far as the parent has finished importing them.
- Replayed, only where the module is guarded and only what the parent has already passed: calls whose result
  is discarded, and assignments to attributes and items, on a name that the top level imports from a
  third-party package. They may stand in an `if` or a `for` whose test or iterable is as harmless as an
  argument has to be; the body of a `try` is read as if it stood alone. What they read is replayed too where
  it is an import or a global that a single plain assignment makes; whatever reads functions or classes of
  the main module is not replayed.
- Harmless are literals, operators, attributes, the functions, builtins and methods in `_HARMLESS_...`, and
  calls on third-party packages. A call is not where its name says that it acts on the world (`_ACTS`,
  `_ACTING_WORDS`, `_ACTS_BY_NAME`): that must happen once.
- Made again may be a global that one plain top-level assignment makes and nothing else rebinds. There, calls
  on anything else count as harmless too, except on what `_ACTING_MODULES` names, and `open` but for reading.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

from bequest.carry.mainmodule import Imports, line_of_top_level, log
from bequest.carry.modules import is_user_module
from bequest.carry.toplevel import DEFINITIONS, bindings, flat, guarded_lines, inner, is_guard

if TYPE_CHECKING:
    from bequest.carry.mainmodule import Plan

_HARMLESS_FUNCTIONS = (
    "collections", "datetime", "decimal", "fractions", "functools.partial", "importlib.util.find_spec",
    "logging.getLogger", "math", "operator", "os.cpu_count", "os.environ.get", "os.fspath", "os.getcwd",
    "os.getenv", "os.path", "pathlib.Path", "pathlib.Path.cwd", "pathlib.Path.home", "pathlib.PurePath",
    "platform", "re.compile", "re.escape", "types.SimpleNamespace", "uuid.UUID",
)  # fmt: skip
_HARMLESS_BUILTINS = frozenset({
    "abs", "all", "any", "bool", "bytearray", "bytes", "complex", "dict", "divmod", "enumerate", "filter",
    "float", "format", "frozenset", "getattr", "hasattr", "hash", "hex", "int", "isinstance", "issubclass",
    "iter", "len", "list", "map", "max", "min", "object", "oct", "ord", "pow", "range", "repr", "reversed",
    "round", "set", "slice", "sorted", "str", "sum", "tuple", "type", "zip",
})  # fmt: skip
_HARMLESS_METHODS = frozenset({
    "absolute", "as_posix", "as_uri", "copy", "count", "decode", "difference", "encode", "endswith",
    "exists", "expanduser", "expandvars", "format", "get", "index", "intersection", "is_dir", "is_file",
    "items", "join", "joinpath", "keys", "lower", "lstrip", "partition", "read_text", "relative_to",
    "removeprefix", "removesuffix", "replace", "resolve", "rpartition", "rsplit", "rstrip", "split",
    "splitlines", "startswith", "strip", "title", "union", "upper", "values", "with_name", "with_stem",
    "with_suffix",
})  # fmt: skip
_ACTS = frozenset({
    "ask", "call", "commit", "confirm", "critical", "debug", "delete", "display", "echo", "error",
    "exception", "execute", "exit", "fetch", "get", "info", "input", "launch", "listen", "log", "main",
    "post", "pprint", "print", "prompt", "publish", "put", "request", "secho", "serve", "show", "sleep",
    "submit", "sync", "touch", "urlopen", "urlretrieve", "wait", "warn", "warning",
})  # fmt: skip
_ACTING_WORDS = frozenset({
    "bind", "download", "dump", "fit", "log", "mkdir", "plot", "print", "rmtree", "run", "save", "savefig",
    "send", "serve", "show", "start", "train", "unlink", "upload", "write",
})  # fmt: skip
_ACTS_BY_NAME = frozenset(("ray.init", "wandb.init", "wandb.login"))
_ACTING_MODULES = frozenset({
    "asyncio", "atexit", "concurrent", "faulthandler", "http.server", "logging.FileHandler",
    "logging.handlers", "multiprocessing", "os", "pty", "shutil", "signal", "socket.create_server",
    "socketserver", "subprocess", "sys", "tempfile", "time", "urllib.request", "webbrowser", "wsgiref",
})  # fmt: skip
_OWN = frozenset(("bequest", "__main__", "__mp_main__"))
_GIVEN = frozenset(("__file__", "__name__", "__doc__", "__package__", "__spec__"))


class _NotAgain(Exception):
    """An expression or a statement cannot be run again in a child; the text says why."""


@dataclass(frozen=True)
class _Import:
    """One name that an import statement binds: `bound` is `attribute` of `module`, or a module itself."""

    bound: str
    module: str
    attribute: str | None
    line: int

    def source(self) -> str:
        if self.attribute is None:
            return f"import {self.module}" + ("" if self.is_plain() else f" as {self.bound}")
        return f"from {self.module} import {self.attribute} as {self.bound}"

    def is_plain(self) -> bool:
        """Tell whether it is `import a.b`, which binds `a`."""
        return self.attribute is None and self.bound == self.module.partition(".")[0]

    def leads_to(self, value: object) -> bool:
        """Tell whether `value`, what the global holds, is what this statement binds."""
        if self.attribute is None:
            return sys.modules.get(self.bound if self.is_plain() else self.module) is value
        missing = sys.modules.get(f"{self.module}.{self.attribute}", self)
        return getattr(sys.modules.get(self.module), self.attribute, missing) is value


class SourceProgram:
    """A main module whose source is there: one of the two kinds of `mainmodule.Program`."""

    def __init__(self, source: bytes | str, space: dict[str, Any]) -> None:
        """Read `source`, whose namespace is `space`; SyntaxError or ValueError where it is no source."""
        tree, package = ast.parse(source), space.get("__package__")
        self._space = space
        self._spec_name = getattr(space.get("__spec__"), "name", None)
        self._imports = list(_imports(tree.body, package if isinstance(package, str) else ""))
        self._by_name: dict[str, list[_Import]] = {}
        for one in self._imports:
            self._by_name.setdefault(one.bound, []).append(one)
        guards = [statement.lineno for statement in flat(tree.body) if is_guard(statement)]
        self._guard_line, self.is_guarded = max(guards, default=0), bool(guards)
        self._body = [s for s in tree.body if not is_guard(s) and s.lineno < self._guard_line]
        self._bindings = bindings(tree)
        lines: dict[str, int] = {}
        guarded = guarded_lines(tree.body)
        for name, line in self._importable():
            if line not in guarded:
                lines.setdefault(name, line)
        self._candidates = Imports([(line, "import", name) for name, line in lines.items()])
        self._statements: tuple[int, Plan] = (-1, ())

    def plan(self, main: ModuleType) -> Plan:
        """See `mainmodule.Program`. Statements are looked for once per line that the top level stands at."""
        line = self._passed(main)
        if self._statements[0] != line:
            self._statements = (line, self._configuration(line) if line else ())
        imports = self._candidates.for_child()
        return tuple(sorted(imports + self._statements[1], key=_line_of)) if imports else self._statements[1]

    def _importable(self) -> Iterator[tuple[str, int]]:
        """Yield the names of what the imports may load, and where: `from a import b` may load `a.b`."""
        for one in self._imports:
            if one.module != self._spec_name:
                yield one.module, one.line
                if one.attribute is not None:
                    yield f"{one.module}.{one.attribute}", one.line

    def _passed(self, main: ModuleType) -> int:
        """Return the line before which all statements have run; 0 where the module has no guard."""
        if not self._guard_line:
            return 0
        here = line_of_top_level(vars(main))
        return self._guard_line if here is None else min(here, self._guard_line)

    def _configuration(self, line: int) -> Plan:
        found: dict[tuple[int, str], None] = {}
        for statement in flat(self._body):
            if (statement.end_lineno or 0) >= line or is_guard(statement):
                continue
            try:
                kept, needs = self._configuring(statement, frozenset())
                # All that it needs first, so that nothing is left of a statement that cannot be replayed.
                needed = list(self._providers(needs, statement.lineno))
                found |= dict.fromkeys((*needed, (statement.lineno, ast.unparse(kept))))
            except _NotAgain as reason:
                if str(reason):
                    log(f"line {statement.lineno} of the main module is not replayed: {reason}")
        return tuple((line, "run", source) for line, source in sorted(found, key=_line_of))

    def _configuring(self, statement: ast.stmt, own: frozenset[str]) -> tuple[ast.stmt, set[str]]:
        """Return the part of `statement` that configures third-party packages, and the names it reads.

        Raises:
            _NotAgain: There is no such part (no text), or it cannot be replayed (with a text).
        """
        match statement:
            case ast.Expr(value=ast.Call() as call) if self.is_third_party(_root(call)):
                return statement, self._reads(call, own)
            case ast.Assign(targets=targets) | ast.AugAssign(target=targets) | ast.AnnAssign(target=targets):
                places = targets if isinstance(targets, list) else [targets]
                for place in places:
                    if isinstance(place, ast.Name) or not self.is_third_party(_root(place)):
                        raise _NotAgain
                parts = [*places, *([statement.value] if statement.value is not None else [])]
                return statement, {name for part in parts for name in self._reads(part, own)}
            case ast.If(test=test):
                body, needs = self._block(statement.body, own)
                orelse, others = self._block(statement.orelse, own)
                if not body and not orelse:
                    raise _NotAgain
                kept = ast.If(test, body or [ast.Pass()], orelse)
                return kept, needs | others | self._reads(test, own)
            case ast.For(target=target, iter=iterable, orelse=[]):
                inner = own | {n.id for n in ast.walk(target) if isinstance(n, ast.Name)}
                body, needs = self._block(statement.body, inner)
                if len(body) != len(statement.body):
                    raise _NotAgain
                return statement, needs | self._reads(iterable, own)
        raise _NotAgain

    def _block(self, body: list[ast.stmt], own: frozenset[str]) -> tuple[list[ast.stmt], set[str]]:
        kept, needs = [], set()
        for statement in body:
            try:
                part, reads = self._configuring(statement, own)
            except _NotAgain as reason:
                if str(reason):
                    raise
                continue
            kept.append(part)
            needs |= reads
        return kept, needs

    def is_third_party(self, name: str | None) -> bool:
        """Tell whether a global is bound by imports only, and those from installed packages."""
        imports = self._imports_of(name or "")
        tops = {one.module.partition(".")[0] for one in imports}
        if not imports or tops & (sys.stdlib_module_names | _OWN):
            return False
        return not any(is_user_module(sys.modules[one.module]) for one in imports)

    def _imports_of(self, name: str) -> list[_Import]:
        """Return the imports that made the global `name` what it is; none where it is bound otherwise too."""
        imports, value = self._by_name.get(name, []), self._space.get(name, self)
        if len(imports) != self._bindings.get(name, 0):
            return []
        found = [one for one in imports if one.module in sys.modules and one.leads_to(value)]
        return [one for one in found if one.is_plain() or one is found[-1]]

    def _reads(self, expression: ast.expr, own: frozenset[str], remaking: bool = False) -> set[str]:
        """Return the globals that `expression` reads.

        Raises:
            _NotAgain: It does something that must happen once.
        """
        reader = _Reader(self, remaking)
        reader.visit(expression, own)
        return reader.names

    def full_name(self, root: str, attributes: Sequence[str]) -> str | None:
        """Return the dotted name of what an attribute chain leads to, None where its root is no import."""
        for one in self._imports_of(root):
            start = root if one.is_plain() else ".".join(filter(None, (one.module, one.attribute)))
            return ".".join((start, *attributes))
        return None

    def _providers(self, names: Iterable[str], line: int) -> Iterator[tuple[int, str]]:
        """Yield (line, source) of what binds `names` before `line`, and of what that reads.

        Raises:
            _NotAgain: One of them is made in a way that cannot be replayed.
        """
        for name in sorted(names):
            imports = self._imports_of(name)
            if imports:
                yield from ((one.line, one.source()) for one in imports)
            elif name in self._bindings:
                made = self._assignment(name, line)
                yield from self._providers(self._reads(made.value, frozenset()), made.lineno)
                yield made.lineno, ast.unparse(made)
            elif not self._is_at_hand(name):
                raise _NotAgain(f"it reads {name}, which no plain statement of the top level makes")

    def _is_at_hand(self, name: str) -> bool:
        """Tell whether every module has this name, so that nothing need provide it."""
        return name in _GIVEN or hasattr(sys.modules["builtins"], name)

    def _assignment(self, name: str, line: int) -> ast.Assign:
        """Return the one statement, before `line` and not inside another, that makes the global `name`."""
        for statement in self._body:
            if statement.lineno < line and self._bindings.get(name) == 1 and _assigned(statement) == name:
                return statement if isinstance(statement, ast.Assign) else _without_annotation(statement)
        raise _NotAgain(f"it reads {name}, which no plain statement of the top level makes")

    def remake(self, main: ModuleType, name: str) -> tuple[str, tuple[str, ...]] | None:
        """See `mainmodule.Program`."""
        line = self._passed(main)
        try:
            made = self._assignment(name, line)
            reads = self._reads(made.value, frozenset(), remaking=True)
            sources = [ast.unparse(made)]
            for statement in self._body:
                if (
                    statement.lineno < line
                    and isinstance(statement, ast.Assign)
                    and _is_part_of(name, statement)
                ):
                    reads |= self._reads(statement.value, frozenset(), remaking=True) - {name}
                    sources.append(ast.unparse(statement))
        except _NotAgain as reason:
            log(f"the global {name} of the main module is not made again: {reason}")
            return None
        calls = any(isinstance(node, ast.Call) for node in ast.walk(made))
        wanted = sorted(one for one in reads if one in self._bindings)
        if not calls or any(not self._is_at_hand(one) for one in reads.difference(wanted)):
            return None
        return "\n".join(sources), tuple(wanted)


@dataclass
class _Reader:
    """Collects the globals that an expression reads, and refuses calls that must happen once."""

    program: SourceProgram
    remaking: bool
    names: set[str] = field(default_factory=set)

    def visit(self, node: ast.AST, own: frozenset[str], deferred: bool = False) -> None:
        """Look at `node`; `own` are names bound inside the expression; `deferred`: it does not run now."""
        match node:
            case ast.Name(id=name):
                self.names |= {name} - own
                return
            case ast.Await() | ast.Yield() | ast.YieldFrom() | ast.NamedExpr():
                raise _NotAgain(f"it holds a {type(node).__name__.lower()} expression")
            case ast.Lambda(args=args):
                arguments = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
                own |= {one.arg for one in arguments if one is not None}
                deferred = True
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                targets = [n for part in node.generators for n in ast.walk(part.target)]
                own |= {n.id for n in targets if isinstance(n, ast.Name)}
            case ast.Call() if not deferred:
                self._check(node, own)
        for child in ast.iter_child_nodes(node):
            self.visit(child, own, deferred)

    def _check(self, call: ast.Call, own: frozenset[str]) -> None:
        root, path, straight = _chain(call.func)
        program, last = self.program, path[-1] if path else root or ""
        full = program.full_name(root, path) if root is not None and root not in own else None
        if full is not None and straight and _is_within(full, _HARMLESS_FUNCTIONS):
            return
        acts = (full or last) in _ACTS_BY_NAME or last in _ACTS or last.partition("_")[0] in _ACTING_WORDS
        imported = full is not None and root is not None
        if imported and program.is_third_party(root or "") and not acts:
            return
        if not imported and (last in _HARMLESS_METHODS if path else last in _HARMLESS_BUILTINS):
            return
        if imported and not straight and last in _HARMLESS_METHODS:
            return
        if (
            self.remaking
            and not acts
            and not _is_within(full or "", _ACTING_MODULES)
            and self._may_remake(call, root)
        ):
            return
        raise _NotAgain(f"{ast.unparse(call.func)}() must happen once")

    def _may_remake(self, call: ast.Call, root: str | None) -> bool:
        if any(isinstance(one, ast.Constant) and one.value == ":memory:" for one in call.args):
            return False  # a database in memory made again would be an empty one
        if isinstance(call.func, ast.Name) and root == "open":
            modes = [*call.args[1:2], *(word.value for word in call.keywords if word.arg == "mode")]
            return all(isinstance(one, ast.Constant) and one.value in ("r", "rb", "rt") for one in modes)
        return not isinstance(call.func, ast.Name) or root not in vars(sys.modules["builtins"])


def _line_of(step: tuple[int, *tuple[str, ...]]) -> int:
    return step[0]


# The tree, without regard to what it means


def _imports(body: Iterable[ast.stmt], package: str) -> Iterator[_Import]:
    """Yield what the import statements of the top level bind, those inside other statements too."""
    for statement in body:
        match statement:
            case ast.Import(names=names):
                for alias in names:
                    bound = alias.asname or alias.name.partition(".")[0]
                    yield _Import(bound, alias.name, None, statement.lineno)
            case ast.ImportFrom(names=names, module=module, level=level) if module != "__future__":
                parts = package.split(".")[: len(package.split(".")) - level + 1] if level else []
                full = ".".join([*parts, *([module] if module else [])])
                for alias in names:
                    yield _Import(alias.asname or alias.name, full, alias.name, statement.lineno)
            case _ if not isinstance(statement, DEFINITIONS):
                yield from _imports(inner(statement), package)


def _assigned(statement: ast.stmt) -> str | None:
    """Return the name that a plain assignment binds: one name, a value, nothing unpacked."""
    match statement:
        case (
            ast.Assign(targets=[ast.Name(id=name)])
            | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr())
        ):
            return name
    return None


def _without_annotation(statement: ast.stmt) -> ast.Assign:
    assert isinstance(statement, ast.AnnAssign)
    assert statement.value is not None
    made = ast.Assign([statement.target], statement.value)
    return ast.copy_location(made, statement)


def _is_part_of(name: str, statement: ast.Assign) -> bool:
    """Tell whether a statement assigns to attributes or items of the global `name`."""
    return all(not isinstance(target, ast.Name) and _root(target) == name for target in statement.targets)


def _chain(node: ast.expr) -> tuple[str | None, list[str], bool]:
    """Follow `a.b().c` down to its root: ("a", ["b", "c"], whether it is attributes all the way)."""
    path: list[str] = []
    straight = True
    while not isinstance(node, ast.Name):
        match node:
            case ast.Attribute(value=inner, attr=attribute):
                path.append(attribute)
            case ast.Call(func=inner) | ast.Subscript(value=inner):
                straight = False
            case _:
                return None, path[::-1], False
        node = inner
    return node.id, path[::-1], straight


def _root(node: ast.expr) -> str | None:
    return _chain(node)[0]


def _is_within(name: str, prefixes: Iterable[str]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)
