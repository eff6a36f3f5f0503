"""Ambient state: what a fork copies around the objects.

    parent, at Process.start():   capture_plain() -> marshalled      capture() -> packed with the message
    child, before unpickling:     restore_plain()
    child, message rebuilt:       restore()

Each family below is a module with a table of adopters, one per piece of state; a child imports a family
only where there is something of it to restore. Not carried, because a forked child does not have it either
or has it anew: atexit callbacks, the random module's state, trace functions, standard input. Not carried,
because Python cannot read it: codec search functions and error handlers, callbacks of os.register_at_fork,
handlers of signals that C code has installed.
"""

from __future__ import annotations

import sys

from bequest.carry.ambient.adopter import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bequest.carry.ambient.adopter import Adopter

    State = dict[str, dict[str, Any]]

# The system's part comes last: with its credentials a child may lose the right to read modules.
_PLAIN_FAMILIES = ("interpreter", "signals", "system")
_FAMILIES = ("hooks", "signals", "libraries", "logs", "thirdparty", "patches")

# What restore_plain was given, until restore takes it: one entry at most, and one thread in a starting child.
_given: list[State] = []

# What this process's plain state is known to be, until the first restore: one entry at most. Only what nobody
# else can change (as `renice` does, or `taskset`), and what a template's child does not change on its way.
_own: list[State] = []
_KNOWABLE = ("interpreter", "system")
_NOT_KNOWABLE = ("root", "limits", "scheduling", "priority", "affinity", "process group")


def capture_plain() -> dict[str, Any]:
    """Return the plain part of this process's ambient state.

    Returns:
        Marshal-able data, for `restore_plain`. An adopter that fails is left out and reported at level INFO
        of multiprocessing's logger.
    """
    return _capture(_PLAIN_FAMILIES, plain=True)


def know_plain() -> None:
    """Remember the plain state of this process, so that a restore need not look at what is so already.

    It holds until the first restore, here and in the processes forked from this one. Nothing else may change
    the state meanwhile: a template remembers it when it has imported something.
    """
    known = _capture(_KNOWABLE, plain=True)
    for name in _NOT_KNOWABLE:
        known["system"].pop(name, None)
    _own[:] = [known]


def restore_plain(state: dict[str, Any]) -> None:
    """Make this process as the one that captured `state`; to be called before a message is unpickled.

    Signals that have a Python handler in the parent stay blocked until `restore`, which must therefore
    be called as well.

    Raises:
        OSError: The parent's credentials or root directory could not be taken over; the child must end.
    """
    _given[:] = [state]
    known = _own.pop() if _own else {}
    _restore({family: _differing(values, known.get(family, {})) for family, values in state.items()})


def _differing(values: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in known or known[name] != value}


def capture() -> dict[str, Any]:
    """Return the part of this process's ambient state that consists of objects; {} where all is default.

    Returns:
        For `restore`, to be pickled together with what it may share objects with. An adopter that fails is
        left out and reported.
    """
    state = _capture(_FAMILIES, plain=False)
    if f"{__name__}.waiting" in sys.modules:
        from bequest.carry.ambient import waiting

        for (family, name), value in waiting.still_waiting().items():
            state.setdefault(family, {}).setdefault(name, value)
    return state


def restore(state: dict[str, Any], *, again: bool = True) -> None:
    """Set what `capture` found, and what `restore_plain` has set once more; to be called before the target.

    Once more, because modules that the message has imported may have set the same things their own way, as
    they did in the parent before the program changed them. Stand-ins are left out, never installed.

    Args:
        state: What `capture` found.
        again: False where nothing has been imported: the plain state is then as `restore_plain` left it.

    Raises:
        OSError: As `restore_plain`.
    """
    given = _given.pop() if _given else {}
    if again:
        _restore(given)
    _restore(state)
    if "signals" in given:
        from bequest.carry.ambient import signals

        signals.release(given["signals"]["signals"])


def _capture(families: tuple[str, ...], *, plain: bool) -> State:
    loaded = sys.modules
    state: State = {}
    for family, adopter in _of_families(families, plain):
        if adopter.owner is not None and adopter.owner not in loaded:
            continue
        try:
            value = adopter.capture()
        except Exception as error:  # noqa: BLE001  # any package's code may run here; a start must not fail for it
            report("left out of the state: %s (%r)", adopter.name, error)
            continue
        if value is not None:
            state.setdefault(family, {})[adopter.name] = value
    return state


_listed: dict[tuple[tuple[str, ...], bool], list[tuple[str, Adopter]]] = {}


def _of_families(families: tuple[str, ...], plain: bool) -> list[tuple[str, Adopter]]:
    """Return the adopters of these families that are plain, or those that are not."""
    known = _listed.get((families, plain))
    if known is None:
        found = [(family, adopter) for family in families for adopter in _adopters(family)]
        known = _listed[families, plain] = [each for each in found if each[1].plain is plain]
    return known


def _restore(state: State) -> None:
    for family, values in state.items():
        for adopter in _adopters(family) if values else ():
            if adopter.name in values:
                _restore_one(family, adopter, values[adopter.name])


def _restore_one(family: str, adopter: Adopter, value: Any) -> None:
    owner = adopter.owner
    if owner is not None and not adopter.eager and owner not in sys.modules:
        from bequest.carry.ambient import waiting

        waiting.wait_for(owner, (family, adopter.name), value, lambda late: _apply(adopter, late))
    else:
        _apply(adopter, value)


def _apply(adopter: Adopter, value: Any) -> None:
    try:
        adopter.restore(value)
    except Exception as error:
        if adopter.vital:
            raise
        report("not restored: %s (%r)", adopter.name, error)  # the target may well not need it


def _adopters(family: str) -> tuple[Adopter, ...]:
    name = f"{__name__}.{family}"
    __import__(name)  # waits where another thread is importing it
    adopters: tuple[Adopter, ...] = sys.modules[name].ADOPTERS
    return adopters
