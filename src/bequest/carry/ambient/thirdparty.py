"""Options of well-known packages that programs set at run time.

    parent: capture -> what differs from the package's defaults, or None; only where it is loaded already
    child:  restore when the package is there: at once, or after the child's own import of it

One adopter per package. To add one: say which module owns the state, return only what a fresh import would
not have, and set it through the package's public functions where there are any.
"""

from __future__ import annotations

import sys

from bequest.carry.ambient.adopter import Adopter, LastLook, is_stand_in, report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


# --- numpy

_PRINT_DEFAULTS = {
    "edgeitems": 3, "threshold": 1000, "floatmode": "maxprec", "precision": 8, "suppress": False,
    "linewidth": 75, "nanstr": "nan", "infstr": "inf", "sign": "-", "formatter": None, "legacy": False,
    "override_repr": None,
}  # fmt: skip
_ERROR_DEFAULTS = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}
_BUFFER_ITEMS = 8192
_NO_FUNCTION = object()


def _capture_numpy() -> dict[str, Any] | None:
    numpy = sys.modules["numpy"]
    options = numpy.get_printoptions()
    state: dict[str, Any] = {
        "print": {k: v for k, v in options.items() if v != _PRINT_DEFAULTS.get(k, _NO_FUNCTION)},
        "errors": {k: v for k, v in numpy.geterr().items() if v != _ERROR_DEFAULTS.get(k)},
    }
    if numpy.geterrcall() is not None:
        state["error function"] = numpy.geterrcall()
    if numpy.getbufsize() != _BUFFER_ITEMS:
        state["buffer"] = numpy.getbufsize()
    return {name: value for name, value in state.items() if value} or None


def _restore_numpy(state: dict[str, Any]) -> None:
    numpy = sys.modules["numpy"]
    if "error function" in state and not is_stand_in(state["error function"]):
        numpy.seterrcall(state["error function"])  # before seterr, which may ask for it
    if "errors" in state:
        numpy.seterr(**state["errors"])
    if "print" in state:
        numpy.set_printoptions(**state["print"])
    if "buffer" in state:
        numpy.setbufsize(state["buffer"])


def _capture_numpy_random() -> dict[str, Any]:
    # Always: the global generator is seeded from the system when numpy.random is imported, and a forked
    # child goes on where its parent stands. As bytes, so that unpickling imports nothing.
    state = dict(sys.modules["numpy.random.mtrand"]._rand.get_state(legacy=False))
    inner = dict(state["state"])
    if "key" in inner:
        inner["key"] = (inner["key"].dtype.str, inner["key"].tobytes())
    return {**state, "state": inner}


def _restore_numpy_random(state: dict[str, Any]) -> None:
    import numpy

    inner = dict(state["state"])
    if "key" in inner:
        kind, data = inner["key"]
        inner["key"] = numpy.frombuffer(data, dtype=kind).copy()
    sys.modules["numpy.random.mtrand"]._rand.set_state({**state, "state": inner})


# --- pandas


def _capture_pandas() -> dict[str, Any] | None:
    # The public get_option warns of deprecated options; this reads the same values and does not.
    config = sys.modules["pandas._config.config"]
    options = list(config._registered_options.values())
    branches, values = [config._global_config], []
    for branch in branches:  # grows on the way
        branches += [value for value in branch.values() if type(value) is dict]
        values += branch.values()
    return _changed_options.of((*options, *values)) or None


def _find_changed_options(_looked_at: Sequence[Any]) -> dict[str, Any]:
    config = sys.modules["pandas._config.config"]
    found = {}
    for key, option in list(config._registered_options.items()):
        root, name = config._get_root(key)
        value = root[name]
        if value is not option.defval and value != option.defval:
            found[key] = value
    return found


_changed_options = LastLook(_find_changed_options)


def _restore_pandas(options: dict[str, Any]) -> None:
    import warnings

    pandas = sys.modules["pandas"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the parent has been told of deprecated options already
        for key, value in options.items():
            if not is_stand_in(value):
                pandas.set_option(key, value)


# --- matplotlib


def _capture_matplotlib() -> dict[str, Any] | None:
    # Read as plain dicts: asking rcParams for the backend would choose one.
    matplotlib = sys.modules["matplotlib"]
    original = dict(dict.items(matplotlib.rcParamsOrig))
    found = {}
    for key, value in dict.items(matplotlib.rcParams):
        before = original.get(key, _NO_FUNCTION)
        if value is not before and value != before:
            found[key] = value
    return found or None


def _restore_matplotlib(changed: dict[str, Any]) -> None:
    present = {key: value for key, value in changed.items() if not is_stand_in(value)}
    matplotlib = sys.modules["matplotlib"]
    dict.update(matplotlib.rcParams, present)  # validated in the parent
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None and isinstance(present.get("backend"), str):
        pyplot.switch_backend(present["backend"])


# --- torch


def _capture_torch() -> dict[str, Any]:
    torch = sys.modules["torch"]
    return {
        "threads": torch.get_num_threads(),
        "dtype": str(torch.get_default_dtype()).rpartition(".")[2],
        "grad": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul precision": torch.get_float32_matmul_precision(),
        "random": torch.get_rng_state().numpy().tobytes(),
    }


def _restore_torch(state: dict[str, Any]) -> None:
    torch = sys.modules["torch"]
    if torch.get_num_threads() != state["threads"]:
        torch.set_num_threads(state["threads"])
    torch.set_default_dtype(getattr(torch, state["dtype"]))
    torch.set_grad_enabled(state["grad"])
    if torch.are_deterministic_algorithms_enabled() != state["deterministic"]:
        torch.use_deterministic_algorithms(state["deterministic"])
    torch.set_float32_matmul_precision(state["matmul precision"])
    torch.set_rng_state(torch.frombuffer(bytearray(state["random"]), dtype=torch.uint8))


# --- scikit-learn, structlog, loguru, tqdm


def _capture_sklearn() -> dict[str, Any] | None:
    # set_config changes a copy of this thread's; the module's own keeps what the import made it.
    fresh = getattr(sys.modules["sklearn._config"], "_global_config", {})
    current = sys.modules["sklearn"].get_config()
    return {k: v for k, v in current.items() if v != fresh.get(k, _NO_FUNCTION)} or None


def _restore_sklearn(changed: dict[str, Any]) -> None:
    sys.modules["sklearn"].set_config(**changed)


def _capture_structlog() -> dict[str, Any] | None:
    structlog = sys.modules["structlog"]
    if not structlog.is_configured():
        return None
    config: dict[str, Any] = structlog.get_config()
    return config


def _restore_structlog(config: dict[str, Any]) -> None:
    present = {name: value for name, value in config.items() if not is_stand_in(value)}
    present["processors"] = [step for step in config["processors"] if not is_stand_in(step)]
    sys.modules["structlog"].configure(**present)


def _capture_loguru() -> Any:
    # A fresh one has a single handler, number 0, which writes to stderr.
    core = sys.modules["loguru"].logger._core
    return None if list(core.handlers) == [0] and core.min_level == core.handlers[0].levelno else core


def _restore_loguru(core: Any) -> None:
    if is_stand_in(core):
        report("loguru has its default handler: its own stayed in the parent")
    else:
        sys.modules["loguru"].logger._core = core


def _capture_tqdm() -> Any:
    # The default lock is made anew by each process; one that the program has set is meant to be shared.
    lock = getattr(sys.modules["tqdm.std"].tqdm, "_lock", None)
    return None if type(lock).__name__ == "TqdmDefaultWriteLock" else lock


def _restore_tqdm(lock: Any) -> None:
    if not is_stand_in(lock):
        sys.modules["tqdm.std"].tqdm.set_lock(lock)


ADOPTERS = (
    Adopter("numpy", _capture_numpy, _restore_numpy, owner="numpy"),
    Adopter("numpy.random", _capture_numpy_random, _restore_numpy_random, owner="numpy.random.mtrand"),
    Adopter("pandas", _capture_pandas, _restore_pandas, owner="pandas"),
    Adopter("matplotlib", _capture_matplotlib, _restore_matplotlib, owner="matplotlib"),
    Adopter("torch", _capture_torch, _restore_torch, owner="torch"),
    Adopter("sklearn", _capture_sklearn, _restore_sklearn, owner="sklearn"),
    Adopter("structlog", _capture_structlog, _restore_structlog, owner="structlog"),
    Adopter("loguru", _capture_loguru, _restore_loguru, owner="loguru"),
    Adopter("tqdm", _capture_tqdm, _restore_tqdm, owner="tqdm.std"),
)
