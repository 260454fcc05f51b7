/* mem fsck beside a store that runs: what changes while it looks is not damage. */
#include "fsck.h"
#include "kvstore_fixture.h"

static struct status st;

struct looking {
    struct fsck base;
    char from[1100], to[1100]; /* moved when the first bytes were looked at */
    uint32_t damaged;
};

static void found(struct fsck *fsck, const char *path, const struct kv_finding *finding)
{
    struct looking *looking = container_of(fsck, struct looking, base);

    printf("  %s: %s\n", path, finding->text);
    looking->damaged += finding->kind == KV_FOUND_DAMAGE;
}

static bool advance(struct fsck *fsck)
{
    struct looking *looking = container_of(fsck, struct looking, base);

    if (looking->from[0] != '\0')
        CHECK_EQ(rename(looking->from, looking->to), 0);
    looking->from[0] = '\0';
    return true;
}

/* A camera of sealed files, of which nobody writes more; names of the second one, and of where it is put. */
static void write_camera(struct fixture *fixture, char there[1100], char away[1100])
{
    struct fixture_writer writer;
    struct stream *stream;

    fixture_start(fixture);
    stream = fixture_write(fixture, "cam-1", &writer, 200);
    fixture_wait_durable(fixture, stream);
    stream_detach(stream, &writer.base);
    fixture_wait_sealed(fixture, stream);
    CHECK(stream->segment_count >= 3);
    snprintf(there, 1100, "%s.seg", stream->segments[1]->base);
    snprintf(away, 1100, "%s/away", fixture->root);
}

/* As when frames age, or the oldest go. */
TEST(fsck_says_nothing_of_the_numbers_in_a_file_that_went_meanwhile)
{
    struct looking looking = { .base = { .found = found, .advance = advance } };
    struct fixture fixture;

    write_camera(&fixture, looking.from, looking.to);
    CHECK_OK(fsck_path(&looking.base, fixture.root, &st), st);
    CHECK_EQ(looking.damaged, 0);
    CHECK(looking.base.found_running);
    fixture_stop(&fixture);
}

TEST(fsck_says_nothing_of_the_numbers_in_a_file_that_came_meanwhile)
{
    struct looking looking = { .base = { .found = found, .advance = advance } };
    struct fixture fixture;

    write_camera(&fixture, looking.to, looking.from);
    CHECK_EQ(rename(looking.to, looking.from), 0);
    CHECK_OK(fsck_path(&looking.base, fixture.root, &st), st);
    CHECK_EQ(looking.damaged, 0);
    CHECK_EQ(looking.from[0], '\0');
    fixture_stop(&fixture);
}

TEST(fsck_finds_a_file_that_is_missing_from_a_store_that_runs)
{
    struct looking looking = { .base = { .found = found, .advance = advance } };
    struct fixture fixture;
    char away[1100];

    write_camera(&fixture, looking.to, away);
    CHECK_EQ(rename(looking.to, away), 0);
    CHECK_OK(fsck_path(&looking.base, fixture.root, &st), st);
    CHECK_EQ(looking.damaged, 1);
    fixture_stop(&fixture);
}

TEST_MAIN()
