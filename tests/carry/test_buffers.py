"""Large data comes out as it went in, by every way, copied once; nothing of it is left, whoever is killed."""

from __future__ import annotations

import array as arrays
import gc
import os
import pickle
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_sharer
from multiprocessing.connection import Connection
from typing import Any

import large_children as children
import pytest

import bequest
from bequest.carry import buffers, copies, pickler
from bequest.carry import segments as memory
from bequest.connection import Client, Listener
from bequest.reduction import pack_message

numpy = pytest.importorskip("numpy")

LIMIT_S = 30.0  # reached only by a failing test
LARGE = 3 * buffers.THRESHOLD_BYTES
ITEMS = LARGE // 8

# pytest's watchdog is a thread, and from 3.12 on os.fork() says so: of no account to these children.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
    pytest.mark.skipif(not memory.IS_AVAILABLE, reason="needs Linux's memfd_create"),
]


def hear(pipe: Any) -> Any:
    """Return the next thing that comes."""
    assert pipe.poll(LIMIT_S), f"nothing came for {LIMIT_S} s"
    return pipe.recv()


@pytest.fixture
def start() -> Iterator[Callable[..., Any]]:
    """Start a child; at the end each must have ended, or is killed."""
    started: list[Any] = []

    def begin(method: str, target: Any, *args: Any) -> Any:
        process = bequest.get_context(method).Process(target=target, args=args)
        process.start()
        started.append(process)
        return process

    yield begin
    for process in started:
        process.join(LIMIT_S)
        survived = process.is_alive()
        process.kill()
        process.join()
        process.close()
        assert not survived, f"{process} still ran"


@pytest.fixture
def ask(start: Callable[..., Any]) -> Callable[..., Any]:
    """Return what a function makes of an argument in a child that is started with both."""

    def asked(method: str, function: Any, argument: Any) -> Any:
        ours, theirs = bequest.Pipe(False)
        with ours, theirs:
            start(method, children.answer, function, argument, theirs)
            return hear(ours)

    return asked


def make_array(kind: str) -> Any:
    """Return a large array of a kind."""
    made = numpy.arange(ITEMS * (8 if kind in ("i2", "?") else 1), dtype="f8")
    if kind == "fortran":
        return numpy.asfortranarray(made.reshape(8, -1))
    if kind == "strided":
        return numpy.arange(2 * ITEMS)[::2]
    if kind == "read-only":
        made.flags.writeable = False
        return made
    if kind == "of a view":
        return made.reshape(4, -1)[1:]
    if kind == "of bytes":
        return numpy.frombuffer(made.tobytes())
    return made.astype(kind)


KINDS = ["f8", "i2", "?", "c16", "S9", "M8[ns]", ">u4", "i4,f8"]
KINDS += ["fortran", "strided", "read-only", "of a view", "of bytes"]


@pytest.mark.parametrize("kind", KINDS)
def test_array_comes_out_as_it_went_in(kind: str) -> None:
    """Type, shape, content and flags of a received array are those of the one that was sent."""
    sent = make_array(kind)

    got = pickle.loads(pickler.message({"array": sent}))["array"]

    assert got.dtype == sent.dtype
    assert got.shape == sent.shape
    assert (got == sent).all()
    assert got.flags.writeable == sent.flags.writeable
    if kind != "strided":  # whose gaps nobody wants
        assert got.strides == sent.strides
        assert got.flags.f_contiguous == sent.flags.f_contiguous


@pytest.mark.parametrize("kind", KINDS)
def test_array_stays_out_of_the_pickle(kind: str) -> None:
    """No kind of large array is copied into the message itself."""
    assert len(pickler.message(make_array(kind))) < 10_000


def test_frame_comes_out_as_it_went_in() -> None:
    """The same for a pandas frame with columns of several types."""
    pandas = pytest.importorskip("pandas")
    columns = {"n": range(ITEMS), "x": numpy.linspace(0, 1, ITEMS), "word": ["a", "b", "c"] * (ITEMS // 3)}
    sent = pandas.DataFrame(columns, index=pandas.date_range("2020", periods=ITEMS, freq="s"))

    got = pickle.loads(pickler.message(sent))

    pandas.testing.assert_frame_equal(got, sent, check_freq=True)
    got.loc[got.index[0], "x"] = 5.0
    assert sent["x"].iloc[0] == 0.0


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_bytes_stay_bytes(kind: Any) -> None:
    """Large `bytes` and `bytearray` objects keep their type, and are no part of the message itself."""
    sent = kind(os.urandom(LARGE))

    packed = pack_message([sent, 1], beside=True)
    got = pickle.loads(packed)

    assert len(packed) < 10_000
    assert got == [sent, 1]
    assert type(got[0]) is kind


def test_arrow_table_comes_out_as_it_went_in() -> None:
    """The same for what another library exports as buffers."""
    arrow = pytest.importorskip("pyarrow")
    sent = arrow.table({"n": numpy.arange(ITEMS), "word": ["some", "words", "more"] * (ITEMS // 3)})

    packed = pickler.message(sent)

    assert len(packed) < 10_000
    assert pickle.loads(packed) == sent


def test_what_shares_memory_goes_on_sharing_it() -> None:
    """Two references stay one object; views of one array show one memory; so do arrays over one buffer."""
    whole = numpy.zeros(ITEMS)
    block = bytearray(LARGE)
    over, again = (numpy.frombuffer(block) for _ in range(2))

    got = pickle.loads(pickler.message([whole, whole, whole[5:], over, again]))
    got[0][5] = 1
    got[3][0] = 2

    assert got[0] is got[1]
    assert got[2][0] == 1
    assert got[4][0] == 2


def test_small_array_does_not_hold_a_large_one_in_memory() -> None:
    """Each array that is not a small part of its message has memory of its own, freed with it."""
    sent = [numpy.zeros(ITEMS * 4), numpy.ones(ITEMS)]

    kept = pickle.loads(pickler.message(sent))[1]

    assert len(children.segments()) == 1
    del kept
    assert children.segments() == set()


def test_many_small_arrays_share_few_descriptors() -> None:
    """A message of hundreds of arrays needs no more descriptors than can be sent."""
    sent = [numpy.full(ITEMS, number) for number in range(300)]

    packed: Any = pickler.message(sent)

    assert len(packed.held.segments) < memory.MOST_SEGMENTS
    assert [got[0] for got in pickle.loads(packed)] == list(range(300))


def test_received_arrays_hold_no_descriptors() -> None:
    """A program may keep any number of received arrays open."""
    before = set(os.listdir("/proc/self/fd"))

    kept = [pickle.loads(pickler.message(numpy.zeros(ITEMS))) for _ in range(20)]

    assert set(os.listdir("/proc/self/fd")) == before
    assert len(kept) == 20


# -- the ways ------------------------------------------------------------------------------------------------


def test_argument_of_a_process(method: str, ask: Callable[..., Any]) -> None:
    """An array is an argument of a process, which may write to its own."""
    sent = numpy.ones(ITEMS)

    def use(got: Any) -> Any:
        got += 1
        return got

    answer = ask(method, use, sent)

    assert (answer == 2).all()
    assert (sent == 1).all()


def test_captured_bytes_of_a_process(clean_method: str, ask: Callable[..., Any]) -> None:
    """The same for what the target has closed over."""
    sent = os.urandom(LARGE)

    assert ask(clean_method, lambda argument: (argument, sent[:10], len(sent)), 1) == (1, sent[:10], LARGE)


@pytest.mark.parametrize("duplex", [True, False])
def test_pipe(method: str, duplex: bool, start: Callable[..., Any]) -> None:
    """An array goes to a child and back through pipes."""
    ours, theirs = bequest.Pipe(duplex)
    with ours, theirs:
        if duplex:
            start(method, children.echo, theirs)
            ours.send(numpy.arange(ITEMS))
            ours.send(None)
        else:
            start(method, children.answer, numpy.arange, ITEMS, theirs)
        assert (hear(ours) == numpy.arange(ITEMS)).all()


@pytest.mark.parametrize("kind", ["Queue", "JoinableQueue", "SimpleQueue"])
def test_queue(method: str, kind: str, start: Callable[..., Any]) -> None:
    """Large and small items keep their order through queues, and are what they were when they were put."""
    ctx = bequest.get_context(method)
    queue, back = getattr(ctx, kind)(), getattr(ctx, kind)()
    start(method, children.move, queue, back)
    sent = numpy.zeros(ITEMS)
    for number in range(4):
        sent[0] = number
        queue.put((number, sent))
        queue.put(number)
    sent[0] = -1
    queue.put(None)

    got = list(iter(back.get, None))

    assert [item if isinstance(item, int) else (item[0], item[1][0]) for item in got] == [
        each for number in range(4) for each in ((number, number), number)
    ]
    for each in (queue, back):
        each.close()
        if kind != "SimpleQueue":
            each.join_thread()


def test_pool(method: str) -> None:
    """Task arguments and results."""
    with bequest.get_context(method).Pool(1) as pool:
        assert (pool.apply(numpy.negative, (numpy.arange(ITEMS),)) == -numpy.arange(ITEMS)).all()
        pool.close()
        pool.join()


def test_connection_in_a_message(method: str, start: Callable[..., Any]) -> None:
    """A connection that is sent through another one takes its side channel along."""
    ours, theirs = bequest.Pipe()
    sent, other = bequest.Pipe()
    with ours, theirs, sent, other:
        start(method, children.echo, theirs)
        ours.send(sent)
        with hear(ours) as back:
            other.send(numpy.ones(ITEMS))
            assert back.recv().sum() == ITEMS
            assert back._beside is not None
        ours.send(None)
    resource_sharer.stop()  # it would keep its socket


@pytest.mark.parametrize("family", ["AF_INET", "AF_UNIX"])
def test_listener_and_client(family: str) -> None:
    """Where descriptors cannot go, or nobody knows who listens, the data are in the message."""
    with Listener(family=family) as listener:
        near = Client(listener.address)
        with near, listener.accept() as far:
            sender = threading.Thread(target=near.send, args=(numpy.arange(ITEMS),))
            sender.start()
            got = hear(far)
            sender.join(LIMIT_S)

    assert (got == numpy.arange(ITEMS)).all()


def test_messages_may_be_read_and_forwarded_as_bytes() -> None:
    """`recv_bytes` gives what `pickle.loads` reads, and what `send_bytes` and queues pass on."""
    first, second = bequest.Pipe(False)
    third, fourth = bequest.Pipe(False)
    with first, second, third, fourth:
        second.send(numpy.ones(ITEMS))
        fourth.send_bytes(first.recv_bytes())
        content = third.recv_bytes()

    assert pickle.loads(content).sum() == ITEMS
    assert pickle.loads(pickle.loads(pickle.dumps(content))).sum() == ITEMS


def test_message_without_its_data_says_so() -> None:
    """Who reads the bare descriptor of a connection loses the data, and is told."""
    first, second = bequest.Pipe(False)
    with first, second:
        second.send(numpy.ones(ITEMS))
        content = os.read(first.fileno(), 1000)[4:]

    with pytest.raises(bequest.errors.LostBuffersError, match="without its large data"):
        pickle.loads(content)


def test_what_is_written_by_hand_is_no_message() -> None:
    """Bytes that happen to begin as a message does arrive as they are."""
    made = bytes(pickler.message(numpy.ones(ITEMS)))
    first, second = bequest.Pipe()
    with first, second:
        first.send_bytes(made)
        assert second.recv_bytes() == made


# -- deaths and limits ---------------------------------------------------------------------------------------


def test_item_outlives_who_put_it(method: str, start: Callable[..., Any]) -> None:
    """A child puts a megabyte and is joined before anybody reads."""
    queue = bequest.get_context(method).Queue()
    process = start(method, children.put_and_end, queue, 1_000_000)

    process.join(LIMIT_S)

    assert process.exitcode == 0
    assert len(queue.get(timeout=LIMIT_S)) == 1_000_000
    queue.close()


def test_message_outlives_a_killed_sender(method: str, start: Callable[..., Any]) -> None:
    """What has been sent arrives though its sender was killed meanwhile."""
    ours, theirs = bequest.Pipe(False)
    with ours, theirs:
        start(method, children.send_and_be_killed, theirs, LARGE).join(LIMIT_S)
        assert len(hear(ours)) == LARGE


def test_what_a_killed_reader_has_left_is_passed_over() -> None:
    """Descriptors whose message somebody else has taken do not disturb the next."""
    first, second = bequest.Pipe(False)
    with first, second:
        second.send(numpy.zeros(ITEMS))
        os.read(first.fileno(), 1000)  # as far as a reader may come before it is killed
        second.send(numpy.ones(ITEMS))
        assert first.recv().sum() == ITEMS


def test_message_that_is_never_read_goes_with_its_pipe() -> None:
    """Nothing in this process holds what it has sent."""
    gc.collect()
    first, second = bequest.Pipe(False)
    with first, second:
        second.send(numpy.zeros(ITEMS))
        assert set(memory._written) == set()


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    """Set the limit so low that no descriptor can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)  # all below this number are open
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("value", [numpy.arange(ITEMS), {"text": "x" * LARGE}])
def test_sender_without_descriptors_sends_in_band(value: Any) -> None:
    """Where no memory can be had, the data are in the message."""
    first, second = bequest.Pipe(False)
    with first, second:
        with no_descriptors_left():
            packed = pickler.message(value)
        sender = threading.Thread(target=second.send_bytes, args=(packed,))
        sender.start()
        got = hear(first)
        sender.join(LIMIT_S)

    assert type(packed) is bytes
    assert pickle.dumps(got) == pickle.dumps(value)


def test_receiver_without_descriptors_loses_nothing() -> None:
    """It gets an error, and the message later."""
    first, second = bequest.Pipe(False)
    with first, second:
        second.send(numpy.ones(ITEMS))
        with no_descriptors_left(), pytest.raises(OSError, match="Too many open files"):
            first.recv()
        assert hear(first).sum() == ITEMS


def test_full_side_channel_is_no_obstacle() -> None:
    """What the kernel does not take beside the pipe goes through it."""
    first, second = bequest.Pipe(False)
    with first, second:
        fill(vars(second)["_beside"].fd)
        sender = threading.Thread(target=second.send, args=([numpy.arange(ITEMS), b"x" * LARGE],))
        sender.start()
        array, content = hear(first)
        sender.join(LIMIT_S)

    assert (array == numpy.arange(ITEMS)).all()
    assert content == b"x" * LARGE


def fill(fd: int) -> None:
    """Send into a socket until it takes no more."""
    with socket.socket(fileno=os.dup(fd)) as channel:
        try:
            while True:
                channel.send(b"?" * 16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return


def test_waiting_messages_leave_descriptors_to_the_program() -> None:
    """A queue of many large items does not take all descriptors of the process that puts them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    try:
        waiting = [pickler.message(bytes(LARGE)) for _ in range(256)]
        os.close(os.dup(0))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert all(len(pickle.loads(packed)) == LARGE for packed in waiting)


def test_descriptors_that_lead_to_a_message_cannot_change_it() -> None:
    """Sealed memory can neither be written nor truncated by who has it."""
    packed: Any = pickler.message(numpy.zeros(ITEMS))
    fd = packed.held.segments[0].fd

    with pytest.raises(PermissionError):
        os.pwrite(fd, b"x", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)


# -- copied once ---------------------------------------------------------------------------------------------


def started_with(
    start: Callable[..., Any], method: str, array: Any, count: int
) -> list[tuple[Any, set[str]]]:
    """Start children with an array, and return for each its first item and the segments that it maps."""
    answers = []
    for _ in range(count):
        ours, theirs = bequest.Pipe(False)
        with ours, theirs:
            start(method, children.tell_segments, array, theirs)
            answers.append(hear(ours))
    return answers


@pytest.mark.parametrize("kind", ["f8", "of bytes", "fortran"])
def test_starts_one_after_another_share_a_copy(
    kind: str, clean_method: str, start: Callable[..., Any]
) -> None:
    """The same array goes to several children in one copy, as long as it is the same."""
    array = make_array(kind)

    (_, first), (_, second) = started_with(start, clean_method, array, 2)

    assert first == second != set()
    array = None
    assert not copies.between_starts._known


def test_changed_array_is_copied_again(clean_method: str, start: Callable[..., Any]) -> None:
    """Each child gets what the array was when it was started."""
    array = numpy.zeros(ITEMS)

    ((_, first),) = started_with(start, clean_method, array, 1)
    array[-1] = 5
    ((_, second),) = started_with(start, clean_method, array, 1)
    array[0] = 3
    ((item, third),) = started_with(start, clean_method, array, 1)

    assert len({*first, *second, *third}) == 3
    assert item == 3


def test_copy_is_kept_no_longer_than_starts_go_on(clean_method: str, start: Callable[..., Any]) -> None:
    """A start without the array, or waiting for a child, gives the copy up."""
    array = numpy.zeros(ITEMS)

    started_with(start, clean_method, array, 1)
    start(clean_method, len, ())
    assert not copies.between_starts._known

    started_with(start, clean_method, array, 1)
    start(clean_method, children.answer, len, array, bequest.Pipe(False)[1]).join(LIMIT_S)
    assert not copies.between_starts._known


def test_children_do_not_see_what_others_write(clean_method: str, start: Callable[..., Any]) -> None:
    """Children that share a copy each have an array of their own, and the parent has its own."""
    array = numpy.ones(ITEMS)
    ends = [bequest.Pipe(False) for _ in range(3)]
    for _, theirs in ends:
        start(clean_method, children.overwrite, array, theirs)

    assert [hear(ours) for ours, _ in ends] == [(ITEMS, 7 * ITEMS)] * 3
    assert array.sum() == ITEMS
    for ours, theirs in ends:
        ours.close()
        theirs.close()


def test_one_snapshot_copies_once_whatever_happens(clean_method: str, start: Callable[..., Any]) -> None:
    """In such a block all get the array as it was when the first was served; after it nothing is kept."""
    array = numpy.zeros(ITEMS)
    with bequest.one_snapshot():
        ((_, first),) = started_with(start, clean_method, array, 1)
        array[:] = 1
        ((item, second),) = started_with(start, clean_method, array, 1)
        messages: list[Any] = [pickler.message((array, number)) for number in range(2)]

    assert first == second
    assert item == 0
    assert messages[0].held.segments == messages[1].held.segments
    assert [pickle.loads(message)[0].sum() for message in messages] == [0, 0]
    assert pickle.loads(pickler.message(array)).sum() == ITEMS


def test_copy_of_a_dead_array_is_not_taken_for_anothers() -> None:
    """Memory at the same address is not the same array."""
    stream = pickler.pack(arrays.array("d", [1.0]) * ITEMS, beside=True).stream
    assert stream.buffers == [] or stream.buffers[0].obj is not None
    for value in range(20):
        array = numpy.full(ITEMS, value)
        stored = buffers.store(pickler.pack(array, beside=True).stream, copies.between_starts)
        assert buffers.load(stored.pickle, stored.places, stored.segments)[-1] == value
    del array


def test_large_arrays_are_divided_among_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several processors write parts of an array, which comes out whole."""
    monkeypatch.setattr(memory, "_LEAST_BYTES_OF_WRITER", 1 << 16)
    monkeypatch.setattr(memory, "_processors", lambda: 3)
    sent = numpy.arange(ITEMS + 1)

    stored = buffers.store(pickler.pack(sent, beside=True).stream, copies.between_starts)
    again = buffers.store(pickler.pack(sent, beside=True).stream, copies.between_starts)

    assert len(stored.segments) == 3
    assert again.segments == stored.segments
    assert (buffers.load(stored.pickle, stored.places, stored.segments) == sent).all()
    sent[-1] = 0
    assert buffers.store(pickler.pack(sent, beside=True).stream, copies.between_starts).segments[0] not in (
        stored.segments
    )


def test_error_of_a_writer_is_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails in a helping thread fails where the copy was asked for, and nothing is remembered of it."""
    monkeypatch.setattr(memory, "_LEAST_BYTES_OF_WRITER", 1 << 16)
    monkeypatch.setattr(memory, "_processors", lambda: 3)

    def fail(fd: int, view: memoryview, offset: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(memory, "write_at", fail)
    stream = pickler.pack(numpy.ones(ITEMS), beside=True).stream

    with pytest.raises(OSError, match="No space left"):
        buffers.store(stream, copies.between_starts)
    assert not copies.between_starts._known
    assert pickle.loads(buffers.message_of(stream)).sum() == ITEMS


def test_copied_where_there_can_be_no_more_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver that cannot map what it got reads it."""

    def fail(*_: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    packed = pickler.message([numpy.arange(ITEMS), numpy.ones(ITEMS)])
    monkeypatch.setattr(memory, "_lay_over", fail)

    got = pickle.loads(packed)

    assert (got[0] == numpy.arange(ITEMS)).all()
    assert got[1].sum() == ITEMS


def test_connections_of_the_standard_library_are_left_alone() -> None:
    """Large data through one that bequest did not make goes as it always did."""
    assert not hasattr(Connection, "_beside")


def test_an_interrupt_waits_for_those_who_still_copy() -> None:
    """^C while a thread works in memory of the caller's: it is raised when none does any more."""
    begun, done, heard, working = threading.Event(), threading.Event(), threading.Event(), []

    def hear_interrupt(*_: object) -> None:
        heard.set()
        raise KeyboardInterrupt

    def work(_: int) -> None:
        if threading.current_thread() is threading.main_thread():
            assert begun.wait(LIMIT_S)
            done.set()
            return
        working.append(1)
        begun.set()
        assert done.wait(LIMIT_S)  # from here on the main thread waits
        os.kill(os.getpid(), signal.SIGINT)
        assert heard.wait(LIMIT_S)
        for _ in range(1000):  # time enough for one that does not wait
            os.sched_yield()
        working.clear()

    before = signal.signal(signal.SIGINT, hear_interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            memory.for_each(work, range(2), 2)
        assert not working
    finally:
        signal.signal(signal.SIGINT, before)
