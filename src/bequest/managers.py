"""multiprocessing.managers over bequest's connections: what crosses may be anything carried.

    proxy -> bequest.connection.Client -> Listener -> Server, in a process of bequest's context -> referent

The protocol is the standard library's. The types that `SyncManager` offers are registered once more, with the
twins of their proxies.
"""

from __future__ import annotations

from multiprocessing import managers as _plain

from bequest import connection, get_context, pool
from bequest.mirror import reflect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.managers import BaseManager as BaseManager
    from multiprocessing.managers import BaseProxy as BaseProxy
    from multiprocessing.managers import DictProxy as DictProxy
    from multiprocessing.managers import ListProxy as ListProxy
    from multiprocessing.managers import MakeProxyType as MakeProxyType  # type: ignore[attr-defined]
    from multiprocessing.managers import Namespace as Namespace
    from multiprocessing.managers import NamespaceProxy as NamespaceProxy  # type: ignore[attr-defined]
    from multiprocessing.managers import SharedMemoryManager as SharedMemoryManager
    from multiprocessing.managers import SyncManager as SyncManager
    from multiprocessing.managers import Token as Token
    from multiprocessing.managers import ValueProxy as ValueProxy
    from typing import Any

reflect(
    _plain,
    globals(),
    connection=connection,
    pool=pool,
    get_context=get_context,
    listener_client={
        **_plain.listener_client,  # type: ignore[attr-defined]
        "pickle": (connection.Listener, connection.Client),
    },
)
# Its cache is a default argument, and holds types on the standard library's BaseProxy.
MakeProxyType.__defaults__ = ({},)


def _register_again(manager: Any) -> None:
    """Register what the standard library's manager offers with bequest's, whose proxies are twins."""
    twins = {id(value): globals()[name] for name, value in vars(_plain).items() if callable(value)}
    twins[id(_plain.pool.Pool)] = pool.Pool  # type: ignore[attr-defined]
    offered = manager._registry.items()
    for typeid, (make, exposed, method_to_typeid, proxy_type) in list(offered):
        manager.register(
            typeid,
            twins.get(id(make), make),
            twins.get(id(proxy_type), proxy_type),
            exposed,
            method_to_typeid,
            create_method=hasattr(manager, typeid),
        )


_register_again(SyncManager)
