#include "kill_load.h"

enum { BURST_MAX = 8, SESSION_BURSTS_MAX = 16 }; /* a burst covers fewer numbers than there are slots */

void kill_load_init(struct kill_load *load)
{
    struct status st;

    for (uint32_t i = 0; i < KILL_STREAMS; i++)
        CHECK_OK(kv_pool_create(&load->pools[i], "writer", (KILL_SLOTS + 2) * KILL_SLOT_BYTES, &st), st);
}

void kill_load_deinit(struct kill_load *load)
{
    for (uint32_t i = 0; i < KILL_STREAMS; i++)
        kv_pool_destroy(load->pools[i]);
}

/* False, or it should not have failed. */
static bool cut(const struct kill_worker *worker, const char *deed, const struct status *st)
{
    if (!worker->load->is_over)
        test_fail(__FILE__, __LINE__, "%s failed while the store ran: %s (%s)", deed, st->text,
                  status_code_words(st->code));
    return false;
}

static struct kv_shm_peer *share(const struct kill_worker *worker, const struct kv_pool *own)
{
    char path[PATH_MAX];
    struct kv_shm_peer *peer;
    struct status st;

    snprintf(path, sizeof path, "%s/shm.sock", worker->load->server->path);
    if (kv_shm_peer_create(&peer, path, own, 5000, &st))
        return peer;
    cut(worker, "the handshake", &st);
    return NULL;
}

/* --- writing --- */

static bool burst(struct kill_worker *worker, struct writer *writer)
{
    uint32_t count = 1 + sim_pick(&worker->random, BURST_MAX);
    uint64_t want;

    for (uint32_t i = 0; i < count; i++)
        if (!kill_write_next(writer, worker->stream))
            return false;
    want = writer->next_seq;
    while (writer->stored_seq < want)
        if (!kill_hear(writer, worker->stream))
            return false;
    return true;
}

/* All of it is durable when the call ends well. */
static bool finish(struct kill_worker *worker, struct writer *writer)
{
    bool ok = rpc_sync_half_close(writer->call, &writer->st);

    while (ok && kill_hear(writer, worker->stream))
        ;
    ok = ok && rpc_sync_finish(writer->call, &writer->st);
    if (ok)
        CHECK_EQ(writer->durable_seq, writer->next_seq);
    return ok || cut(worker, "the end of an append", &writer->st);
}

static bool remove_and_make(struct kill_worker *worker)
{
    struct status st;

    if (!kill_remove(worker->load->server, worker->stream, &st))
        return cut(worker, "a removal", &st);
    return kill_create(worker->load->server, worker->stream, &st) || cut(worker, "a definition", &st);
}

/* What was acked is there; where the writer goes on follows from it. */
static bool open_stream(struct kill_worker *worker, struct writer *writer)
{
    struct kill_stream *stream = worker->stream;

    if (!writer_open(writer, worker->load->server, stream->name))
        return cut(worker, "an open", &writer->st);
    if (writer->next_seq != stream->offered || writer->durable_seq > writer->next_seq ||
        writer->durable_seq < stream->durable || writer->epoch <= stream->epoch ||
        (writer->next_seq > 0 && writer->next_token != kill_token_index(stream, writer->next_seq)))
        test_fail(__FILE__, __LINE__,
                  "WRONG: %s opens at %llu, token %llu, durable %llu, epoch %llu; %llu were offered, %llu "
                  "acked durable, epoch %llu",
                  stream->name, (unsigned long long)writer->next_seq, (unsigned long long)writer->next_token,
                  (unsigned long long)writer->durable_seq, (unsigned long long)writer->epoch,
                  (unsigned long long)stream->offered, (unsigned long long)stream->durable,
                  (unsigned long long)stream->epoch);
    stream->epoch = writer->epoch;
    return true;
}

/* One writer's tenure. False: the store has gone. */
static bool session(struct kill_worker *worker, struct writer *writer)
{
    uint32_t bursts = sim_pick(&worker->random, SESSION_BURSTS_MAX);
    bool removes = sim_chance(&worker->random, 10), in_the_middle = sim_chance(&worker->random, 50);
    bool ok;

    if (!open_stream(worker, writer))
        return false;
    ok = writer_begin(writer) && kill_write_init(writer, worker->stream);
    while (ok && bursts-- > 0)
        ok = burst(worker, writer);
    if (!ok)
        cut(worker, "an append", &writer->st);
    ok = ok && (!removes || !in_the_middle || remove_and_make(worker));
    if (ok && !(removes && in_the_middle))
        ok = finish(worker, writer) && (!removes || remove_and_make(worker));
    rpc_sync_stream_destroy(writer->call);
    writer->call = NULL;
    return ok;
}

static void *write_on(void *arg)
{
    struct kill_worker *worker = arg;
    struct writer writer = { .server = worker->load->server };
    uint32_t at = (uint32_t)(worker->stream - worker->load->streams);
    bool is_shared = sim_chance(&worker->random, 50);
    bool ok;

    if (is_shared) {
        writer.pool = worker->load->pools[at];
        writer.peer = share(worker, writer.pool);
    }
    ok = !is_shared || writer.peer != NULL;
    if (ok && !worker->stream->is_there)
        ok = kill_create(worker->load->server, worker->stream, &writer.st) ||
             cut(worker, "a definition", &writer.st);
    while (ok)
        ok = session(worker, &writer);
    rpc_sync_stream_destroy(writer.call);
    kv_shm_peer_destroy(writer.peer);
    return NULL;
}

/* --- reading --- */

static bool ask(struct kill_worker *worker, struct kill_stream *stream, struct kv_shm_peer *peer,
                struct status *st)
{
    struct sim_random *random = &worker->random;
    struct server *server = worker->load->server;
    uint32_t dice = sim_pick(random, 100), count = 1 + sim_pick(random, 16);
    uint64_t seqs[16], end = stream->offered + 4;

    if (dice < 20)
        return kill_timeline(server, stream, &end, st);
    if (dice < 50)
        return kill_retrieve(server, stream, sim_next(random), st);
    for (uint32_t i = 0; i < count; i++)
        seqs[i] =
            dice < 75 ? end - 1 - sim_pick(random, end < 64 ? (uint32_t)end : 64) : sim_next(random) % end;
    return kill_fetch(server, stream, seqs, count, sim_pick(random, client_geometry.layers),
                      dice % 2 == 0 ? peer : NULL, st);
}

/* A stream that was removed or made meanwhile may not be known. */
static void *read_on(void *arg)
{
    struct kill_worker *worker = arg;
    struct kv_shm_peer *peer = share(worker, NULL);
    struct status st;

    while (!worker->load->is_over) {
        struct kill_stream *stream = &worker->load->streams[sim_pick(&worker->random, KILL_STREAMS)];
        struct kill_question question;

        kill_ask(&question, stream);
        if (!stream->is_there || ask(worker, stream, peer, &st))
            continue;
        if (kill_counts_still(&question))
            cut(worker, "a question", &st);
    }
    kv_shm_peer_destroy(peer);
    return NULL;
}

void kill_load_start(struct kill_load *load, uint64_t dice)
{
    struct sim_random random = { .state = dice };

    load->is_over = false;
    for (uint32_t i = 0; i <= KILL_STREAMS; i++) {
        struct kill_worker *worker = &load->workers[i];

        worker->load = load;
        worker->stream = i < KILL_STREAMS ? &load->streams[i] : NULL;
        worker->random.state = sim_next(&random);
        CHECK_EQ(pthread_create(&worker->thread, NULL, i < KILL_STREAMS ? write_on : read_on, worker), 0);
    }
}

void kill_load_join(struct kill_load *load)
{
    for (uint32_t i = 0; i <= KILL_STREAMS; i++)
        pthread_join(load->workers[i].thread, NULL);
}
