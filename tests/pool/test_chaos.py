"""Many tasks while workers are killed at random: each ends in its result or in its worker's death.

The seeds are fixed, what happens is not: run it longer by `BEQUEST_CHAOS_TASKS=100000`.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
from pathlib import Path

import pytest

import bequest
from bequest.pool.pool import Pool

LIMIT_S = 120.0  # reached only by a failing test
TASKS = int(os.environ.get("BEQUEST_CHAOS_TASKS", "1500"))
WEAPONS = ((signal.SIGKILL,), (signal.SIGSTOP, signal.SIGKILL), (signal.SIGSEGV,), (signal.SIGTERM,))


def _work(log: str, number: int, size: int) -> tuple[int, bytes]:
    """Note that the task was begun, and return something of a size."""
    with open(log, "ab", buffering=0) as file:
        file.write(number.to_bytes(4, "little"))
    return number, bytes(size)


def _shoot(pool: Pool, chance: random.Random) -> None:
    """Kill one of the workers, whatever it is at."""
    pids = [process.pid for process in pool._pool if process.pid is not None]
    if not pids:
        return
    victim = chance.choice(pids)
    for weapon in chance.choice(WEAPONS):
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, weapon)


@pytest.mark.parametrize("seed", [1, 2])
def test_every_task_ends_once(tmp_path: Path, clean_method: str, seed: int) -> None:
    """No task is lost, none is done twice, none is told of a death that it did not die."""
    chance = random.Random(seed)
    log = str(tmp_path / "log")
    sizes = [chance.choice((0, 0, 0, 100, 5000, 200_000)) for _ in range(TASKS)]
    died, shots, next_shot = [], 0, 0
    with bequest.get_context(clean_method).Pool(2) as pool:
        results = [pool.apply_async(_work, (log, number, size)) for number, size in enumerate(sizes)]
        for number, result in enumerate(results):
            if number == next_shot:
                _shoot(pool, chance)
                shots, next_shot = shots + 1, number + chance.randint(1, 50)
            try:
                assert result.get(LIMIT_S) == (number, bytes(sizes[number]))
            except bequest.WorkerDied as error:
                died.append((number, error.task))
        assert pool.apply_async(_work, (log, TASKS, 0)).get(LIMIT_S) == (TASKS, b"")
    content = Path(log).read_bytes()
    begun = [int.from_bytes(content[at : at + 4], "little") for at in range(0, len(content), 4)]

    assert len(begun) == len(set(begun)), "a task was run twice"
    assert set(range(TASKS + 1)) - set(begun) <= {number for number, _ in died}
    assert all(f", {number}, " in task for number, task in died)
    assert len(died) <= shots
