/* Files that others were made from and that are still there when the store starts, on a disk that does not remove or read them:
 * what was thinned or forgotten does not come back, and no receipt is given while it is there. */
#include "base/file.h"
#include "kvstore/segment_age.h"
#include "kvstore/stream_forget.h"
#include "kvstore/stream_hold.h"
#include "kvstore/stream_rival.h"
#include "kvstore_faulty_disk.h"

enum { FRAMES = 12, ROUNDS = 2, FILES_MAX = 3 };

/* The files that stood for one segment, one after the other. */
struct made {
    char path[PATH_MAX + 8];
    struct file_text file;
};

static struct fixture fixture;
static struct stream *stream;
static struct made made[FILES_MAX];
static struct status st;

struct ageing {
    struct segment_age age;
    bool came;
    uint64_t used_bytes; /* then, of the disk's budget */
};

static void aged(struct segment_age *age)
{
    struct ageing *ageing = container_of(age, struct ageing, age);

    ageing->came = true;
    ageing->used_bytes = age->store->disk_used_bytes;
}

static bool thin(uint32_t thin)
{
    struct ageing ageing = {
        .age = { .segment = stream->segments[0], .transform = { .aged = { .thin = thin } }, .done = aged }
    };

    segment_age_submit(fixture.store, &ageing.age);
    FIXTURE_TURN_UNTIL(&fixture, ageing.came);
    st = ageing.age.st;
    return ageing.age.ok;
}

static void keep_file(struct made *kept)
{
    snprintf(kept->path, sizeof kept->path, "%s.seg", stream->segments[0]->base);
    CHECK_OK(file_read_all(kept->path, 64 << 20, &kept->file, &st), st);
}

static void open_again(void)
{
    fixture_open(&fixture);
    stream = store_find(fixture.store, "default", "cam-1");
    CHECK(stream != NULL);
    fixture_wait_keys(&fixture);
}

/* One segment, thinned to a half and then a quarter and so on, so many files in all; the store is down, and all of them are
 * there. */
static void make_files(uint32_t count)
{
    struct fixture_writer writer;

    plan_fault(0, 0, 0, 0);
    fixture_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, FRAMES);
    stream_detach(stream, &writer.base);
    fixture_wait_sealed(&fixture, stream);
    for (uint32_t i = 0; i < count; i++) {
        keep_file(&made[i]);
        if (i + 1 < count)
            CHECK_OK(thin(2u << i), st);
    }
    fixture_stop(&fixture);
    for (uint32_t i = 0; i < count; i++) {
        CHECK_OK(file_write_durable(made[i].path, made[i].file.data, made[i].file.len, &st), st);
        free(made[i].file.data);
    }
    fixture.options.disk = faulty_disk();
}

static void remove_files(void)
{
    fixture_stop(&fixture);
    CHECK_OK(file_remove_tree_on(&file_system, fixture.root, &st), st);
}

static bool is_there(const struct made *file)
{
    struct stat info;

    return stat(file->path, &info) == 0;
}

static void check_thinned(uint32_t by)
{
    CHECK_EQ(stream->next_seq, FRAMES);
    CHECK_EQ(stream->segment_count, 1);
    for (uint64_t seq = 0; seq < FRAMES; seq++)
        CHECK_EQ(fixture_read_layer(&fixture, stream, seq, 0), seq % by == 0 ? FRAME_OK : FRAME_EVICTED);
}

/* O is not removed at start. N, which was made from it, was rewritten or removed all the same, and O came back. */
TEST(replaced_file_that_stays_does_not_come_back)
{
    uint64_t with_both;

    make_files(2);
    plan_fault(FAULT_UNLINK, EIO, 1, 1 << 20);
    open_again();
    check_thinned(2);
    CHECK(is_there(&made[0]));
    with_both = fixture.store->disk_used_bytes;
    CHECK(!thin(4));
    CHECK_EQ(st.code, STATUS_ABORTED);
    CHECK(!store_remove_segment(fixture.store, stream->segments[0]));
    fixture_stop(&fixture);
    open_again();
    check_thinned(2);
    plan_fault(0, 0, 0, 0); /* it is tried again */
    FIXTURE_TURN_UNTIL(&fixture, !stream_has_rivals(stream));
    CHECK(!is_there(&made[0]));
    CHECK(fixture.store->disk_used_bytes < with_both);
    CHECK_OK(thin(4), st);
    check_thinned(4);
    remove_files();
}

/* The store closes before the file that was replaced goes. Its bytes were given to those who wrote their last meanwhile. */
TEST(replaced_file_that_stays_is_counted_while_the_store_closes)
{
    struct ageing ageing = { .age = { .transform = { .aged = { .thin = 2 } }, .done = aged } };
    uint64_t used_bytes;

    make_files(1);
    open_again();
    used_bytes = fixture.store->disk_used_bytes;
    plan_fault(FAULT_UNLINK, EIO, 1, 1 << 20);
    ageing.age.segment = stream->segments[0];
    segment_age_submit(fixture.store, &ageing.age);
    FIXTURE_TURN_UNTIL(&fixture, fault.failed == 1);
    fixture_stop(&fixture);
    CHECK(ageing.came && is_there(&made[0]));
    CHECK_EQ(ageing.used_bytes, used_bytes + ageing.age.bytes_after);
    plan_fault(0, 0, 0, 0);
    open_again();
    check_thinned(2);
    CHECK(!is_there(&made[0]));
    remove_files();
}

/* M was made from N, and N from O: whichever of the removals fails, and in whatever order their names are, what counts is M. */
TEST(replaced_files_of_a_chain_go_the_oldest_first)
{
    for (int round = 0; round < ROUNDS; round++)
        for (int call = 1; call <= 3; call++) {
            make_files(3);
            plan_fault(FAULT_UNLINK, EIO, call, 1 << 20);
            open_again();
            check_thinned(4);
            CHECK_EQ(is_there(&made[0]), call < 2);
            CHECK_EQ(is_there(&made[1]), call < 3);
            CHECK_EQ(stream_has_rivals(stream), call < 3);
            fixture_stop(&fixture);
            plan_fault(0, 0, 0, 0);
            open_again();
            check_thinned(4);
            CHECK(!is_there(&made[0]) && !is_there(&made[1]) && is_there(&made[2]));
            remove_files();
        }
}

/* Nor in one life: the first that was left is the first to go. */
TEST(replaced_files_that_stayed_go_the_oldest_first)
{
    make_files(3);
    plan_fault(FAULT_UNLINK, EIO, 1, 1);
    open_again();
    CHECK(is_there(&made[0]) && is_there(&made[1]));
    FIXTURE_TURN_UNTIL(&fixture, !is_there(&made[0]));
    CHECK(stream_has_rivals(stream) && stream->segments[0]->has_rival);
    FIXTURE_TURN_UNTIL(&fixture, !stream_has_rivals(stream));
    CHECK(!is_there(&made[1]) && !stream->segments[0]->has_rival);
    CHECK_EQ(fixture.store->disk_used_bytes, STORE_STREAM_DISK_BYTES + stream->segments[0]->disk_bytes);
    remove_files();
}

/* The disk does not remove O, which has a frame that no segment has; then it does. */
static void check_receipt_waits(uint64_t seq)
{
    struct fixture_answer answer = { 0 };

    CHECK_OK(stream_forget(stream, fixture_pts(seq), fixture_pts(seq + 1), fixture_done, &answer, &st), st);
    for (unsigned i = 0; i < 50; i++) {
        struct loop_timer tick = { 0 };

        loop_timer_start(fixture.loop, &tick, 5, fixture_tick);
        loop_run_once(fixture.loop);
        loop_timer_stop(&tick);
    }
    CHECK(!answer.came && is_there(&made[0]));
    plan_fault(0, 0, 0, 0);
    FIXTURE_TURN_UNTIL(&fixture, answer.came);
    CHECK_OK(answer.ok, answer.st);
    CHECK(!is_there(&made[0]));
}

/* The range was taken out of N before the store was killed; O has it still. */
TEST(a_receipt_waits_for_the_file_that_was_replaced)
{
    make_files(2);
    plan_fault(FAULT_UNLINK, EIO, 1, 1 << 20);
    open_again();
    check_receipt_waits(1);
    remove_files();
}

/* It was thinned out with its neighbours, and the file with all of them would not go: no segment had anything of the range. */
TEST(a_receipt_waits_for_the_file_that_is_replaced)
{
    struct ageing ageing = { .age = { .transform = { .aged = { .thin = 4 } }, .done = aged } };

    make_files(1);
    open_again();
    plan_fault(FAULT_UNLINK, EIO, 1, 1 << 20);
    ageing.age.segment = stream->segments[0];
    segment_age_submit(fixture.store, &ageing.age);
    FIXTURE_TURN_UNTIL(&fixture, fault.failed == 1);
    check_receipt_waits(2);
    CHECK(ageing.came);
    remove_files();
}

static bool hold(struct fixture_answer *answer)
{
    struct stream_hold added = {
        .from_ns = fixture_pts(0), .to_ns = fixture_pts(2), .owner = "police", .reason = "case 17"
    };

    return stream_hold_add(stream, &added, fixture_done, answer, &st);
}

/* Which of the two counts was settled before. It was put off to the next start, though the store tries again by itself. */
TEST(a_hold_is_told_when_the_file_that_was_replaced_is_tried_again)
{
    struct fixture_answer answer = { 0 };

    make_files(2);
    plan_fault(FAULT_UNLINK, EIO, 1, 1 << 20);
    open_again();
    CHECK(!hold(&answer));
    CHECK_EQ(st.code, STATUS_UNAVAILABLE);
    CHECK_HAS(st.text, "that is tried again within 1 s: hold it then");
    CHECK_EQ(st.retry_after_ms, 1000);
    plan_fault(0, 0, 0, 0);
    FIXTURE_TURN_UNTIL(&fixture, !stream_has_rivals(stream));
    CHECK(hold(&answer));
    FIXTURE_TURN_UNTIL(&fixture, answer.came);
    CHECK_OK(answer.ok, answer.st);
    remove_files();
}

/* One of the two superblocks is not read: nobody knows which of them counts. The one that was replaced was served beside the
 * other, or in its place. */
TEST(replaced_file_is_not_served_when_the_other_is_not_read)
{
    for (int round = 0; round < ROUNDS; round++)
        for (int call = 1; call <= 2; call++) {
            struct fixture_answer answer;

            make_files(2);
            plan_fault(FAULT_READ, EIO, call, 1);
            open_again();
            CHECK_EQ(fault.failed, 1);
            CHECK_EQ(stream->next_seq, FRAMES);
            for (uint64_t seq = 1; seq < FRAMES; seq += 2)
                CHECK(!frame_result_has_bytes(fixture_read_layer(&fixture, stream, seq, 0)));
            CHECK(stream->segment_count == 0 || stream->segments[0]->has_rival);
            CHECK(!stream_forget(stream, fixture_pts(1), fixture_pts(2), fixture_done, &answer, &fixture.st));
            CHECK_EQ(fixture.st.code, STATUS_PRECONDITION);
            CHECK(stream->segment_count == 0 || !hold(&answer));
            CHECK(stream->segment_count == 0 || strstr(st.text, "the next start sees to it") != NULL);
            CHECK(is_there(&made[0]) && is_there(&made[1]));
            fixture_stop(&fixture);
            plan_fault(0, 0, 0, 0);
            open_again();
            check_thinned(2);
            CHECK(!is_there(&made[0]));
            remove_files();
        }
}

/* A stream that is removed takes them along. */
TEST(replaced_file_goes_with_its_stream)
{
    make_files(2);
    plan_fault(FAULT_UNLINK, EIO, 1, 1);
    open_again();
    CHECK(stream_has_rivals(stream));
    fixture_remove(&fixture, stream);
    CHECK(!is_there(&made[0]));
    CHECK_EQ(fixture.store->disk_used_bytes, 0);
    remove_files();
}

TEST_MAIN()
