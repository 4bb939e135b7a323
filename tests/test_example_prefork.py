"""The pre-forked server of the examples, under load by wrk, curl and threads while its workers are replaced."""

import contextlib
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import threading

import pytest
from _example import BOUND, foreign, is_gone, run, running
from _fault import wait_until


class Site:
    """The server when its workers are there."""

    def __init__(self, example, count):
        self.example = example
        self.number = example.port()
        assert str(example.pid) in example.lines[0]
        self.base = f"http://127.0.0.1:{self.number}"
        self.count = count
        self.workers = {}
        self.begun = set()
        self.read(count)

    def read(self, count, ended=(), maybe=False):
        """Read that so many workers have begun, and that those with the pids `ended` have ended, in any order.

        Where `maybe` is true others may have ended, too. Returns the statuses of those that have, by pid.
        """
        ended = set(ended)
        gone = {}
        while count or ended:
            line = self.example.line()
            if line == "SIGHUP: replacing the workers":
                continue
            number, pid, what = re.fullmatch(r"worker (\d+): process (\d+) (.*)", line).groups()
            if what == "accepts":
                self.workers[int(number)] = int(pid)
                self.begun.add(int(pid))
                count -= 1
            else:
                assert int(pid) in ended or (maybe and int(pid) in self.begun)
                ended.discard(int(pid))
                gone[int(pid)] = what.removeprefix("has ended with status ")
        return gone

    def restart(self):
        """Replace the workers, and wait until that is done."""
        old = set(self.workers.values())
        self.example.process.send_signal(signal.SIGHUP)
        assert self.example.line() == "SIGHUP: replacing the workers"
        assert set(self.read(self.count, old).values()) == {"0"}
        assert not old & set(self.workers.values())
        return old

    def ask(self, path="/", *options):
        return run("curl", "-sS", "--max-time", BOUND, *options, f"{self.base}{path}").decode()

    def end(self, signum=signal.SIGTERM):
        *lines, last = self.example.end(signum)
        assert lines[0] == f"{signum.name}: stopping"
        assert last == "all workers have ended"
        assert all(re.fullmatch(r"worker \d+: process \d+ has ended with status 0", line) for line in lines[1:])
        assert len(lines) == 1 + self.count
        assert all(is_gone(pid) for pid in self.workers.values())


@pytest.fixture
def site(nothing_left):
    with running("21_prefork.py", "--port", 0, "--workers", 2, "--grace", BOUND) as example:
        try:
            yield Site(example, 2)
        finally:
            # Workers end when the master has gone, whichever way it went.
            if example.process.poll() is None:
                example.process.kill()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_all_workers_serve(site, signum):
    wanted = {f"process {pid}\n" for pid in site.workers.values()}
    seen = set()
    # The kernel spreads connections by their ports.
    wait_until(lambda: seen.add(site.ask()) or seen == wanted)
    site.end(signum)


def test_answers(site):
    assert site.ask("/none") == "not found\n"
    assert site.ask("/slow").endswith(", after a while\n")
    assert site.ask("/", "-d", "x", "-w", "%{http_code}") == "GET only\n405"
    output = site.ask("/", "-w", "%{num_connects}", f"{site.base}/")
    assert re.fullmatch(r"process (\d+)\n1process \1\n0", output)
    with socket.create_connection(("127.0.0.1", site.number), timeout=BOUND) as client:
        client.sendall(b"nonsense\r\n\r\n")
        with client.makefile("rb") as stream:
            assert stream.readline() == b"HTTP/1.1 400 Bad Request\r\n"
            assert b"Connection: close\r\n" in stream.read()
    site.end()


def answer_to(client, after=""):
    """Receive one answer: whether it is the last one of its connection, and the process that has given it."""
    response = http.client.HTTPResponse(client)
    response.begin()
    text = response.read().decode()
    assert response.status == 200
    return response.will_close, int(re.fullmatch(rf"process (\d+){after}\n", text)[1])


class Clients:
    """Clients in threads, each of which asks, checks the answer, and asks again.

    They use a connection as long as the server keeps it; every third one makes one for each request.
    """

    def __init__(self, port, count):
        self.port = port
        self.is_over = False
        self.served = [0] * count
        self.pids = set()
        self.failures = []
        self.threads = [threading.Thread(target=self.run, args=(number,)) for number in range(count)]
        for thread in self.threads:
            thread.start()

    def run(self, number):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=BOUND)
        connection.auto_open = True  # it connects again where an answer has ended the connection
        try:
            while not self.is_over:
                connection.request("GET", "/", headers={"Connection": "close"} if number % 3 == 0 else {})
                answer = connection.getresponse()
                text = answer.read().decode()
                assert answer.status == 200
                self.pids.add(int(re.fullmatch(r"process (\d+)\n", text)[1]))
                self.served[number] += 1
        except Exception as error:
            self.failures.append(error)
        finally:
            connection.close()

    def go_on(self):
        """Wait until each of them has been served again."""
        before = list(self.served)
        wait_until(lambda: self.failures or all(now > then + 1 for now, then in zip(self.served, before, strict=True)))
        assert self.failures == []

    def end(self):
        self.is_over = True
        for thread in self.threads:
            thread.join(BOUND)
        assert self.failures == []


@pytest.mark.parametrize("header", [None, "X: y", "Connection: close"])
def test_no_request_is_lost_in_restarts(site, header):
    """Under the load of clients that check each answer, alone and beside that of wrk, which counts the errors."""
    if header is not None and shutil.which("wrk") is None:
        pytest.skip("wrk is not installed")
    command = ["wrk", "-t1", "-c20", "-d2s", "--timeout", "60s", "-H", header, f"{site.base}/"]
    with contextlib.ExitStack() as stack:
        clients = Clients(site.number, 6)
        stack.callback(clients.end)
        load = None
        if header is not None:
            load = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=foreign()))
        restarts = 0
        workers = set()
        while restarts < 3 or (load is not None and load.poll() is None):
            workers |= site.restart()
            clients.go_on()
            restarts += 1
        clients.end()
        if load is not None:
            output = load.stdout.read()
            assert load.wait() == 0
            assert "Socket errors" not in output, output
            assert "Non-2xx" not in output, output
            assert int(re.search(r"(\d+) requests in", output)[1]) > 0, output
    assert clients.pids <= workers | set(site.workers.values())
    assert len(clients.pids) > restarts
    site.end()


def test_curl_in_a_loop_while_workers_are_replaced(site):
    for _ in range(2):
        site.example.process.send_signal(signal.SIGHUP)
        assert site.example.line() == "SIGHUP: replacing the workers"
        old = {f"process {pid}\n" for pid in site.workers.values()}
        wait_until(lambda old=old: site.ask() not in old)
        site.read(2, site.workers.values())
    site.end()


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGTERM])
def test_what_has_begun_is_finished(site, signum):
    """A slow request, and a client that asks again when its worker has been told to stop."""
    old = set(site.workers.values())
    with (
        socket.create_connection(("127.0.0.1", site.number), timeout=BOUND) as slow,
        socket.create_connection(("127.0.0.1", site.number), timeout=BOUND) as idle,
    ):
        idle.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert not answer_to(idle)[0]
        slow.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        site.example.process.send_signal(signum)
        if signum == signal.SIGHUP:
            assert site.example.line() == "SIGHUP: replacing the workers"
            # The new ones take over, while the old ones have something to finish.
            gone = site.read(2, maybe=True)
            assert not old & set(site.workers.values())
        else:
            assert site.example.line() == "SIGTERM: stopping"
            wait_until(lambda: is_refused(site.number))
        answer_to(slow, ", after a while")
        slow.close()
        is_last = False
        while not is_last:  # Its worker may not have heard of it yet.
            idle.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            is_last, pid = answer_to(idle)
            assert pid in old
        assert idle.recv(1) == b""
    if signum == signal.SIGHUP:
        gone |= site.read(0, old - gone.keys())
        assert gone == dict.fromkeys(old, "0")
        site.end()
    else:
        assert site.example.end()[-1] == "all workers have ended"


def is_refused(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=BOUND).close()
    except ConnectionRefusedError:
        return True
    return False


def test_who_waits_in_a_queue_when_all_ends(site):
    """Workers that are stopped have accepted nobody; when they go on they are told to end first."""
    for pid in site.workers.values():
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda pid=pid: state(pid) == "T")
    clients = [socket.create_connection(("127.0.0.1", site.number), timeout=BOUND) for _ in range(10)]
    site.example.process.send_signal(signal.SIGTERM)
    assert site.example.line() == "SIGTERM: stopping"
    for pid in site.workers.values():
        os.kill(pid, signal.SIGCONT)
    for client in clients:
        with client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            _, pid = answer_to(client)
            assert pid in site.workers.values()
            assert client.recv(1) == b""
    assert site.example.end()[-1] == "all workers have ended"


def test_a_restart_while_one_begins(site):
    """Twice SIGHUP: the last workers have been started after the second one."""
    old = set(site.workers.values())
    site.example.process.send_signal(signal.SIGHUP)
    assert site.example.line() == "SIGHUP: replacing the workers"
    site.example.process.send_signal(signal.SIGHUP)
    gone = site.read(4, maybe=True)
    site.read(0, site.begun - set(site.workers.values()) - gone.keys())
    assert len(site.begun) == 6
    assert not old & set(site.workers.values())
    site.end()


def test_a_worker_that_dies_is_replaced_and_its_queue_served(site):
    before = dict(site.workers)
    os.kill(before[1], signal.SIGSTOP)
    # What it has accepted it takes along; once it has stopped, what comes waits in the queue of its socket.
    wait_until(lambda: state(before[1]) == "T")
    clients = [socket.create_connection(("127.0.0.1", site.number), timeout=BOUND) for _ in range(20)]
    os.kill(before[1], signal.SIGKILL)
    assert site.read(1, [before[1]]) == {before[1]: "-9"}
    assert site.workers[2] == before[2]
    assert site.workers[1] != before[1]
    answers = set()
    for client in clients:
        with client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            answers.add(int(re.search(rb"process (\d+)", client.recv(1000))[1]))
    assert answers == set(site.workers.values())
    site.end()


def test_workers_end_when_the_master_is_killed(site):
    workers = set(site.workers.values())
    site.example.end(signal.SIGKILL, status=-signal.SIGKILL)
    wait_until(lambda: all(is_gone(pid) or "Z" in state(pid) for pid in workers))


def state(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"
