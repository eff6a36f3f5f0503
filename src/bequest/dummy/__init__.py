"""multiprocessing.dummy (threads under the names of processes) under bequest's name, with its `connection`.

Nothing of it changes, so that the two names are one package: what is set in one is set in the other.
"""

import sys
from multiprocessing import dummy
from multiprocessing.dummy import connection

# Both at once: found through the path of the package, the submodule would be loaded a second time.
sys.modules[f"{__name__}.connection"] = connection
sys.modules[__name__] = dummy
