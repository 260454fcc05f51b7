/* The order in which files are written, and what is read of them at start: told by a disk that counts and holds. */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "kvstore_fixture.h"

/* Records that go to the first file wait while the gate is closed; those that go to others are counted. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t opened;
    bool is_closed;
    int first_fd; /* -1: none yet */
    atomic_int others, reads;
} gate = { .lock = PTHREAD_MUTEX_INITIALIZER, .opened = PTHREAD_COND_INITIALIZER, .first_fd = -1 };

/* Neither a superblock nor a mark. */
static bool are_records(const struct iovec *pieces, off_t offset)
{
    return offset >= KV_PAGE_BYTES && memcmp(pieces[0].iov_base, "RKVR", 4) == 0;
}

static ssize_t gated_pwritev(int fd, const struct iovec *pieces, int count, off_t offset)
{
    bool is_held = are_records(pieces, offset);

    pthread_mutex_lock(&gate.lock);
    if (is_held && gate.first_fd < 0)
        gate.first_fd = fd;
    if (is_held && fd != gate.first_fd)
        gate.others++;
    while (is_held && fd == gate.first_fd && gate.is_closed)
        pthread_cond_wait(&gate.opened, &gate.lock);
    pthread_mutex_unlock(&gate.lock);
    return file_system.pwritev(fd, pieces, count, offset);
}

static ssize_t counted_pread(int fd, void *to, size_t len, off_t offset)
{
    gate.reads++;
    return file_system.pread(fd, to, len, offset);
}

static void set_gate(bool is_closed)
{
    pthread_mutex_lock(&gate.lock);
    gate.is_closed = is_closed;
    pthread_cond_broadcast(&gate.opened);
    pthread_mutex_unlock(&gate.lock);
}

static struct file_ops gated;

static void start(struct fixture *fixture)
{
    gated = file_system;
    gated.pwritev = gated_pwritev;
    gated.pread = counted_pread;
    fixture_start(fixture);
    fixture_stop(fixture);
    fixture->options.disk = &gated;
    fixture_open(fixture);
}

/* A file's records are on the disk before the next file gets any. Else a crash would leave numbers with a hole: the
 * writer sends again what was never durable, and would be told that it is known. */
TEST(order_leaves_no_hole_between_files)
{
    struct fixture fixture;
    struct fixture_writer writer;
    struct stream *stream;

    start(&fixture);
    stream = fixture_define(&fixture, "cam-1");
    fixture_attach(&fixture, stream, &writer);
    fixture_append_init(&fixture, stream);
    set_gate(true);
    fixture_append(&fixture, stream, 200);
    FIXTURE_TURN_UNTIL(&fixture, stream->segments[1]->state == SEGMENT_OPEN);
    for (unsigned i = 0; i < 20; i++) { /* whatever would be written now */
        struct loop_timer tick = { 0 };

        loop_timer_start(fixture.loop, &tick, 10, fixture_tick);
        loop_run_once(fixture.loop);
        loop_timer_stop(&tick);
    }
    CHECK_EQ(gate.others, 0);
    CHECK_EQ(stream_durable_seq(stream), 0);
    set_gate(false);
    fixture_wait_durable(&fixture, stream);
    CHECK(gate.others > 0);
    fixture_check_all(&fixture, stream, 0, 200);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
}

/* A file is made at its full length. One whose writer was killed early is mostly a hole, which is not read. */
TEST(order_of_recovery_skips_what_was_never_written)
{
    struct fixture fixture;
    struct fixture_writer writer;
    const struct index_frame *last;
    struct stream *stream;
    char sealed[PATH_MAX + 8], open_[PATH_MAX + 8];
    uint64_t end;

    start(&fixture);
    stream = fixture_define(&fixture, "cam-1");
    fixture_attach(&fixture, stream, &writer);
    fixture_append(&fixture, stream, 10);
    fixture_wait_durable(&fixture, stream);
    stream_detach(stream, &writer.base);
    fixture_wait_sealed(&fixture, stream);
    last = stream_find(stream, 9);
    end = last->offset + last->record_bytes;
    snprintf(sealed, sizeof sealed, "%s.seg", stream->segments[0]->base);
    snprintf(open_, sizeof open_, "%s.open", stream->segments[0]->base);
    fixture_stop(&fixture);
    CHECK_EQ(truncate(sealed, (off_t)end), 0);
    CHECK_EQ(truncate(sealed, 1 << 30), 0);
    CHECK_EQ(rename(sealed, open_), 0);
    gate.reads = 0;
    fixture_open(&fixture);
    CHECK(gate.reads < 100);
    stream = store_find(fixture.store, "default", "cam-1");
    CHECK_EQ(stream->next_seq, 10);
    fixture_check_all(&fixture, stream, 0, 10);
    fixture_stop(&fixture);
}

TEST_MAIN()
