"""Gives bequest to the Python programs that a program under `bequest run` starts with `sys.executable`.

    bequest run: PYTHONPATH names this folder -> site imports this module -> multiprocessing is imported ->
    bequest.install()

Nothing is imported and nothing changes until the program imports multiprocessing. An interpreter that cannot
import bequest, or ignores the environment (`-I`, `-E`), stays as it is. The `sitecustomize` that this one
hides is run after it.
"""

from __future__ import annotations

import _frozen_importlib
import _frozen_importlib_external
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

_VARIABLE = "BEQUEST_RUN"


class _WaitForMultiprocessing:
    """A finder that installs bequest as soon as multiprocessing has been imported."""

    is_done = _is_asking = False

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: object = None
    ) -> ModuleSpec | None:
        """Find multiprocessing as the other finders do, with a loader that installs bequest behind it."""
        if (
            name != "multiprocessing" or self.is_done or self._is_asking
        ):  # by one of the others, which asks all in turn
            return None
        self._is_asking = True
        try:
            spec: ModuleSpec | None = _find_elsewhere(self, name, path, target)
            if spec is not None and _can_import_bequest():
                spec.loader = _InstallingLoader(spec, self)  # type: ignore[assignment]  # as it is asked
        finally:
            self._is_asking = False
        return spec


def _find_elsewhere(finder: object, *what: Any) -> Any:
    # As in `bequest.imports`, which would be an import of the package.
    for other in list(sys.meta_path):
        find_spec: Any = getattr(other, "find_spec", None)
        spec = find_spec(*what) if other is not finder and find_spec is not None else None
        if spec is not None:
            return spec
    return None


class _InstallingLoader:
    """The loader of multiprocessing, and after it `bequest.install()`."""

    def __init__(self, spec: ModuleSpec, finder: _WaitForMultiprocessing) -> None:
        self._spec, self._loader, self._finder = spec, spec.loader, finder

    def __getattr__(self, name: str) -> Any:
        if name == "_loader":  # not initialised: a copy
            raise AttributeError(name)
        return getattr(self._loader, name)

    def exec_module(self, module: ModuleType) -> None:
        """Run multiprocessing's own code, and install."""
        self._spec.loader = self._loader
        module.__loader__ = self._loader
        assert self._loader is not None
        self._loader.exec_module(module)
        if sys.modules.get(module.__name__) is not module or self._finder.is_done:
            return  # somebody's own copy, or not the first import
        self._finder.is_done = True
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        method, _, strict = os.environ.get(_VARIABLE, "").partition(":")
        from bequest.install import install

        install(method or None, strict=strict == "strict")


def _can_import_bequest() -> bool:
    from importlib.util import find_spec

    return find_spec("bequest") is not None


def _is_bequests_own() -> bool:
    """Tell whether this interpreter is a child, template or tracker: its parent tells it what to install."""
    return any("bequest.launch" in argument for argument in sys.orig_argv)


def _run_hidden_sitecustomize() -> None:
    folder = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != folder]
    spec = _frozen_importlib_external.PathFinder.find_spec("sitecustomize")
    if spec is not None and spec.loader is not None:
        hidden = sys.modules["sitecustomize"] = _frozen_importlib.module_from_spec(spec)
        spec.loader.exec_module(hidden)


if _VARIABLE in os.environ and not _is_bequests_own():
    sys.meta_path.insert(0, _WaitForMultiprocessing())
_run_hidden_sitecustomize()
