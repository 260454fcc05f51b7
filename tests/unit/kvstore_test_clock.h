/* kvstore_test_clock.h - the test is the clock: both of the store's clocks go as they do, and the test puts them ahead, for what
 * happens in seconds or days. Linked with -Wl,--wrap=clock_gettime. */
#ifndef REELKV_TEST_KVSTORE_TEST_CLOCK_H
#define REELKV_TEST_KVSTORE_TEST_CLOCK_H

#include "kvstore_fixture.h"

static atomic_llong mono_ahead_ns, utc_ahead_ns;

int __real_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now);

int __wrap_clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = __real_clock_gettime(clock, now);
    long long ahead_ns = clock == CLOCK_REALTIME ? utc_ahead_ns : mono_ahead_ns;
    long long ns = now->tv_nsec + ahead_ns % 1000000000;

    now->tv_sec += ahead_ns / 1000000000 + (ns >= 1000000000) - (ns < 0);
    now->tv_nsec = (ns + 1000000000) % 1000000000;
    return result;
}

/* Time passes, and what is due then is done. The loop looks at the clock when a timer rings that was set before. */
static inline void clock_pass(struct fixture *fixture, uint64_t ms)
{
    enum { TURNS = 8, TURN_MS = 2 };

    for (int i = 0; i < TURNS; i++) {
        struct loop_timer tick = { 0 };

        loop_timer_start(fixture->loop, &tick, TURN_MS, fixture_tick);
        if (i == 0) {
            mono_ahead_ns += (long long)ms * 1000000;
            utc_ahead_ns += (long long)ms * 1000000;
        }
        while (loop_timer_is_running(&tick))
            loop_run_once(fixture->loop);
    }
}

/* Seconds pass until the condition holds, so many at most; then what is under way may take its own time. Fails the test when
 * that is over too. */
enum { CLOCK_TURNS_MORE = 1000 };
#define CLOCK_PASS_UNTIL(fixture, seconds, condition)                                             \
    do {                                                                                          \
        for (int passed_ = 0; !(condition); passed_++) {                                          \
            if (passed_ == (seconds) + CLOCK_TURNS_MORE)                                          \
                test_fail(__FILE__, __LINE__, "not within %d s: %s", (int)(seconds), #condition); \
            clock_pass((fixture), passed_ < (seconds) ? 1000 : 0);                                \
        }                                                                                         \
    } while (0)

#endif
