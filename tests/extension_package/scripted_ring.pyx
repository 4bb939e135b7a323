"""Ring operations of another package: those of io_uring, but for results that a script puts in their place."""

from libc.stdint cimport int64_t, uint32_t
from linux_event.core cimport LE_RING_ABI, le_ring, le_ring_ops
from linux_event.ring cimport production_ops, use_ring_ops

cdef enum:
    SCRIPT_MAX = 256
    THROUGH = 1  # no made-up result: the kernel is asked

cdef struct script:
    int results[SCRIPT_MAX]
    int count
    int position

cdef script opens, enables, enters
cdef bint is_late = False
cdef uint32_t opened[SCRIPT_MAX][2]  # the sizes that were asked for
cdef int opened_count = 0


cdef int next_result(script *lines) noexcept nogil:
    if lines.position == lines.count:
        return THROUGH
    lines.position += 1
    return lines.results[lines.position - 1]


cdef int scripted_open(le_ring *ring, uint32_t entries, uint32_t cq_entries, uint32_t flags) noexcept nogil:
    global opened_count
    cdef int result = next_result(&opens)
    opened[opened_count % SCRIPT_MAX][0] = entries
    opened[opened_count % SCRIPT_MAX][1] = cq_entries
    opened_count += 1
    return production_ops().open(ring, entries, cq_entries, flags) if result == THROUGH else result


cdef int scripted_enable(le_ring *ring) noexcept nogil:
    cdef int result = next_result(&enables)
    return production_ops().enable(ring) if result == THROUGH else result


cdef int scripted_enter(le_ring *ring, uint32_t wait_nr, int64_t timeout_ns) noexcept nogil:
    cdef int result = next_result(&enters)
    if is_late and result != THROUGH:
        production_ops().enter(ring, 0, 0)
    return production_ops().enter(ring, wait_nr, timeout_ns) if result == THROUGH else result


cdef void scripted_close(le_ring *ring) noexcept nogil:
    production_ops().close(ring)


cdef le_ring_ops ops
ops.open = scripted_open
ops.enable = scripted_enable
ops.enter = scripted_enter
ops.close = scripted_close


cdef int write(script *lines, list results) except -1:
    if len(results) > SCRIPT_MAX:
        raise ValueError(f"at most {SCRIPT_MAX} results, not {len(results)}")
    lines.count = lines.position = 0
    for result in results:
        lines.results[lines.count] = THROUGH if result is None else result
        lines.count += 1
    return 0


def use(*, on_open=(), on_enable=(), on_enter=(), late=False, abi=LE_RING_ABI):
    """Rings opened from now on give these results first: 0, a negative errno, or None for what the kernel says.

    late: those of on_enter come when the kernel has done, without a wait, what it was asked for.
    """
    global opened_count, is_late
    is_late = late
    write(&opens, list(on_open))
    write(&enables, list(on_enable))
    write(&enters, list(on_enter))
    opened_count = 0
    ops.abi = abi
    use_ring_ops(&ops)


def restore():
    """Rings opened from now on are those of io_uring."""
    use_ring_ops(NULL)


def left():
    """How many results have not been given yet."""
    return sum([lines.count - lines.position for lines in (opens, enables, enters)])


def sizes():
    """The sizes that rings were to be opened with: entries of submission and of completion."""
    return [(opened[i][0], opened[i][1]) for i in range(min(opened_count, SCRIPT_MAX))]
