"""Locks and conditions that outlive those who had them: what differs from multiprocessing's.

    acquire() -> the semaphore, then who has it now into a record that every process sees
    a long wait -> the process in the record has ended -> the lock is given on to one of those who wait
    notify()    -> a waiter does not wake up, and has ended -> it is counted out

A semaphore does not know who has it: killed with a lock, a process leaves it locked for ever, and killed
while it waits for a condition, it leaves `notify` waiting for it (python/cpython#88304). The record costs
some tenths of a microsecond for an `acquire` and a `release`. Who releases takes its name out first, so that
the name of a process that has ended means a lock that it had. Only locks are given on: what a semaphore
counts may be meant to be used up.

A process that is killed between its `acquire` and the record, some instructions later, is not noticed.

Records are in anonymous memory that is shared with the locks, one page for thousands of them. Where the
system has no such memory, or no room for it, a lock is as in the standard library.

`bequest.synchronize` has these methods in subclasses; `bequest.install` puts them into the standard library's
own classes.
"""

from __future__ import annotations

import os
import threading
import time
from functools import wraps
from weakref import WeakValueDictionary, ref

from bequest.carry.segments import OwnedFd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

_PAGE_BYTES = 1 << 16
_WORD_BYTES = 8
_HOLDER, _GIVEN = 0, 1  # words of a lock's record: who acquired it last, and from whom it was given on
_LOCK_WORDS = 2
_RECURSIVE = 0  # the kind of an RLock's semaphore: multiprocessing.synchronize.RECURSIVE_MUTEX
_WAITERS = 64  # words of a condition's record; those beyond wait without being known
_WOKEN = 1 << 63  # in a waiter's word: it has said that it is awake
_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.05, 1.0
_PID_BITS = 22  # the kernel's own bound


# -- who is who ----------------------------------------------------------------------------------------------


class _Self:
    """This process, as records name it: its pid and when it began, so that a pid used again is another.

    Attributes:
        word: 0 until it is asked for, and in a forked child again.
    """

    word = 0

    def look(self) -> int:
        """Return the word, and keep it."""
        from bequest.launch.pidfd import started_ticks

        self.word = (started_ticks(os.getpid()) or 0) << _PID_BITS | os.getpid()
        return self.word

    def forget(self) -> None:
        """Be another process."""
        self.word = 0


_self = _Self()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_self.forget)


def _pid_of(word: int) -> int:
    return word & ((1 << _PID_BITS) - 1)


def _has_ended(word: int) -> bool:
    """Tell whether the process that a word names has ended; one that nobody has reaped has."""
    from bequest.launch.pidfd import started_ticks

    pid = _pid_of(word)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's, about whom /proc may tell nothing
        return False
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state = file.read().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):  # it has just ended, or nothing can be known: the next look will tell
        return False
    return state in (b"Z", b"X") or started_ticks(pid) != word >> _PID_BITS


# -- records -------------------------------------------------------------------------------------------------


class _Page:
    """Shared memory with records. It lives, here, as long as any lock of it does.

    Args:
        fd: Of the memory; the page's own from here on.
        key: What every process knows it by.
    """

    def __init__(self, fd: int, key: bytes) -> None:
        import mmap

        self.file, self.key = OwnedFd(fd), key
        self.used = _PAGE_BYTES // _WORD_BYTES  # what has come from elsewhere is filled there
        self.words = memoryview(mmap.mmap(fd, _PAGE_BYTES)).cast("Q")
        self.giving = threading.Lock()
        _pages[key] = self

    def __reduce__(self) -> Any:
        from multiprocessing.reduction import DupFd

        return _open_page, (self.key, DupFd(self.file.fd))


_pages: WeakValueDictionary[bytes, _Page] = WeakValueDictionary()


class _Filling:
    """The page in which this process makes records, while it is in use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._page: Callable[[], _Page | None] = _no_page

    def take(self, count: int) -> Record | None:
        """Return a record of `count` words, all 0; None where the system has no room for it."""
        with self._lock:
            page = self._page()
            if page is None or page.used + count > _PAGE_BYTES // _WORD_BYTES:
                page = _new_page()
                if page is None:
                    return None
                self._page = ref(page)
            page.used += count
            return Record(page, page.used - count)

    def forget(self) -> None:
        """Fill another page: this process is a forked child, and its parent goes on with that one."""
        self._lock, self._page = threading.Lock(), _no_page  # the lock may be a thread's that is not there
        for page in list(_pages.values()):
            page.giving = threading.Lock()


def _no_page() -> None:
    return None


def _new_page() -> _Page | None:
    if not hasattr(os, "memfd_create"):
        return None
    try:
        fd = os.memfd_create("bequest-locks", os.MFD_CLOEXEC)
    except OSError:
        return None
    try:
        os.ftruncate(fd, _PAGE_BYTES)
    except OSError:
        os.close(fd)
        return None
    try:
        page = _Page(fd, os.urandom(16))
    except OSError:
        return None
    page.used = 0
    return page


def _open_page(key: bytes, shared: Any) -> _Page:
    fd = shared.detach()
    known = _pages.get(key)
    if known is None:
        return _Page(fd, key)
    os.close(fd)
    return known


_filling = _Filling()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_filling.forget)


class Record:
    """Some words of a page.

    Attributes:
        page: The page.
        at: Where they begin.
        words: All words of the page.
    """

    __slots__ = ("at", "page", "words")

    def __init__(self, page: _Page, at: int) -> None:
        self.page, self.at, self.words = page, at, page.words

    def __reduce__(self) -> Any:
        return Record, (self.page, self.at)


# -- locks ---------------------------------------------------------------------------------------------------


class Acquire:
    """The `acquire` of a lock that has a record; a part of that lock wherever it goes."""

    __slots__ = ("_at", "_lock", "_record", "_semlock", "_take", "_words")

    def __init__(self, lock: Any) -> None:
        self._lock = ref(lock)
        self._semlock, self._record = lock._semlock, lock._record
        self._take, self._words, self._at = self._semlock.acquire, self._record.words, self._record.at

    def __call__(self, block: bool = True, timeout: float | None = None) -> bool:
        """Acquire the lock, which is given on by itself where the process that has it has ended."""
        word = _self.word or _self.look()  # first: between the next two a process may be killed unnoticed
        if self._take(False):
            self._words[self._at] = word
            return True
        return bool(block) and _wait_for(self._semlock, self._record, word, timeout)

    def __reduce__(self) -> Any:
        lock = self._lock()
        if lock is None:
            raise TypeError("the lock that this is the method of is gone")
        return getattr, (lock, "acquire")


class Release:
    """The `release` of a lock that has a record; a part of that lock wherever it goes."""

    __slots__ = ("_at", "_is_recursive", "_lock", "_semlock", "_words")

    def __init__(self, lock: Any) -> None:
        self._lock, self._semlock = ref(lock), lock._semlock
        self._words, self._at = lock._record.words, lock._record.at
        self._is_recursive = self._semlock.kind == _RECURSIVE

    def __call__(self) -> None:
        """Release the lock."""
        semlock = self._semlock
        if not self._is_recursive or (semlock._is_mine() and semlock._count() == 1):
            self._words[self._at] = 0
        semlock.release()

    def __reduce__(self) -> Any:
        lock = self._lock()
        if lock is None:
            raise TypeError("the lock that this is the method of is gone")
        return getattr, (lock, "release")


def _wait_for(semlock: Any, record: Record, word: int, timeout: float | None) -> bool:
    """Acquire a lock that another has, in the time that there is."""
    end = None if timeout is None else time.monotonic() + timeout
    look_s = _FIRST_LOOK_S
    while True:
        holder = record.words[record.at + _HOLDER]
        left = look_s if end is None else min(look_s, end - time.monotonic())
        if semlock.acquire(True, max(0.0, left)):
            record.words[record.at + _HOLDER] = word
            return True
        if end is not None and time.monotonic() >= end:
            return False
        look_s = min(2 * look_s, _LONGEST_LOOK_S)
        # The same all the time. Else somebody has acquired it since, and is perhaps about to say so.
        if holder and holder == record.words[record.at + _HOLDER] and _has_ended(holder):
            _give_on(semlock, record, holder)


def _give_on(semlock: Any, record: Record, holder: int) -> None:
    """Release a lock for a process that has ended, once, whoever else is about the same."""
    import fcntl

    words, given, file = record.words, record.at + _GIVEN, record.page.file.fd
    with record.page.giving:  # for the threads of this process; the other is for processes
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, given)
        except OSError:
            return
        try:
            if words[record.at + _HOLDER] == holder and words[given] != holder:
                words[given] = holder
                _post(semlock)
                _log("process %d ended with a lock, which was given on", _pid_of(holder))
        finally:
            fcntl.lockf(file, fcntl.LOCK_UN, 1, given)


def _post(semlock: Any) -> None:
    """Release the semaphore of a lock that this thread does not have."""
    import ctypes

    post = ctypes.CDLL(None, use_errno=True).sem_post
    post.argtypes = [ctypes.c_void_p]
    if post(semlock.handle) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _log(text: str, *values: object) -> None:
    from multiprocessing import util

    util.sub_warning(text % values)  # to the log of multiprocessing


# -- conditions ----------------------------------------------------------------------------------------------


def _wait(self: Any, timeout: float | None = None) -> bool:
    """Wait until notified; see `multiprocessing.Condition.wait`."""
    assert self._lock._semlock._is_mine(), "must acquire() condition before using wait()"
    word = _self.word or _self.look()
    self._sleeping_count.release()
    place = _take_place(self._record, word)
    count = self._lock._semlock._count()
    for _ in range(count):
        self._lock.release()
    try:
        woken: bool = self._wait_semaphore.acquire(True, timeout)
        return woken
    finally:
        if place is not None:
            self._record.words[place] |= _WOKEN
        self._woken_count.release()
        for _ in range(count):
            self._lock.acquire()
        if place is not None:
            self._record.words[place] = 0


def _take_place(record: Record | None, word: int) -> int | None:
    """Enter a process among the waiters, of which the caller has the lock; return where."""
    if record is None:
        return None
    for place in range(record.at, record.at + _WAITERS):
        if record.words[place] == 0:
            record.words[place] = word
            return place
    return None


def _notify(self: Any, n: int = 1) -> None:
    """Wake up to `n` waiters; see `multiprocessing.Condition.notify`. None that has ended is waited for."""
    assert self._lock._semlock._is_mine(), "lock is not owned"
    _empty(self._wait_semaphore)
    while self._woken_count.acquire(False):  # who has given up waiting since the last time
        self._sleeping_count.acquire(False)
    sleepers = 0
    while sleepers < n and self._sleeping_count.acquire(False):
        self._wait_semaphore.release()
        sleepers += 1
    look_s = _FIRST_LOOK_S
    while sleepers:
        if self._woken_count.acquire(True, None if self._record is None else look_s):
            sleepers -= 1
            continue
        look_s = min(2 * look_s, _LONGEST_LOOK_S)
        for _ in range(_forget_ended(self._record)):
            # One of those who were not to be woken, if there are any left.
            if sleepers and not self._sleeping_count.acquire(False):
                sleepers -= 1
    _empty(self._wait_semaphore)


def _empty(semaphore: Any) -> None:
    while semaphore.acquire(False):
        pass


def _forget_ended(record: Record) -> int:
    """Take those who have ended off the waiters, of which the caller has the lock; return how many slept."""
    count = 0
    for place in range(record.at, record.at + _WAITERS):
        word = record.words[place]
        if word and _has_ended(word & ~_WOKEN):
            record.words[place] = 0
            if not word & _WOKEN:
                count += 1
                _log("process %d ended while it waited for a condition", _pid_of(word))
    return count


# -- the classes ---------------------------------------------------------------------------------------------


def methods(plain: ModuleType) -> dict[str, dict[str, Any]]:
    """Return, for SemLock and Condition of `plain`, the attributes that differ here.

    Args:
        plain: multiprocessing.synchronize.
    """
    locks = (plain.Lock, plain.RLock)

    def count_for_lock(lock: Any) -> int:
        return _LOCK_WORDS if isinstance(lock, locks) else 0

    return {
        "SemLock": {
            **_with_record(plain.SemLock, count_for_lock),
            "_make_methods": _make_methods,
            "__enter__": _enter,
            "__exit__": _exit,
        },
        "Condition": {
            **_with_record(plain.Condition, lambda _: _WAITERS),
            "wait": _wait,
            "notify": _notify,
        },
    }


def _make_methods(self: Any) -> None:
    semlock, record = self._semlock, self._record
    self.acquire = semlock.acquire if record is None else Acquire(self)
    self.release = semlock.release if record is None else Release(self)


def _enter(self: Any) -> bool:
    taken: bool = self.acquire()
    return taken


def _exit(self: Any, *exc_info: object) -> None:
    self.release()


def _with_record(kind: Any, count: Callable[[Any], int]) -> dict[str, Any]:
    """Return what gives the objects of a class a record, which goes with them to other processes.

    Args:
        kind: The class, of the standard library.
        count: Returns of how many words it is; 0 for an object without one.
    """
    make, get, put = (_standard(vars(kind)[name]) for name in ("__init__", "__getstate__", "__setstate__"))

    @wraps(make)
    def __init__(self: Any, *args: Any, **options: Any) -> None:
        words = count(self)
        self._record = _filling.take(words) if words else None
        make(self, *args, **options)

    @wraps(get)
    def __getstate__(self: Any) -> Any:
        return get(self), self._record

    @wraps(put)
    def __setstate__(self: Any, state: Any) -> None:
        state, self._record = state
        put(self, state)

    own = {"__init__": __init__, "__getstate__": __getstate__, "__setstate__": __setstate__}
    return {"_record": None, **own}


def _standard(method: Any) -> Any:
    """Return the standard library's own method, where bequest's is in its place already."""
    return getattr(method, "__wrapped__", method)
