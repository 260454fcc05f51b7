/* A store that cannot be opened says why, and leaves nothing behind; how far back one remembers follows from what becomes of
 * its frames; what cannot be aged now stays as it is. */
#include <limits.h>

#include "base/file.h"
#include "kvstore_faulty_disk.h"

static struct fixture fixture;

static void refused(enum status_code code, const char *words)
{
    struct store *store;
    struct status st;

    CHECK(!store_open(&store, fixture.loop, &fixture.options, &st));
    CHECK_EQ(st.code, code);
    CHECK_HAS(st.text, words);
}

TEST(open_with_budgets_that_hold_nothing)
{
    const struct store_options *options = &fixture.options;
    struct store_options sound;
    char root[PATH_MAX + 10];

    fixture_start(&fixture);
    refused(STATUS_EXISTS, "another"); /* the first one is open */
    store_close(fixture.store);
    sound = *options;
    fixture.options.ram_bytes = 1000;
    refused(STATUS_INVALID, "ram_budget_bytes must be at least");
    fixture.options = sound;
    fixture.options.disk_bytes = 1000;
    refused(STATUS_INVALID, "disk_budget_bytes must be at least");
    fixture.options = sound;
    fixture.options.ageing = "default=half:1h";
    refused(STATUS_INVALID, "a step is full");
    fixture.options = sound;
    memset(root, 'a', sizeof root);
    root[0] = '/';
    root[sizeof root - 1] = '\0';
    fixture.options.root = root;
    refused(STATUS_INVALID, "too long");
    snprintf(root, sizeof root, "%s/file", test_folder());
    CHECK_OK(file_write_durable(root, "", 0, &fixture.st), fixture.st);
    refused(status_code_of_errno(ENOTDIR), "make folder");
    fixture.options = sound;
    CHECK_OK(store_open(&fixture.store, fixture.loop, &fixture.options, &fixture.st), fixture.st);
    fixture_stop(&fixture);
}

/* --- how far back --- */

/* Seconds that a store of this policy remembers of a camera that is being written. */
static int64_t remembers_s(const char *ageing)
{
    struct fixture_writer writer;
    struct stream *stream;
    int64_t ns;

    fixture_start(&fixture);
    fixture_stop(&fixture);
    fixture.options.ageing = ageing;
    fixture_open(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 60);
    fixture_wait_durable(&fixture, stream);
    ns = store_remembers_ns(fixture.store, stream);
    CHECK_EQ(store_remembers_ns(fixture.store, stream), ns); /* for a while it is not worked out again */
    stream_detach(stream, &writer.base);
    CHECK_EQ(store_remembers_ns(fixture.store, stream), 0);
    fixture_wait_sealed(&fixture, stream);
    fixture_remove(&fixture, stream);
    fixture_stop(&fixture);
    return ns / 1000000000;
}

static void check_times(const char *ageing, double times, int64_t whole_s)
{
    int64_t s = remembers_s(ageing);

    if ((double)s < 0.85 * times * (double)whole_s || (double)s > 1.15 * times * (double)whole_s)
        test_fail(__FILE__, __LINE__, "%s: %lld s, and %lld s without", ageing, (long long)s,
                  (long long)whole_s);
}

TEST(open_store_remembers_as_long_as_what_is_left_allows)
{
    const struct kv_geometry *geometry = &fixture_geometry;
    double in_8_bits = (double)kv_slice_bytes(geometry, 1) /
                       (double)kv_encoding_bytes(geometry, kv_quant_encoding(geometry, 8), 1),
           keys = (double)kv_payload_bytes(geometry, 1) / (double)kv_keys_bytes(geometry);
    int64_t whole_s = remembers_s("");

    check_times("default=thin/4:36500d", 4, whole_s);
    check_times("default=8bit:36500d", in_8_bits, whole_s);
    check_times("default=keys:36500d", keys, whole_s);
    check_times("other=thin/4:36500d", 1, whole_s);
    CHECK_EQ(remembers_s("default=full:50s"), 50); /* not longer than frames stay */
}

/* --- what cannot be aged now --- */

TEST(open_store_serves_what_it_could_not_age)
{
    struct fixture_writer writer;
    struct stream *stream;

    fault_start(&fixture);
    fixture_stop(&fixture);
    fixture.options.ageing = "default=full:1s,8bit:36500d";
    fixture_open(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 20);
    fixture_wait_durable(&fixture, stream);
    stream_detach(stream, &writer.base);
    fixture_wait_sealed(&fixture, stream);
    plan_fault(FAULT_WRITE | FAULT_RESERVE, EIO, 1, 1000);
    FIXTURE_TURN_UNTIL(&fixture, stream->segments[0]->age_not_before_ns != 0);
    CHECK(fault.failed > 0);
    plan_fault(0, 0, 0, 0);
    CHECK_EQ(fixture.store->ageing_state.rewritten_segments, 0);
    fixture_check_all(&fixture, stream, 0, 20);
    fixture_stop(&fixture);
    fixture_open(&fixture); /* another start tries again at once */
    fixture_wait_keys(&fixture);
    stream = store_find(fixture.store, "default", "cam-1");
    FIXTURE_TURN_UNTIL(&fixture, fixture.store->ageing_state.rewritten_segments == 1);
    for (uint64_t seq = 0; seq < 20; seq++)
        CHECK_EQ(fixture_read_layer(&fixture, stream, seq, 0), FRAME_DERIVED);
    fixture_stop(&fixture);
}

TEST_MAIN()
