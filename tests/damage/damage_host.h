/* damage_host.h - a store and its RPC server on a thread of their own, and what the program does there between two turns of
 * the loop: write, close, open, forget what was found.
 *
 * Owner:  the program. Thread: host_do() and what stands below it from the program's; deeds run on the host's.
 * Fails:  the program, with a sentence. */
#ifndef REELKV_TEST_DAMAGE_HOST_H
#define REELKV_TEST_DAMAGE_HOST_H

#include <pthread.h>
#include <semaphore.h>

#include "kvstore/kvstore.h"
#include "rpc/server.h"

enum {
    DAMAGE_STREAMS = 16,
    DAMAGE_LIVE_STREAMS = 12, /* that have a writer, and with it an open file */
    DAMAGE_FRAMES_MAX = 12,   /* of one stream */
    DAMAGE_THUMBNAIL_MAX = 200,
    DAMAGE_EMBEDDING_MAX = 150,
    DAMAGE_TOKENS_MAX = 40,
};

extern const struct kv_geometry damage_geometry;
extern const uint8_t damage_fingerprint[KV_FINGERPRINT_BYTES];

/* What a frame was given; every byte of it follows from stream, seq and `age`, which tells two stores apart. */
struct damage_frame {
    uint32_t stream;
    uint64_t seq;
    uint32_t tokens, thumbnail_bytes, embedding_bytes;
};
uint8_t damage_byte(uint32_t stream, uint64_t seq, uint64_t at, uint32_t age);

struct host {
    struct loop *loop;
    struct rpc *rpc;
    struct rpc_server *server;
    struct kvstore kvstore; /* for the handlers: no directory, no shared memory */
    struct kvstore_options kvstore_options;
    struct store_options options;
    struct stream_writer writers[DAMAGE_STREAMS];
    struct damage_frame frames[DAMAGE_STREAMS][DAMAGE_FRAMES_MAX]; /* as written */
    uint32_t frame_count[DAMAGE_STREAMS];
    char address[128];
    pthread_t thread;
    sem_t done;
    struct letter letter;
    void (*deed)(struct host *host, void *arg);
    void *arg;
    bool is_ending;
};

/* The folder is made; the store is closed. */
void host_start(struct host *host, const char *root);
void host_stop(struct host *host);

/* Runs it there, and returns when it has returned. */
void host_do(struct host *host, void (*deed)(struct host *host, void *arg), void *arg);

/* Deeds. */
void host_open(struct host *host, void *arg);
void host_close(struct host *host, void *arg);
void host_write(struct host *host,
                void *age); /* all streams; the last file of some stays open, all of it durable */
void host_forget(struct host *host, void *arg); /* what readers found, and every copy in RAM */

_Noreturn void damage_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

static inline void damage_stream_name(uint32_t stream, char name[16])
{
    snprintf(name, 16, "cam-%02u", stream);
}

#endif
