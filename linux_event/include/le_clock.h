/* le_clock.h: the monotonic clock in integer nanoseconds. See clock_gettime(2). */
#ifndef LE_CLOCK_H
#define LE_CLOCK_H

#include <stdint.h>
#include <time.h>

/* The farthest deadline, 146 years away: sums of two never overflow, and the kernel accepts it as a timeout. */
#define LE_NS_MAX ((int64_t)1 << 62)
#define LE_NS_NEVER INT64_MAX
#define LE_NS_PER_S INT64_C(1000000000)

static inline int64_t le_clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * LE_NS_PER_S + now.tv_nsec;
}

/* The sum of a moment and a delay, both within 0 .. LE_NS_MAX, cut to LE_NS_MAX. */
static inline int64_t le_clock_after(int64_t now_ns, int64_t after_ns)
{
    return after_ns > LE_NS_MAX - now_ns ? LE_NS_MAX : now_ns + after_ns;
}

#endif
