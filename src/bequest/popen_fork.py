"""multiprocessing.popen_fork (the standard library's launcher) under bequest's name.

Nothing of it changes, so that the two names are one module: what is set in one is set in the other.
"""

import sys
from multiprocessing import popen_fork

sys.modules[__name__] = popen_fork
