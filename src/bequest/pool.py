"""multiprocessing.pool on bequest's contexts: tasks and results may hold whatever bequest carries.

    Pool() without a context -> the default context of bequest, whose queues pickle

Scheduling, and what happens when a worker dies, are the standard library's.
"""

from __future__ import annotations

from multiprocessing import pool as _plain

from bequest import get_context
from bequest.mirror import reflect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.pool import ApplyResult as ApplyResult
    from multiprocessing.pool import AsyncResult as AsyncResult
    from multiprocessing.pool import Pool as Pool
    from multiprocessing.pool import ThreadPool as ThreadPool

reflect(_plain, globals(), get_context=get_context)
