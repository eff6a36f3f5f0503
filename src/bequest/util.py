"""multiprocessing.util (finalizers, logging, after-fork hooks) under bequest's name.

Nothing of it changes, so that the two names are one module: what is set in one is set in the other.
"""

import sys
from multiprocessing import util

sys.modules[__name__] = util
