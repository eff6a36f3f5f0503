"""Maps of memory show the same memory there; private ones arrive as copies."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest
from objects_packing import again

from bequest.carry.objects import maps
from bequest.carry.registry import NotCarriedError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of six lines."""
    path = tmp_path / "lines"
    path.write_bytes(b"one\ntwo\nthree\nfour\nfive\nsix\n")
    return path


def test_map_of_a_file_is_shared(path: Path) -> None:
    """A shared map of a file is the same memory; private memory is copied."""
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as shared:
        private = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        read_only = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
        private[:3] = b"TWO"
        shared.seek(4)
        copy, copied, copied_read_only = again([shared, private, read_only])
        assert (copy.readline(), copied[:3], copied_read_only[:3]) == (b"two\n", b"TWO", b"one")
        copy[:3] = b"ONE"
        assert (shared[:3], copied_read_only[:3]) == (b"ONE", b"ONE")
        with pytest.raises(TypeError):
            copied_read_only[:1] = b"x"
        for mapped in (private, read_only, copy, copied, copied_read_only):
            mapped.close()


def test_shared_memory_without_a_name() -> None:
    """Where the system lets it be opened by its address, it is shared."""
    with mmap.mmap(-1, 100) as nameless:
        found = maps.find(nameless)
        if found is None or found.fd is None:
            pytest.skip("this process has no right to open memory by its address")
        os.close(found.fd)
        arrived = again(nameless)
        arrived[0] = 7
        assert nameless[0] == 7
        arrived.close()


def test_shared_memory_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere it is refused, and not copied."""
    monkeypatch.setattr(maps, "_open", lambda span, can_write: None)
    with mmap.mmap(-1, 100) as nameless, pytest.raises(NotCarriedError, match="without a file"):
        again(nameless)
