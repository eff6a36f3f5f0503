"""Starts a thread when it is imported, and remembers where."""

import os
import threading

IMPORTED_IN = os.getpid()
_stop = threading.Event()
threading.Thread(target=_stop.wait, daemon=True).start()
