#include "damage_host.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/require.h"

enum { GAP_FRAMES = 3, INIT_TOKENS = 5 };

/* Odd numbers of tokens leave zeros between two layers. */
const struct kv_geometry damage_geometry = {
    .layers = 2, .kv_heads = 1, .head_dim = 8, .dtype = KV_DTYPE_F16
};
const uint8_t damage_fingerprint[KV_FINGERPRINT_BYTES] = { 4, 8, 15, 16, 23, 42 };

/* Pairs are f16 numbers between 0.5 and 2. */
uint8_t damage_byte(uint32_t stream, uint64_t seq, uint64_t at, uint32_t age)
{
    uint64_t mix =
        (seq + 1) * 0x9e3779b97f4a7c15ull + stream * 0x100000001b3ull + age * 0xc4ceb9fe1a85ec53ull + at / 2;

    mix = (mix ^ (mix >> 29)) * 0xbf58476d1ce4e5b9ull;
    mix ^= mix >> 32;
    return at % 2 == 0 ? (uint8_t)(mix >> 8) : (uint8_t)(0x38 + (mix & 7));
}

static void check(bool ok, const char *deed, const struct status *st)
{
    if (!ok)
        damage_fail("%s: %s", deed, st->text);
}

/* --- the disk --- */

/* Through the page cache, where the damage is; what outlives a power cut is tests/simulation's. */
static int open_cached(const char *path, int flags, mode_t mode)
{
    return file_system.open(path, flags & ~O_DIRECT, mode);
}

static int not_synced(int fd)
{
    (void)fd;
    return 0;
}

static struct file_ops disk;

/* --- the thread --- */

static void take_deed(struct letter *letter)
{
    loop_stop(container_of(letter, struct host, letter)->loop);
}

static void start_server(struct host *host)
{
    static const struct rpc_handler handlers[] = {
        { &api_load_window, kvstore_load_window },
        { &api_score, kvstore_score },
        { &api_fetch, kvstore_fetch },
        { &api_retrieve, kvstore_retrieve },
        { &api_timeline, kvstore_timeline },
    };
    static const char *const any_port[] = { "127.0.0.1:0" };
    static struct rpc_service service = { "reelkv.v1.KvStore", handlers, ARRAY_LEN(handlers), NULL };
    const struct rpc_server_options options = {
        .addresses = any_port, .address_count = 1, .services = &service, .service_count = 1
    };
    struct status st;

    service.state = &host->kvstore;
    check(loop_create(&host->loop, &st) && rpc_create(&host->rpc, host->loop, &st) &&
              rpc_server_create(&host->server, host->rpc, &options, &st),
          "start", &st);
    host->kvstore.loop = host->loop;
    snprintf(host->address, sizeof host->address, "%s", rpc_server_address(host->server, 0));
}

static void *run(void *arg)
{
    struct host *host = arg;

    start_server(host);
    sem_post(&host->done);
    while (!host->is_ending) {
        loop_run(host->loop); /* until there is something to do */
        if (host->deed != NULL)
            host->deed(host, host->arg);
        sem_post(&host->done);
    }
    rpc_server_destroy(host->server);
    rpc_destroy(host->rpc);
    loop_destroy(host->loop);
    return NULL;
}

void host_do(struct host *host, void (*deed)(struct host *host, void *arg), void *arg)
{
    host->deed = deed;
    host->arg = arg;
    host->letter.open = take_deed;
    loop_post(host->loop, &host->letter);
    while (sem_wait(&host->done) != 0)
        ;
}

void host_start(struct host *host, const char *root)
{
    disk = file_system;
    disk.open = open_cached;
    disk.fsync = disk.fdatasync = not_synced;
    host->kvstore_options = (struct kvstore_options){ .name = "kv-a", .disk_budget_bytes = 256 << 20 };
    host->kvstore.options = &host->kvstore_options;
    host->options = (struct store_options){ .name = "kv-a",
                                            .root = root,
                                            .ram_bytes = 8 << 20,
                                            .disk_bytes = 256 << 20,
                                            .segment_bytes_max = 128 << 10,
                                            .commit_ms = 5,
                                            .reading_threads = 1,
                                            .writing_threads = 1,
                                            .disk = &disk };
    sem_init(&host->done, 0, 0);
    REQUIRE(pthread_create(&host->thread, NULL, run, host) == 0);
    while (sem_wait(&host->done) != 0)
        ;
}

static void end(struct host *host, void *arg)
{
    (void)arg;
    host->is_ending = true;
}

void host_stop(struct host *host)
{
    host_do(host, end, NULL);
    pthread_join(host->thread, NULL);
    sem_destroy(&host->done);
}

static void fire(struct loop_timer *timer)
{
    (void)timer;
}

static void turn(struct host *host)
{
    struct loop_timer timer = { 0 };

    loop_timer_start(host->loop, &timer, 5, fire);
    loop_run_once(host->loop);
    loop_timer_stop(&timer);
}

static bool is_blank(const struct store *store)
{
    for (struct stream *stream = store_next(store, NULL, NULL); stream != NULL; stream = store_after(stream))
        for (uint32_t i = 0; i < stream->segment_count; i++)
            for (uint32_t n = 0; n < stream->segments[i]->index.chunk_count; n++)
                if (stream->segments[i]->index.chunks[n]->is_blank)
                    return true;
    return false;
}

void host_open(struct host *host, void *arg)
{
    struct status st = { 0 };

    (void)arg;
    check(store_open(&host->kvstore.store, host->loop, &host->options, &st), "open", &st);
    while (is_blank(host->kvstore.store))
        turn(host);
}

/* --- writing --- */

struct answer {
    bool came, ok;
    struct status st;
};

static void done(void *user, struct stream *stream, const struct status *failure)
{
    struct answer *answer = user;

    (void)stream;
    answer->came = true;
    answer->ok = failure == NULL;
    if (failure != NULL)
        answer->st = *failure;
}

static void wait_for(struct host *host, struct answer *answer, const char *deed)
{
    while (!answer->came)
        turn(host);
    check(answer->ok, deed, &answer->st);
}

static void moved(struct stream_writer *writer)
{
    (void)writer;
}

static void fenced(struct stream_writer *writer, const struct status *why)
{
    (void)writer;
    damage_fail("a writer was fenced: %s", why->text);
}

static void attach(struct host *host, struct stream *stream, struct stream_writer *writer)
{
    struct stream_open_request request = { .geometry = damage_geometry, .writer = "damage" };
    struct answer answer = { 0 };
    struct status st;

    memcpy(request.fingerprint, damage_fingerprint, KV_FINGERPRINT_BYTES);
    check(stream_open(stream, &request, done, &answer, &st), "take a stream", &st);
    wait_for(host, &answer, "take a stream");
    *writer = (struct stream_writer){ moved, fenced };
    check(stream_attach(stream, stream->epoch, writer, &st), "attach", &st);
}

static void fill(uint8_t *to, uint64_t from, uint64_t len, const struct damage_frame *frame, uint32_t age)
{
    for (uint64_t i = 0; i < len; i++)
        to[i] = damage_byte(frame->stream, frame->seq, from + i, age);
}

/* With the embedding, which no message has yet: so the record is made here, as the server makes it. */
static void append_block(struct host *host, struct stream *stream, const struct damage_frame *frame,
                         bool is_init, uint32_t age)
{
    uint64_t payload_bytes = kv_payload_bytes(&damage_geometry, frame->tokens);
    const struct stream_block block = { .is_init = is_init,
                                        .seq = frame->seq,
                                        .pts_ns = 1700000000000000000ll + (int64_t)frame->seq * 1000000000ll,
                                        .token_index = is_init ? 0 : stream->next_token_index,
                                        .tokens = frame->tokens,
                                        .thumbnail_bytes = frame->thumbnail_bytes,
                                        .payload_bytes = payload_bytes };
    struct ram_arena *arena = host->kvstore.store->arena;
    uint8_t *payload = malloc(payload_bytes), *image;
    struct kv_record record;
    struct kv_layout layout;
    struct ram_slot *slot;
    struct status st;
    bool is_known;

    REQUIRE(payload != NULL);
    check(stream_check_block(stream, &block, &is_known, &record, &st), "append", &st);
    record.embedding_bytes = frame->embedding_bytes;
    kv_record_layout(&record, &layout);
    while ((slot = ram_take(arena, RAM_IMAGES, layout.record_bytes)) == NULL)
        turn(host);
    image = ram_bytes(arena, slot);
    fill(payload, 0, payload_bytes, frame, age);
    fill(image + layout.thumbnail, payload_bytes, frame->thumbnail_bytes, frame, age);
    fill(image + layout.embedding, 1 << 20, frame->embedding_bytes, frame, age);
    kv_record_scatter(&record, 0, payload, payload_bytes, image);
    kv_record_checksum(&record, image);
    while (!stream_append(stream, &record, slot, &st)) {
        check(st.code == STATUS_EXHAUSTED, "append", &st);
        turn(host);
    }
    ram_unref(arena, slot);
    free(payload);
}

static void append_init(struct host *host, struct stream *stream, uint32_t number, uint32_t age)
{
    const struct damage_frame init = { .stream = number, .seq = 0, .tokens = INIT_TOKENS };

    append_block(host, stream, &init, true, age);
}

static void append_frames(struct host *host, struct stream *stream, uint32_t number, uint32_t count,
                          uint32_t age)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = host->frame_count[number]++;
        struct damage_frame *frame = &host->frames[number][at];
        uint32_t mix = number * 31 + at * 7;

        REQUIRE(at < DAMAGE_FRAMES_MAX);
        *frame =
            (struct damage_frame){ .stream = number,
                                   .seq = stream->next_seq,
                                   .tokens = 3 + mix % (DAMAGE_TOKENS_MAX - 3),
                                   .thumbnail_bytes = mix % 5 == 0 ? 0 : 1 + mix * 13 % DAMAGE_THUMBNAIL_MAX,
                                   .embedding_bytes =
                                       mix % 3 == 0 ? 0 : 1 + mix * 11 % DAMAGE_EMBEDDING_MAX };
        append_block(host, stream, frame, false, age);
    }
}

static void append_gap(struct stream *stream)
{
    const struct stream_gap gap = { .from_seq = stream->next_seq,
                                    .to_seq = stream->next_seq + GAP_FRAMES,
                                    .from_pts_ns =
                                        1700000000000000000ll + (int64_t)stream->next_seq * 1000000000ll,
                                    .to_pts_ns =
                                        1700000000000000000ll + (int64_t)stream->next_seq * 1000000000ll,
                                    .reason = "the camera was away" };
    struct status st;

    check(stream_append_gap(stream, &gap, &st), "append a gap", &st);
}

static void settle(struct host *host, struct stream *stream, bool sealed)
{
    while (!stream_is_durable(stream) || (sealed && stream_last_segment(stream)->writer != NULL)) {
        stream_commit(stream);
        turn(host);
    }
}

/* Three epochs, a file each: two that are sealed, and one that is so for some streams only. */
static void write_stream(struct host *host, uint32_t number, uint32_t age)
{
    const struct stream_definition definition = { .source = "rtsp://cam/1",
                                                  .kind = STREAM_LIVE,
                                                  .sample_fps = 1 };
    struct store *store = host->kvstore.store;
    struct answer answer = { 0 };
    struct stream *stream;
    struct status st;
    char name[16];

    damage_stream_name(number, name);
    check(stream_define(store, "default", name, &definition, done, &answer, &st), "define", &st);
    wait_for(host, &answer, "define");
    stream = store_find(store, "default", name);
    host->frame_count[number] = 0;
    for (uint32_t epoch = 0; epoch < 3; epoch++) {
        attach(host, stream, &host->writers[number]);
        append_init(host, stream, number, age);
        append_frames(host, stream, number, 2, age);
        append_gap(stream);
        append_frames(host, stream, number, 2, age);
        if (epoch == 2 && number % 4 == 0)
            check(stream_end(stream, "", &st), "end", &st);
        settle(host, stream, false);
        if (epoch == 2 && number < DAMAGE_LIVE_STREAMS)
            return;
        stream_detach(stream, &host->writers[number]);
        settle(host, stream, true);
    }
}

void host_write(struct host *host, void *age)
{
    for (uint32_t i = 0; i < DAMAGE_STREAMS; i++)
        write_stream(host, i, *(uint32_t *)age);
}

static void forget_segment(struct segment *segment, struct ram_arena *arena)
{
    segment->quarantined_frames = 0;
    for (uint64_t n = 0; n < segment->index.frame_count; n++) {
        struct index_frame *frame = index_part_at(&segment->index, n);

        frame->is_quarantined = false;
        if (frame->image != NULL && frame->image->pins == 0)
            ram_drop(arena, &frame->image);
        for (uint32_t i = 0; frame->slices != NULL && i < damage_geometry.layers; i++)
            if (frame->slices[i] != NULL)
                ram_drop(arena, &frame->slices[i]);
    }
}

void host_forget(struct host *host, void *arg)
{
    struct store *store = host->kvstore.store;

    (void)arg;
    store->quarantined_frames = 0;
    for (struct stream *stream = store_next(store, NULL, NULL); stream != NULL; stream = store_after(stream))
        for (uint32_t i = 0; i < stream->segment_count; i++)
            forget_segment(stream->segments[i], store->arena);
}

/* What was sent is let go of a moment after its reader has it. */
void host_close(struct host *host, void *arg)
{
    struct store *store = host->kvstore.store;

    for (struct stream *stream = store_next(store, NULL, NULL); stream != NULL; stream = store_after(stream))
        if (stream->writer != NULL) {
            stream_detach(stream, stream->writer);
            settle(host, stream, true);
        }
    host_forget(host, arg);
    while (rpc_server_calls(host->server) > 0 || ram_used_bytes(store->arena, RAM_SLICES) > 0 ||
           ram_used_bytes(store->arena, RAM_IMAGES) > 0)
        turn(host);
    store_close(store);
    host->kvstore.store = NULL;
}
