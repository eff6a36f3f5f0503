"""Signal dispositions, handlers and the blocked mask.

    parent: dispositions and mask (plain), Python handlers (objects)
    child:  restore_plain -> dispositions; signals that have a Python handler are held back
            restore       -> handlers, then `release`: the parent's own mask

A signal that reaches a child before its handler is there is therefore delivered later, not lost and not
deadly. Handlers of C code (None to Python) cannot be carried. Works on `_signal`: the enums of `signal` would
cost more than all the rest.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed does not know it

from bequest.carry.ambient.adopter import Adopter, attempt, is_front_end, is_stand_in, report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_DEFAULT, _IGNORED, _INTERRUPT, _FOREIGN, _PYTHON = range(5)
_SETTABLE: dict[int, Any] = {
    _DEFAULT: _signal.SIG_DFL,
    _IGNORED: _signal.SIG_IGN,
    _INTERRUPT: _signal.default_int_handler,
}
# What a new interpreter sets by itself; named because not every platform has all of them.
_PRISTINE = {
    getattr(_signal, name): code
    for name, code in (("SIGINT", _INTERRUPT), ("SIGPIPE", _IGNORED), ("SIGXFSZ", _IGNORED))
    if hasattr(_signal, name)
}


_NUMBERS = range(1, _signal.NSIG)


class _Seen:
    """The handlers of all signals at the last look, and what they are."""

    def __init__(self) -> None:
        self.handlers: list[Any] = []
        self.differing: dict[int, int] = {}
        self.python: dict[int, Callable[..., Any]] = {}


_seen = _Seen()


def _look() -> _Seen:
    """Look at the handlers of all signals; mostly they are what they were."""
    handlers = [*map(_signal.getsignal, _NUMBERS)]
    if handlers != _seen.handlers:
        codes = [
            (number, _disposition(number, handler), handler) for number, handler in enumerate(handlers, 1)
        ]
        _seen.differing = {
            number: code for number, code, _ in codes if code != _PRISTINE.get(number, _DEFAULT)
        }
        _seen.python = {number: handler for number, code, handler in codes if code == _PYTHON}
        _seen.handlers = handlers
    return _seen


def _disposition(number: int, handler: Any) -> int:
    if type(handler) is int:
        return handler
    if handler is None:
        return _FOREIGN
    if handler is _signal.default_int_handler:
        return _INTERRUPT
    return _PRISTINE.get(number, _DEFAULT) if is_front_end(handler) else _PYTHON


def _capture() -> dict[str, Any]:
    return {"dispositions": dict(_look().differing), "mask": _mask()}


def _restore(state: dict[str, Any]) -> None:
    differing = state["dispositions"]
    _set_mask({*state["mask"], *(number for number, code in differing.items() if code == _PYTHON)})
    present = _look().differing
    for number in {**differing, **present}:
        usual = _PRISTINE.get(number, _DEFAULT)
        wanted, own = differing.get(number, usual), present.get(number, usual)
        if wanted != own and wanted in _SETTABLE and own != _FOREIGN:
            attempt(f"signal {number}", _signal.signal, number, _SETTABLE[wanted])


def release(state: dict[str, Any]) -> None:
    """Set the parent's signal mask; to be called when the handlers are in place.

    Args:
        state: What the adopter "signals" captured.
    """
    _set_mask(set(state["mask"]))


def _mask() -> list[int]:
    if not hasattr(_signal, "pthread_sigmask"):
        return []
    return [int(number) for number in _signal.pthread_sigmask(_signal.SIG_BLOCK, ())]


def _set_mask(wanted: set[int]) -> None:
    if set(_mask()) != wanted:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, wanted)


def _capture_handlers() -> dict[int, Callable[..., Any]] | None:
    return dict(_look().python) or None


def _restore_handlers(handlers: dict[int, Callable[..., Any]]) -> None:
    for number, handler in handlers.items():
        if is_stand_in(handler):
            report("signal %d has its default: its handler stayed in the parent", number)
        else:
            _signal.signal(number, handler)


ADOPTERS = (
    Adopter("signals", _capture, _restore, plain=True),
    Adopter("handlers", _capture_handlers, _restore_handlers),
)
