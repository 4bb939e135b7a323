"""Libraries that read and write files: without a loop, and on asyncio's."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from .base import Driver, NotOffered


class Library(Driver):
    """What has no loop of its own to run."""

    def __getattr__(self, name: str) -> Any:
        if name in ("defer", "run", "stop"):
            raise NotOffered("no loop")
        raise AttributeError(name)


class Blocking(Library):
    """Python's own files, one after the other."""

    def read_files(self, paths: Sequence[str], at_once: int) -> int:
        total = 0
        for path in paths:
            with open(path, "rb") as file:
                total += len(file.read())
        return total

    def write_files(self, paths: Sequence[str], data: bytes, at_once: int) -> int:
        total = 0
        for path in paths:
            with open(path, "wb") as file:
                total += file.write(data)
        return total


class OnAsyncio(Library):
    """A library on asyncio. Subclasses say how one file is read and written."""

    async def read_file(self, path: str) -> bytes:
        """Read a whole file."""
        raise NotImplementedError

    async def write_file(self, path: str, data: bytes) -> int:
        """Write a whole file; return the number of bytes."""
        raise NotImplementedError

    async def prepare(self) -> None:
        """Make what all files share."""

    def read_files(self, paths: Sequence[str], at_once: int) -> int:
        async def read(path: str) -> int:
            return len(await self.read_file(path))

        return asyncio.run(self._all(paths, at_once, read))

    def write_files(self, paths: Sequence[str], data: bytes, at_once: int) -> int:
        async def write(path: str) -> int:
            return await self.write_file(path, data)

        return asyncio.run(self._all(paths, at_once, write))

    async def _all(self, paths: Sequence[str], at_once: int, one: Callable[[str], Awaitable[int]]) -> int:
        await self.prepare()
        rest = iter(paths)

        async def some() -> int:
            total = 0
            for path in rest:
                total += await one(path)
            return total

        return sum(await asyncio.gather(*(some() for _ in range(at_once))))


class Aiofiles(OnAsyncio):
    """Files in asyncio's pool of threads."""

    def __init__(self) -> None:
        import aiofiles

        self._open = aiofiles.open

    async def read_file(self, path: str) -> bytes:
        async with self._open(path, "rb") as file:
            return await file.read()

    async def write_file(self, path: str, data: bytes) -> int:
        async with self._open(path, "wb") as file:
            return await file.write(data)


class Anyio(OnAsyncio):
    """Files in anyio's pool of threads."""

    def __init__(self) -> None:
        import anyio

        self._path = anyio.Path

    async def read_file(self, path: str) -> bytes:
        return await self._path(path).read_bytes()

    async def write_file(self, path: str, data: bytes) -> int:
        return await self._path(path).write_bytes(data)


class Caio(OnAsyncio):
    """Reads and writes by Linux's older asynchronous interface, or what caio finds best; opening and closing blocks."""

    def __init__(self) -> None:
        import caio

        self._make: Callable[[], Any] = caio.AsyncioContext

    async def prepare(self) -> None:
        self._context = self._make()

    async def read_file(self, path: str) -> bytes:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return await self._context.read(os.fstat(fd).st_size, fd, 0)
        finally:
            os.close(fd)

    async def write_file(self, path: str, data: bytes) -> int:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            return await self._context.write(data, fd, 0)
        finally:
            os.close(fd)
