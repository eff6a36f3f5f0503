"""multiprocessing.synchronize (locks, which take the context that made them) under bequest's name.

Nothing of it changes, so that the two names are one module: what is set in one is set in the other.
"""

import sys
from multiprocessing import synchronize

sys.modules[__name__] = synchronize
