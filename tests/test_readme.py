"""The documents: the README's programs run, the commands that they name exist, and the files that they name are there."""

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from _fault import finish_script, run_script, start_script

import linux_event

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(linux_event.__file__).resolve().parent
DOCUMENTS = (
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "benchmarks/README.md",
    "docs/performance.md",
)
BOUND = 60


def text_of(name):
    return (ROOT / name).read_text()


def blocks(name, language):
    """The fenced blocks of a document that are marked with this language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(name), flags=re.MULTILINE | re.DOTALL)


# --- the example --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def echo_server():
    """The README's echo server in a process of its own; yields the process and its address, once it listens."""
    # An address of the loopback network for this process alone: the port is free there.
    host = f"127.{os.getpid() >> 16 & 255}.{os.getpid() >> 8 & 255}.{os.getpid() & 255 or 1}"
    source = blocks("README.md", "python")[0]
    assert source.count('"127.0.0.1"') == source.count("    loop.run()\n") == 1
    source = source.replace('"127.0.0.1"', repr(host))
    source = source.replace("    loop.run()\n", "    print('listening', flush=True)\n    loop.run()\n")
    process = start_script(source)
    try:
        assert select.select([process.stdout], [], [], BOUND)[0]
        assert process.stdout.readline() == "listening\n", process.communicate()
        yield process, (host, 7007)
    finally:
        process.kill()
        process.communicate()


def end_well(process):
    process.send_signal(signal.SIGINT)
    finish_script(process, BOUND).check("")


def test_the_example_is_about_twenty_lines():
    lines = [line for line in blocks("README.md", "python")[0].splitlines() if line.strip()]
    assert 18 <= len(lines) <= 25


def test_the_example_serves_netcat():
    said = b"one\ntwo\n" * 1000
    with echo_server() as (process, (host, port)):
        heard = subprocess.run(
            ["nc", "-N", host, str(port)], input=said, capture_output=True, timeout=BOUND, check=True
        )
        assert heard.stdout == said
        end_well(process)


def test_the_example_waits_for_a_client_that_does_not_read():
    said = os.urandom(1 << 24)
    with echo_server() as (process, address), socket.create_connection(address, BOUND) as slow:
        # Far more than the buffers of both sides: the server has to stop reading until this end reads.
        sender = threading.Thread(target=lambda: (slow.sendall(said), slow.shutdown(socket.SHUT_WR)))
        sender.start()
        with socket.create_connection(address, BOUND) as quick:
            quick.sendall(b"meanwhile")
            assert quick.recv(100) == b"meanwhile"
        heard = bytearray()
        while data := slow.recv(1 << 20):
            heard += data
        sender.join()
        assert heard == said
        end_well(process)


def test_the_example_survives_clients_that_vanish():
    def talk(process, address):
        """Be a client until the server has closed the connection, then return how many fds the server has."""
        with socket.create_connection(address, BOUND) as client:
            client.sendall(b"still there")
            assert client.recv(100) == b"still there"
            client.shutdown(socket.SHUT_WR)
            assert client.recv(100) == b""
        return len(os.listdir(f"/proc/{process.pid}/fd"))

    with echo_server() as (process, address):
        before = talk(process, address)
        for _ in range(20):
            with socket.create_connection(address, BOUND) as client:
                client.sendall(b"unheard" * 1000)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # closing sends a reset
        # This client is accepted after all of them, and its end comes after theirs has been dealt with.
        assert talk(process, address) == before
        end_well(process)


def test_every_other_block_of_python_runs():
    others = blocks("README.md", "python")[1:]
    assert others
    for source in others:
        run_script(f"""
import asyncio
from linux_event import Loop

async def main(loop):
    rest = loop.timer(0.01, lambda timer: None)
{"".join(f"    {line}" for line in source.splitlines(keepends=True))}
    loop.run_once(0)

with Loop() as loop:
    asyncio.run(main(loop))
""").check()


# --- commands and files -------------------------------------------------------------------------------------------


def test_the_two_commands_are_the_first_lines_of_the_readme():
    lines = text_of("README.md").splitlines()
    assert lines[0] == lines[3] == "```"
    assert [line.split("#")[0].split() for line in lines[1:3]] == [["make", "demo"], ["make", "test"]]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_make_commands_of_the_documents_exist(name):
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), flags=re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", text_of(name), flags=re.MULTILINE))
    assert named <= targets


def test_the_python_commands_of_the_readme_exist():
    named = set(re.findall(r"python -m linux_event(?: (\w+))?", text_of("README.md") + text_of("CHANGELOG.md")))
    assert named == {"", "demo"}
    described = run_script("import linux_event.__main__ as m; m.main(['--help'])").stdout
    assert all(command in described for command in named)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_links_of_the_documents_lead_to_files(name):
    links = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", text_of(name))
    missing = [link for link in links if not ((ROOT / name).parent / link).exists()]
    assert not missing


def test_the_file_map_is_complete():
    section = text_of("ARCHITECTURE.md").split("\n## The file map\n")[1].split("\n## ")[0]
    told = set(re.findall(r"`([\w/]+\.\w+)`", section))
    there = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*")
        if path.suffix in {".py", ".pyx", ".h"} or (path.suffix == ".pxd" and not path.with_suffix(".pyx").exists())
    }
    assert told == there


def test_the_readme_names_what_is_public():
    text = text_of("README.md")
    for name in linux_event.__all__:
        assert name in ("Watcher", "Statistics", "get_include", "__version__") or f"`{name}" in text, name
    # Extensions that other tests have loaded may have given loops methods of their own.
    for name, member in vars(linux_event.Loop).items():
        if not name.startswith("_") and getattr(member, "__module__", "linux_event").startswith("linux_event"):
            assert re.search(rf"\b{name}\b", text), name
