"""The key-value store of the examples, driven by redis-cli and redis-benchmark."""

import random
import re
import shutil
import signal
import socket

import pytest
from _example import BOUND, nc, run, running
from _fault import wait_until

pytestmark = pytest.mark.skipif(shutil.which("redis-cli") is None, reason="redis-tools is not installed")


@pytest.fixture
def store(nothing_left):
    with running("18_redis_kv.py", "--port", 0) as example:
        example.number = example.port()
        yield example


def ask(store, *command, data=b""):
    """The answer to one command as redis-cli prints it: strings in quotes, the members of lists with numbers."""
    return run("redis-cli", "-p", store.number, "--no-raw", *command, data=data).decode().rstrip("\n")


def session(store, *lines):
    """The answers to commands on one connection."""
    text = "".join(f"{line}\n" for line in lines)
    return run("redis-cli", "-p", store.number, "--no-raw", data=text.encode()).decode().splitlines()


def command(*words):
    """A command as it is sent."""
    words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


CONVERSATIONS = {
    "connection": [
        ("ping", "PONG"),
        ("PiNg hello", '"hello"'),
        ("echo 'two words'", '"two words"'),
        ("select 0", "OK"),
        ("select 1", "(error) ERR DB index is out of range"),
        ("client setname me", "OK"),
        ("command count", "(integer) 0"),
        ("config get appendonly", '1) "appendonly"', '2) "no"'),
        ("config get nothing", "(empty array)"),
        ("config set a b", "(error) ERR unknown subcommand"),
        ("nothing", "(error) ERR unknown command 'nothing'"),
        ("get", "(error) ERR wrong number of arguments for 'get' command"),
        ("get a b", "(error) ERR wrong number of arguments for 'get' command"),
    ],
    "strings": [
        ("get a", "(nil)"),
        ("set a 1", "OK"),
        ("get a", '"1"'),
        ("set a 2 nx", "(nil)"),
        ("set a 2 xx", "OK"),
        ("set b 2 xx", "(nil)"),
        ("set b 2 nx", "OK"),
        ("set a 1 nx xx", "(error) ERR syntax error"),
        ("set a 1 ex", "(error) ERR syntax error"),
        ("set a 1 ex x", "(error) ERR value is not an integer or out of range"),
        ("set a 1 ex 0", "(error) ERR invalid expire time in 'set' command"),
        ("set a 1 keepttl ex 5", "(error) ERR syntax error"),
        ("incr a", "(integer) 3"),
        ("decr a", "(integer) 2"),
        ("incrby a 40", "(integer) 42"),
        ("incr new", "(integer) 1"),
        ("set a word", "OK"),
        ("incr a", "(error) ERR value is not an integer or out of range"),
        ("set a 9223372036854775807", "OK"),
        ("incr a", "(error) ERR increment or decrement would overflow"),
        ("incrby a 1_0", "(error) ERR value is not an integer or out of range"),
        ("mset x 1 y 2", "OK"),
        ("mset x 1 y", "(error) ERR wrong number of arguments for 'mset' command"),
        ("mget x none y", '1) "1"', "2) (nil)", '3) "2"'),
        ("exists x y x none", "(integer) 3"),
        ("del x y x none", "(integer) 2"),
        ("type a", "string"),
        ("type x", "none"),
        ("dbsize", "(integer) 3"),
        ("flushall", "OK"),
        ("dbsize", "(integer) 0"),
    ],
    "lists": [
        ("rpush l b c", "(integer) 2"),
        ("lpush l a 0", "(integer) 4"),
        ("llen l", "(integer) 4"),
        ("lrange l 0 -1", '1) "0"', '2) "a"', '3) "b"', '4) "c"'),
        ("lrange l -2 100", '1) "b"', '2) "c"'),
        ("lrange l 2 1", "(empty array)"),
        ("lrange none 0 -1", "(empty array)"),
        ("lpop l", '"0"'),
        ("rpop l", '"c"'),
        ("get l", "(error) WRONGTYPE Operation against a key holding the wrong kind of value"),
        ("hget l f", "(error) WRONGTYPE Operation against a key holding the wrong kind of value"),
        ("mget l", "1) (nil)"),
        ("type l", "list"),
        ("del l", "(integer) 1"),
        ("lpush l a", "(integer) 1"),
        ("lpop l", '"a"'),
        ("lpop l", "(nil)"),
        ("exists l", "(integer) 0"),
        ("set l text", "OK"),
        ("rpush l x", "(error) WRONGTYPE Operation against a key holding the wrong kind of value"),
    ],
    "hashes": [
        ("hset h f 1 g 2", "(integer) 2"),
        ("hset h f 3", "(integer) 0"),
        ("hset h f", "(error) ERR wrong number of arguments for 'hset' command"),
        ("hset h f 1 g", "(error) ERR wrong number of arguments for 'hset' command"),
        ("hget h f", '"3"'),
        ("hget h none", "(nil)"),
        ("hlen h", "(integer) 2"),
        ("hgetall h", '1) "f"', '2) "3"', '3) "g"', '4) "2"'),
        ("type h", "hash"),
        ("hdel h f none", "(integer) 1"),
        ("hdel h g", "(integer) 1"),
        ("exists h", "(integer) 0"),
    ],
    "expiry": [
        ("set a 1 ex 100", "OK"),
        ("ttl a", "(integer) 100"),
        ("set a 2 keepttl", "OK"),
        ("ttl a", "(integer) 100"),
        ("set a 2", "OK"),
        ("ttl a", "(integer) -1"),
        ("ttl none", "(integer) -2"),
        ("expire a 50", "(integer) 1"),
        ("ttl a", "(integer) 50"),
        ("pexpire a 7000", "(integer) 1"),
        ("ttl a", "(integer) 7"),
        ("persist a", "(integer) 1"),
        ("persist a", "(integer) 0"),
        ("expire none 5", "(integer) 0"),
        ("expire a 0", "(integer) 1"),
        ("get a", "(nil)"),
    ],
}


@pytest.mark.parametrize("topic", CONVERSATIONS)
def test_conversations(store, topic):
    lines = CONVERSATIONS[topic]
    # After an error redis-cli prints an empty line.
    answers = [line for line in session(store, *(line for line, *_ in lines)) if line]
    assert answers == [line for _, *wanted in lines for line in wanted]
    assert store.end(signal.SIGINT) == []


@pytest.mark.parametrize("value", [b"", b"\r\n", b"a\r\nb\r\n\r\n", bytes(range(256)), b"$3\r\nabc\r\n" * 1000])
def test_values_of_any_bytes(store, value):
    # -x: the last argument is what stands on the standard input.
    assert ask(store, "-x", "set", "key", data=value) == "OK"
    assert run("redis-cli", "-p", store.number, "--raw", "get", "key") == value + b"\n"
    assert nc(store.number, command("get", "key")) == b"$%d\r\n%b\r\n" % (len(value), value)


def test_big_values(store):
    value = random.Random(1).randbytes(20 << 20)
    assert nc(store.number, command("set", "big", value) + command("get", "big")) == b"+OK\r\n$%d\r\n%b\r\n" % (
        len(value),
        value,
    )


@pytest.mark.parametrize("seed", range(5))
def test_pieces_of_any_size(store, seed):
    """However the bytes are cut, the answers are those to the whole."""
    draw = random.Random(seed)
    names = [b"a", b"b\r\n", b"\r", b""]
    commands = []
    for _ in range(300):
        name = draw.choice(names)
        value = draw.choice([b"x", b"\r\n", b"", b"*1\r\n$4\r\nping\r\n", draw.randbytes(draw.randrange(3000))])
        commands.append(draw.choice([command("set", name, value), command("get", name), b"ping\r\n", b"\r\n"]))
    data = b"".join(commands)
    wanted = nc(store.number, command("flushall") + data).removeprefix(b"+OK\r\n")
    # The first GETs are to find the same nothing.
    with socket.create_connection(("127.0.0.1", store.number), timeout=BOUND) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(command("flushall"))
        while data:
            size = draw.choice([1, 2, 3, 10, 100, 5000])
            client.sendall(data[:size])
            data = data[size:]
        client.shutdown(socket.SHUT_WR)
        with client.makefile("rb") as stream:
            assert stream.read().removeprefix(b"+OK\r\n") == wanted
    assert wanted.count(b"+") > 30


def test_keys_expire(store):
    script = ["set a 1 px 50", "rpush l x", "pexpire l 50", "set c 3 px 60000", "dbsize"]
    assert session(store, *script)[-1] == "(integer) 3"
    # The timer removes them, whether anybody asks for them or not.
    wait_until(lambda: ask(store, "dbsize") == "(integer) 1")
    assert ask(store, "mget", "a", "c") == '1) (nil)\n2) "3"'
    assert 50_000 < int(ask(store, "pttl", "c").split()[1]) <= 60_000
    assert "keys=1,expires=1" in run("redis-cli", "-p", store.number, "info").decode()


def test_nobody_sees_a_key_that_is_over(store):
    # Within one batch of commands no timer can come.
    many = b"".join(command("set", number, "x", "px", 1) for number in range(20_000))
    answer = nc(store.number, many + command("exists", *range(20_000)) + command("dbsize"))
    alive, _ = re.findall(rb":(\d+)\r\n", answer)
    assert int(alive) < 20_000
    wait_until(lambda: ask(store, "dbsize") == "(integer) 0")


def test_quit(store):
    before = store.fds()
    assert nc(store.number, command("ping") + command("quit") + command("ping")) == b"+PONG\r\n+OK\r\n"
    wait_until(lambda: store.fds() == before)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"*x\r\n", b"invalid multibulk length"),
        (b"*9999999\r\n", b"invalid multibulk length"),
        (b"*1\r\nping\r\n", b"expected '$', got 'p'"),
        (b"*1\r\n$x\r\n", b"invalid bulk length"),
        (b"*1\r\n$-1\r\n", b"invalid bulk length"),
        (b"*1\r\n$99999999999\r\n", b"invalid bulk length"),
        (b"*1\r\n$3\r\nlonger\r\n", b"longer than announced"),
        (b"x" * 100_000, b"too big inline request"),
    ],
)
def test_what_is_not_the_protocol_ends_the_connection(store, data, message):
    before = store.fds()
    answer = nc(store.number, command("ping") + data + b"\r\n" + command("ping"))
    assert answer.startswith(b"+PONG\r\n-ERR Protocol error: ")
    assert message in answer
    assert answer.count(b"\r\n") == 2
    wait_until(lambda: store.fds() == before)
    assert store.end(signal.SIGINT) == []


def test_a_client_that_asks_and_does_not_read(store):
    assert ask(store, "-x", "set", "big", data=bytes(1 << 20)) == "OK"
    with socket.create_connection(("127.0.0.1", store.number), timeout=BOUND) as client:
        client.sendall(command("get", "big") * 100)
        client.shutdown(socket.SHUT_WR)
        size = 0
        while data := client.recv(1 << 20):
            size += len(data)
    assert size == 100 * len(b"$1048576\r\n%b\r\n" % bytes(1 << 20))


@pytest.mark.parametrize("pipeline", [1, 16])
def test_benchmark(store, pipeline):
    if shutil.which("redis-benchmark") is None:
        pytest.skip("redis-benchmark is not installed")
    before = store.fds()
    tests = "ping,set,get,incr,lpush,rpush,lpop,rpop,hset,lrange_100,mset"
    options = ("-t", tests, "-n", 5000, "-P", pipeline, "-c", 50, "-r", 1000, "--csv")
    output = run("redis-benchmark", "-p", store.number, *options).decode()
    assert "rror" not in output, output
    figures = re.findall(r'^"([^"]+)","([\d.]+)"', output, re.MULTILINE)
    assert len(figures) == 13, output
    assert all(float(per_second) > 0 for _, per_second in figures)
    wait_until(lambda: store.fds() == before)
    assert store.end(signal.SIGINT) == []
