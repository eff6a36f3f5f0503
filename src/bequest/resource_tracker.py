"""multiprocessing.resource_tracker (one tracker a process, whoever asks) under bequest's name.

Nothing of it changes, so that the two names are one module: what is set in one is set in the other.
"""

import sys
from multiprocessing import resource_tracker

sys.modules[__name__] = resource_tracker
