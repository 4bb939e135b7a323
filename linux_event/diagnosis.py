"""Why the kernel refused io_uring, in words that name the cause and the remedy.

The error number alone does not say it: ``EPERM`` comes from a sysctl, from a container's seccomp filter or from a
security module, and some container runtimes answer ``ENOSYS`` where they mean "forbidden". What the kernel shows in
``/proc`` tells these apart. Nothing but files is read here, so no seccomp filter objects to the question itself.

The module is imported only after a refusal and by ``python -m linux_event``, and it imports nothing that costs time.
"""

from __future__ import annotations

import os
from errno import EACCES, EINVAL, EMFILE, ENFILE, ENOMEM, ENOSYS, EPERM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: The oldest kernel on which the rings of this package can be made: 6.1 brought ``IORING_SETUP_DEFER_TASKRUN``.
KERNEL_REQUIRED = (6, 1)
#: The first kernel that had io_uring at all.
KERNEL_FIRST = (5, 1)

_FEATURES = (
    "SINGLE_MMAP NODROP SUBMIT_STABLE RW_CUR_POS CUR_PERSONALITY FAST_POLL POLL_32BITS SQPOLL_NONFIXED EXT_ARG "
    "NATIVE_WORKERS RSRC_TAGS CQE_SKIP LINKED_FILE REG_REG_RING RECVSEND_BUNDLE MIN_TIMEOUT RW_ATTR NO_IOWAIT"
)
_OPERATIONS = (
    "NOP READV WRITEV FSYNC READ_FIXED WRITE_FIXED POLL_ADD POLL_REMOVE SYNC_FILE_RANGE SENDMSG RECVMSG TIMEOUT "
    "TIMEOUT_REMOVE ACCEPT ASYNC_CANCEL LINK_TIMEOUT CONNECT FALLOCATE OPENAT CLOSE FILES_UPDATE STATX READ WRITE "
    "FADVISE MADVISE SEND RECV OPENAT2 EPOLL_CTL SPLICE PROVIDE_BUFFERS REMOVE_BUFFERS TEE SHUTDOWN RENAMEAT UNLINKAT "
    "MKDIRAT SYMLINKAT LINKAT MSG_RING FSETXATTR SETXATTR FGETXATTR GETXATTR SOCKET URING_CMD SEND_ZC SENDMSG_ZC "
    "READ_MULTISHOT WAITID FUTEX_WAIT FUTEX_WAKE FUTEX_WAITV FIXED_FD_INSTALL FTRUNCATE BIND LISTEN RECV_ZC EPOLL_WAIT "
    "READV_FIXED WRITEV_FIXED PIPE NOP128 URING_CMD128"
)
#: The bits of ``io_uring_params.features`` from the lowest on, without ``IORING_FEAT_``: io_uring_setup(2).
FEATURE_NAMES = tuple(_FEATURES.split())
#: The operations in the order of their codes, which begin with 0, without ``IORING_OP_``: io_uring_enter(2).
OPERATION_NAMES = tuple(_OPERATIONS.split())

#: The first kernel that has each operation, in the same order. Only for messages: what there is is always asked for.
_KERNELS = (
    "5.1 5.1 5.1 5.1 5.1 5.1 5.1 5.1 5.2 5.3 5.3 5.4 5.5 5.5 5.5 5.5 5.5 5.6 5.6 5.6 5.6 5.6 5.6 5.6 5.6 5.6 5.6 5.6 5.6 "
    "5.6 5.7 5.7 5.7 5.8 5.11 5.11 5.11 5.15 5.15 5.15 5.18 5.19 5.19 5.19 5.19 5.19 5.19 6.0 6.1 6.7 6.7 6.7 6.7 6.7 6.8 "
    "6.9 6.11 6.11 6.15 6.15 6.15 6.15 6.16 6.19 6.19"
)
OPERATION_KERNELS = dict(zip(OPERATION_NAMES, _KERNELS.split(), strict=True))

_CAP_IPC_LOCK = 14
_CAP_SYS_ADMIN = 21

_OSRELEASE = "/proc/sys/kernel/osrelease"
_DISABLED = "/proc/sys/kernel/io_uring_disabled"
_GROUP = "/proc/sys/kernel/io_uring_group"
_STATUS = "/proc/self/status"
_LIMITS = "/proc/self/limits"

_SECCOMP_REMEDY = (
    "allow the system calls io_uring_setup, io_uring_enter and io_uring_register in its profile (Docker and Podman: "
    "--security-opt seccomp=PROFILE.json, or seccomp=unconfined to try it)"
)


def read_text(path: str) -> str | None:
    """Return the text of the file ``path``, or None if it does not exist or may not be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


class Host:
    """What decides on this machine, for this process, whether io_uring may be used.

    ``read`` takes a path and returns that file's text, or None if it cannot be read. A fact that cannot be found out
    is None. See proc(5), proc_sys_kernel(5), seccomp(2) and getrlimit(2).
    """

    __slots__ = ("capabilities", "disabled", "group", "groups", "limits", "release", "seccomp")

    #: The kernel's release, such as ``"6.1.0-18-amd64"``.
    release: str
    #: The sysctl ``kernel.io_uring_disabled``: 0, 1 or 2; None before Linux 6.6, which brought it.
    disabled: int | None
    #: The sysctl ``kernel.io_uring_group``: a group id, -1 for no group.
    group: int | None
    #: The mode of seccomp: 0 none, 1 strict, 2 a filter.
    seccomp: int | None
    #: The effective capabilities, one bit each.
    capabilities: int
    #: The group ids that count for permissions.
    groups: frozenset[int]
    #: Soft resource limits by their name in ``/proc/self/limits``; None is unlimited.
    limits: dict[str, int | None]

    def __init__(self, read: Callable[[str], str | None] = read_text) -> None:
        status = _fields(read(_STATUS))
        self.release = (read(_OSRELEASE) or os.uname().release).strip()
        self.disabled = _integer(read(_DISABLED))
        self.group = _integer(read(_GROUP))
        self.seccomp = _integer(status.get("Seccomp"))
        self.capabilities = _integer(status.get("CapEff"), 16) or 0
        # The kernel looks at the filesystem group, the last of the four, and at the supplementary ones.
        words = status.get("Gid", "").split()[-1:] + status.get("Groups", "").split()
        self.groups = frozenset(int(word) for word in words if word.isdecimal())
        self.limits = _limits(read(_LIMITS))

    @property
    def version(self) -> tuple[int, int] | None:
        """The first two numbers of ``release``, or None if it does not begin with two."""
        words = self.release.split(".", 2)
        if len(words) < 2:
            return None
        minor = words[1][: len(words[1]) - len(words[1].lstrip("0123456789"))]
        return (int(words[0]), int(minor)) if words[0].isdecimal() and minor else None

    @property
    def is_too_old(self) -> bool:
        """Whether the kernel is older than ``KERNEL_REQUIRED``; False when its version cannot be told."""
        return self.version is not None and self.version < KERNEL_REQUIRED

    @property
    def is_privileged(self) -> bool:
        """Whether the process passes the check that ``kernel.io_uring_disabled=1`` makes."""
        return bool(self.capabilities >> _CAP_SYS_ADMIN & 1) or self.group in self.groups

    @property
    def memlock(self) -> int | None:
        """The soft limit on locked memory in bytes; None if there is none, or if it does not bind this process."""
        if self.capabilities >> _CAP_IPC_LOCK & 1:
            return None
        return self.limits.get("Max locked memory")


def explain(error: int, entries: int, cq_entries: int | None = None, host: Host | None = None) -> str:
    """Return one paragraph that says why io_uring_setup failed and what to do about it.

    ``error`` is the positive errno that the system call left; ``entries`` and ``cq_entries`` (None or 0: twice
    ``entries``) are the sizes that were asked for; ``host`` is what is known of this machine (None: look now).
    See io_uring_setup(2).
    """
    if host is None:
        host = Host()
    if error == ENOSYS:
        return _explain_missing(host)
    if error in (EPERM, EACCES):
        return _explain_forbidden(host)
    if error == ENOMEM:
        return _explain_memory(host, ring_bytes(entries, cq_entries))
    if error in (EMFILE, ENFILE):
        return _explain_files(host, error)
    if host.is_too_old:
        return _explain_old(host)
    if error == EINVAL:
        return (
            f"io_uring_setup refused a ring of {entries} entries and {cq_entries or 2 * entries} completions as "
            f"invalid on Linux {host.release}: ask for 1 to 32768 entries and at least as many completions; if they "
            "are, this kernel lacks a feature that Linux 6.1 has, as an emulated one may: run on a real one"
        )
    return f"io_uring_setup failed on Linux {host.release}: {os.strerror(error)}"


def ring_bytes(entries: int, cq_entries: int | None = None) -> int:
    """Return how many bytes of locked memory a ring costs.

    ``entries`` and ``cq_entries`` (None or 0: twice ``entries``) are the sizes asked for, which the kernel rounds up to
    powers of two. It takes whole pages, one area for the submission entries and one for both queues. See io_uring(7).
    """
    submissions = _power_of_two(entries)
    completions = _power_of_two(cq_entries or 2 * submissions)
    # An entry is 64 bytes, a completion 16, an index of the submission queue 4; the queues' heads are about 320.
    return _pages(64 * submissions) + _pages(16 * completions + 4 * submissions + 320)


def _explain_old(host: Host) -> str:
    return (
        f"Linux {host.release} is too old: linux_event needs the io_uring of Linux 6.1 or newer "
        "(IORING_SETUP_SINGLE_ISSUER and IORING_SETUP_DEFER_TASKRUN); boot a newer kernel"
    )


def _explain_missing(host: Host) -> str:
    """Explain ENOSYS, which either the kernel answers or a seccomp filter does."""
    if host.version is not None and host.version < KERNEL_FIRST:
        return _explain_old(host)
    # The sysctl is compiled into the kernel together with io_uring, so its presence clears the kernel.
    if host.disabled is not None and host.seccomp != 0:
        culprit = "this kernel has io_uring, so a seccomp filter answers in its place"
    elif host.seccomp == 2:
        culprit = "a seccomp filter is active (Seccomp: 2 in /proc/self/status) and is the likely one"
    elif host.disabled is not None:
        culprit = "this kernel has io_uring and no seccomp filter is active, so something else, a tracer say, answers"
    else:
        culprit = "no seccomp filter is active, so the kernel probably lacks CONFIG_IO_URING, or is emulated"
    old = f"; also, {_explain_old(host)}" if host.is_too_old else ""
    return (
        "io_uring_setup is not implemented, says either the kernel or a seccomp filter, as container runtimes install "
        f"them: {culprit}. If it is seccomp, {_SECCOMP_REMEDY}; if it is the kernel (Linux {host.release}), boot one "
        f"of 6.1 or newer with CONFIG_IO_URING{old}"
    )


def _explain_forbidden(host: Host) -> str:
    """Explain EPERM and EACCES, which the sysctl, a seccomp filter or a security module answers."""
    if host.disabled == 2:
        return (
            "the sysctl kernel.io_uring_disabled is 2, which forbids io_uring to every process; as root, run: "
            "sysctl -w kernel.io_uring_disabled=0"
        )
    # Capabilities inside a user namespace do not count for the sysctl, and look the same from here: only a seccomp
    # filter is a better explanation than the sysctl for a process that seems to be privileged.
    if host.disabled == 1 and not (host.is_privileged and host.seccomp == 2):
        group = "no group" if host.group is None or host.group < 0 else f"group {host.group}"
        return (
            "the sysctl kernel.io_uring_disabled is 1, which leaves io_uring to processes with CAP_SYS_ADMIN (of the "
            f"initial user namespace) and to members of kernel.io_uring_group, which is {group}; as root, set that to "
            "a group of this user by sysctl -w kernel.io_uring_group=GID, or run: sysctl -w kernel.io_uring_disabled=0"
        )
    if host.seccomp == 2:
        return (
            "io_uring_setup is forbidden by a seccomp filter (Seccomp: 2 in /proc/self/status), as container runtimes "
            f"install them: {_SECCOMP_REMEDY}"
        )
    return (
        "io_uring_setup is forbidden, and neither the sysctl kernel.io_uring_disabled nor a seccomp filter explains "
        "it: a Linux security module such as SELinux may; look for a denial in its log and allow it in its policy"
    )


def _explain_memory(host: Host, need: int) -> str:
    if host.memlock is None:
        return (
            f"there is no memory for a ring of about {_kib(need)}, and no memlock limit binds this process: its "
            "control group (memory.max) or the machine is out of memory; give it more or ask for fewer entries"
        )
    return (
        f"the memlock limit (RLIMIT_MEMLOCK) of {_kib(host.memlock)} is too low: this ring needs about {_kib(need)} of "
        "locked memory, and all rings of all processes of this user count together; raise the limit with ulimit -l "
        f"{max(8192, 4 * need // 1024)} in the shell, LimitMEMLOCK= in the systemd unit or memlock in "
        "/etc/security/limits.conf, or ask for fewer entries"
    )


def _explain_files(host: Host, error: int) -> str:
    if error == ENFILE:
        return "the whole machine has too many open files for a new ring; as root, raise the sysctl fs.file-max"
    limit = host.limits.get("Max open files")
    return (
        f"this process has too many open files for a new ring (RLIMIT_NOFILE is {limit}); close some, or raise the "
        "limit with ulimit -n in the shell or LimitNOFILE= in the systemd unit"
    )


def _fields(text: str | None) -> dict[str, str]:
    """Return the ``Name: value`` lines of ``text`` as a dictionary."""
    pairs = (line.partition(":") for line in (text or "").splitlines())
    return {name: value.strip() for name, _, value in pairs}


def _integer(text: str | None, base: int = 10) -> int | None:
    try:
        return int(text or "", base)
    except ValueError:
        return None


def _limits(text: str | None) -> dict[str, int | None]:
    """Return the soft limits in ``text``, whose lines hold a name of words, the soft limit, the hard limit, a unit."""
    limits: dict[str, int | None] = {}
    for line in (text or "").splitlines():
        # The columns are padded with two spaces at least, and names contain single ones.
        cells = [cell.strip() for cell in line.split("  ") if cell.strip()]
        if len(cells) >= 3 and (cells[1] == "unlimited" or cells[1].isdecimal()):
            limits[cells[0]] = None if cells[1] == "unlimited" else int(cells[1])
    return limits


def _power_of_two(count: int) -> int:
    return 1 << (max(count, 1) - 1).bit_length()


def _pages(size: int) -> int:
    page = os.sysconf("SC_PAGESIZE")
    return -(-size // page) * page


def _kib(size: int) -> str:
    return f"{-(-size // 1024)} KiB"
