"""Child processes whose pipes are streams. subprocess.Popen starts them, a Child tells of the end, signals go through a pidfd."""

cimport cython
from libc.errno cimport ESRCH, errno
from libc.stdint cimport uint32_t, uint64_t
from linux_event.arguments cimport callable_argument, integer_within
from linux_event.engine cimport Engine
from linux_event.errors cimport check_errno
from linux_event.linux cimport F_SETPIPE_SZ, O_CLOEXEC, close, fcntl, pipe2
from linux_event.loop cimport add_method
from linux_event.net.native cimport LE_STREAM_NO_READING, LE_STREAM_NO_SOCKET, LE_STREAM_NO_WRITING
from linux_event.net.receiving cimport stream_begin
from linux_event.net.stream cimport Stream, stream_new
from linux_event.net.transport cimport stream_end
from linux_event.requests cimport loop_guard
from linux_event.watchers.child cimport Child
from linux_event.watchers.signal cimport signals_lift, signals_lower

import os

cdef extern from *:
    """
    #include <sys/syscall.h>
    #include <unistd.h>
    #ifndef SYS_pidfd_send_signal
    #define SYS_pidfd_send_signal 424
    #endif
    #ifndef SYS_pidfd_open
    #define SYS_pidfd_open 434
    #endif
    static int le_pidfd_of(int pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }
    static int le_pidfd_send(int fd, int signum) { return (int)syscall(SYS_pidfd_send_signal, fd, signum, NULL, 0); }
    """
    int le_pidfd_of(int pid)
    int le_pidfd_send(int fd, int signum)

cdef enum:
    PIPE = -1  # of subprocess
    STDOUT = -2
    PIPES = 3
    SIGNAL_MAX = 64
    SIGKILL = 9
    SIGTERM = 15
    PIPE_SIZE_MAX = 1 << 30

# What Popen would make of bytes, and its value for leaving them alone.
cdef dict of_text = {"bufsize": -1, "encoding": None, "errors": None, "text": None, "universal_newlines": None}


@cython.final
cdef class Process:
    """A child process that ``loop.spawn`` has started. The loop keeps it until it has ended, or the loop is closed.

    - ``stdin``, ``stdout``, ``stderr``: the ``Stream`` of a pipe, where PIPE was asked for, else None.
    - ``on_exit``: ``callback(process, returncode)``, or None: it has ended. Assignable.

    Stands on ``subprocess.Popen``, on pidfd_open(2), pidfd_send_signal(2) and what ``Child`` stands on.
    """
    cdef Engine owner
    cdef object popen
    cdef Child child             # watches it, until it has ended
    cdef object exit_function    # on_exit
    cdef object code
    cdef object data_value
    cdef Stream input, output, errors  # of its pipes, or None
    cdef int pidfd               # -1: it has ended
    cdef object __weakref__

    def __cinit__(self):
        self.pidfd = -1

    def __init__(self, *args, **kwargs):
        raise TypeError("Process cannot be created: call spawn() of a Loop")

    def __dealloc__(self):
        close_fd(&self.pidfd)

    def send_signal(self, signal):
        """Send a signal to the process. No effect once it has ended, and never on another one that has its pid now.

        :param signal: an int, 0 .. 64, or a ``signal.Signals``. 0: none, but errors are told.
        :raises PermissionError: the process runs as another user now.
        :raises ValueError, TypeError: out of range; of a wrong type.

        In any thread, also when the loop has been closed. Stands on pidfd_send_signal(2).
        """
        cdef int number = <int>integer_within(signal, "signal", 0, SIGNAL_MAX)
        if self.pidfd >= 0 and le_pidfd_send(self.pidfd, number) < 0 and errno != ESRCH:
            raise OSError(errno, f"{os.strerror(errno)}: signal {number} to process {self.popen.pid}")

    def terminate(self):
        """``send_signal`` with SIGTERM."""
        self.send_signal(SIGTERM)

    def kill(self):
        """``send_signal`` with SIGKILL."""
        self.send_signal(SIGKILL)

    @property
    def pid(self):
        """The pid, an int."""
        return self.popen.pid

    @property
    def returncode(self):
        """How it has ended, an int: the exit status, or the negative number of the signal that has ended it. None: not yet, as
        far as the loop has seen, or somebody else has reaped it, and nobody knows."""
        return self.code

    @property
    def args(self):
        """The program and its arguments, as they were given."""
        return self.popen.args

    @property
    def stdin(self):
        """The ``Stream`` that writes to its standard input, or None. ``write_eof`` closes the pipe."""
        return self.input

    @property
    def stdout(self):
        """The ``Stream`` that receives its standard output, or None."""
        return self.output

    @property
    def stderr(self):
        """The ``Stream`` that receives its standard error, or None."""
        return self.errors

    @property
    def on_exit(self):
        """``callback(process, returncode)``, or None. Called once, when the process has ended and is reaped; ``returncode`` is as
        the attribute says. Data from its pipes may still come after that. Assignable."""
        return self.exit_function

    @on_exit.setter
    def on_exit(self, function):
        if function is not None:
            callable_argument(function, "on_exit")
        self.exit_function = function

    @property
    def loop(self):
        """The loop of the process."""
        return self.owner

    @property
    def data(self):
        """Anything of the user's, default None. Assignable at any time."""
        return self.data_value

    @data.setter
    def data(self, data):
        self.data_value = data

    def __repr__(self):
        if self.code is not None:
            state = f"returncode={self.code}"
        else:
            state = "gone" if self.child is None else "running"
        return f"<{type(self).__name__} pid={self.popen.pid} {self.popen.args!r} {state}>"


cdef void close_fd(int *fd) noexcept:
    if fd[0] >= 0:
        close(fd[0])
    fd[0] = -1


# -- Pipes -------------------------------------------------------------------------------------------------------------

@cython.final
cdef class _Pipes:
    """The pipes of a process that is being started. What is left of them is closed with the object."""
    cdef int ours[PIPES]
    cdef int theirs[PIPES]

    def __cinit__(self):
        for place in range(PIPES):
            self.ours[place] = self.theirs[place] = -1

    def __dealloc__(self):
        for place in range(PIPES):
            close_fd(&self.ours[place])
        close_theirs(self)


cdef int close_theirs(_Pipes self) noexcept:
    for place in range(PIPES):
        close_fd(&self.theirs[place])
    return 0


cdef object pipe_argument(_Pipes self, int place, object given, int size):
    """What Popen gets for one of the three; for PIPE a pipe is made."""
    cdef int fds[2]
    if type(given) is not int or given != PIPE:
        return given
    check_errno(pipe2(fds, O_CLOEXEC))
    self.ours[place], self.theirs[place] = fds[place == 0], fds[place != 0]
    if size > 0:
        check_errno(fcntl(fds[0], F_SETPIPE_SZ, size))
    return self.theirs[place]


cdef Stream stream_of(_Pipes self, int place, Engine loop):
    cdef uint32_t flags = LE_STREAM_NO_SOCKET | (LE_STREAM_NO_READING if place == 0 else LE_STREAM_NO_WRITING)
    cdef Stream stream
    if self.ours[place] < 0:
        return None
    stream = stream_new(loop, self.ours[place], flags)
    self.ours[place] = -1
    stream_begin(stream)
    return stream


# -- The end -----------------------------------------------------------------------------------------------------------

@cython.final
cdef class _Exit:
    """What the Child calls."""
    cdef Process process

    def __call__(self, watcher, pid, returncode):
        cdef Process process = self.process
        self.process = None
        process.code = returncode
        close_fd(&process.pidfd)
        if returncode is None:
            try:
                process.popen.poll()  # lets it know that there is nothing to reap any more
            except MemoryError:
                pass
        if process.child is not None:
            process.child.destroy()
            process.child = None
        function, process.exit_function = process.exit_function, None
        try:
            if function is None:
                process.owner.core.callbacks -= 1
            else:
                function(process, returncode)
        except Exception as error:
            process.owner.tell(process, error)


cdef int give_up(Process self) except -1:
    """It runs, and there is no memory or no fd for what belongs to it."""
    for stream in (self.input, self.output, self.errors):
        if stream is not None:
            stream_end(<Stream>stream, None)
    self.popen.kill()
    self.popen.wait()
    return 0


# -- loop.spawn --------------------------------------------------------------------------------------------------------

cdef int start(Process self, object args, _Pipes pipes, dict options) except -1:
    cdef uint64_t bits
    import subprocess
    bits = signals_lift()
    try:
        self.popen = subprocess.Popen(args, **options)
    finally:
        signals_lower(bits)
    return close_theirs(pipes)


cdef int attach(Process self, _Pipes pipes) except -1:
    cdef _Exit ended = _Exit.__new__(_Exit)
    ended.process = self
    loop_guard(self.owner)  # the arguments may have run code of the user's
    self.pidfd = le_pidfd_of(self.popen.pid)
    if self.pidfd < 0 and errno != ESRCH:
        raise OSError(errno, f"{os.strerror(errno)}: process {self.popen.pid}")
    self.input = stream_of(pipes, 0, self.owner)
    self.output = stream_of(pipes, 1, self.owner)
    self.errors = stream_of(pipes, 2, self.owner)
    try:
        self.child = Child(self.owner, self.popen, ended)
    except (ProcessLookupError, ChildProcessError):
        # Where SIGCHLD is ignored the kernel reaps it, and does not say how it has ended.
        self.owner.defer(ended, None, self.popen.pid, None)
    return 0


@cython.binding(True)
def _spawn(self, args, *, stdin=None, stdout=None, stderr=None, cwd=None, env=None, on_exit=None, **options):
    """Start a program as a child process. Its pipes are streams.

    :param args: the program and its arguments, a sequence of str, bytes or path objects; or one of these alone.
    :param stdin: ``subprocess.PIPE``: a pipe, whose other end is ``process.stdin``; ``subprocess.DEVNULL``, an fd, or an object
        with ``fileno()``; None: that of this process.
    :param stdout, stderr: the same; ``stderr`` may be ``subprocess.STDOUT``: where ``stdout`` goes.
    :param cwd: the folder that it runs in, a path; None: that of this process.
    :param env: its environment, a mapping; None: that of this process.
    :param on_exit: ``callback(process, returncode)``, called once when it has ended: see ``Process.on_exit``.
    :param options: the others of ``subprocess.Popen``: ``executable``, ``shell``, ``close_fds``, ``pass_fds``, ``preexec_fn``,
        ``restore_signals``, ``start_new_session``, ``process_group``, ``user``, ``group``, ``extra_groups``, ``umask``,
        ``pipesize``.
    :returns: the ``Process``, once the program has been found and started. It keeps ``run`` going until it has ended.
    :raises OSError: as Popen: no such program (FileNotFoundError), not to be executed (PermissionError), a bad ``cwd``, no fd
        left (EMFILE), ...
    :raises ValueError: ``bufsize``, ``encoding``, ``errors``, ``text``, ``universal_newlines``: streams carry bytes; a NUL in an
        argument.
    :raises TypeError: an argument has a wrong type, or there is no such option.
    :raises LoopClosedError, WrongThreadError: as told by their names.

    Assign the callbacks of the streams right after the call. ``on_exit`` and the ends of the pipes come in any order: a child
    may close its pipes long before it ends, and whatever it has started may keep them open. A pipe that nobody listens to, and
    that is empty and at its end when the child has ended, is closed. To write to a child that does not read any more is
    BrokenPipeError in ``on_close`` of the stream, and never a signal. A process that has not ended when the loop is closed goes
    on; its pipes are closed. Signals that the loop has blocked are not blocked in the child.

    Stands on ``subprocess.Popen``, IORING_OP_READ and IORING_OP_WRITE for the pipes, and on what ``Child`` stands on. See
    pidfd_open(2), pipe(7).
    """
    cdef Process process
    cdef _Pipes pipes
    cdef int size
    if not isinstance(self, Engine):  # a base of Loop
        raise TypeError(f"loop must be a Loop, not {type(self).__name__} ({self!r})")
    loop_guard(<Engine>self)
    if on_exit is not None:
        callable_argument(on_exit, "on_exit")
    for name in of_text:
        value = options.pop(name, of_text[name])
        if value != of_text[name]:
            raise ValueError(f"{name}={value!r}: the pipes of a process are streams of bytes; it is for files of text")
    for name, given in (("stdin", stdin), ("stdout", stdout)):
        if type(given) is int and given == STDOUT:
            raise ValueError(f"{name} must not be STDOUT, which is for stderr alone")
    size = <int>integer_within(options.pop("pipesize", -1), "pipesize", -1, PIPE_SIZE_MAX)
    pipes = _Pipes.__new__(_Pipes)
    options["cwd"], options["env"] = cwd, env
    options["stdin"] = pipe_argument(pipes, 0, stdin, size)
    options["stdout"] = pipe_argument(pipes, 1, stdout, size)
    options["stderr"] = pipe_argument(pipes, 2, stderr, size)
    process = Process.__new__(Process)
    process.owner = self
    process.exit_function = on_exit
    start(process, args, pipes, options)
    try:
        attach(process, pipes)
    except BaseException:
        give_up(process)
        raise
    return process


add_method("spawn", _spawn)
