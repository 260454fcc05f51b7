/* Timers in a pairing heap whose links are embedded: starting allocates nothing and stopping frees at once,
 * which libuv's own timers (closed by a callback) do not allow. Push is O(1), stop and pop O(log n)
 * amortised. Fredman, Sedgewick, Sleator, Tarjan: The pairing heap (1986). */
#include "base/clock.h"
#include "base/require.h"
#include "loop/loop_internal.h"

/* Of a node: `child` its first child, `next` its next sibling, `prev` its previous sibling or, of a first
 * child, the parent. The root has neither next nor prev. */
static struct loop_timer *join(struct loop_timer *a, struct loop_timer *b)
{
    struct loop_timer *under;

    if (a == NULL || b == NULL)
        return a != NULL ? a : b;
    if (b->due_ns < a->due_ns) {
        under = a;
        a = b;
    } else {
        under = b;
    }
    under->prev = a;
    under->next = a->child;
    if (under->next != NULL)
        under->next->prev = under;
    a->child = under;
    return a;
}

/* Two passes: pairs from the left, then all pairs from the right. */
static struct loop_timer *join_siblings(struct loop_timer *first)
{
    struct loop_timer *pairs = NULL, *root = NULL;

    while (first != NULL) {
        struct loop_timer *a = first, *b = a->next, *pair;

        first = b != NULL ? b->next : NULL;
        a->next = a->prev = NULL;
        if (b != NULL)
            b->next = b->prev = NULL;
        pair = join(a, b);
        pair->next = pairs;
        pairs = pair;
    }
    while (pairs != NULL) {
        struct loop_timer *pair = pairs;

        pairs = pair->next;
        pair->next = NULL;
        root = join(root, pair);
    }
    return root;
}

static void heap_remove(struct loop *loop, struct loop_timer *timer)
{
    struct loop_timer *children = join_siblings(timer->child);

    if (timer == loop->timers) {
        loop->timers = children;
    } else {
        if (timer->prev->child == timer)
            timer->prev->child = timer->next;
        else
            timer->prev->next = timer->next;
        if (timer->next != NULL)
            timer->next->prev = timer->prev;
        loop->timers = join(loop->timers, children);
    }
    timer->child = timer->next = timer->prev = NULL;
    timer->loop = NULL;
}

/* libuv rings again and again, before anything else, for timers that are due at once when started by a ring;
 * so these wait for `least_ms` = 1. */
static void clock_set(struct loop *loop, uint64_t least_ms)
{
    uint64_t now = clock_mono_ns(), due, delay_ms;

    if (loop->timers == NULL) {
        uv_timer_stop(&loop->clock);
        return;
    }
    due = loop->timers->due_ns;
    uv_update_time(&loop->uv); /* the loop's cached time may be as old as the running callback */
    delay_ms = due <= now ? 0 : (due - now + 999999) / 1000000;
    uv_timer_start(&loop->clock, loop_clock_rang, delay_ms > least_ms ? delay_ms : least_ms, 0);
}

void loop_clock_rang(uv_timer_t *clock)
{
    struct loop *loop = container_of(clock, struct loop, clock);
    uint64_t now = clock_mono_ns();

    loop->ringing = true;
    while (loop->timers != NULL && loop->timers->due_ns <= now) {
        struct loop_timer *timer = loop->timers;

        heap_remove(loop, timer);
        timer->fire(timer); /* may free it or start it anew */
    }
    loop->ringing = false;
    clock_set(loop, 1);
}

void loop_timer_start(struct loop *loop, struct loop_timer *timer, uint64_t delay_ms,
                      void (*fire)(struct loop_timer *timer))
{
    REQUIRE(loop_is_here(loop));
    if (timer->loop != NULL)
        heap_remove(loop, timer);
    timer->loop = loop;
    timer->fire = fire;
    timer->due_ns = clock_mono_ns() + delay_ms * 1000000u;
    timer->child = timer->next = timer->prev = NULL;
    loop->timers = join(loop->timers, timer);
    if (loop->timers == timer && !loop->ringing)
        clock_set(loop, 0);
}

void loop_timer_stop(struct loop_timer *timer)
{
    struct loop *loop = timer->loop;

    if (loop == NULL)
        return;
    REQUIRE(loop_is_here(loop));
    heap_remove(loop, timer);
    if (loop->timers == NULL)
        uv_timer_stop(&loop->clock);
}

bool loop_timer_is_running(const struct loop_timer *timer)
{
    return timer->loop != NULL;
}
