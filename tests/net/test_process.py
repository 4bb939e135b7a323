"""spawn: pipes as streams, the end of a process, signals, and what is refused."""

import contextlib
import gc
import os
import signal
import sys
import weakref
from subprocess import DEVNULL, PIPE, STDOUT

import pytest
from _children import Exits, is_reaped, shell, wait_ended
from _example import foreign
from _fault import run_script
from _net import Heard, settle
from _support import finish, made_loop, run_until, scaled

from linux_event import Loop, Process, Stream

BYTES = os.urandom(1 << 20)


# -- How it ends -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", -9), ("kill -TERM $$", -15)])
def test_the_end(loop, script, code, way):
    exits = Exits()
    process = shell(loop, script, on_exit=exits)
    assert process.returncode is None
    assert "running" in repr(process)
    assert not exits
    finish(loop)
    assert exits == [code]
    assert process.returncode == code
    assert f"returncode={code}" in repr(process)
    assert is_reaped(process.pid)
    assert (process.stdin, process.stdout, process.stderr) == (None, None, None)
    assert process.loop is loop
    assert process.args == ["sh", "-c", script]
    with pytest.raises(TypeError, match="cannot be created"):
        Process()


def test_on_exit_is_assigned_later(loop):
    process = shell(loop, "exit 3")
    assert process.on_exit is None
    exits = Exits()
    process.on_exit = exits
    assert process.on_exit is exits
    with pytest.raises(TypeError, match="on_exit must be callable"):
        process.on_exit = 1
    process.data = "mine"
    assert process.data == "mine"
    finish(loop)
    assert exits == [3]
    assert process.on_exit is None


def test_nobody_asks(loop):
    process = shell(loop, "exit 3")
    process.on_exit = None
    finish(loop)
    assert process.returncode == 3


def test_on_exit_raises(loop):
    told = []
    loop.on_error = lambda source, error: told.append((source, str(error)))

    def on_exit(process, returncode):
        raise ValueError("so what")

    process = shell(loop, "exit 3", on_exit=on_exit)
    finish(loop)
    assert told == [(process, "so what")]


def test_on_exit_is_interrupted(loop):
    def on_exit(process, returncode):
        raise KeyboardInterrupt

    process = shell(loop, "exit 3", on_exit=on_exit)
    with pytest.raises(KeyboardInterrupt):
        finish(loop)
    assert process.returncode == 3


def test_somebody_else_has_reaped_it(loop):
    exits = Exits()
    process = shell(loop, "exit 3", on_exit=exits)
    os.waitpid(process.pid, 0)
    finish(loop)
    assert exits == [None]
    assert "gone" in repr(process)
    process.kill()


def test_children_that_the_kernel_reaps():
    script = """
    import signal
    from linux_event import Loop

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with Loop() as loop:
        for _ in range(20):
            process = loop.spawn(["true"], on_exit=lambda process, returncode: print(returncode))
            loop.run(60)
            process.kill()
    """
    run_script(script).check("\n".join(["None"] * 20))


def test_a_process_that_nobody_keeps(loop):
    exits = Exits()
    reference = weakref.ref(shell(loop, "read x; exit 4", stdin=PIPE, on_exit=exits))
    gc.collect()
    assert reference() is not None
    reference().stdin.close()
    finish(loop)
    assert exits == [4]
    gc.collect()
    assert reference() is None


# -- Pipes -------------------------------------------------------------------------------------------------------------


def test_cat(loop):
    process = shell(loop, "cat", stdin=PIPE, stdout=PIPE)
    assert type(process.stdin) is Stream
    heard = Heard(process.stdout, eof=False)
    process.stdin.write(BYTES)
    process.stdin.write_eof()
    exits = Exits()
    process.on_exit = exits
    finish(loop)
    assert heard.data == BYTES
    assert heard.errors == [None]
    assert exits == [0]


def test_nothing_is_called_within_the_call(loop):
    """What the program has said before the callbacks are assigned is not lost."""
    process = shell(loop, "echo said", stdout=PIPE)
    wait_ended(process.pid)
    heard = Heard(process.stdout)
    assert not heard.calls
    run_until(loop, lambda: "eof" in heard.calls)
    assert heard.data == b"said\n"
    process.stdout.close()
    finish(loop)


def test_three_pipes(loop):
    process = shell(loop, "cat; echo wrong >&2", stdin=PIPE, stdout=PIPE, stderr=PIPE, pipesize=1 << 16)
    out, err = Heard(process.stdout, eof=False), Heard(process.stderr, eof=False)
    process.stdin.writelines([b"one ", b"two ", b"three"])
    process.stdin.write_eof()
    finish(loop)
    assert (out.data, err.data) == (b"one two three", b"wrong\n")


def test_stderr_goes_where_stdout_goes(loop):
    process = shell(loop, "echo one; echo two >&2; echo three", stdout=PIPE, stderr=STDOUT)
    assert process.stderr is None
    heard = Heard(process.stdout, eof=False)
    finish(loop)
    assert heard.data == b"one\ntwo\nthree\n"


def test_files_and_fds(loop, tmp_path):
    (tmp_path / "in").write_bytes(b"from a file")
    with open(tmp_path / "in", "rb") as given, open(tmp_path / "out", "wb") as taken:
        process = shell(loop, "cat; echo lost >&2", stdin=given.fileno(), stdout=taken, stderr=DEVNULL)
        assert (process.stdin, process.stdout, process.stderr) == (None, None, None)
        finish(loop)
    assert (tmp_path / "out").read_bytes() == b"from a file"


def test_no_input(loop):
    process = shell(loop, "cat", stdin=DEVNULL, stdout=PIPE)
    heard = Heard(process.stdout, eof=False)
    finish(loop)
    assert heard.data == b""
    assert heard.errors == [None]


def test_options_of_popen(loop, tmp_path):
    process = loop.spawn(
        'pwd; echo "$NAME"; umask; ps -o pgid= -p $$',
        shell=True,
        cwd=tmp_path,
        env={**foreign(), "NAME": "given"},
        umask=0o27,
        process_group=0,
        stdout=PIPE,
    )
    heard = Heard(process.stdout, eof=False)
    finish(loop)
    folder, name, umask, group = heard.data.decode().split()
    assert os.path.samefile(folder, tmp_path)
    assert (name, umask, int(group)) == ("given", "0027", process.pid)


def test_fds_are_passed_on(loop, pipe):
    process = loop.spawn([sys.executable, "-c", f"import os; os.write({pipe.w}, b'passed')"], pass_fds=[pipe.w])
    finish(loop)
    assert process.returncode == 0
    assert pipe.take() == b"passed"


def test_no_other_fds_are_inherited(loop):
    first = shell(loop, "cat", stdin=PIPE, stdout=PIPE)
    heard = Heard(first.stdout, eof=False)
    second = shell(loop, "read x", stdin=PIPE, stdout=PIPE, close_fds=False)
    # Had the second one the other end of the pipe, the first one would never see its end.
    first.stdin.write_eof()
    run_until(loop, lambda: heard.is_over and first.returncode == 0)
    second.stdin.close()
    finish(loop)
    assert second.stdout.is_closed()


# -- Children that do as they please -----------------------------------------------------------------------------------


@contextlib.contextmanager
def gate(folder):
    """A path that a shell waits at with `read x <path`, and a function that lets it go on."""
    path = folder / "gate"
    os.mkfifo(path)
    fd = os.open(path, os.O_RDWR)
    try:
        yield path, lambda: os.write(fd, b"\n")
    finally:
        os.close(fd)


def test_it_closes_its_pipes_and_goes_on(loop, tmp_path):
    with gate(tmp_path) as (path, let_go):
        process = shell(loop, f"exec 0<&- 1>&- 2>&-; read x <{path}; exit 5", stdin=PIPE, stdout=PIPE)
        out = Heard(process.stdout, eof=False)
        ends = []
        process.stdin.on_close = lambda stream, error: ends.append(error)
        run_until(loop, lambda: out.is_over and ends)
        assert ends == [None]
        assert process.returncode is None
        let_go()
        finish(loop)
        assert process.returncode == 5


def test_it_does_not_read(loop):
    """The bytes are queued, and the stream says so; when the process ends they are an error."""
    process = shell(loop, "exec sleep 3600", stdin=PIPE)
    ends = []
    process.stdin.on_close = lambda stream, error: ends.append(type(error))
    assert process.stdin.write(BYTES) is False
    settle(loop)
    assert 0 < process.stdin.write_buffer_size < len(BYTES)
    assert not ends
    process.kill()
    finish(loop)
    assert ends == [BrokenPipeError]
    assert process.returncode == -9


def test_it_ends_without_reading(loop):
    process = shell(loop, "exit 0", stdin=PIPE)
    wait_ended(process.pid)
    ends = []
    process.stdin.on_close = lambda stream, error: ends.append(type(error))
    process.stdin.write(b"x")
    finish(loop)
    assert ends == [BrokenPipeError]


def test_what_it_has_started_keeps_the_pipes(loop, tmp_path):
    """The process has ended; its pipe has not."""
    with gate(tmp_path) as (path, let_go):
        process = shell(loop, f"(read x <{path}; echo late) & exit 0", stdout=PIPE)
        heard = Heard(process.stdout, eof=False)
        run_until(loop, lambda: process.returncode == 0)
        settle(loop)
        assert not heard.is_over
        let_go()
        finish(loop)
        assert heard.data == b"late\n"
        assert heard.errors == [None]


@pytest.mark.parametrize("only_eof", [False, True])
@pytest.mark.parametrize("script", ["(read x <{}) & exit 0", "exec 1>&-; read x <{}", "read x <{}; exit 0"])
def test_the_end_of_a_pipe_is_noticed_when_it_comes(loop, tmp_path, script, only_eof):
    """Before the end of the process, with it, or after it, and whether or not somebody asks for data."""
    with gate(tmp_path) as (path, let_go):
        process = shell(loop, script.format(path), stdout=PIPE)
        heard = Heard(process.stdout, eof=only_eof)
        process.stdout.on_data = None
        if script.startswith("exec"):
            run_until(loop, lambda: heard.is_over)
            assert process.returncode is None
        else:
            settle(loop)
            assert heard.calls == []
        let_go()
        finish(loop)
        assert heard.calls == (["eof", "close"] if only_eof else ["close"])
        assert heard.errors == [None]
        assert process.returncode == 0


@pytest.mark.parametrize("paused", [False, True])
def test_a_pipe_that_nobody_listens_to(loop, paused):
    """It is closed when nothing can come any more, so that the loop ends; not where somebody has paused it."""
    process = shell(loop, "exit 0", stdout=PIPE, stderr=PIPE)
    if paused:
        process.stdout.pause_reading()
    run_until(loop, lambda: process.returncode == 0)
    if paused:
        settle(loop)
        assert not process.stdout.is_closing()
        process.stdout.close()
    finish(loop)
    assert process.stdout.is_closed()
    assert process.stderr.is_closed()


@pytest.mark.parametrize("raises", [False, True])
def test_the_end_alone_is_listened_to(loop, raises):
    process = shell(loop, "exit 0", stdout=PIPE)
    heard = Heard(process.stdout)
    process.stdout.on_data = None
    errors = []
    if raises:
        loop.on_error = lambda stream, error: errors.append(str(error))
        process.stdout.on_eof = lambda stream: [][0]
    finish(loop)
    assert heard.calls == (["close"] if raises else ["eof", "close"])
    assert errors == (["list index out of range"] if raises else [])


def test_what_nobody_listens_to_is_kept(loop):
    process = shell(loop, "echo said", stdout=PIPE)
    run_until(loop, lambda: process.returncode == 0)
    settle(loop)
    heard = Heard(process.stdout, eof=False)
    finish(loop)
    assert heard.data == b"said\n"


# -- Signals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["kill", "terminate", "send_signal"])
def test_signals(loop, how):
    exits = Exits()
    process = shell(loop, "exec sleep 3600", on_exit=exits)
    process.send_signal(0)
    if how == "send_signal":
        process.send_signal(signal.SIGUSR1)
    else:
        getattr(process, how)()
    finish(loop)
    assert exits == [{"kill": -9, "terminate": -15, "send_signal": -signal.SIGUSR1}[how]]


def test_a_signal_to_one_that_has_ended(loop):
    process = shell(loop, "exit 0")
    wait_ended(process.pid)
    process.kill()
    finish(loop)
    assert process.returncode == 0
    process.kill()
    process.terminate()


def test_a_signal_never_goes_to_another_process(loop):
    """Somebody else has reaped it, and its pid may be that of another one now."""
    process = shell(loop, "exit 0")
    os.waitpid(process.pid, 0)
    process.kill()
    finish(loop)


@pytest.mark.parametrize(
    ("number", "kind"), [(65, ValueError), (-1, ValueError), ("TERM", TypeError), (True, TypeError)]
)
def test_no_signal(loop, number, kind):
    process = shell(loop, "exec sleep 3600")
    with pytest.raises(kind, match="signal must be"):
        process.send_signal(number)
    process.kill()
    finish(loop)


@pytest.mark.skipif(os.getuid() != 0, reason="not root")
def test_a_signal_that_is_not_allowed():
    script = """
    import os, signal
    from linux_event import Loop

    with Loop() as loop:
        process = loop.spawn(["sleep", "3600"])
        os.seteuid(65534)
        os.setresuid(65534, 65534, 0)
        try:
            process.kill()
        except PermissionError as error:
            print(error.errno, str(process.pid) in str(error))
        os.setresuid(0, 0, 0)
        process.kill()
        loop.run(60)
    """
    run_script(script).check("1 True")


def test_a_process_group(loop):
    process = shell(loop, "sleep 3600 & wait", start_new_session=True, stdout=PIPE)
    heard = Heard(process.stdout, eof=False)
    os.killpg(process.pid, signal.SIGKILL)
    finish(loop)
    assert process.returncode == -9
    assert heard.errors == [None]


def blocked(text):
    return int(text.split(b"SigBlk:\t")[1].split()[0], 16)


def test_signals_that_the_loop_has_blocked(loop):
    with made_loop(signals="signalfd") as loop:
        watcher = loop.signal("USR1", print)
        settle(loop)
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        assert signal.SIGUSR1 in mask
        process = loop.spawn(["cat", "/proc/self/status"], env=foreign(), stdout=PIPE)
        heard = Heard(process.stdout, eof=False)
        with pytest.raises(FileNotFoundError):
            loop.spawn(["/no/such/program"])
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask
        run_until(loop, lambda: heard.is_over)
        watcher.destroy()
        finish(loop)
    assert blocked(heard.data) == 0


# -- The end of the loop -----------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:subprocess:ResourceWarning")
def test_the_loop_is_closed_while_it_runs():
    exits = Exits()
    with made_loop() as loop:
        process = shell(loop, "cat", stdin=PIPE, stdout=PIPE, on_exit=exits)
        heard = Heard(process.stdout, eof=False)
        settle(loop)
    assert heard.is_over
    assert process.returncode is None
    # Its input has ended, so it ends; nobody of this package reaps it.
    wait_ended(process.pid)
    process.kill()
    assert os.waitpid(process.pid, 0) == (process.pid, 0)
    assert not exits


@pytest.mark.filterwarnings("ignore:subprocess:ResourceWarning")
def test_a_loop_that_is_dropped():
    loop = Loop()
    process = shell(loop, "cat", stdin=PIPE, stdout=PIPE)
    pid = process.pid
    with pytest.warns(ResourceWarning):
        del loop, process
        gc.collect()
    with contextlib.suppress(ChildProcessError):  # subprocess may have looked after it
        os.waitpid(pid, 0)


def test_many(loop):
    """Thousands come and go: no fd, no zombie, no memory stays."""
    rounds, together = scaled(50, 2), 20
    exits = Exits()
    done = []

    def on_exit(process, returncode):
        exits(process, returncode)

    for _ in range(rounds):
        for _ in range(together):
            process = loop.spawn(["cat"], stdin=PIPE, stdout=PIPE, on_exit=on_exit)
            process.stdout.on_data = lambda stream, data: done.append(data)
            process.stdin.write(b"x")
            process.stdin.write_eof()
        finish(loop)
    del process
    assert exits == [0] * rounds * together
    assert done == [b"x"] * rounds * together
    assert not loop.watchers


def test_popen_is_not_imported_before_it_is_needed():
    run_script("import sys, linux_event; print('subprocess' in sys.modules)").check("False")
