"""Operations on paths and operations that move data: what the stubs must accept, and the types in them. Never run."""

import os
from pathlib import Path
from typing import IO, Any, assert_type

from linux_event import Loop, Operation
from linux_event.chain import Chain


def on_anything(*args: Any) -> None: ...


def paths(loop: Loop, file: IO[bytes], path: Path) -> None:
    assert_type(loop.stat(path), Operation[os.stat_result])
    assert_type(loop.stat(file, follow_symlinks=True), Operation[os.stat_result])
    assert_type(loop.stat("a", dir_fd=file).result().st_size, int)
    assert_type(loop.truncate(file, 10), Operation[None])
    assert_type(loop.rename("a", b"b", on_anything, src_dir_fd=3), Operation[None])
    assert_type(loop.unlink(path, dir_fd=file), Operation[None])
    assert_type(loop.rmdir(path), Operation[None])
    assert_type(loop.mkdir(path, 0o700, timeout=1), Operation[None])
    assert_type(loop.link("a", "b", follow_symlinks=False), Operation[None])
    assert_type(loop.link(hard=True), Chain)
    assert_type(loop.symlink("a", path), Operation[None])


def moves(loop: Loop, file: IO[bytes], path: Path) -> None:
    assert_type(loop.splice(0, file, 10, offset_out=1), Operation[int])
    assert_type(loop.sendfile(1, file, 0, None, on_anything), Operation[int])
    assert_type(loop.copy_file("a", path, on_success=lambda count: print(count + 1)), Operation[int])
    loop.copy_file("a")  # type: ignore[call-arg]
    loop.link("a")  # type: ignore[call-overload]
    loop.stat(1.5)  # type: ignore[arg-type]
