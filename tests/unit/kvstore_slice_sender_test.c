/* What readers of shared memory keep is bounded, by what their calls named and never let go of; and a call may end whatever
 * its reads wait for. Told by a sender whose messages are looked at and not sent. */
#include <pthread.h>

#include "kv/kv_shm.h"
#include "kvstore/kvstore_shm.h"
#include "kvstore/slice_sender.h"
#include "kvstore_fixture.h"

enum { FRAMES = 600, SENDERS = 3, TARGETS = FRAMES * 3 };

struct shared {
    struct fixture fixture;
    struct kvstore kvstore;
    struct kv_shm_peer *peer;
    char socket[600];
    pthread_t thread;
    struct fixture_writer writer;
    struct stream *stream;
};

/* One call: which frames it was told the place of, which layers came inline. */
struct listener {
    struct slice_sender sender;
    struct slice_target targets[TARGETS];
    bool is_told[FRAMES];
    uint32_t inlined, messages;
    bool is_finished;
};

static bool listen_to(struct slice_sender *sender, const Reelkv__V1__SliceReply *reply,
                      const struct rpc_attachment *attachment)
{
    struct listener *listener = container_of(sender, struct listener, sender);

    if (reply->head != NULL) {
        CHECK_EQ(reply->head->result, REELKV__V1__FRAME_RESULT__FRAME_RESULT_OK);
        if (reply->head->place != NULL)
            listener->is_told[reply->head->index] = true;
        listener->inlined += attachment != NULL;
    }
    for (size_t i = 0; i < reply->n_more; i++) {
        CHECK_EQ(reply->more[i]->result, REELKV__V1__FRAME_RESULT__FRAME_RESULT_OK);
        CHECK(reply->head != NULL && reply->more[i]->place != NULL && attachment == NULL);
        listener->is_told[reply->more[i]->index] = true;
    }
    listener->messages++;
    if (attachment != NULL)
        attachment->release(attachment->arg);
    return true;
}

static void finished(struct slice_sender *sender)
{
    container_of(sender, struct listener, sender)->is_finished = true;
}

/* All layers of all frames from the first on, and then of those before it, as a question asks for them. */
static void listen_all(struct shared *shared, struct listener *listener, uint32_t first)
{
    uint32_t count = 0;

    memset(listener, 0, sizeof *listener);
    listener->sender = (struct slice_sender){ .kvstore = &shared->kvstore,
                                              .write = listen_to,
                                              .finished = finished,
                                              .shm_session = kv_shm_peer_session(shared->peer) };
    for (uint32_t layer = 0; layer < fixture_geometry.layers; layer++)
        for (uint32_t i = 0; i < FRAMES; i++) {
            uint32_t seq = (first + i) % FRAMES;

            listener->targets[count++] = (struct slice_target){
                .frame = stream_find(shared->stream, seq), .index = seq, .layer = layer, .wants_slice = true
            };
        }
    slice_sender_init(&listener->sender);
    slice_sender_start(&listener->sender, listener->targets, count);
    FIXTURE_TURN_UNTIL(&shared->fixture, listener->is_finished);
}

/* Of the blocks in RAM whose places these calls were told. */
static uint64_t told_bytes(struct shared *shared, const struct listener *listeners, unsigned count)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < FRAMES; i++) {
        bool is_told = false;

        for (unsigned n = 0; n < count; n++)
            is_told |= listeners[n].is_told[i];
        if (is_told)
            bytes += stream_find(shared->stream, i)->image->bytes;
    }
    return bytes;
}

static void *shake_hands(void *arg)
{
    struct shared *shared = arg;
    struct status st;

    CHECK_OK(kv_shm_peer_create(&shared->peer, shared->socket, NULL, 10000, &st), st);
    return NULL;
}

/* Most of the region is taken by blocks that their writer holds, for they are not on the disk yet. */
static void start(struct shared *shared)
{
    struct fixture *fixture = &shared->fixture;

    memset(shared, 0, sizeof *shared);
    fixture_start(fixture);
    fixture_stop(fixture);
    fixture->options.commit_ms = 60000;
    fixture_open(fixture);
    shared->kvstore = (struct kvstore){ .loop = fixture->loop, .store = fixture->store };
    snprintf(shared->socket, sizeof shared->socket, "%s/shm.sock", test_folder());
    CHECK_OK(kvstore_shm_create(&shared->kvstore.shm, fixture->loop, shared->socket,
                                ram_arena_pool(fixture->store->arena), &fixture->st),
             fixture->st);
    CHECK_EQ(pthread_create(&shared->thread, NULL, shake_hands, shared), 0);
    FIXTURE_TURN_UNTIL(fixture, pthread_tryjoin_np(shared->thread, NULL) == 0);
    shared->stream = fixture_define(fixture, "cam-1");
    fixture_attach(fixture, shared->stream, &shared->writer);
    fixture_append(fixture, shared->stream, FRAMES);
    CHECK(stream_find(shared->stream, 0)->image->refs > 0);
    CHECK(ram_used_bytes(fixture->store->arena, RAM_IMAGES) >
          ram_region_bytes(fixture->store->arena, RAM_IMAGES) / 2);
}

static void stop(struct shared *shared)
{
    kv_shm_peer_destroy(shared->peer);
    kvstore_shm_destroy(shared->kvstore.shm);
    stream_detach(shared->stream, &shared->writer.base);
    fixture_stop(&shared->fixture);
}

TEST(slice_sender_counts_leases_on_blocks_that_their_writer_holds_too)
{
    static struct listener listener;
    struct shared shared;
    uint64_t room;

    start(&shared);
    room = ram_region_bytes(shared.fixture.store->arena, RAM_IMAGES) / 4;
    listen_all(&shared, &listener, 0);
    CHECK(listener.inlined > 0);
    CHECK(told_bytes(&shared, &listener, 1) <= room);
    CHECK(told_bytes(&shared, &listener, 1) > room - (64 << 10));
    CHECK_EQ(shared.fixture.store->leased_bytes[RAM_IMAGES], told_bytes(&shared, &listener, 1));
    slice_sender_deinit(&listener.sender);
    CHECK_EQ(shared.fixture.store->leased_bytes[RAM_IMAGES], 0);
    stop(&shared);
}

/* What is shared goes many places in a message, and who asks for the next layer has read the one before: its leases end. */
TEST(slice_sender_tells_many_places_at_once_and_ends_leases_with_the_next_start)
{
    static struct listener listener;
    struct shared shared;
    uint32_t told = 0;

    start(&shared);
    listen_all(&shared, &listener, 0);
    for (uint32_t i = 0; i < FRAMES; i++)
        told += listener.is_told[i];
    CHECK(told > SLICE_SENDER_PLACES);
    CHECK(listener.messages - listener.inlined <= fixture_geometry.layers * (told / SLICE_SENDER_PLACES + 1));
    CHECK(shared.fixture.store->leased_bytes[RAM_IMAGES] > 0);
    slice_sender_start(&listener.sender, listener.targets, 0);
    CHECK_EQ(shared.fixture.store->leased_bytes[RAM_IMAGES], 0);
    slice_sender_deinit(&listener.sender);
    stop(&shared);
}

/* Three calls want a quarter each: the third gets only what the others keep already, for half is the most that all may
 * keep. What two of them keep counts for each, once for all, and until the last of them ends. */
TEST(slice_sender_counts_a_lease_until_its_last_call_ends)
{
    static struct listener listeners[SENDERS];
    struct shared shared;
    struct store *store;

    start(&shared);
    store = shared.fixture.store;
    for (unsigned i = 0; i < SENDERS; i++) {
        listen_all(&shared, &listeners[i], i * FRAMES / 4);
        CHECK_EQ(listeners[i].sender.leased_bytes[RAM_IMAGES], told_bytes(&shared, &listeners[i], 1));
        CHECK(told_bytes(&shared, &listeners[i], 1) <= ram_region_bytes(store->arena, RAM_IMAGES) / 4);
    }
    CHECK(store->leased_bytes[RAM_IMAGES] <= ram_region_bytes(store->arena, RAM_IMAGES) / 2);
    for (unsigned i = 0; i < SENDERS; i++) {
        CHECK_EQ(store->leased_bytes[RAM_IMAGES], told_bytes(&shared, listeners + i, SENDERS - i));
        slice_sender_deinit(&listeners[i].sender);
    }
    CHECK_EQ(store->leased_bytes[RAM_IMAGES], 0);
    stop(&shared);
}

/* All layers of a block lie in one slot: the first that is told holds it, and those that come after it hold nothing. */
TEST(slice_sender_keeps_one_read_for_a_slot)
{
    static struct listener listener;
    struct shared shared;

    start(&shared);
    stream_commit(shared.stream);
    fixture_wait_durable(&shared.fixture, shared.stream);
    listen_all(&shared, &listener, 0);
    CHECK(listener.is_told[0]);
    for (uint32_t i = 0; i < FRAMES; i++)
        CHECK_EQ(stream_find(shared.stream, i)->image->refs, listener.is_told[i]);
    slice_sender_deinit(&listener.sender);
    CHECK_EQ(stream_find(shared.stream, 0)->image->refs, 0);
    stop(&shared);
}

/* One layer of the stream's first frame, inline; its read has not been answered. */
static void begin_to_send(struct kvstore *kvstore, struct stream *stream, struct listener *listener)
{
    memset(listener, 0, sizeof *listener);
    listener->sender = (struct slice_sender){ .kvstore = kvstore, .write = listen_to, .finished = finished };
    listener->targets[0] = (struct slice_target){ .frame = stream_find(stream, 0), .wants_slice = true };
    slice_sender_init(&listener->sender);
    slice_sender_start(&listener->sender, listener->targets, 1);
    CHECK(!listener->is_finished);
}

TEST(slice_sender_may_end_while_a_read_waits_for_a_thread)
{
    static struct listener listener;
    static struct fixture_jam jam;
    struct fixture fixture;
    struct fixture_writer writer;
    struct stream *stream;

    fixture_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 1);
    fixture_wait_durable(&fixture, stream);
    fixture_jam(&jam, fixture.store->computing, fixture.options.computing_threads);
    begin_to_send(&(struct kvstore){ .store = fixture.store }, stream, &listener);
    CHECK(fixture.store->read_waiters != NULL);
    slice_sender_deinit(&listener.sender);
    CHECK(fixture.store->read_waiters == NULL);
    fixture_let_go(&fixture, &jam);
    fixture_check_all(&fixture, stream, 0, 1);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
}

/* The copy in RAM is damaged, and there is no room to read that on the disk. */
TEST(slice_sender_may_end_while_a_read_that_ran_waits_for_room)
{
    static struct listener listener;
    struct ram_slot *held[1024];
    struct fixture fixture;
    struct fixture_writer writer;
    struct stream *stream;
    struct ram_arena *arena;
    struct ram_slot *image;
    uint32_t count = 0;

    fixture_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 1);
    fixture_wait_durable(&fixture, stream);
    arena = fixture.store->arena;
    while (count < ARRAY_LEN(held) && (held[count] = ram_take(arena, RAM_SLICES, KV_PAGE_BYTES)) != NULL)
        count++;
    CHECK(count < ARRAY_LEN(held));
    image = stream_find(stream, 0)->image;
    memset(ram_bytes(arena, image), 0, image->bytes);
    begin_to_send(&(struct kvstore){ .store = fixture.store }, stream, &listener);
    FIXTURE_TURN_UNTIL(&fixture, fixture.store->read_waiters != NULL);
    slice_sender_deinit(&listener.sender);
    CHECK(fixture.store->read_waiters == NULL);
    while (count > 0)
        ram_unref(arena, held[--count]);
    fixture_check_all(&fixture, stream, 0, 1);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
}

TEST_MAIN()
