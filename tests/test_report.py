"""The report on the machine and the command line, where io_uring may be used and where it may not."""

import errno
import io
import os
import platform
import re
import subprocess
import sys

import pytest
from _fault import run_script, script_environment

import linux_event
from linux_event import report as report_module
from linux_event import ring
from linux_event.__main__ import main


def command(*arguments):
    """How ``python -m linux_event`` ends with these arguments."""
    done = subprocess.run(
        [sys.executable, "-m", "linux_event", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=script_environment(),
    )
    return done.returncode, done.stdout, done.stderr


def fields(text):
    """The values of a report by their labels, unwrapped."""
    values = {}
    label = None
    for line in text.splitlines():
        if line[:26].strip():
            label = line[:26].strip()
            values[label] = line[26:]
        elif label and line.startswith(" " * 26):
            values[label] += " " + line.strip()
    return values


def refused(setup, errno_name):
    """The last paragraph of the report of a process in which ``setup`` made io_uring unusable."""
    done = run_script(
        f"""
        import os, sys
        import _fault
        from linux_event.__main__ import main
        {setup}
        status = main([])
        sys.stdout.flush()
        os._exit(status)  # Nothing at exit may need a privilege that is gone, such as writing to a file.
        """
    )
    assert (done.returncode, done.stderr) == (1, ""), done.stdout
    head, _, reason = done.stdout.partition("\n\n")
    number = getattr(errno, errno_name)
    assert fields(head)["io_uring may be used"] == f"no: errno {number}, {os.strerror(number)}"
    assert "kernel" in fields(head)
    return " ".join(reason.split())


@pytest.mark.parametrize("arguments", [(), ("report",)])
def test_usable(arguments):
    status, output, errors = command(*arguments)
    assert (status, errors) == (0, "")
    assert max(map(len, output.splitlines())) <= 100
    values = fields(output)
    assert values["linux_event"] == linux_event.__version__
    assert values["Python"].startswith(f"CPython {platform.python_version()} (")
    assert values["kernel"] == f"{os.uname().release} ({platform.machine()})"
    assert re.fullmatch(r"\d+\.\d+.*", values["liburing"])
    for limit in ("limit of locked memory", "limit of open files", "limit of processes"):
        assert "hard limit" in values[limit]
    assert values["kernel.io_uring_disabled"][0] in "01n"
    assert values["seccomp"][0] in "012"
    assert values["io_uring may be used"] == "yes"
    assert {"EXT_ARG", "NODROP"} <= set(values["features"].split(", "))
    label = next(label for label in values if label.startswith("operations ("))
    operations = values[label].split(", ")
    assert label == f"operations ({len(operations)})"
    assert {"NOP", "POLL_ADD", "POLL_REMOVE", "ASYNC_CANCEL", "TIMEOUT", "SEND_ZC"} <= set(operations)


def test_report_returns_whether_usable():
    output = io.StringIO()
    assert report_module.report(output) is True
    assert "io_uring may be used      yes\n" in output.getvalue()


def test_refused_by_seccomp():
    reason = refused("_fault.deny()", "EPERM")
    assert "seccomp filter (Seccomp: 2 in /proc/self/status)" in reason
    assert "--security-opt seccomp=" in reason


def test_refused_by_seccomp_that_says_not_implemented():
    reason = refused("import errno; _fault.deny(error=errno.ENOSYS)", "ENOSYS")
    assert "either the kernel or a seccomp filter" in reason


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount over a sysctl and change its user")


@needs_root
def test_refused_by_the_sysctl():
    reason = refused("_fault.fake_sysctl('kernel.io_uring_disabled', 2); _fault.deny()", "EPERM")
    assert "kernel.io_uring_disabled is 2" in reason
    assert "sysctl -w kernel.io_uring_disabled=0" in reason


@needs_root
def test_refused_by_the_sysctl_to_the_unprivileged():
    reason = refused(
        "_fault.fake_sysctl('kernel.io_uring_disabled', 1); _fault.become_unprivileged(); _fault.deny()", "EPERM"
    )
    assert "kernel.io_uring_disabled is 1" in reason
    assert "kernel.io_uring_group" in reason


@needs_root
def test_refused_by_the_memlock_limit():
    # Not every kernel counts the memory of rings against this limit.
    done = run_script(
        """
        import _fault
        _fault.become_unprivileged(memlock=0)
        print(_fault.uring_setup(8))
        """
    )
    if done.stdout.strip() == "0":
        pytest.skip("this kernel does not count the memory of rings")
    reason = refused("_fault.become_unprivileged(memlock=0)", "ENOMEM")
    assert "memlock limit (RLIMIT_MEMLOCK) of 0 KiB" in reason
    assert "ulimit -l" in reason
    assert "LimitMEMLOCK=" in reason


class FakeHost:
    """A machine on which nothing could be found out."""

    release = "6.12"
    disabled = group = seccomp = memlock = None


def test_unknown_facts(monkeypatch):
    def probe():
        raise linux_event.UringUnavailableError(errno.EPERM, "because of this")

    monkeypatch.setattr(report_module, "Host", FakeHost)
    monkeypatch.setattr(ring, "probe", probe)
    monkeypatch.setattr(report_module, "read_text", lambda path: None)
    monkeypatch.setattr(ring, "liburing_version", lambda: "")
    output = io.StringIO()
    assert report_module.report(output) is False
    text = output.getvalue()
    values = fields(text)
    assert values["kernel.io_uring_disabled"] == "no such sysctl (allowed to all)"
    assert values["kernel.io_uring_group"] == "none"
    assert values["seccomp"] == "unknown"
    assert values["liburing"] == "unknown"
    assert values["limit of locked memory"].endswith("(does not bind this process)")
    assert text.endswith("\n\nbecause of this.\n")


def test_other_facts(monkeypatch):
    monkeypatch.setattr(FakeHost, "disabled", 7)
    monkeypatch.setattr(FakeHost, "group", 12)
    monkeypatch.setattr(FakeHost, "memlock", 4096)
    monkeypatch.setattr(report_module, "Host", FakeHost)
    output = io.StringIO()
    assert report_module.report(output) is True
    values = fields(output.getvalue())
    assert values["kernel.io_uring_disabled"] == "7"
    assert values["kernel.io_uring_group"] == "12"
    assert "bind" not in values["limit of locked memory"]


@pytest.mark.parametrize(
    ("maps", "headers", "text"),
    [
        ("7f00 r-xp 0 /usr/lib/x86_64-linux-gnu/liburing.so.2.3.0\n7f01 r-xp 0 /lib/libc.so.6\n", "", "2.3.0"),
        ("7f00 r-xp 0 /usr/lib/liburing.so.2.9\n", "2.8", "2.9, built with 2.8"),
        ("7f00 r-xp 0 /x/linux_event.libs/liburing-0a1b2c3d.so.2.5.0\n", "2.5", "2.5.0, built with 2.5"),
        ("7f00 r-xp 0 /lib/libc.so.6\n", "2.8", "built with 2.8"),
        ("7f00 r-xp 0 /x/liburing.so.2\n", "", "unknown"),
    ],
)
def test_liburing_version(monkeypatch, maps, headers, text):
    monkeypatch.setattr(report_module, "read_text", {"/proc/self/maps": maps}.get)
    monkeypatch.setattr(ring, "liburing_version", lambda: headers)
    assert report_module.liburing_version() == text


def test_version(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"{linux_event.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["none"],
        ["report", "more"],
        ["demo", "--seconds", "0.5"],
        ["demo", "--seconds", "3601"],
        ["demo", "--seconds", "nan"],
        ["demo", "--seconds", "soon"],
    ],
)
def test_wrong_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "usage: python -m linux_event" in capsys.readouterr().err
