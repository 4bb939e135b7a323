"""The stack under many events: what causes the next call does not call it."""

from _support import BOUND, finish, made_loop, scaled


def test_chains_of_calls_do_not_use_the_stack(loop, pipe):
    """A callback that causes the next one, a hundred thousand times over, for each way to cause one."""
    count = scaled(100_000)
    left = 0

    def again(*_):
        nonlocal left
        left -= 1
        if left > 0:
            start(again)

    ways = [loop.defer, loop.post, lambda callback: loop.timer(0, callback).destroy() or loop.defer(callback)]
    for start in ways:
        left = count
        start(again)
        loop.run(BOUND)
        assert left == 0


def test_nested_loops_in_callbacks():
    """Each loop is made, run and closed in a callback of the one before."""
    depths = []

    def nest(depth):
        depths.append(depth)
        if depth < 30:
            with made_loop() as inner:
                inner.defer(nest, depth + 1)
                inner.run()

    nest(0)
    assert depths == list(range(31))


def test_operations_that_start_the_next_one_do_not_use_the_stack(loop, pipe):
    left = scaled(100_000)

    def again(result, error):
        nonlocal left
        left -= 1
        if left > 0:
            loop.read(pipe.r, 0, -1, again)

    loop.read(pipe.r, 0, -1, again)
    finish(loop)
    assert left == 0
