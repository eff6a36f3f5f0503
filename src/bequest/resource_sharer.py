"""multiprocessing.resource_sharer (descriptors sent to running processes) under bequest's name.

Nothing of it changes, so that the two names are one module: what is set in one is set in the other.
"""

import sys
from multiprocessing import resource_sharer

sys.modules[__name__] = resource_sharer
