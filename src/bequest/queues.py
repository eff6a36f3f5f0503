"""multiprocessing.queues with bequest's pickler, errors at the caller of put(), and no descriptors left.

    Queue.put(obj) -> bequest.putting -> feeder thread -> bequest.connection's pipe -> get()

Buffering, joining and the order of locks are the standard library's.
"""

from __future__ import annotations

import weakref
from functools import partial
from multiprocessing import queues as _plain

from bequest import connection, putting
from bequest.mirror import reflect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from multiprocessing.queues import JoinableQueue as JoinableQueue
    from multiprocessing.queues import Queue as Queue
    from multiprocessing.queues import SimpleQueue as SimpleQueue
    from typing import Any

reflect(_plain, globals(), connection=connection, _ForkingPickler=putting.QueuePickler)
for _class, _name, _method in putting.methods(_plain):
    setattr(globals()[_class], _name, _method)


def adopt(arguments: Iterable[Any]) -> None:
    """Make the standard library's queues among the arguments of a process pickle as bequest's queues do.

    `concurrent.futures` derives its queue of tasks from the standard library's class, and hands it to the
    processes of the context that it was given: this is how tasks may be lambdas where that is bequest's.
    Only these objects change, in this process; one whose feeder thread runs already goes on as it began.
    """
    for queue in arguments:
        if isinstance(queue, _plain.Queue) and not isinstance(queue, Queue):
            # By a weak reference: a queue must go, with its semaphores, as soon as nobody has it.
            vars(queue)["_start_thread"] = partial(_start_thread_of, weakref.ref(queue))


def _start_thread_of(reference: weakref.ref[Any]) -> None:
    vars(Queue)["_start_thread"](reference())
