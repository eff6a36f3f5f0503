"""multiprocessing.connection with bequest's pickler: what is sent may hold whatever bequest carries.

    Connection.send(obj) -> bequest.passing -> the standard library's frames, large data beside them

The protocol, the addresses and the authentication are the standard library's, and so is the other end: a
connection of bequest talks to one of `multiprocessing`, provided that bequest can be imported there.
"""

from __future__ import annotations

from multiprocessing import connection as _plain

from bequest import passing
from bequest.mirror import reflect
from bequest.reduction import ForkingPickler, register

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.connection import Client as Client
    from multiprocessing.connection import Connection as Connection
    from multiprocessing.connection import Listener as Listener
    from multiprocessing.connection import Pipe as Pipe
    from multiprocessing.connection import wait as wait

# xmlrpclib: a global that is bound by the first XmlClient; naming it here makes twins of those who read it.
reflect(_plain, globals(), _ForkingPickler=ForkingPickler, xmlrpclib=None)
for _name, _value in passing.methods(_plain).items():
    setattr(globals()["Connection"], _name, _value)
Pipe = passing.with_side_channel(globals()["Pipe"])
register(globals()["Connection"], passing.reduce_connection)
