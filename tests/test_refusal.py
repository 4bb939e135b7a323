"""io_uring refused: by seccomp, the sysctl, the memlock limit, the fd limit, an old kernel; and taken away later."""

import errno
import os
from textwrap import dedent

import _fault
import pytest

requires_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
requires_strace = pytest.mark.skipif(_fault.strace_missing() is not None, reason=str(_fault.strace_missing()))

# A script that makes a loop and prints what came of it: the class of the exception, its errno, the fds left, the message.
CREATE = """
    import gc, os, sys
    import _fault
    import linux_event

    def create(leave=None, **arguments):
        before = _fault.open_fds()
        fds = [] if leave is None else _fault.fill_fds(leave)
        try:
            with linux_event.Loop(**arguments) as loop:
                called = []
                loop.timer(0.001, called.append)
                loop.defer(called.append, 1)
                loop.run(timeout=10)
                assert len(called) == 2
            name, number, text = "Loop", 0, ""
        except OSError as error:
            assert error.strerror, error
            assert isinstance(error, linux_event.UringUnavailableError) == (type(error).__name__ != "OSError")
            name, number, text = type(error).__name__, error.errno, str(error)
        for fd in fds:
            os.close(fd)
        gc.collect()
        assert _fault.open_fds() == before, (before, _fault.open_fds())
        print(name, number, text.replace("\\n", " "))
"""


def refused(preparation, creation="create()", **start):
    """Run CREATE with *preparation* between the import and create(); return its outcome as (name, errno, message)."""
    source = "\n".join(dedent(part) for part in (CREATE, preparation, creation))
    result = _fault.run_script(source, **start).check()
    name, number, text = result.stdout.strip("\n").split(" ", 2)
    return name, int(number), text


# --- seccomp ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("denied", [("setup",), ("setup", "enter", "register")])
def test_seccomp_eperm(denied):
    name, number, text = refused(f"_fault.deny({denied!r})")
    assert (name, number) == ("UringUnavailableError", errno.EPERM)
    assert "seccomp" in text
    assert "io_uring_disabled" not in text


def test_seccomp_enosys():
    """Some container runtimes answer as an old kernel would: the message names both."""
    name, number, text = refused("_fault.deny(('setup',), 38)")
    assert (name, number) == ("UringUnavailableError", errno.ENOSYS)
    assert "seccomp" in text
    assert "kernel" in text


@pytest.mark.parametrize("number", [errno.EACCES, errno.EINVAL, errno.ENOMEM, errno.EIO])
def test_seccomp_with_another_errno(number):
    """Whatever the errno is, it is kept, and the message is not empty."""
    name, seen, text = refused(f"_fault.deny(('setup',), {number})")
    assert (name, seen) == ("UringUnavailableError", number)
    assert len(text) > 20


def test_every_attempt_is_refused_alike():
    result = _fault.run_script(dedent(CREATE) + "_fault.deny()\nfor _ in range(50): create()").check()
    assert len(set(result.stdout.splitlines())) == 1


@pytest.mark.parametrize("call", ["enter", "register"])
def test_seccomp_that_forbids_only_part(call):
    """Creation or the first run fails, at once and with the errno; nothing spins, and close works."""
    result = _fault.run_script(
        f"""
        import os, time
        import _fault
        import linux_event

        before = _fault.open_fds()
        _fault.deny(["{call}"])
        used = time.process_time()
        try:
            loop = linux_event.Loop()
        except OSError as error:
            print(error.errno)
        else:
            loop.timer(3600, print)
            try:
                loop.run(timeout=5)
            except OSError as error:
                print(error.errno)
            loop.close()
        assert _fault.open_fds() == before
        assert time.process_time() - used < 2
        """
    )
    result.check(str(errno.EPERM))


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS])
def test_import_where_io_uring_is_refused(error):
    _fault.run_script(
        f"""
        import _fault
        _fault.deny(error={error})
        import linux_event, linux_event.watchers
        print(linux_event.Loop.__name__)
        """
    ).check("Loop")


def test_import_makes_no_call_of_io_uring():
    """A filter that kills would end the process at the first one."""
    _fault.run_script(
        """
        import _fault
        _fault.deny(error=None)
        import linux_event
        _fault.import_everything()
        print(linux_event.Events.READ, linux_event.get_include() != "")
        """
    ).check("r True")


def test_report_names_the_cause():
    """``python -m linux_event`` tells it to the user."""
    result = _fault.run_script(
        """
        import _fault, runpy, sys
        _fault.deny()
        sys.argv[1:] = []
        runpy.run_module("linux_event", run_name="__main__", alter_sys=True)
        """
    )
    assert "seccomp" in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


# --- the sysctl ------------------------------------------------------------------------------------------------------


@requires_root
def test_sysctl_forbids_to_all():
    name, number, text = refused("_fault.fake_sysctl('kernel.io_uring_disabled', 2); _fault.deny(['setup'])")
    assert (name, number) == ("UringUnavailableError", errno.EPERM)
    assert "kernel.io_uring_disabled is 2" in text
    assert "sysctl -w kernel.io_uring_disabled=0" in text


@requires_root
def test_sysctl_forbids_to_the_unprivileged():
    name, number, text = refused(
        "_fault.fake_sysctl('kernel.io_uring_disabled', 1); _fault.become_unprivileged(); _fault.deny(['setup'])"
    )
    assert (name, number) == ("UringUnavailableError", errno.EPERM)
    assert "kernel.io_uring_disabled is 1" in text
    assert "kernel.io_uring_group" in text


@requires_root
def test_sysctl_that_does_not_apply():
    """Root may, whatever 1 says, so it must be the filter."""
    _, number, text = refused("_fault.fake_sysctl('kernel.io_uring_disabled', 1); _fault.deny(['setup'])")
    assert number == errno.EPERM
    assert "seccomp" in text


# --- memory ----------------------------------------------------------------------------------------------------------

REFUSES_MEMORY = """
    import _fault
    _fault.become_unprivileged(0)
    print(_fault.uring_setup(8))
"""


@requires_root
def test_memlock_limit_of_nothing():
    if _fault.run_script(REFUSES_MEMORY).stdout.strip() == "0":
        pytest.skip("this kernel does not count the memory of rings")
    name, number, text = refused("_fault.become_unprivileged(memlock=0)")
    assert (name, number) == ("UringUnavailableError", errno.ENOMEM)
    assert "memlock" in text
    assert "ulimit -l" in text


@requires_root
def test_memlock_limit_of_little():
    """A loop with smaller queues, as many as are allowed, is better than none: it works."""
    name, _, _ = refused("_fault.become_unprivileged(memlock=65536)", "create(entries=4096, cq_entries=65536)")
    assert name == "Loop"
    name, _, _ = refused("_fault.become_unprivileged(memlock=65536)")
    assert name == "Loop"


@requires_root
def test_loops_made_and_closed_in_a_hurry_under_a_limit():
    """The kernel counts the memory of a closed ring for a moment more: creation waits for it and does not fail."""
    _fault.run_script(
        """
        import _fault
        import linux_event

        _fault.become_unprivileged(memlock=1 << 20)
        for _ in range(40):
            with linux_event.Loop(entries=1024) as loop:
                loop.timer(0, lambda watcher: None)
                loop.run()
        print("all")
        """
    ).check("all")


@requires_strace
def test_mapping_of_the_ring_fails():
    result = _fault.run_injected(dedent(CREATE) + "create()", "mmap:error=ENOMEM", path="anon_inode:[io_uring]").check()
    assert "INJECTED" in result.trace
    name, number, _ = result.stdout.split(" ", 2)
    assert (name, int(number)) == ("UringUnavailableError", errno.ENOMEM)


# --- fds -------------------------------------------------------------------------------------------------------------


def test_no_fd_left():
    """EMFILE is an error like any other of the program, not a refusal of io_uring; nothing half made is left."""
    result = _fault.run_script(dedent(CREATE) + "for leave in range(12): create(leave)\ncreate()").check()
    outcomes = [line.split(" ", 2)[:2] for line in result.stdout.splitlines()]
    assert outcomes[0] == ["OSError", str(errno.EMFILE)]
    assert outcomes[-1] == ["Loop", "0"]
    refusals = outcomes.count(outcomes[0])
    assert outcomes == [outcomes[0]] * refusals + [outcomes[-1]] * (len(outcomes) - refusals)


def test_no_fd_left_while_running():
    """Watchers, timers, posts and signals need no fd of their own; what needs one raises EMFILE and works later."""
    _fault.run_script(
        """
        import errno, os, signal
        import _fault
        import linux_event

        with linux_event.Loop() as loop:
            read_end, write_end = os.pipe()
            loop.timer(0.001, lambda watcher: None)
            loop.run(timeout=20)
            fds = _fault.fill_fds(0)
            called = []
            loop.io(read_end, "r", lambda watcher, events: (called.append("io"), watcher.destroy()))
            loop.timer(0.001, lambda watcher: called.append("timer"))
            loop.post(called.append, "post")
            os.write(write_end, b"x")
            try:
                loop.signal("USR1", lambda watcher, signum: (called.append("signal"), watcher.destroy()))
            except OSError as error:
                assert error.errno == errno.EMFILE
                called.append("signal")
            else:
                signal.raise_signal(signal.SIGUSR1)
            loop.run(timeout=20)
            assert sorted(called) == ["io", "post", "signal", "timer"], called
            for fd in fds:
                os.close(fd)
            loop.signal("USR1", lambda watcher, signum: (called.append("again"), watcher.destroy()))
            signal.raise_signal(signal.SIGUSR1)
            loop.run(timeout=20)
            assert called[-1] == "again"
        print("done")
        """
    ).check("done")


def test_first_run_without_an_fd():
    """What run itself may have to open: an error with errno, and it runs once there are fds again."""
    _fault.run_script(
        """
        import errno, os
        import _fault
        import linux_event

        with linux_event.Loop() as loop:
            called = []
            loop.timer(0.001, called.append)
            fds = _fault.fill_fds(0)
            try:
                loop.run(timeout=20)
            except OSError as error:
                assert type(error) is OSError and error.errno == errno.EMFILE, error
            for fd in fds:
                os.close(fd)
            loop.run(timeout=20)
            assert len(called) == 1
        print("done")
        """
    ).check("done")


@requires_strace
def test_the_eventfd_of_the_loop_is_refused():
    """The ring is given back."""
    result = _fault.run_injected(dedent(CREATE) + "create()", "eventfd2:error=EMFILE").check()
    assert "INJECTED" in result.trace
    name, number, _ = result.stdout.split(" ", 2)
    assert (name, int(number)) == ("OSError", errno.EMFILE)


# --- old kernels -----------------------------------------------------------------------------------------------------


@requires_strace
def test_a_kernel_without_the_flags():
    result = _fault.run_injected(dedent(CREATE) + "create()", "io_uring_setup:error=EINVAL").check()
    name, number, text = result.stdout.split(" ", 2)
    assert (name, int(number)) == ("UringUnavailableError", errno.EINVAL)
    assert "6.1" in text


@requires_strace
@pytest.mark.parametrize("name", ["ENOMEM", "EPERM", "ENOSYS"])
def test_refusal_for_a_moment(name):
    """ENOMEM passes: it is tried again. The others are final at once."""
    result = _fault.run_injected(dedent(CREATE) + "create()", f"io_uring_setup:error={name}:when=1..2").check()
    assert "INJECTED" in result.trace
    outcome = result.stdout.split(" ", 2)
    if name == "ENOMEM":
        assert outcome[0] == "Loop"
    else:
        assert outcome[:2] == ["UringUnavailableError", str(getattr(errno, name))]


# --- taken away later ------------------------------------------------------------------------------------------------

LATER = """
    import errno, os, sys, time
    import _fault
    import linux_event

    def expect_error(loop, *numbers):
        '''run raises, each time, at once and without spinning; nobody is called; then the loop closes.'''
        for _ in range(3):
            used = time.process_time()
            try:
                loop.run(timeout=5)
            except OSError as error:
                assert error.errno in numbers, error
            else:
                raise AssertionError("run did not raise")
            assert not loop.is_running()
            assert time.process_time() - used < 2
        loop.close()
        assert loop.is_closed()
        assert loop.statistics().watchers == 0

    before = _fault.open_fds()
    loop = linux_event.Loop()
    read_end, write_end = os.pipe()
    loop.io(read_end, "r", print)
    loop.timer(3600, print)
    loop.signal("USR1", print)
"""


@pytest.mark.parametrize("ran", [True, False])
@pytest.mark.parametrize("denied", [("enter",), ("enter", "register", "setup")])
def test_seccomp_after_creation(denied, ran):
    result = _fault.run_script(
        dedent(LATER)
        + f"""
if {ran}:
    loop.run_once(0)
_fault.deny({denied!r})
expect_error(loop, errno.EPERM)
os.close(read_end)
os.close(write_end)
assert _fault.open_fds() == before, (before, _fault.open_fds())
print("done")
"""
    )
    result.check("done")


def test_ring_closed_by_the_user():
    """``os.close(_fault.ring_fd())``: the next wait raises EBADF."""
    result = _fault.run_script(
        dedent(LATER)
        + """
loop.run(timeout=0.001)
os.close(_fault.ring_fd())
expect_error(loop, errno.EBADF)
os.close(read_end)
os.close(write_end)
assert _fault.open_fds() == before, (before, _fault.open_fds())
print("done")
"""
    )
    result.check("done")


def test_ring_closed_by_the_user_before_the_first_run():
    """What the first run opens may get the number of the ring: then the kernel says that it is no ring."""
    result = _fault.run_script(
        dedent(LATER)
        + """
os.close(_fault.ring_fd())
expect_error(loop, errno.EBADF, errno.EOPNOTSUPP)
print("done")
"""
    )
    result.check("done")


def test_ring_closed_by_a_callback():
    result = _fault.run_script(
        dedent(LATER)
        + """
loop.timer(0, lambda watcher: os.close(_fault.ring_fd()))
expect_error(loop, errno.EBADF, errno.EOPNOTSUPP)
print("done")
"""
    )
    result.check("done")


def test_ring_replaced_by_another_file():
    """The number of the ring taken by /dev/null: the kernel says that it is no ring."""
    result = _fault.run_script(
        dedent(LATER)
        + """
loop.run_once(0)
null = os.open("/dev/null", os.O_RDWR)
os.dup2(null, _fault.ring_fd())
expect_error(loop, errno.EOPNOTSUPP)
print("done")
"""
    )
    result.check("done")


def test_all_fds_closed_under_the_loop():
    """``os.closerange``, as a program that turns into a daemon does."""
    result = _fault.run_script(
        dedent(LATER)
        + """
loop.run_once(0)
os.closerange(3, 1000)
expect_error(loop, errno.EBADF, errno.EOPNOTSUPP)
print("done")
"""
    )
    result.check("done")


# --- interpreters ----------------------------------------------------------------------------------------------------


def test_sub_interpreters():
    """Import there either works or is refused with ImportError; it never crashes, nor harms the main interpreter."""
    result = _fault.run_script(
        '''
        import sys
        import linux_event

        try:
            import _interpreters as interpreters
        except ImportError:
            import _xxsubinterpreters as interpreters

        code = """if True:
            import sys
            sys.path[:] = %r
            try:
                import linux_event
                with linux_event.Loop() as loop:
                    called = []
                    loop.timer(0, called.append)
                    loop.run()
                    assert len(called) == 1
            except ImportError as error:
                assert "interpreter" in str(error), error
        """ % (sys.path,)

        with linux_event.Loop() as loop:
            called = []
            loop.periodic(0.001, called.append)
            for _ in range(3):
                identifier = interpreters.create()
                failure = interpreters.run_string(identifier, code)
                assert failure is None, failure
                loop.run_once()
                interpreters.destroy(identifier)
                loop.run_once()
            assert len(called) >= 2
        print("done")
        '''
    )
    assert result.returncode == 0, result
    assert result.stdout.strip() == "done"
