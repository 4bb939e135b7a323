"""MountWatcher where the kernel refuses it: capabilities, namespaces, filters. What it says names the way out."""

import errno
import os

import pytest
from _fault import deny, in_fork, run_script
from _mounts import CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_SYS_ADMIN, Told, privileged, touch, without_capabilities

from linux_event import Loop


@privileged
@pytest.mark.parametrize("start", [True, False])
def test_without_the_capability(loop, start):
    watcher = loop.fswatch("/", ["open_exec"], print, start=False)
    with without_capabilities(CAP_SYS_ADMIN):
        with pytest.raises(PermissionError, match="CAP_SYS_ADMIN, which this process lacks") as caught:
            loop.fswatch("/", "all", print, start=start)
        assert caught.value.errno == errno.EPERM
        assert caught.value.filename == "/"
        assert "setcap" in str(caught.value)
        assert "AmbientCapabilities" in str(caught.value)
        with pytest.raises(PermissionError):
            loop.fswatch("/", "all")(print)
        with pytest.raises(PermissionError):
            watcher.start()
        assert list(loop.watchers.values()) == [watcher]


def test_a_user_without_privileges():
    """What everybody sees who is not root; runs without privileges too."""
    run_script(
        """
        import os
        from linux_event import Loop, diagnosis
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
        with Loop(entries=8) as loop:
            try:
                loop.fswatch("/", "all", print)
            except PermissionError as error:
                print(error.errno, "CAP_SYS_ADMIN" in str(error), len(loop.watchers))
        """
    ).check("1 True 0")


def test_a_user_namespace():
    script = """
        from linux_event import Loop
        with Loop() as loop:
            try:
                loop.fswatch("/", "all", print)
            except PermissionError as error:
                print(error.errno, "CAP_SYS_ADMIN of the initial user namespace" in str(error))
        """
    result = run_script(script, prefix=("unshare", "--user", "--map-root-user"))
    if "unshare" in result.stderr:
        pytest.skip(f"no user namespace can be made: {result.stderr.strip()}")
    result.check("1 True")


@privileged
def test_that_capability_is_enough(loop, folder):
    with without_capabilities(*(number for number in range(31) if number != CAP_SYS_ADMIN)):
        told = Told()
        loop.fswatch(folder, ["close_write"], told)
        paths = touch(folder, 1)
        loop.run_once(0)
        assert told.paths == paths


@privileged
@pytest.mark.parametrize("start", [True, False])
def test_a_path_that_may_not_be_read(loop, folder, start):
    [path] = touch(folder, 1)
    os.chmod(path, 0)
    with (
        without_capabilities(CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH),
        pytest.raises(PermissionError, match="CAP_DAC_READ_SEARCH") as caught,
    ):
        loop.fswatch(path, "all", print, start=start)
    assert caught.value.errno == errno.EACCES
    assert caught.value.filename == path


@privileged
def test_a_file_system_that_has_no_mount(loop):
    inner, outer = os.pipe()
    with pytest.raises(OSError, match="cannot be watched") as caught:
        loop.fswatch(f"/proc/self/fd/{inner}", "all", print)
    assert caught.value.errno == errno.EINVAL
    os.close(inner)
    os.close(outer)


@privileged
@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS, errno.EACCES])
def test_a_seccomp_filter(number):
    calls = {"x86_64": 300, "aarch64": 262, "riscv64": 262}
    if os.uname().machine not in calls:
        pytest.skip("the number of fanotify_init is not known here")

    def body():
        deny((calls[os.uname().machine],), number)
        with Loop() as loop:
            try:
                loop.fswatch("/", "all", print)
            except OSError as error:
                return error.errno, str(error), type(error).__name__
        return None

    found, text, kind = in_fork(body)
    assert found == number
    assert (kind == "PermissionError") == (number != errno.ENOSYS)
    assert ("seccomp" in text) == (number != errno.EACCES)
