"""The words for a refusal: every cause that can be told apart, on invented machines and on this one."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from linux_event import diagnosis

STATUS = """\
Name:\tpython
Gid:\t1000\t1000\t1000\t{gid}
Groups:\t4 27 {groups}
CapEff:\t{capabilities:016x}
Seccomp:\t{seccomp}
"""
LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units
Max cpu time              unlimited            unlimited            seconds
Max open files            1024                 524288               files
Max locked memory         {memlock:<20} {memlock:<20} bytes
Max nice priority         0                    0
"""
CAP_IPC_LOCK = 1 << 14
CAP_SYS_ADMIN = 1 << 21


def machine(
    release="6.12.1-amd64\n",
    disabled="0\n",
    group="-1\n",
    seccomp=0,
    capabilities=0,
    gid=1000,
    groups="",
    memlock=65536,
):
    """A reader of an invented /proc, to give to Host."""
    files = {
        "/proc/sys/kernel/osrelease": release,
        "/proc/sys/kernel/io_uring_disabled": disabled,
        "/proc/sys/kernel/io_uring_group": group,
        "/proc/self/status": STATUS.format(gid=gid, groups=groups, capabilities=capabilities, seccomp=seccomp),
        "/proc/self/limits": LIMITS.format(memlock=memlock),
    }
    return diagnosis.Host(files.get)


def explained(error, entries=256, cq_entries=512, **facts):
    text = diagnosis.explain(error, entries, cq_entries, machine(**facts))
    assert "\n" not in text
    assert text == text.strip()
    assert not text.endswith(".")
    return text


# The sysctl.


def test_disabled_for_all():
    text = explained(errno.EPERM, disabled="2\n", seccomp=2, capabilities=CAP_SYS_ADMIN)
    assert "kernel.io_uring_disabled is 2" in text
    assert "sysctl -w kernel.io_uring_disabled=0" in text
    assert "seccomp" not in text


@pytest.mark.parametrize(("group", "says"), [("-1\n", "no group"), (None, "no group"), ("995\n", "group 995")])
def test_disabled_for_the_unprivileged(group, says):
    text = explained(errno.EPERM, disabled="1\n", group=group)
    assert "kernel.io_uring_disabled is 1" in text
    assert "CAP_SYS_ADMIN" in text
    assert f"kernel.io_uring_group, which is {says};" in text
    assert "sysctl -w kernel.io_uring_group=GID" in text
    assert "sysctl -w kernel.io_uring_disabled=0" in text


def test_disabled_for_the_unprivileged_is_named_before_a_filter():
    assert "kernel.io_uring_disabled is 1" in explained(errno.EPERM, disabled="1\n", seccomp=2)


@pytest.mark.parametrize(
    "facts",
    [
        {"capabilities": CAP_SYS_ADMIN},
        {"group": "995\n", "groups": "995"},
        {"group": "995\n", "gid": 995},
    ],
    ids=["capability", "supplementary group", "filesystem group"],
)
def test_a_privileged_process_is_not_refused_by_value_one(facts):
    assert "seccomp" in explained(errno.EPERM, disabled="1\n", seccomp=2, **facts)
    # Nothing but the sysctl is left when there is no filter: the privilege is one of a user namespace.
    assert "kernel.io_uring_disabled is 1" in explained(errno.EPERM, disabled="1\n", seccomp=0, **facts)


def test_no_group_is_not_a_group_of_this_process():
    assert not machine(group="-1\n", groups="-1").is_privileged
    assert not machine(group=None).is_privileged
    # The real group does not count, only the filesystem one does.
    assert not machine(group="1000\n", gid=7).is_privileged


# Seccomp and security modules.


@pytest.mark.parametrize("error", [errno.EPERM, errno.EACCES])
@pytest.mark.parametrize("disabled", ["0\n", None])
def test_seccomp(error, disabled):
    text = explained(error, disabled=disabled, seccomp=2)
    assert "forbidden by a seccomp filter (Seccomp: 2 in /proc/self/status)" in text
    assert "container" in text
    assert "--security-opt seccomp=" in text
    for name in ("io_uring_setup", "io_uring_enter", "io_uring_register"):
        assert name in text


@pytest.mark.parametrize("error", [errno.EPERM, errno.EACCES])
@pytest.mark.parametrize("seccomp", [0, 1, ""])
def test_security_module(error, seccomp):
    assert "SELinux" in explained(error, seccomp=seccomp)


# ENOSYS.


def test_not_implemented_names_kernel_and_seccomp():
    for facts in ({}, {"seccomp": 2}, {"disabled": None}, {"disabled": None, "seccomp": 2}):
        text = explained(errno.ENOSYS, **facts)
        assert "either the kernel or a seccomp filter" in text
        assert "--security-opt seccomp=" in text
        assert "6.12.1-amd64" in text


def test_not_implemented_says_which_is_likely():
    assert "so a seccomp filter answers in its place" in explained(errno.ENOSYS, seccomp=2)
    assert "so a seccomp filter answers in its place" in explained(errno.ENOSYS, seccomp="")
    assert "no seccomp filter is active, so something else" in explained(errno.ENOSYS)
    assert "is the likely one" in explained(errno.ENOSYS, seccomp=2, disabled=None)
    assert "lacks CONFIG_IO_URING" in explained(errno.ENOSYS, disabled=None)


def test_not_implemented_on_an_old_kernel():
    text = explained(errno.ENOSYS, release="5.10.0-28-amd64\n", disabled=None, seccomp=2)
    assert "either the kernel or a seccomp filter" in text
    assert "Linux 5.10.0-28-amd64 is too old" in text
    text = explained(errno.ENOSYS, release="4.19.0\n", disabled=None, seccomp=2)
    assert text.startswith("Linux 4.19.0 is too old")
    assert "6.1 or newer" in text


# EINVAL and the kernel's age.


@pytest.mark.parametrize("release", ["6.0.19-cloud\n", "5.15.0-105-generic\n", "5.4.302\n"])
def test_old_kernel(release):
    text = explained(errno.EINVAL, release=release, disabled=None)
    assert f"Linux {release.strip()} is too old" in text
    assert "needs the io_uring of Linux 6.1 or newer" in text


def test_invalid_on_a_new_kernel():
    text = explained(errno.EINVAL, entries=100_000, cq_entries=200_000)
    assert "100000 entries" in text
    assert "200000 completions" in text
    assert "6.12.1-amd64" in text
    assert "too old" not in text


@pytest.mark.parametrize(
    ("release", "version", "too_old"),
    [
        ("6.1.0-18-amd64\n", (6, 1), False),
        ("6.1-rc3\n", (6, 1), False),
        ("6.0\n", (6, 0), True),
        ("5.19.17+deb\n", (5, 19), True),
        ("10.0.1\n", (10, 0), False),
        ("6.18.44-fc-v669\n", (6, 18), False),
        ("6\n", None, False),
        ("6.x\n", None, False),
        ("six.1\n", None, False),
    ],
)
def test_version(release, version, too_old):
    host = machine(release=release)
    assert host.version == version
    assert host.is_too_old is too_old


# Memory and files.


def test_memlock():
    text = explained(errno.ENOMEM, entries=1024, cq_entries=2048, memlock=65536)
    assert "memlock" in text
    assert "of 64 KiB is too low" in text
    assert "needs about 104 KiB" in text
    assert "ulimit -l 8192" in text
    assert "LimitMEMLOCK=" in text


def test_memlock_of_a_huge_ring_asks_for_more():
    assert "ulimit -l 12816" in explained(errno.ENOMEM, entries=32768, cq_entries=65536, memlock=0)


@pytest.mark.parametrize("facts", [{"memlock": "unlimited"}, {"capabilities": CAP_IPC_LOCK}])
def test_memory_without_a_memlock_limit(facts):
    text = explained(errno.ENOMEM, **facts)
    assert "memory.max" in text
    assert "ulimit" not in text


@pytest.mark.parametrize(
    ("entries", "cq_entries", "size"),
    # Found on Linux 6.18 by lowering the limit of a new user, who has no other rings, until the ring was refused.
    [
        (8, 16, 8192),
        (64, 128, 8192),
        (100, 200, 16384),
        (256, 512, 28672),
        (512, 1024, 53248),
        (1024, 2048, 106496),
        (4096, 8192, 413696),
        (32768, 65536, 3280896),
        (256, 4096, 86016),
        (256, 65536, 1069056),
    ],
)
@pytest.mark.skipif(os.sysconf("SC_PAGESIZE") != 4096, reason="the sizes are those of 4096-byte pages")
def test_ring_bytes(entries, cq_entries, size):
    assert diagnosis.ring_bytes(entries, cq_entries) == size
    if cq_entries == 2 * entries:
        assert diagnosis.ring_bytes(entries) == size


def test_too_many_files():
    text = explained(errno.EMFILE)
    assert "RLIMIT_NOFILE is 1024" in text
    assert "ulimit -n" in text
    assert "fs.file-max" in explained(errno.ENFILE)


def test_any_other_error():
    assert explained(errno.EIO) == "io_uring_setup failed on Linux 6.12.1-amd64: Input/output error"


# The real machine, and machines that hide everything.


def test_nothing_readable():
    host = diagnosis.Host(lambda path: None)
    assert host.release == os.uname().release
    assert (host.disabled, host.group, host.seccomp, host.memlock) == (None, None, None, None)
    assert (host.groups, host.limits, host.capabilities) == (frozenset(), {}, 0)
    for error in (errno.EPERM, errno.ENOSYS, errno.EINVAL, errno.ENOMEM, errno.EMFILE, errno.EIO):
        assert diagnosis.explain(error, 8, 16, host)


def test_this_machine():
    host = diagnosis.Host()
    assert host.release == os.uname().release
    assert host.seccomp in (0, 1, 2)
    assert os.getegid() in host.groups
    assert "Max locked memory" in host.limits
    for error in errno.errorcode:
        assert diagnosis.explain(error, 256)


def test_read_text(tmp_path):
    file = tmp_path / "odd"
    file.write_bytes(b"a\xff\n")
    assert diagnosis.read_text(str(file)) == "a�\n"
    assert diagnosis.read_text(str(tmp_path / "none")) is None
    assert diagnosis.read_text(str(tmp_path)) is None


def test_import_brings_nothing_heavy():
    # The module is loaded while an exception is made; what is loaded with it would be waited for there.
    code = f"""
import importlib.util, sys
before = set(sys.modules)
spec = importlib.util.spec_from_file_location("alone", {str(Path(diagnosis.__file__))!r})
spec.loader.exec_module(importlib.util.module_from_spec(spec))
print(*sorted(set(sys.modules) - before))
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True).stdout
    assert set(output.split()) <= {"__future__", "errno"}
