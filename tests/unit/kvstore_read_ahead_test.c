/* Reads that nobody has asked for yet: they wait for those that somebody did, are read once, and keep to their share of the
 * RAM tier. */
#include "kvstore/read_ahead.h"
#include "kvstore_fixture.h"

enum { FRAMES = 40 };

struct world {
    struct fixture fixture;
    struct stream *stream;
    struct read_ahead ahead;
    unsigned settled;
};

static void settled(struct read_ahead *ahead)
{
    container_of(ahead, struct world, ahead)->settled++;
}

/* Frames that are on the disk only: their store was started again. */
static void start(struct world *world, enum read_ahead_kind kind)
{
    struct fixture_writer writer;

    memset(world, 0, sizeof *world);
    fixture_start(&world->fixture);
    world->stream = fixture_write(&world->fixture, "cam-1", &writer, FRAMES);
    fixture_wait_durable(&world->fixture, world->stream);
    stream_detach(world->stream, &writer.base);
    fixture_stop(&world->fixture);
    fixture_open(&world->fixture);
    fixture_wait_keys(&world->fixture);
    world->stream = store_find(world->fixture.store, "default", "cam-1");
    CHECK(world->stream != NULL);
    FIXTURE_TURN_UNTIL(&world->fixture, world->fixture.store->keys_later.first == NULL);
    world->ahead = (struct read_ahead){ .store = world->fixture.store, .kind = kind, .settled = settled };
}

static void stop(struct world *world)
{
    read_ahead_drop(&world->ahead);
    for (unsigned kind = 0; kind < READ_AHEAD_KINDS; kind++)
        FIXTURE_TURN_UNTIL(&world->fixture, world->fixture.store->ahead.held_bytes[kind] == 0);
    CHECK_EQ(world->fixture.store->ahead.asked, 0);
    fixture_stop(&world->fixture);
}

static enum read_ahead_answer add(struct world *world, uint64_t seq, uint32_t layer)
{
    return read_ahead_add(&world->ahead, stream_find(world->stream, seq), layer);
}

/* Right after a start not even the checksums are in memory: they are read first. */
TEST(read_ahead_waits_for_the_keys_that_a_start_left_on_the_disk)
{
    struct world world;

    start(&world, READ_AHEAD_TICKETS);
    fixture_stop(&world.fixture);
    fixture_open(&world.fixture);
    world.ahead.store = world.fixture.store;
    world.stream = store_find(world.fixture.store, "default", "cam-1");
    CHECK(stream_find(world.stream, 0)->chunk->is_blank);
    for (uint64_t seq = 0; seq < FRAMES; seq++)
        CHECK_EQ(add(&world, seq, 1), READ_AHEAD_WILL_READ);
    read_ahead_pump(world.fixture.store);
    FIXTURE_TURN_UNTIL(&world.fixture, world.settled == 1);
    CHECK_EQ(world.ahead.read, FRAMES);
    stop(&world);
}

/* Of the frames [from, to), the later ones first, how many have been read ahead. */
static uint32_t count_of(const struct world *world, uint64_t from, uint64_t to, uint32_t layer)
{
    const struct index_frame *frames[32];
    uint32_t count = 0;

    while (to > from)
        frames[count++] = stream_find(world->stream, --to);
    return read_ahead_count(&world->ahead, frames, count, layer);
}

TEST(read_ahead_brings_layers_into_ram)
{
    struct world world;

    start(&world, READ_AHEAD_GUESSES);
    for (uint64_t seq = 0; seq < 8; seq++)
        CHECK_EQ(add(&world, seq, 1), READ_AHEAD_WILL_READ);
    CHECK_EQ(count_of(&world, 0, 8, 1), 0);
    read_ahead_pump(world.fixture.store);
    FIXTURE_TURN_UNTIL(&world.fixture, world.settled == 1);
    CHECK_EQ(world.ahead.read, 8);
    CHECK_EQ(world.fixture.store->ahead.slices, 8);
    for (uint64_t seq = 0; seq < 8; seq++) {
        CHECK(stream_find(world.stream, seq)->slices[1] != NULL);
        CHECK_EQ(fixture_read_layer(&world.fixture, world.stream, seq, 1), FRAME_OK);
    }
    CHECK_EQ(count_of(&world, 0, 8, 1), 8);
    CHECK_EQ(count_of(&world, 6, 12, 1), 2);
    CHECK_EQ(count_of(&world, 0, 8, 0), 0);
    CHECK_EQ(add(&world, 3, 1), READ_AHEAD_IS_THERE);
    stop(&world);
}

/* Nothing starts while somebody waits for the disk; what was asked for meanwhile is read, and then they are. */
TEST(read_ahead_waits_for_those_who_ask)
{
    struct world world;

    start(&world, READ_AHEAD_TICKETS);
    read_ahead_asked(world.fixture.store, 1);
    for (uint64_t seq = 0; seq < 8; seq++)
        CHECK_EQ(add(&world, seq, 0), READ_AHEAD_WILL_READ);
    read_ahead_pump(world.fixture.store);
    for (uint64_t seq = 20; seq < 24; seq++)
        CHECK_EQ(fixture_read_layer(&world.fixture, world.stream, seq, 2), FRAME_OK);
    CHECK_EQ(world.ahead.waiting, 8);
    CHECK_EQ(world.fixture.store->ahead.running_count, 0);
    read_ahead_asked(world.fixture.store, -1);
    CHECK_EQ(fixture_read_layer(&world.fixture, world.stream, 24, 2), FRAME_OK);
    FIXTURE_TURN_UNTIL(&world.fixture, world.settled == 1);
    CHECK_EQ(world.ahead.read, 8);
    stop(&world);
}

/* A read that is asked for while it is read ahead waits for that one: the bytes are read once. */
TEST(read_ahead_is_joined_by_who_asks)
{
    struct world world;
    struct fixture_read reading = { .read = { .layer = 1, .done = fixture_read_done } };

    start(&world, READ_AHEAD_GUESSES);
    CHECK_EQ(add(&world, 5, 1), READ_AHEAD_WILL_READ);
    read_ahead_pump(world.fixture.store);
    CHECK_EQ(world.fixture.store->ahead.running_count, 1);
    reading.read.store = world.fixture.store;
    reading.read.frame = stream_find(world.stream, 5);
    reading.read.is_shared = true;
    CHECK(!slice_read_start(&reading.read));
    CHECK(reading.read.is_waiting && world.fixture.store->ahead.asked == 0);
    FIXTURE_TURN_UNTIL(&world.fixture, reading.came);
    CHECK_EQ(reading.read.result, FRAME_OK);
    CHECK(!reading.read.is_from_disk && reading.read.slot == stream_find(world.stream, 5)->slices[1]);
    slice_read_release(&reading.read);
    stop(&world);
}

/* What is dropped while it is read gives its share back when it has come. */
static void fill_share(enum read_ahead_kind kind, uint64_t part)
{
    struct world world;
    uint64_t *held, room;

    start(&world, kind);
    held = &world.fixture.store->ahead.held_bytes[kind];
    room = ram_region_bytes(world.fixture.store->arena, RAM_SLICES) / part;
    for (uint32_t n = 0; n < 100000 && add(&world, n / 3 % FRAMES, n % 3) == READ_AHEAD_WILL_READ; n++)
        ;
    CHECK(*held <= room && *held > room - (64 << 10));
    CHECK_EQ(add(&world, 0, 0), READ_AHEAD_REFUSED);
    read_ahead_pump(world.fixture.store);
    CHECK_EQ(world.fixture.store->ahead.running_count, READ_AHEAD_THREADS);
    read_ahead_drop(&world.ahead);
    CHECK(*held > 0 && *held < room / 2);
    FIXTURE_TURN_UNTIL(&world.fixture, *held == 0);
    CHECK_EQ(world.settled, 0);
    stop(&world);
}

TEST(read_ahead_keeps_guesses_to_an_eighth_of_the_slices_region)
{
    fill_share(READ_AHEAD_GUESSES, 8);
}

TEST(read_ahead_keeps_tickets_to_a_quarter_of_the_slices_region)
{
    fill_share(READ_AHEAD_TICKETS, 4);
}

/* Of a frame that is damaged nothing is kept, and who asks for it learns why. */
TEST(read_ahead_forgets_what_cannot_be_read)
{
    struct world world;

    start(&world, READ_AHEAD_TICKETS);
    CHECK_EQ(add(&world, 7, 0), READ_AHEAD_WILL_READ);
    stream_quarantine(world.stream->segments[0], stream_find(world.stream, 7));
    read_ahead_pump(world.fixture.store);
    FIXTURE_TURN_UNTIL(&world.fixture, world.settled == 1);
    CHECK_EQ(world.ahead.failed, 1);
    CHECK(world.ahead.items == NULL);
    CHECK_EQ(fixture_read_layer(&world.fixture, world.stream, 7, 0), FRAME_QUARANTINED);
    stop(&world);
}

TEST_MAIN()
