"""What is made of a part that cannot be carried stays behind with it; nobody's child ends for it."""

from __future__ import annotations

import itertools
import pickle
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from bequest.carry.leftbehind import LeftBehind
from bequest.carry.pickler import pack


class Holder:
    """Has something that its methods may never use."""

    def __init__(self, held: object) -> None:
        self.held = held


def arrives(obj: Any) -> Any:
    """Return what a child would have in the place of an object that something holds for it."""
    return pickle.loads(pack(Holder(obj), starting=True).data).held


def numbers() -> Iterator[int]:
    """Yield numbers; one that has begun cannot be carried."""
    yield from range(10)


def begun() -> Iterator[int]:
    """Return a generator that has begun."""
    generator = numbers()
    next(generator)
    return generator


def secured() -> ssl.SSLSocket:
    """Return a TLS socket, not connected."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return context.wrap_socket(socket.socket(), server_hostname="localhost", do_handshake_on_connect=False)


MADE: dict[str, Any] = {
    "map": lambda part: map(str, part),
    "filter": lambda part: filter(None, part),
    "zip": lambda part: zip("abc", part, strict=False),
    "enumerate": enumerate,
    "islice": lambda part: itertools.islice(part, 3),
    "accumulate": itertools.accumulate,
    "tee": lambda part: itertools.tee(part)[0],
    "groupby": itertools.groupby,
    "pairwise": itertools.pairwise,
    "zip_longest": lambda part: itertools.zip_longest(part, "ab"),
    "method": lambda part: part.__next__,
    "method of C": lambda part: part.send,
}


@pytest.mark.parametrize("name", MADE)
def test_iterator_over_what_stays_stays_too(name: str) -> None:
    """A child has a stand-in for an iterator whose source is one, even where the source is met first."""
    source = begun()
    made = MADE[name](source)

    assert type(arrives(made)) is LeftBehind
    assert type(arrives([source, made])[1]) is LeftBehind


def test_repeated_object_is_only_held() -> None:
    """What only hands out its part goes, with a stand-in for the part."""
    assert type(next(arrives(itertools.repeat(begun(), 2)))) is LeftBehind


@pytest.mark.parametrize("mode", ["rb", "r", "rw", "rwb", "wb"])
def test_file_of_a_tls_socket_stays(mode: str) -> None:
    """No layer of a socket's file arrives where the socket cannot."""
    with secured() as sock, sock.makefile(mode) as file:  # type: ignore[call-overload]  # a mode that it knows
        assert type(arrives(file)) is LeftBehind
