"""Raw requests on paths, each compared with what the module os does."""

import os
import stat
import struct
from errno import EBADF, EEXIST, EINVAL, ELOOP, ENODATA, ENOENT, ENOTDIR, ERANGE, EXDEV
from pathlib import Path

import pytest

from linux_event import Ring

AT_FDCWD = -100
AT_REMOVEDIR = 0x200
AT_EMPTY_PATH = 0x1000
RESOLVE_NO_SYMLINKS = 4
RENAME_NOREPLACE = 1


@pytest.fixture
def folder(tmp_path):
    """An fd of tmp_path."""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_CLOEXEC)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("method", ["openat", "openat2"])
def test_opening(driver, tmp_path, folder, method):
    (tmp_path / "file").write_text("content")
    for start, path in ((None, tmp_path / "file"), (AT_FDCWD, os.fsencode(tmp_path / "file")), (folder, "file")):
        fd = driver.do(method, start, path, os.O_RDONLY)
        assert os.read(fd, 100) == b"content"
        assert not os.get_inheritable(fd)
        os.close(fd)
    fd = driver.do(method, folder, "new", os.O_CREAT | os.O_WRONLY, 0o640)
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o640 & ~current_umask()
    os.close(fd)
    assert driver.do(method, folder, "none", os.O_RDONLY) == -ENOENT
    assert driver.do(method, folder, "file/x", os.O_RDONLY) == -ENOTDIR
    assert driver.do(method, folder, "file", os.O_CREAT | os.O_EXCL | os.O_WRONLY) == -EEXIST
    for wrong in ("a\0b", b"\0"):
        with pytest.raises(ValueError, match="null byte"):
            getattr(driver.ring, method)(None, wrong, 0)


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_how_openat2_follows(driver, tmp_path, folder):
    (tmp_path / "link").symlink_to("file")
    assert driver.do("openat2", folder, "link", os.O_RDONLY, 0, RESOLVE_NO_SYMLINKS) == -ELOOP
    assert driver.do("openat2", folder, "link", os.O_RDONLY, 0o600) == -EINVAL


@pytest.mark.parametrize("method", ["openat", "openat2"])
def test_opening_a_direct_descriptor(driver, tmp_path, method):
    (tmp_path / "file").write_text("content")
    driver.ring.register_files(3)
    assert driver.do(method, None, tmp_path / "file", os.O_RDONLY, file_index=2) == 0
    assert driver.do(method, None, tmp_path / "file", os.O_RDONLY, file_index=Ring.FILE_INDEX_ALLOC) == 0
    assert driver.do(method, None, tmp_path / "file", os.O_RDONLY, file_index=Ring.FILE_INDEX_ALLOC) == 1
    assert driver.do(method, None, tmp_path / "file", os.O_RDONLY, file_index=3) == -EINVAL
    buffer = bytearray(20)
    assert driver.do("read", 2, buffer, flags=Ring.FIXED_FILE) == 7
    assert buffer[:7] == b"content"


def test_statx(driver, tmp_path, folder):
    path = tmp_path / "file"
    path.write_text("content")
    buffer = bytearray(256)
    assert driver.do("statx", folder, "file", buffer) == 0
    _mask, _block, _attributes, nlink, uid, gid, mode, _pad, inode, size = struct.unpack_from("=IIQIIIHHQQ", buffer)
    expected = path.stat()
    assert (nlink, uid, gid, mode) == (expected.st_nlink, expected.st_uid, expected.st_gid, expected.st_mode)
    assert (inode, size) == (expected.st_ino, 7)
    assert driver.do("statx", folder, "", buffer, AT_EMPTY_PATH) == 0
    assert struct.unpack_from("=Q", buffer, 32)[0] == tmp_path.stat().st_ino
    assert driver.do("statx", folder, "none", buffer) == -ENOENT
    with pytest.raises(ValueError, match="256"):
        driver.ring.statx(None, path, bytearray(255))


def test_names(driver, tmp_path, folder):
    (tmp_path / "a").write_text("a")
    assert driver.do("renameat", folder, "a", None, tmp_path / "b") == 0
    assert (tmp_path / "b").read_text() == "a"
    assert driver.do("renameat", folder, "a", folder, "c") == -ENOENT
    assert driver.do("linkat", folder, "b", folder, "c") == 0
    assert (tmp_path / "c").samefile(tmp_path / "b")
    assert driver.do("linkat", folder, "b", folder, "c") == -EEXIST
    assert driver.do("linkat", folder, "b", None, "/proc/link") in (-EXDEV, -ENOENT)
    assert driver.do("renameat", folder, "b", folder, "c", rename_flags=RENAME_NOREPLACE) == -EEXIST
    assert driver.do("symlinkat", "where/to", folder, "s") == 0
    assert (tmp_path / "s").readlink() == Path("where/to")
    assert driver.do("symlinkat", "x", folder, "s") == -EEXIST
    assert driver.do("unlinkat", folder, "s") == 0
    assert driver.do("unlinkat", folder, "s") == -ENOENT
    assert driver.do("mkdirat", folder, "d", 0o750) == 0
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o750 & ~current_umask()
    assert driver.do("mkdirat", folder, "d") == -EEXIST
    assert driver.do("unlinkat", folder, "d", unlink_flags=AT_REMOVEDIR) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "c"]


@pytest.mark.parametrize("wrong", [-1, "unused"])
def test_a_folder_that_is_none(driver, wrong, tmp_path):
    if wrong == -1:
        with pytest.raises(ValueError, match="negative"):
            driver.ring.mkdirat(-1, "d")
        return
    fd = os.open(tmp_path, os.O_RDONLY)
    os.close(fd)
    with pytest.raises(OSError, match=str(EBADF)):
        driver.ring.unlinkat(fd, "d")


def test_extended_attributes(driver, tmp_path):
    path = tmp_path / "file"
    path.touch()
    try:
        os.setxattr(path, "user.probe", b"1")
    except OSError:
        assert driver.do("setxattr", path, "user.a", b"value") < 0
        return
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    assert driver.do("setxattr", path, "user.a", b"value") == 0
    assert os.getxattr(path, "user.a") == b"value"
    assert driver.do("setxattr", path, "user.a", b"", os.XATTR_CREATE) == -EEXIST
    assert driver.do("fsetxattr", fd, b"user.b", bytearray(b"other")) == 0
    assert os.getxattr(path, "user.b") == b"other"
    assert driver.do("fsetxattr", fd, "user.c", b"", os.XATTR_REPLACE) == -ENODATA
    buffer = bytearray(10)
    assert driver.do("getxattr", path, "user.a", buffer) == 5
    assert bytes(buffer[:5]) == b"value"
    assert driver.do("getxattr", path, "user.a", bytearray(2)) == -ERANGE
    assert driver.do("fgetxattr", fd, "user.b", buffer) == 5
    assert bytes(buffer[:5]) == b"other"
    assert driver.do("fgetxattr", fd, "user.none", buffer) == -ENODATA
    with pytest.raises(ValueError, match="null byte"):
        driver.ring.getxattr(path, "user\0x", buffer)
    os.close(fd)
