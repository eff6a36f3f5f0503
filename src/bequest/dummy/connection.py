"""multiprocessing.dummy.connection (pipes between threads) under bequest's name: the very module."""

import sys
from multiprocessing.dummy import connection

sys.modules[__name__] = connection
