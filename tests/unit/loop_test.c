#include "loop/loop.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "loop/lookup.h"
#include "support/test.h"

static struct loop *loop_of_test(void)
{
    struct loop *loop = NULL;
    struct status st = { 0 };

    CHECK_OK(loop_create(&loop, &st), st);
    return loop;
}

enum { POSTERS = 4, LETTERS = 20000 };

struct numbered {
    struct letter letter;
    struct poster *poster;
    int number;
};

struct poster {
    pthread_t thread;
    struct loop *loop;
    struct numbered *letters;
    int next_expected;
    bool in_order;
    int *left;
};

static void numbered_open(struct letter *letter)
{
    struct numbered *numbered = container_of(letter, struct numbered, letter);
    struct poster *poster = numbered->poster;

    poster->in_order =
        poster->in_order && numbered->number == poster->next_expected && loop_is_here(poster->loop);
    poster->next_expected++;
    if (--*poster->left == 0)
        loop_stop(poster->loop);
}

static void *post_all(void *arg)
{
    struct poster *poster = arg;

    if (loop_is_here(poster->loop))
        return arg;
    for (int i = 0; i < LETTERS; i++)
        loop_post(poster->loop, &poster->letters[i].letter);
    return NULL;
}

/* Four threads post 20,000 letters each while the loop runs: every letter is opened once, on the loop's
 * thread, and those of one poster in its order. */
TEST(letters_from_many_threads_all_arrive_in_each_posters_order)
{
    struct poster posters[POSTERS] = { 0 };
    struct loop *loop = loop_of_test();
    int left = POSTERS * LETTERS;

    for (int p = 0; p < POSTERS; p++) {
        posters[p] = (struct poster){ .loop = loop, .in_order = true, .left = &left };
        posters[p].letters = calloc(LETTERS, sizeof *posters[p].letters);
        REQUIRE(posters[p].letters != NULL);
        for (int i = 0; i < LETTERS; i++)
            posters[p].letters[i] =
                (struct numbered){ .letter.open = numbered_open, .poster = &posters[p], .number = i };
        REQUIRE(pthread_create(&posters[p].thread, NULL, post_all, &posters[p]) == 0);
    }
    loop_run(loop);
    for (int p = 0; p < POSTERS; p++) {
        void *wrong = NULL;

        pthread_join(posters[p].thread, &wrong);
        CHECK(wrong == NULL);
        CHECK(posters[p].in_order);
        CHECK_EQ(posters[p].next_expected, LETTERS);
        free(posters[p].letters);
    }
    loop_destroy(loop);
}

static int opened;

static void count_opened(struct letter *letter)
{
    opened++;
}

TEST(letters_still_in_the_box_are_opened_when_the_loop_is_destroyed)
{
    struct letter letters[3] = { { count_opened, NULL }, { count_opened, NULL }, { count_opened, NULL } };
    struct loop *loop = loop_of_test();

    opened = 0;
    for (int i = 0; i < 3; i++)
        loop_post(loop, &letters[i]);
    loop_destroy(loop);
    CHECK_EQ(opened, 3);
}

struct again {
    struct letter letter;
    struct loop *loop;
    int left;
};

static void post_again(struct letter *letter)
{
    struct again *again = container_of(letter, struct again, letter);

    if (--again->left > 0)
        loop_post(again->loop, letter);
    else
        loop_stop(again->loop);
}

TEST(a_letter_may_be_posted_again_by_its_own_open)
{
    struct loop *loop = loop_of_test();
    struct again again = { .letter.open = post_again, .loop = loop, .left = 1000 };

    loop_post(loop, &again.letter);
    loop_run(loop);
    CHECK_EQ(again.left, 0);
    loop_destroy(loop);
}

enum { TIMERS = 500 };

struct alarm {
    struct loop_timer timer;
    uint64_t asked_ns; /* when it should ring */
    bool rang;
};

static struct alarm alarms[TIMERS];
static uint64_t last_due_ns;
static int alarms_left, out_of_order, too_early;

static struct loop *alarm_loop;

static void alarm_rings(struct loop_timer *timer)
{
    struct alarm *alarm = container_of(timer, struct alarm, timer);

    out_of_order += timer->due_ns < last_due_ns;
    too_early += clock_mono_ns() < alarm->asked_ns;
    last_due_ns = timer->due_ns;
    alarm->rang = true;
    if (--alarms_left == 0)
        loop_stop(alarm_loop);
}

/* 500 timers of scrambled delays, every third stopped before it rings. */
TEST(timers_ring_once_in_order_of_time_and_stopped_ones_never)
{
    uint32_t scramble = 12345;

    alarm_loop = loop_of_test();
    memset(alarms, 0, sizeof alarms);
    last_due_ns = 0;
    out_of_order = too_early = 0;
    for (int i = 0; i < TIMERS; i++) {
        uint64_t delay_ms;

        scramble = scramble * 1664525u + 1013904223u;
        delay_ms = scramble >> 26; /* 0..63 */
        alarms[i].asked_ns = clock_mono_ns() + delay_ms * 1000000u;
        loop_timer_start(alarm_loop, &alarms[i].timer, delay_ms, alarm_rings);
    }
    alarms_left = TIMERS;
    for (int i = 0; i < TIMERS; i += 3) {
        loop_timer_stop(&alarms[i].timer);
        alarms_left--;
    }
    loop_run(alarm_loop);
    CHECK_EQ(out_of_order, 0);
    CHECK_EQ(too_early, 0);
    for (int i = 0; i < TIMERS; i++)
        CHECK_EQ(alarms[i].rang, i % 3 != 0);
    loop_destroy(alarm_loop);
}

struct ticker {
    struct loop_timer timer;
    struct loop *loop;
    int left;
};

static void tick(struct loop_timer *timer)
{
    struct ticker *ticker = container_of(timer, struct ticker, timer);

    if (--ticker->left > 0)
        loop_timer_start(ticker->loop, timer, 0, tick);
    else
        loop_stop(ticker->loop);
}

/* A timer restarted with no delay by its own ring does not keep letters from being opened. */
TEST(a_timer_restarting_itself_leaves_room_for_letters)
{
    struct loop *loop = loop_of_test();
    struct ticker ticker = { .loop = loop, .left = 1000000 };
    struct again again = { .letter.open = post_again, .loop = loop, .left = 10 };

    loop_timer_start(loop, &ticker.timer, 0, tick);
    loop_post(loop, &again.letter);
    loop_run(loop);
    CHECK_EQ(again.left, 0);
    CHECK(ticker.left > 0);
    loop_timer_stop(&ticker.timer);
    loop_timer_stop(&ticker.timer); /* stopping twice is fine */
    loop_destroy(loop);
}

static unsigned seen_events;
static int seen_count;

static void note_events(struct loop_poll *poll, unsigned events, void *user)
{
    char byte;

    seen_events = events;
    seen_count++;
    if ((events & LOOP_READABLE) != 0 && (events & LOOP_ERROR) == 0)
        CHECK_EQ(read(*(int *)user, &byte, 1), 1);
}

TEST(a_poll_reports_what_was_asked_for_and_nothing_while_paused)
{
    struct loop *loop = loop_of_test();
    struct loop_poll *poll = NULL;
    struct status st = { 0 };
    struct ticker ticker = { .loop = loop, .left = 1 };
    int pair[2];

    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    CHECK_OK(loop_poll_create(&poll, loop, pair[0], note_events, &pair[0], &st), st);
    seen_count = 0;
    REQUIRE(write(pair[1], "ab", 2) == 2);
    loop_poll_want(poll, LOOP_READABLE);
    while (seen_count < 2)
        loop_run_once(loop);
    CHECK_EQ(seen_events, LOOP_READABLE);
    loop_poll_want(poll, LOOP_WRITABLE);
    loop_run_once(loop);
    CHECK_EQ(seen_events, LOOP_WRITABLE);
    loop_poll_want(poll, 0);
    seen_count = 0;
    REQUIRE(write(pair[1], "c", 1) == 1);
    loop_timer_start(loop, &ticker.timer, 20, tick);
    loop_run(loop);
    CHECK_EQ(seen_count, 0);
    loop_poll_destroy(poll);
    close(pair[0]);
    close(pair[1]);
    loop_destroy(loop);
}

/* A pipe whose reader is gone reports an error condition to a writer who only asked for LOOP_WRITABLE. */
TEST(a_poll_passes_errors_on_with_the_events_that_were_wanted)
{
    struct loop *loop = loop_of_test();
    struct loop_poll *poll = NULL;
    struct status st = { 0 };
    int ends[2];

    REQUIRE(pipe(ends) == 0);
    close(ends[0]);
    CHECK_OK(loop_poll_create(&poll, loop, ends[1], note_events, &ends[1], &st), st);
    seen_count = 0;
    seen_events = 0;
    loop_poll_want(poll, LOOP_WRITABLE);
    while (seen_count == 0)
        loop_run_once(loop);
    CHECK((seen_events & LOOP_WRITABLE) != 0);
    loop_poll_destroy(poll);
    close(ends[1]);
    loop_destroy(loop);
}

TEST(a_file_that_cannot_be_polled_is_refused_with_a_reason)
{
    struct loop *loop = loop_of_test();
    struct loop_poll *poll = NULL;
    struct status st = { 0 };
    FILE *file = tmpfile();

    REQUIRE(file != NULL);
    CHECK(!loop_poll_create(&poll, loop, fileno(file), note_events, NULL, &st));
    CHECK_HAS(st.text, "watch a descriptor: ");
    CHECK(poll == NULL);
    fclose(file);
    loop_destroy(loop);
}

static void signal_stops(int number, void *user)
{
    CHECK_EQ(number, SIGUSR1);
    loop_stop(user);
}

TEST(a_signal_arrives_on_the_loop)
{
    struct loop *loop = loop_of_test();
    struct loop_signal *signal = NULL;
    struct status st = { 0 };

    CHECK_OK(loop_signal_create(&signal, loop, SIGUSR1, signal_stops, loop, &st), st);
    kill(getpid(), SIGUSR1);
    loop_run(loop);
    loop_signal_destroy(signal);
    loop_destroy(loop);
}

static int lookups_done;
static char address_found[128], why_not[STATUS_TEXT_BYTES];

static void note_lookup(const char *address, const struct status *why, void *user)
{
    lookups_done++;
    snprintf(address_found, sizeof address_found, "%s", address != NULL ? address : "");
    snprintf(why_not, sizeof why_not, "%s", address != NULL ? "" : why->text);
}

TEST(a_hosts_address_is_found_or_it_is_said_why_not)
{
    static const struct {
        const char *host, *address, *why;
    } rows[] = {
        { "localhost", "127.0.0.1", "" },
        { "127.0.0.2", "127.0.0.2", "" },
        { "::1", "::1", "" },
        { "no-such-host.invalid", "", "look up no-such-host.invalid: " },
    };
    struct loop *loop = loop_of_test();

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct loop_lookup *lookup;
        struct status st = { 0 };

        lookups_done = 0;
        CHECK_OK(loop_lookup_start(&lookup, loop, rows[i].host, note_lookup, NULL, &st), st);
        CHECK_EQ(lookups_done, 0);
        while (lookups_done == 0)
            loop_run_once(loop);
        CHECK_STR(address_found, rows[i].address);
        CHECK_HAS(why_not, rows[i].why);
    }
    loop_destroy(loop);
}

TEST(a_forgotten_lookup_tells_nobody)
{
    struct loop *loop = loop_of_test();
    struct loop_lookup *lookup;
    struct status st = { 0 };

    lookups_done = 0;
    CHECK_OK(loop_lookup_start(&lookup, loop, "localhost", note_lookup, NULL, &st), st);
    loop_lookup_forget(lookup);
    loop_destroy(loop);
    CHECK_EQ(lookups_done, 0);
}

/* What a turn gathers leaves at its end, also when the loop's letters were posted by itself. */
struct gatherer {
    struct letter letter;
    struct loop *loop;
    int gathered, left;
};

static void gather(struct letter *letter)
{
    struct gatherer *gatherer = container_of(letter, struct gatherer, letter);

    gatherer->gathered++;
}

static void turn_ended(void *user)
{
    struct gatherer *gatherer = user;

    gatherer->left += gatherer->gathered;
    gatherer->gathered = 0;
    if (gatherer->left == 3)
        loop_stop(gatherer->loop);
    else
        loop_post(gatherer->loop, &gatherer->letter);
}

TEST(the_end_of_a_turn_comes_before_the_loop_waits)
{
    struct gatherer gatherer = { .letter.open = gather };
    struct loop_turn *turn;
    struct status st = { 0 };

    CHECK_OK(loop_create(&gatherer.loop, &st), st);
    CHECK_OK(loop_turn_create(&turn, gatherer.loop, turn_ended, &gatherer, &st), st);
    loop_run(gatherer.loop);
    CHECK_EQ(gatherer.left, 3);
    CHECK_EQ(gatherer.gathered, 0);
    loop_turn_destroy(turn);
    loop_destroy(gatherer.loop);
}

TEST_MAIN()
