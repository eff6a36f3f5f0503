"""An application whose worker processes run one of its own methods, while it keeps them in a list (gh-91090).

    python -m bequest run examples/application.py

prints

    3 workers are ready
    the second worker knows the first: True
    exit codes [0, 0, 0]

To start the second worker, the application has to be carried to it, and with it the first, which runs already.
Plain `multiprocessing` does this under start method fork only: a started process cannot be pickled. With bequest
the worker receives a handle of it. Set START_METHOD to choose a start method.
"""

import multiprocessing as mp
import os

if "START_METHOD" in os.environ:
    mp.set_start_method(os.environ["START_METHOD"])


class Application:
    """Starts workers, keeps them, and stops them with an event."""

    def __init__(self, count):
        self._stop = mp.Event()
        self._ready = mp.Semaphore(0)
        self._known = mp.SimpleQueue()
        self._processes = [mp.Process(target=self._work, args=(number,)) for number in range(count)]

    def _work(self, number):
        if number == 1:
            self._known.put(self._processes[0].pid)
        self._ready.release()
        self._stop.wait()

    def start(self):
        """Start all workers and wait until they run."""
        for process in self._processes:
            process.start()
        for _ in self._processes:
            self._ready.acquire()
        print(len(self._processes), "workers are ready")
        print("the second worker knows the first:", self._known.get() == self._processes[0].pid)

    def stop(self):
        """Let the workers end, and tell how they did."""
        self._stop.set()
        for process in self._processes:
            process.join()
        print("exit codes", [process.exitcode for process in self._processes])


application = Application(3)
application.start()
application.stop()
