/* Reads of segments' files by the ring: which files stay open, and what a file that changes under them gives. */
#include "kvstore/segment_fetch.h"

#include <dirent.h>
#include <limits.h>
#include <unistd.h>

#include "kvstore_fixture.h"

enum { FRAMES = 280 };

struct world {
    struct fixture fixture;
    struct stream *stream;
};

/* Frames of several segments, that are on the disk only. */
static void start(struct world *world)
{
    struct fixture_writer writer;

    memset(world, 0, sizeof *world);
    fixture_start(&world->fixture);
    if (world->fixture.store->ring == NULL) {
        fixture_stop(&world->fixture);
        test_skip("this machine does not permit io_uring");
    }
    world->stream = fixture_write(&world->fixture, "cam-1", &writer, FRAMES);
    fixture_wait_durable(&world->fixture, world->stream);
    stream_detach(world->stream, &writer.base);
    fixture_stop(&world->fixture);
    fixture_open(&world->fixture);
    fixture_wait_keys(&world->fixture);
    world->stream = store_find(world->fixture.store, "default", "cam-1");
    CHECK(world->stream != NULL && world->stream->segment_count > 2);
}

static unsigned open_segments(void)
{
    char path[PATH_MAX], target[PATH_MAX];
    unsigned count = 0;
    DIR *dir = opendir("/proc/self/fd");

    CHECK(dir != NULL);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        ssize_t len;

        snprintf(path, sizeof path, "/proc/self/fd/%s", entry->d_name);
        len = readlink(path, target, sizeof target - 1);
        target[len > 0 ? len : 0] = '\0';
        count += strstr(target, ".seg") != NULL;
    }
    closedir(dir);
    return count;
}

static void read_all(struct world *world, uint32_t layer)
{
    for (uint64_t seq = 0; seq < FRAMES; seq++)
        CHECK_EQ(fixture_read_layer(&world->fixture, world->stream, seq, layer), FRAME_OK);
}

TEST(segment_files_stay_open_up_to_their_bound)
{
    struct world world;

    start(&world);
    world.fixture.store->files.max = 2;
    for (uint32_t layer = 0; layer < 2; layer++)
        read_all(&world, layer);
    CHECK_EQ(world.fixture.store->files.count, 2);
    CHECK_EQ(open_segments(), 2);
    CHECK(world.stream->segments[world.stream->segment_count - 1]->file.is_open);
    CHECK(!world.stream->segments[0]->file.is_open);
    fixture_stop(&world.fixture);
    CHECK_EQ(open_segments(), 0);
}

/* Else its bytes stay on the disk, and the budget is a lie. */
TEST(segment_files_are_closed_before_they_go)
{
    struct world world;
    struct segment *oldest;

    start(&world);
    read_all(&world, 0);
    oldest = world.stream->segments[0];
    CHECK_EQ(open_segments(), world.stream->segment_count);
    CHECK(store_remove_segment(world.fixture.store, oldest));
    CHECK(!oldest->file.is_open);
    CHECK_EQ(open_segments(), world.stream->segment_count - 1);
    FIXTURE_TURN_UNTIL(&world.fixture, world.fixture.store->removal == NULL);
    fixture_remove(&world.fixture, world.stream);
    CHECK_EQ(open_segments(), 0);
    CHECK_EQ(world.fixture.store->files.count, 0);
    fixture_stop(&world.fixture);
}

/* The ring finds the end of the file where the frame's bytes were. */
TEST(a_file_that_is_cut_while_it_is_open_is_damage)
{
    struct world world;
    char path[PATH_MAX];

    start(&world);
    CHECK_EQ(fixture_read_layer(&world.fixture, world.stream, 0, 0), FRAME_OK);
    CHECK(world.stream->segments[0]->file.is_open);
    snprintf(path, sizeof path, "%s.seg", world.stream->segments[0]->base);
    CHECK(truncate(path, 2 * KV_PAGE_BYTES) == 0);
    CHECK_EQ(fixture_read_layer(&world.fixture, world.stream, 1, 0), FRAME_QUARANTINED);
    CHECK_EQ(world.fixture.store->quarantined_frames, 1);
    fixture_stop(&world.fixture);
}

TEST_MAIN()
