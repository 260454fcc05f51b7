/* A store that fills: segments age early, held ones do not; what writers and people are told of it. */
#include "kvstore/store_pressure.h"

#include <math.h>
#include <semaphore.h>

#include "base/file.h"
#include "kvstore/stream_hold.h"
#include "kvstore_fixture.h"

enum { DISK_BYTES = 16 << 20, MANY = 900 };

static void start(struct fixture *fixture, const char *ageing)
{
    fixture_start(fixture);
    fixture_stop(fixture);
    fixture->options.disk_bytes = DISK_BYTES;
    fixture->options.ageing = ageing;
    fixture_open(fixture);
}

static bool is_pressed(const struct fixture *fixture)
{
    return fixture->store->disk_used_bytes > DISK_BYTES / 100 * STORE_PRESSED_PERCENT;
}

/* Nothing is due for an hour; above 80 % the oldest segments go one step further, as many as it takes. */
TEST(pressure_ages_segments_before_their_time)
{
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;
    uint64_t evicted;

    start(&fixture, "default=full:1h,thin/8:2h");
    stream = fixture_write(&fixture, "cam-a", &writer, MANY);
    CHECK(stream_disk_bytes(stream) > 0);
    fixture_append(&fixture, stream, MANY / 3);
    fixture_wait_durable(&fixture, stream);
    stream_detach(stream, &writer.base);
    FIXTURE_TURN_UNTIL(&fixture, !is_pressed(&fixture) && segment_age_is_idle(fixture.store) &&
                                     stream_last_segment(stream)->writer == NULL);
    CHECK(fixture.store->ageing_state.rewritten_segments > 0);
    evicted = stream->evicted_frames;
    CHECK(evicted > 0);
    CHECK_EQ(stream->stored_frames + evicted + history_frames(&stream->history), stream->next_seq);
    for (uint64_t seq = history_frames(&stream->history); seq < stream->next_seq; seq++) {
        enum frame_result result = fixture_read_layer(&fixture, stream, seq, 0);

        CHECK(result == FRAME_OK || (result == FRAME_EVICTED && seq % 8 != 0));
    }
    CHECK_EQ(fixture_read_layer(&fixture, stream, stream->next_seq - 1, 0),
             FRAME_OK); /* the newest are as they came */
    fixture_stop(&fixture);
}

/* What somebody holds does not age, however old it is and however full the disk. */
TEST(pressure_leaves_what_is_held)
{
    struct stream_hold hold = {
        .from_ns = fixture_pts(0), .to_ns = fixture_pts(1), .owner = "me", .reason = "it"
    };
    struct fixture_answer answer = { 0 };
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;
    struct segment *held;

    start(&fixture, "default=full:1s,thin/2:1d");
    stream = fixture_write(&fixture, "cam-a", &writer, 300);
    held = stream->segments[0];
    CHECK_OK(stream_hold_add(stream, &hold, fixture_done, &answer, &fixture.st), fixture.st);
    FIXTURE_TURN_UNTIL(&fixture, answer.came);
    stream_detach(stream, &writer.base);
    FIXTURE_TURN_UNTIL(&fixture,
                       fixture.store->ageing_state.rewritten_segments + 1 == stream->segment_count &&
                           segment_age_is_idle(fixture.store));
    CHECK(stream->segment_count > 1);
    CHECK(stream->segments[0] == held);
    fixture_check_all(&fixture, stream, 0, held->end_seq);
    CHECK_EQ(fixture_read_layer(&fixture, stream, held->end_seq | 1, 0), FRAME_EVICTED);
    fixture_stop(&fixture);
}

/* Two seconds a frame: how many frames the budget holds follows from their size, and from what the steps leave of them. */
TEST(forecast_follows_rate_and_policy)
{
    static const struct {
        const char *ageing;
        double times; /* as far back as without ageing */
    } rows[] = { { "", 1 }, { "default=full:100s,thin/4:90d", 4 }, { "default=full:60s", 0 } };
    double plain_s = 0;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct fixture_writer writer;
        struct fixture fixture;
        struct stream *stream;
        double seconds;

        start(&fixture, rows[i].ageing);
        stream = fixture_define(&fixture, "cam-a");
        CHECK_EQ(store_remembers_ns(fixture.store, stream), 0);
        fixture_attach(&fixture, stream, &writer);
        fixture_append_init(&fixture, stream);
        fixture_append(&fixture, stream, 60);
        seconds = (double)store_remembers_ns(fixture.store, stream) / 1e9;
        if (i == 0) {
            const struct index_frame *frame = stream_find(stream, 0);

            plain_s = seconds;
            CHECK(fabs(seconds / ((double)DISK_BYTES / frame->record_bytes * 2) - 1) < 0.1);
        } else if (rows[i].times > 0) {
            CHECK(seconds > plain_s * (rows[i].times - 0.5) && seconds < plain_s * rows[i].times);
        } else {
            CHECK_EQ((int64_t)seconds, 60);
        }
        stream_detach(stream, &writer.base);
        CHECK_EQ(store_remembers_ns(fixture.store, stream), 0);
        fixture_stop(&fixture);
        CHECK_OK(file_remove_tree_on(&file_system, fixture.root, &fixture.st), fixture.st);
    }
}

/* A writer that nobody keeps up with fills RAM: yellow, then red when somebody waits; its credit goes down with it. */
TEST(pressure_is_told_and_credit_follows)
{
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;
    uint64_t credit;
    bool was_yellow = false;

    start(&fixture, "");
    stream = fixture_write(&fixture, "cam-a", &writer, 1);
    CHECK_EQ(store_pressure(fixture.store), STORE_GREEN);
    credit = store_credit_bytes(fixture.store);
    CHECK(credit > 0);
    for (;;) {
        struct stream_block block = fixture_block(stream, stream->next_seq);

        if (!fixture_append_block(&fixture, stream, &block,
                                  &fixture.st)) /* the loop does not turn: nothing is written */
            break;
        was_yellow |= store_pressure(fixture.store) == STORE_YELLOW;
        CHECK(store_credit_bytes(fixture.store) <= credit);
    }
    CHECK_EQ(fixture.st.code, STATUS_EXHAUSTED);
    CHECK(was_yellow);
    CHECK(store_credit_bytes(fixture.store) < credit / 16);
    stream_commit(stream);
    FIXTURE_TURN_UNTIL(&fixture, store_pressure(fixture.store) == STORE_GREEN);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
}

/* --- a slow disk --- */

/* The clock goes faster by this. */
static atomic_ullong skew_ns;
static atomic_bool is_stuck;
static sem_t stuck, goes_on;

int __real_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now);

int __wrap_clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = __real_clock_gettime(clock, now);
    uint64_t ns = (uint64_t)now->tv_nsec + skew_ns;

    now->tv_sec += (time_t)(ns / 1000000000);
    now->tv_nsec = (long)(ns % 1000000000);
    return result;
}

/* A sync that takes until it may go on. */
static int slow_fdatasync(int fd)
{
    if (atomic_exchange(&is_stuck, false)) {
        sem_post(&stuck);
        sem_wait(&goes_on);
    }
    return file_system.fdatasync(fd);
}

/* RAM is all but empty. A sync that is under way is no trouble until it has taken longer than a disk in order does. */
TEST(a_slow_disk_is_told_before_ram_is_full)
{
    static struct file_ops disk;
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;
    uint64_t credit;

    disk = file_system;
    disk.fdatasync = slow_fdatasync;
    sem_init(&stuck, 0, 0);
    sem_init(&goes_on, 0, 0);
    start(&fixture, "");
    fixture_stop(&fixture);
    fixture.options.disk = &disk;
    fixture_open(&fixture);
    stream = fixture_write(&fixture, "cam-a", &writer, 3);
    fixture_wait_durable(&fixture, stream);
    credit = store_credit_bytes(fixture.store);
    is_stuck = true;
    fixture_append(&fixture, stream, 3);
    FIXTURE_TURN_UNTIL(&fixture, sem_trywait(&stuck) == 0);
    skew_ns += (STORE_SLOW_MS + STORE_SLOW_SEEN_MS + (uint64_t)fixture.options.commit_ms) * 1000000;
    CHECK_EQ(store_pressure(fixture.store), STORE_YELLOW);
    CHECK(store_credit_bytes(fixture.store) < credit);
    CHECK(store_credit_bytes(fixture.store) > credit / 4);
    sem_post(&goes_on);
    FIXTURE_TURN_UNTIL(&fixture, store_pressure(fixture.store) == STORE_GREEN);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
}

TEST_MAIN()
