"""Faults that the tests provoke, and the bounded child processes that they are provoked in.

A fault that cannot be undone (a seccomp filter, a lowered limit, another uid) belongs in a child, so most tests here
hand a script to :func:`run_script`; the script imports this module for the helpers of its second half.
"""

import contextlib
import ctypes
import dataclasses
import errno
import faulthandler
import functools
import importlib
import os
import pickle
import pkgutil
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import traceback

# The three numbers are the same on every architecture that this package runs on.
IO_URING_CALLS = {"setup": 425, "enter": 426, "register": 427}

# Seconds after which a wait has failed, far above what a busy machine and a slow build need.
BOUND = 60

IS_SANITIZED = "libasan" in os.environ.get("LD_PRELOAD", "")

_libc = ctypes.CDLL(None, use_errno=True)


# ---------------------------------------------------------------------------------------------------------------------
# Bounded children


@dataclasses.dataclass
class Result:
    """How a script ended: ``returncode`` as in :mod:`subprocess`, what it wrote, and strace's log if there was one."""

    returncode: int
    stdout: str
    stderr: str
    trace: str = ""

    def check(self, stdout=None, stderr=""):
        """Assert that the script ended well, with exactly these outputs (None: any)."""
        assert self.returncode == 0, f"exit status {self.returncode}\n{self.stdout}\n{self.stderr}"
        if stdout is not None:
            assert self.stdout.strip() == stdout, f"{self.stdout}\n{self.stderr}"
        if stderr is not None:
            assert self.stderr.strip() == stderr, self.stderr
        return self


def script_environment(extra=None):
    """The environment of a script: it imports what this process would import.

    Threads that the kernel works with count as the script's: Python 3.12 and newer then warn of a fork, which is harmless.
    What it prints comes line by line: without a buffer, print() writes each word by itself, and lines of several processes mix.
    """
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(path for path in sys.path if path))
    environment["PYTHONWARNINGS"] = "ignore:This process:DeprecationWarning"
    environment.pop("PYTHONUNBUFFERED", None)
    environment.update(extra or {})
    return environment


def start_script(source, *arguments, options=(), prefix=(), env=None, **popen):
    """Start *source* as ``python -c`` in a session of its own, with pipes for its streams; return the ``Popen``."""
    command = [*prefix, sys.executable, *options, "-c", textwrap.dedent(source), *map(str, arguments)]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(
        command, env=script_environment(env), text=True, start_new_session=True, **{**streams, **popen}
    )


def finish_script(process, timeout=BOUND):
    """Wait for a script at most *timeout* seconds; kill it with all its children and fail when it takes longer."""
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate()
        raise AssertionError(f"script took longer than {timeout} s\n{stdout}\n{stderr}") from None
    return Result(process.returncode, stdout, stderr)


def run_script(source, *arguments, timeout=BOUND, **start):
    """Run *source* in a Python of its own and return its :class:`Result`."""
    return finish_script(start_script(source, *arguments, **start), timeout)


def prepare_fork():
    """Make sure that a child can be forked that allocates memory.

    gcc's sanitizer does not take its allocator's locks at a fork, and a thread, be it the one of pytest's watchdog that
    is just ending, may hold them: the child would wait for ever.
    """
    if IS_SANITIZED:
        faulthandler.cancel_dump_traceback_later()
        wait_until(lambda: count_threads() == 1)


def start_fork(function):
    """Call *function* in a forked child and return the child's pid; whatever happens there, it ends with ``os._exit``."""
    prepare_fork()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        function()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def in_fork(function, timeout=BOUND):
    """Call *function* in a forked child that ends with ``os._exit`` and return what it returned.

    An exception in the child arrives here as ``AssertionError`` with its traceback; a child that does not end in
    time is killed.
    """
    read_end, write_end = os.pipe()

    def body():
        os.close(read_end)
        try:
            answer = (True, function())
        except BaseException:
            answer = (False, traceback.format_exc())
        with os.fdopen(write_end, "wb") as stream:
            pickle.dump(answer, stream)

    pid = start_fork(body)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as stream:
        status = wait_child(pid, timeout)
        answer = stream.read()
    assert answer, f"child ended without an answer, exit status {status}"
    succeeded, value = pickle.loads(answer)
    assert succeeded, value
    assert status == 0, f"child ended with exit status {status}"
    return value


def wait_child(pid, timeout=BOUND):
    """Wait for our child *pid* at most *timeout* seconds and return its exit status, negative for a signal."""
    pidfd = os.pidfd_open(pid)
    try:
        if not select.select([pidfd], [], [], timeout)[0]:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise AssertionError(f"child {pid} took longer than {timeout} s")
    finally:
        os.close(pidfd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def in_thread(function, *arguments):
    """Call function(*arguments) in a new thread, wait for its end, and return or raise what it did."""
    answer = []

    def body():
        try:
            answer.append((function(*arguments), None))
        except BaseException as error:
            answer.append((None, error))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join(BOUND)
    assert not thread.is_alive(), "the thread did not end"
    result, error = answer.pop()
    if error is not None:
        raise error
    return result


class Unexpected(BaseException):
    """Raised by :func:`unexpected`; no ``Exception``, so that it leaves run() and is not just logged."""


def unexpected(*arguments):
    """A callback that must not be called."""
    raise Unexpected(arguments)


# ---------------------------------------------------------------------------------------------------------------------
# Waiting for a state that gives no event


def wait_until(condition, timeout=BOUND):
    """Return once ``condition()`` is true; fail after *timeout* seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{condition} not true after {timeout} s"
        time.sleep(0.0005)


def strange_threads_are_masked():
    """Whether all threads that Python does not know block signals, such as that which pytest starts for each test to report one
    that hangs. It does so itself, and until then it may be given a signal that was meant for the test."""
    known = {str(thread.native_id) for thread in threading.enumerate()}
    for task in set(os.listdir("/proc/self/task")) - known:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/self/task/{task}/status") as file:
            lines = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
            # While a thread begins, all is blocked, even 32, which pthread_sigmask(3) cannot block. So are workers of the kernel.
            mask = int(lines["SigBlk"], 16)
            is_ready = mask & 1 << (signal.SIGUSR1 - 1) and not mask & 1 << (32 - 1)
            if not is_ready and not lines["Name"].startswith("iou-"):
                return False
    return True


def is_asleep(pid, thread=None):
    """Whether a thread (default: the main one) is blocked in io_uring_enter(2)."""
    thread = thread or pid
    try:
        with open(f"/proc/{pid}/task/{thread}/syscall") as file:
            call = file.read().split()[0]
        with open(f"/proc/{pid}/task/{thread}/stat") as file:
            state = file.read().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return call == str(IO_URING_CALLS["enter"]) and state in "SD"


def wait_asleep(pid=None, thread=None, timeout=BOUND):
    """Wait until a thread of *pid* (default: the main thread of this process) sleeps in io_uring_enter(2)."""
    pid = pid or os.getpid()
    wait_until(functools.partial(is_asleep, pid, thread), timeout)


def count_threads():
    """The threads of this process that run in user mode: those of the kernel for io_uring are in the list, too."""
    count = 0
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/self/task/{task}/comm") as file:
            count += not file.read().startswith("iou-")
    return count


class WhenAsleep:
    """A thread that calls *function* as soon as the thread that made this object sleeps in io_uring_enter(2).

    As a context manager; what *function* raised is raised at the end of the block.
    """

    def __init__(self, function, times=1):
        self.function = function
        self.times = times
        self.error = None
        self.sleeper = threading.get_native_id()
        self.thread = threading.Thread(target=self._run)

    def _run(self):
        try:
            for _ in range(self.times):
                wait_asleep(thread=self.sleeper)
                self.function()
        except BaseException as error:
            self.error = error

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exception):
        self.thread.join()
        if self.error is not None:
            raise self.error


def open_fds():
    """The fds of this process with what each refers to, without the one of the listing itself."""
    fds = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            fds[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
    return fds


def ring_fd():
    """The fd of the only ring of this process."""
    [fd] = [fd for fd, target in open_fds().items() if target == "anon_inode:[io_uring]"]
    return fd


def signal_masks(status="/proc/self/status"):
    """The signal masks of a process or thread by name (``SigBlk``, ``SigIgn``, ``SigCgt``), as ints."""
    with open(status) as file:
        return {line[:6]: int(line.split()[1], 16) for line in file if line[:6] in ("SigBlk", "SigIgn", "SigCgt")}


def disposition(signum):
    """What the kernel has for a signal of this process: ``"default"``, ``"ignored"`` or ``"caught"``."""
    masks, bit = signal_masks(), 1 << (signum - 1)
    if masks["SigIgn"] & bit:
        return "ignored"
    return "caught" if masks["SigCgt"] & bit else "default"


# ---------------------------------------------------------------------------------------------------------------------
# Faults for the script itself: none of them can be undone


class _Instruction(ctypes.Structure):
    """``struct sock_filter`` of linux/filter.h."""

    _fields_ = (("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    """``struct sock_fprog`` of linux/filter.h."""

    _fields_ = (("length", ctypes.c_uint16), ("filter", ctypes.POINTER(_Instruction)))


_LOAD_NUMBER, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_PR_SET_NO_NEW_PRIVS, _SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC = 38, 1, 1
_SECCOMP_CALL = {"x86_64": 317, "aarch64": 277, "riscv64": 277, "ppc64le": 358, "s390x": 348}


def _check(result, what):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def deny(names=("setup", "enter", "register"), error=errno.EPERM):
    """Make the io_uring calls *names*, or others by their numbers, fail with *error* in all threads from now on; None kills the
    process instead."""
    action = _KILL_PROCESS if error is None else _ERRNO | error
    code = [_Instruction(_LOAD_NUMBER, 0, 0, 0)]
    for name in names:
        code += [_Instruction(_JUMP_EQUAL, 0, 1, IO_URING_CALLS.get(name, name)), _Instruction(_RETURN, 0, 0, action)]
    code.append(_Instruction(_RETURN, 0, 0, _ALLOW))
    program = _Program(len(code), (_Instruction * len(code))(*code))
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    number = ctypes.c_long(_SECCOMP_CALL[os.uname().machine])
    flags = ctypes.c_ulong(_SECCOMP_FILTER_FLAG_TSYNC)
    _check(_libc.syscall(number, ctypes.c_ulong(_SECCOMP_SET_MODE_FILTER), flags, ctypes.byref(program)), "seccomp")


_CLONE_NEWNS, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x00020000, 4096, 16384, 1 << 18


def fake_sysctl(name, value):
    """Let this process read *value* for a kernel setting, by a mount namespace of its own; the kernel's own stays."""
    _check(_libc.unshare(_CLONE_NEWNS), "unshare")
    _check(_libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None), "mount")
    with tempfile.NamedTemporaryFile("w") as file:
        print(value, file=file, flush=True)
        os.chmod(file.name, 0o444)
        target = f"/proc/sys/{name.replace('.', '/')}"
        _check(_libc.mount(file.name.encode(), target.encode(), None, ctypes.c_ulong(_MS_BIND), None), "mount --bind")


def mount_small(path, size):
    """Mount an empty file system of *size* bytes at *path*, for this process alone."""
    _check(_libc.unshare(_CLONE_NEWNS), "unshare")
    _check(_libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None), "mount")
    options = f"size={size}".encode()
    _check(_libc.mount(b"tmpfs", os.fsencode(path), b"tmpfs", ctypes.c_ulong(0), options), "mount tmpfs")


def import_everything():
    """Import every module of the package and return them; those that need an extra which is not installed are left out."""
    import linux_event

    modules = []
    for module in pkgutil.walk_packages(linux_event.__path__, "linux_event."):
        if not module.name.endswith("__main__"):
            try:
                modules.append(importlib.import_module(module.name))
            except ModuleNotFoundError as error:
                if error.name != "pycares":
                    raise
    return modules


def become_unprivileged(memlock=None):
    """Become a user that nobody else is, after importing the whole package; *memlock*: its RLIMIT_MEMLOCK in bytes.

    The kernel counts locked memory per user over all processes, so each process takes a uid of its own.
    """
    import_everything()
    if memlock is not None:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (memlock, memlock))
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    uid = 100_000 + os.getpid()
    os.setresuid(uid, uid, uid)


def uring_setup(entries):
    """Create a ring with the bare system call and close it: 0, or the errno of the refusal."""
    parameters = (ctypes.c_uint32 * 30)()
    fd = _libc.syscall(ctypes.c_long(IO_URING_CALLS["setup"]), ctypes.c_uint(entries), ctypes.byref(parameters))
    if fd < 0:
        return ctypes.get_errno()
    os.close(fd)
    return 0


def fill_fds(leave):
    """Open /dev/null until only *leave* more fds can be opened; return the fds."""
    limit = max(open_fds()) + leave + 8
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    fds = []
    while True:
        try:
            fds.append(os.open("/dev/null", os.O_RDONLY))
        except OSError as error:
            assert error.errno == errno.EMFILE
            break
    for _ in range(leave):
        os.close(fds.pop())
    return fds


@contextlib.contextmanager
def short_of_fds(leave=0):
    """Only *leave* more fds can be opened, until the end of the block."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    fds = fill_fds(leave)
    try:
        yield
    finally:
        for fd in fds:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


# ---------------------------------------------------------------------------------------------------------------------
# System calls that strace makes fail


@functools.cache
def strace_missing():
    """Why system calls cannot be injected here, or None."""
    path = shutil.which("strace")
    if path is None:
        return "strace is not installed"
    result = subprocess.run(
        [path, "-f", "-qq", "-o", "/dev/null", "-e", "trace=getpid", "-e", "inject=getpid:error=EPERM", "true"],
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "LD_PRELOAD"},
    )
    return None if result.returncode == 0 else f"strace is not permitted: {result.stderr.strip()}"


def run_injected(source, *injections, path=None, timeout=BOUND, env=None):
    """Run *source* under strace with *injections* such as ``"io_uring_enter:error=EINTR:when=2+3"``.

    *path* restricts them to calls on that file. ``Result.trace`` is strace's log of those calls and of signals.
    """
    preload = os.environ.get("LD_PRELOAD")
    with tempfile.NamedTemporaryFile("r", prefix="le-strace-") as log:
        prefix = ["strace", "-f", "-qq", "-o", log.name]
        prefix += ["-e", "trace=" + ",".join({injection.partition(":")[0] for injection in injections})]
        for injection in injections:
            prefix += ["-e", f"inject={injection}"]
        if path is not None:
            prefix += ["-P", path]
        if preload:  # A sanitizer's runtime is for the script, not for strace.
            prefix += ["-E", f"LD_PRELOAD={preload}"]
        result = run_script(source, prefix=prefix, env={**(env or {}), "LD_PRELOAD": ""}, timeout=timeout)
        result.trace = log.read()
    return result
