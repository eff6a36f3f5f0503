"""The logging package: levels, handlers, filters and switches of every logger, as the parent has them.

    parent: capture -> only the loggers and settings that differ from a fresh logging module
    child:  restore; loggers that the parent has not changed are reset, in case an import has changed them

A handler that stayed in the parent is dropped, so that logging goes on without it. One whose stream stayed
there (a notebook's, a test runner's) writes to the child's own standard error.
"""

from __future__ import annotations

import sys

from bequest.carry.ambient.adopter import Adopter, is_stand_in, report

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from typing import Any

# Libraries hang one on their logger to keep quiet; it has no state, so a word for it will do.
_NULL = "null"
_STANDARD_ATTRIBUTES = frozenset({
    "_cache", "disabled", "filters", "handlers", "level", "manager", "name", "parent", "propagate",
})  # fmt: skip
_SWITCHES = ("raiseExceptions", "logThreads", "logMultiprocessing", "logProcesses", "logAsyncioTasks")
_ROOT = ""


def _capture() -> dict[str, Any]:
    logging = sys.modules["logging"]
    names = list(logging.Logger.manager.loggerDict.items())  # a copy: other threads may ask for loggers
    loggers = {name: _logger_state(found) for name, found in names if isinstance(found, logging.Logger)}
    loggers[_ROOT] = _logger_state(logging.root)
    state = {"loggers": {name: changed for name, changed in loggers.items() if changed}}
    return {**state, **_module_state(), **_multiprocessing_state()}


def _logger_state(logger: logging.Logger) -> dict[str, Any]:
    """Return what differs from a fresh logger; usually nothing."""
    logging = sys.modules["logging"]
    values = vars(logger)
    changed: dict[str, Any] = {}
    if logger.level != _default_level(logger):
        changed["level"] = logger.level
    if logger.handlers:
        changed["handlers"] = [_NULL if _is_null(handler) else handler for handler in logger.handlers]
    if logger.filters:
        changed["filters"] = list(logger.filters)
    if not logger.propagate:
        changed["propagate"] = logger.propagate
    if logger.disabled:
        changed["disabled"] = logger.disabled
    if type(logger) not in (logging.Logger, logging.RootLogger):
        changed["class"] = type(logger)
    if len(values) > len(_STANDARD_ATTRIBUTES):
        changed["extra"] = {name: v for name, v in values.items() if name not in _STANDARD_ATTRIBUTES}
    return changed


def _default_level(logger: logging.Logger) -> int:
    logging = sys.modules["logging"]
    level: int = logging.WARNING if logger is logging.root else logging.NOTSET
    return level


def _is_null(handler: logging.Handler) -> bool:
    logging = sys.modules["logging"]
    return type(handler) is logging.NullHandler and not handler.filters and handler.name is None


def _module_state() -> dict[str, Any]:
    logging = sys.modules["logging"]
    state: dict[str, Any] = {}
    if logging.root.manager.disable:
        state["disable"] = logging.root.manager.disable
    switches = {name: getattr(logging, name) for name in _SWITCHES if not getattr(logging, name, True)}
    if switches:
        state["switches"] = switches
    # Each standard level counts once; a renamed or added one shows as a difference.
    names = {n: text for n, text in logging._levelToName.items() if getattr(logging, text, None) != n}
    if names:
        state["level names"] = names
    if logging.getLoggerClass() is not logging.Logger:
        state["logger class"] = logging.getLoggerClass()
    if logging.getLogRecordFactory() is not logging.LogRecord:
        state["record factory"] = logging.getLogRecordFactory()
    if logging.lastResort is not logging._defaultLastResort:
        state["last resort"] = logging.lastResort
    if logging._warnings_showwarning is not None:
        state["captures warnings"] = True
    return state


def _multiprocessing_state() -> dict[str, Any]:
    util = sys.modules.get("multiprocessing.util")
    if util is None or util._logger is None:
        return {}
    return {"multiprocessing": bool(util._log_to_stderr)}


def _restore(state: dict[str, Any]) -> None:
    import logging

    if "multiprocessing" in state:
        from multiprocessing import util

        util.get_logger()  # sets its own level and propagation, which are laid over below
        util._log_to_stderr = state["multiprocessing"]  # type: ignore[attr-defined]  # as log_to_stderr does
    _restore_module(state)
    loggers = dict(state["loggers"])
    _restore_logger(logging.root, loggers.pop(_ROOT, {}))
    for name, changed in loggers.items():
        _restore_logger(logging.getLogger(name), changed)
    for name, found in list(logging.Logger.manager.loggerDict.items()):
        if isinstance(found, logging.Logger) and name not in loggers:
            _restore_logger(found, {})
    logging.Logger.manager._clear_cache()  # type: ignore[attr-defined]  # of isEnabledFor, by logger


def _restore_logger(logger: logging.Logger, changed: dict[str, Any]) -> None:
    kind = changed.get("class", type(logger))
    if type(logger) is not kind and not is_stand_in(kind):
        logger.__class__ = kind
    vars(logger).update(changed.get("extra", {}))
    logger.level = changed.get("level", _default_level(logger))
    logger.propagate = changed.get("propagate", True)
    logger.disabled = changed.get("disabled", False)
    logger.filters[:] = _present(changed.get("filters", []), f"filters of logger {logger.name}")
    logger.handlers[:] = _handlers(changed.get("handlers", []), f"handlers of logger {logger.name}")


def _present(found: list[Any], what: str) -> list[Any]:
    present = [one for one in found if not is_stand_in(one)]
    if len(present) != len(found):
        report("%d of the %s stayed in the parent", len(found) - len(present), what)
    return present


def _handlers(found: list[Any], what: str) -> list[Any]:
    import logging

    handlers = []
    for handler in _present(found, what):
        made = logging.NullHandler() if type(handler) is str else handler
        _adopt_handler(made)
        handlers.append(made)
    return handlers


def _adopt_handler(handler: Any) -> None:
    """Do what `Handler.__init__` does outside of the object, and mend a stream that did not come."""
    import logging

    if not isinstance(handler, logging.Handler):
        return
    if handler.name and handler.name not in logging._handlers:  # type: ignore[attr-defined]  # found by name since 3.12
        logging._handlers[handler.name] = handler  # type: ignore[attr-defined]
    if all(known() is not handler for known in logging._handlerList):  # type: ignore[attr-defined]  # flushed at exit
        logging._addHandlerRef(handler)  # type: ignore[attr-defined]
    if handler.lock is not None:  # or a fork while another thread logs would leave it locked
        logging._register_at_fork_reinit_lock(handler)  # type: ignore[attr-defined]
    if isinstance(handler, logging.StreamHandler) and is_stand_in(vars(handler).get("stream")):
        handler.stream = sys.stderr
    target = vars(handler).get("target")
    if target is not None and target is not handler:
        _adopt_handler(target)


def _restore_module(state: dict[str, Any]) -> None:
    import logging

    logging.root.manager.disable = state.get("disable", 0)
    for name, value in state.get("switches", {}).items():
        setattr(logging, name, value)
    for number, text in state.get("level names", {}).items():
        logging.addLevelName(number, text)
    if "logger class" in state:
        logging.setLoggerClass(state["logger class"])
    if "record factory" in state:
        logging.setLogRecordFactory(state["record factory"])
    if "last resort" in state and not is_stand_in(state["last resort"]):
        logging.lastResort = state["last resort"]
    if state.get("captures warnings", False):
        logging.captureWarnings(True)


ADOPTERS = (Adopter("logging", _capture, _restore, owner="logging"),)
