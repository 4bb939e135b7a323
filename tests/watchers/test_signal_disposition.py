"""What signal watchers leave as it was: dispositions, masks, the wakeup fd, faulthandler."""

import ctypes
import faulthandler
import gc
import os
import signal
import subprocess
import threading

import _fault
import pytest
from _fault import BOUND, unexpected
from _signals import Calls, handled, send
from _support import finish, made_loop, run_until

from linux_event import Loop


@pytest.fixture(params=["handler", "signalfd"])
def loop(request, nothing_left):
    """A loop of each way to get signals."""
    with made_loop(signals=request.param) as loop:
        yield loop


@pytest.fixture
def plain_loop(nothing_left):
    """A loop that changes no mask."""
    with made_loop() as loop:
        yield loop


# --- dispositions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["stop", "destroy", "close", "drop"])
@pytest.mark.parametrize("before", ["default", "ignored", "handler"])
def test_disposition_is_restored(before, end):
    calls = []
    disposition = {"default": signal.SIG_DFL, "ignored": signal.SIG_IGN}.get(before, lambda *_: calls.append("python"))
    with handled(signal.SIGUSR1, disposition):
        kernel = _fault.disposition(signal.SIGUSR1)
        loop = Loop()
        watcher = loop.signal("USR1", lambda watcher, signum: calls.append("watcher"))
        assert _fault.disposition(signal.SIGUSR1) == "caught"
        assert signal.getsignal(signal.SIGUSR1) is disposition
        send()
        loop.run_once(BOUND)
        assert calls == ["watcher"]
        calls.clear()
        if end in ("stop", "destroy"):
            getattr(watcher, end)()
        elif end == "close":
            loop.close()
        else:
            del watcher
            with pytest.warns(ResourceWarning):
                del loop
                gc.collect()
        assert _fault.disposition(signal.SIGUSR1) == kernel
        if before != "default":
            send()
            assert calls == (["python"] if before == "handler" else [])
        if end != "drop":
            loop.close()


def test_disposition_is_restored_when_the_last_watcher_stops(loop):
    one, two = loop.signal("USR1", Calls()), loop.signal("USR1", Calls())
    one.destroy()
    assert _fault.disposition(signal.SIGUSR1) == "caught"
    send()
    loop.run_once(BOUND)
    assert two.callback == [signal.SIGUSR1]
    two.stop()
    assert _fault.disposition(signal.SIGUSR1) == "default"
    two.start()
    assert _fault.disposition(signal.SIGUSR1) == "caught"


def test_disposition_while_stopped(loop):
    loop.signal("USR1", unexpected, start=False)
    assert _fault.disposition(signal.SIGUSR1) == "default"


def test_flags_of_a_handler_of_another_library_are_restored(loop):
    """Not only the handler: its flags and mask too, as sigaction(2) shows them."""

    class Action(ctypes.Structure):
        """``struct sigaction`` of the C library."""

        _fields_ = (
            ("handler", ctypes.c_void_p),
            ("mask", ctypes.c_ubyte * 128),
            ("flags", ctypes.c_int),
            ("restorer", ctypes.c_void_p),
        )

    libc = ctypes.CDLL(None, use_errno=True)
    calls = []
    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(calls.append)
    ours, before, after = Action(ctypes.cast(handler, ctypes.c_void_p)), Action(), Action()
    ours.flags = 0x10000000 | 0x40000000  # SA_RESTART, SA_NODEFER
    ours.mask[0] = 1 << (signal.SIGHUP - 1)
    number = int(signal.SIGUSR1)
    assert libc.sigaction(number, ctypes.byref(ours), ctypes.byref(before)) == 0
    try:
        loop.signal("USR1", Calls()).destroy()
        assert libc.sigaction(number, None, ctypes.byref(after)) == 0
        assert after.handler == ours.handler
        # Beside these the C library sets one of its own.
        assert after.flags & ours.flags == ours.flags
        assert bytes(after.mask)[:8] == bytes(ours.mask)[:8]
        send()
        assert calls == [number]
    finally:
        libc.sigaction(number, ctypes.byref(before), None)


@pytest.mark.parametrize("new", ["handler", "default", "ignored"])
def test_a_disposition_that_the_user_changed_stays(loop, new):
    """``signal.signal`` while the watcher is active takes the signal over; stopping does not undo it."""
    calls = []
    disposition = {"default": signal.SIG_DFL, "ignored": signal.SIG_IGN}.get(new, lambda *_: calls.append("python"))
    watcher = loop.signal("USR1", lambda watcher, signum: calls.append("watcher"))
    with handled(signal.SIGUSR1, disposition):
        expected = _fault.disposition(signal.SIGUSR1)
        watcher.stop()
        assert _fault.disposition(signal.SIGUSR1) == expected
        if new != "default":
            send()
            loop.run_once(0)
            assert calls == (["python"] if new == "handler" else [])
    watcher.start()
    send()
    loop.run_once(BOUND)
    assert calls[-1] == "watcher"


def test_a_watcher_started_after_the_user_took_the_signal_over(loop):
    """Starting takes it back, and the end gives it to the user's handler."""
    calls = []
    first = loop.signal("USR1", lambda watcher, signum: calls.append("first"))
    with handled(signal.SIGUSR1, lambda *_: calls.append("python")):
        first.stop()
        second = loop.signal("USR1", lambda watcher, signum: calls.append("second"))
        send()
        loop.run_once(BOUND)
        assert calls == ["second"]
        second.destroy()
        send()
        assert calls == ["second", "python"]


def test_interrupt_watcher_in_place_of_keyboard_interrupt(loop):
    calls = Calls()
    watcher = loop.signal("INT", calls)
    send(signal.SIGINT)
    loop.run_once(BOUND)
    assert calls == [signal.SIGINT]
    with _fault.WhenAsleep(lambda: os.kill(os.getpid(), signal.SIGINT)):
        run_until(loop, lambda: len(calls) == 2)
    watcher.stop()
    with pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        loop.defer(send, signal.SIGINT)
        loop.run_once(0)


def test_the_wakeup_fd_of_the_user(loop, pipe):
    """A watched signal is no longer Python's; the others still write to the wakeup fd."""
    previous = signal.set_wakeup_fd(pipe.w)
    try:
        with handled(signal.SIGUSR2, lambda *_: None):
            watcher = loop.signal("USR1", Calls())
            send(signal.SIGUSR1)
            assert pipe.take() == b""
            send(signal.SIGUSR2)
            assert pipe.take() == bytes([signal.SIGUSR2])
            loop.run_once(BOUND)
            assert watcher.callback == [signal.SIGUSR1]
    finally:
        assert signal.set_wakeup_fd(previous) == pipe.w


def test_faulthandler_goes_on():
    """A watcher of SIGSEGV that has ended gives the signal back to faulthandler, as one that never was."""
    result = _fault.run_script(
        """
        import ctypes, faulthandler, os, signal, sys
        from linux_event import Loop

        faulthandler.enable()
        faulthandler.register(signal.SIGUSR2, chain=False)
        with Loop() as loop:
            watchers = [loop.signal(name, lambda watcher, signum: print(signum)) for name in ("SEGV", "USR2")]
            os.kill(os.getpid(), signal.SIGUSR2)
            loop.run_once(10)
            for watcher in watchers:
                watcher.stop()
            os.kill(os.getpid(), signal.SIGUSR2)
            sys.stdout.flush()
            ctypes.string_at(0)
        """,
        # A sanitizer would take the signal for itself.
        env={"ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":handle_segv=0"},
    )
    assert result.returncode == -signal.SIGSEGV
    assert result.stdout.strip() == str(int(signal.SIGUSR2))
    assert result.stderr.startswith("Current thread")
    assert "Fatal Python error: Segmentation fault" in result.stderr


def test_faulthandler_dumps_while_the_loop_runs(loop, tmp_path):
    with open(tmp_path / "dump", "w+") as file:
        faulthandler.register(signal.SIGUSR2, file=file, chain=False)
        try:
            calls = Calls()
            loop.signal("USR1", calls)
            send(signal.SIGUSR2)
            send(signal.SIGUSR1)
            run_until(loop, lambda: calls)
            file.seek(0)
            assert "test_faulthandler_dumps_while_the_loop_runs" in file.read()
        finally:
            faulthandler.unregister(signal.SIGUSR2)


# --- masks -----------------------------------------------------------------------------------------------------------


def test_no_mask_is_left_for_children(plain_loop):
    mine = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    before = _fault.signal_masks()
    masks = []

    def callback(watcher, signum):
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))
        with subprocess.Popen(["sleep", "60"]) as process:
            status = f"/proc/{process.pid}/status"
            # The kernel resets handlers a moment after Popen has returned.
            _fault.wait_until(lambda: _fault.signal_masks(status)["SigCgt"] == 0)
            masks.append(_fault.signal_masks(status))
            process.kill()
        masks.append(_fault.in_fork(lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [])))
        watcher.stop()

    for name in ("TERM", "HUP", "CHLD"):
        plain_loop.signal(name, Calls(), ref=False)
    plain_loop.signal("USR1", callback)
    send()
    finish(plain_loop)
    assert masks[0] == masks[2] == mine
    assert masks[1]["SigBlk"] == before["SigBlk"]
    # subprocess itself restores what Python ignores; what was ignored before Python began stays so.
    assert masks[1]["SigIgn"] & ~before["SigIgn"] == 0
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == mine


def test_a_blocked_signal_comes_when_it_is_unblocked(plain_loop):
    calls = Calls()
    plain_loop.signal("USR1", calls)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        plain_loop.run_once(0)
        assert calls == []
        assert signal.sigpending() == {signal.SIGUSR1}
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
    run_until(plain_loop, lambda: calls)
    assert calls == [signal.SIGUSR1]


def test_system_calls_of_the_program_go_on_after_a_watched_signal(loop, pipe):
    """The handler restarts what it interrupted: a blocking read in another thread is not disturbed."""
    os.set_blocking(pipe.r, True)
    libc = ctypes.CDLL(None, use_errno=True)
    results = []
    native = []

    def body():
        native.append(threading.get_native_id())
        buffer = ctypes.create_string_buffer(1)
        results.append(libc.read(pipe.r, buffer, 1))

    calls = Calls()
    loop.signal("USR1", calls)
    thread = threading.Thread(target=body)
    thread.start()

    def is_reading():
        if not native:
            return False
        with open(f"/proc/self/task/{native[0]}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "S"

    _fault.wait_until(is_reading)
    signal.pthread_kill(thread.ident, signal.SIGUSR1)
    run_until(loop, lambda: calls)
    pipe.put()
    thread.join(BOUND)
    assert results == [1]
