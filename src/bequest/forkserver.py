"""multiprocessing.forkserver (the standard library's own, which bequest does not use) under bequest's name.

Nothing of it changes, so that the two names are one module: what is set in one is set in the other.
"""

import sys
from multiprocessing import forkserver

sys.modules[__name__] = forkserver
