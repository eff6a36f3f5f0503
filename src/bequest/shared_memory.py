"""multiprocessing.shared_memory (named blocks) under bequest's name.

Nothing of it changes, so that the two names are one module: what is set in one is set in the other.
"""

import sys
from multiprocessing import shared_memory

sys.modules[__name__] = shared_memory
