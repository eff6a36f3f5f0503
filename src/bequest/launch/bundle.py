"""The code of the modules that every spawned child imports, handed over instead of looked for.

    parent: packed() -> bytes in front of the message      child: Unpacked(bytes) -> their imports find it

A child that begins imports some forty small modules, and for each the import system asks the file system
where it is, whether its source has changed, and for its compiled form: half of the time that they take. The
parent knows the answers. Only modules that it has imported itself from source files, by the standard loader,
are handed over, and to what is imported they look as ever. All other imports go their usual way.
"""

from __future__ import annotations

import _frozen_importlib
import _frozen_importlib_external
import marshal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType
    from typing import Any, TypeAlias

    from typing_extensions import Buffer

    Entry: TypeAlias = tuple[str, list[str] | None, bytes]  # file, folders of a package, marshalled code

_machinery: Any = _frozen_importlib
_files: Any = _frozen_importlib_external

_STANDARD = (
    "_compat_pickle _weakrefset collections copyreg functools keyword multiprocessing multiprocessing.context"
    " multiprocessing.process multiprocessing.util operator reprlib threading warnings weakref"
)
_OWN = (
    "carry carry.ambient carry.ambient.adopter carry.ambient.interpreter carry.ambient.signals"
    " carry.ambient.system carry.arrival carry.bindings carry.functions carry.identity carry.instances"
    " carry.mainmodule carry.modules carry.namespaces carry.objects carry.objects.originals carry.start"
    " launch.child launch.handoff process"
)


class _Packed:
    """What was packed last, and for which modules: a program may load another version of one."""

    def __init__(self) -> None:
        self.modules: list[ModuleType | None] = []
        self.data = b""


_packed = _Packed()


def packed() -> bytes:
    """Return the bundle of this process; made at the first call, and again when a module is another one."""
    names = [*_STANDARD.split(), *(f"bequest.{name}" for name in _OWN.split())]
    modules = [sys.modules.get(name) for name in names]
    if modules != _packed.modules:
        found = {name: _entry(module) for name, module in zip(names, modules, strict=True)}
        entries = {name: entry for name, entry in found.items() if entry is not None}
        _packed.data = marshal.dumps((_files.MAGIC_NUMBER, entries))
        _packed.modules = modules
    return _packed.data


def _entry(module: ModuleType | None) -> Entry | None:
    spec: Any = getattr(module, "__spec__", None)
    if spec is None or type(spec.loader) is not _files.SourceFileLoader:
        return None
    code = spec.loader.get_code(spec.name)
    folders = spec.submodule_search_locations
    return spec.origin, None if folders is None else list(folders), marshal.dumps(code)


class _Loader:
    """Runs a module's code, and leaves the standard loader in its place."""

    def __init__(self, code: bytes) -> None:
        self._code = code

    def create_module(self, spec: Any) -> None:
        """Have the module made as usual."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code."""
        spec: Any = module.__spec__
        spec.loader = module.__loader__ = _files.SourceFileLoader(spec.name, spec.origin)
        code: CodeType = marshal.loads(self._code)
        exec(code, module.__dict__)


class _Finder:
    """Finds the modules of a bundle."""

    def __init__(self, entries: dict[str, Entry]) -> None:
        self.entries = entries

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Return the spec of a module of the bundle, None for others."""
        entry = self.entries.pop(name, None)
        if entry is None:
            return None
        file, folders, code = entry
        spec = _machinery.ModuleSpec(name, _Loader(code), origin=file, is_package=folders is not None)
        spec.has_location = True
        if folders is not None:
            spec.submodule_search_locations = folders
        return spec


class Unpacked:
    """While it lasts, the imports of this process find what is in a bundle.

    Args:
        data: What `packed` returned.
    """

    def __init__(self, data: Buffer) -> None:
        magic, entries = marshal.loads(data)
        # `set_executable` may have named another Python, which has to find its own.
        self._finder = _Finder(entries if magic == _files.MAGIC_NUMBER else {})

    def __enter__(self) -> Unpacked:
        sys.meta_path.insert(0, self._finder)
        return self

    def import_own(self) -> None:
        """Import the modules of bequest that are in the bundle: every child needs them."""
        import _pickle  # noqa: F401

        for name in [name for name in self._finder.entries if name.startswith("bequest.")]:
            __import__(name)

    def __exit__(self, *_exc: object) -> None:
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
