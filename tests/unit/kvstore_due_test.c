/* When a store looks at its segments to age them: not before one of them is due. */
#include "kvstore/store_ageing.h"

#include "kvstore_fixture.h"

enum { FRAMES = 300 };

static const int64_t hour_ns = 3600 * 1000000000ll;

/* When the first of the sealed ones is an hour old. */
static int64_t first_due_ns(const struct store *store)
{
    int64_t first_ns = INT64_MAX;

    for (const struct segment *segment = store->oldest; segment != NULL; segment = segment->newer)
        if (segment->super.created_ns + hour_ns < first_ns)
            first_ns = segment->super.created_ns + hour_ns;
    return first_ns;
}

TEST(segments_are_looked_at_when_the_first_is_due)
{
    struct fixture fixture;
    struct fixture_writer writer;
    struct stream *stream;
    int64_t *quiet_ns;

    fixture_start(&fixture);
    fixture_stop(&fixture);
    fixture.options.ageing = "default=full:1h,thin/2:2h";
    fixture_open(&fixture);
    quiet_ns = fixture.store->ageing_state.quiet_until_ns;
    FIXTURE_TURN_UNTIL(&fixture, quiet_ns[0] == INT64_MAX); /* an empty store: never */
    stream = fixture_write(&fixture, "cam-a", &writer, FRAMES);
    FIXTURE_TURN_UNTIL(&fixture, fixture.store->oldest != NULL);
    CHECK_EQ(quiet_ns[0], first_due_ns(fixture.store));
    CHECK(quiet_ns[1] < clock_utc_ns()); /* were the disk full, it would be thinned at once */
    stream_detach(stream, &writer.base);
    FIXTURE_TURN_UNTIL(&fixture, stream_last_segment(stream)->writer == NULL);
    CHECK(fixture.store->oldest->newer != NULL);
    CHECK_EQ(quiet_ns[0], first_due_ns(fixture.store)); /* later ones change nothing */
    fixture_stop(&fixture);
    fixture_open(&fixture); /* after a start it is found by looking */
    quiet_ns = fixture.store->ageing_state.quiet_until_ns;
    FIXTURE_TURN_UNTIL(&fixture, quiet_ns[0] != 0);
    CHECK_EQ(quiet_ns[0], first_due_ns(fixture.store));
    fixture_stop(&fixture);
}

TEST_MAIN()
