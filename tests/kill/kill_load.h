/* kill_load.h - who works on the store while it is to be killed: a writer for each stream, and a reader.
 *
 * Writers open their stream, write bursts in chunks or through shared memory, end now and then, remove the stream and make
 * it again, until the store has gone; the reader asks for anything. A call that fails while the store runs ends the
 * program, but for those that a removed stream takes with it.
 *
 * Owner: the caller; between start and join nobody else touches the streams. */
#ifndef REELKV_TEST_KILL_LOAD_H
#define REELKV_TEST_KILL_LOAD_H

#include <pthread.h>

#include "kill_calls.h"
#include "simulation/sim_random.h"

struct kill_load;

struct kill_worker {
    struct kill_load *load;
    struct kill_stream *stream; /* NULL: the reader */
    struct sim_random random;
    pthread_t thread;
};

struct kill_load {
    struct server *server;
    struct kill_stream *streams; /* [KILL_STREAMS] */
    struct kv_pool *pools[KILL_STREAMS];
    atomic_bool is_over; /* the store has been told to go: calls may fail from now on */
    struct kill_worker workers[KILL_STREAMS + 1];
};

/* Pools, once; load->server and streams are set. */
void kill_load_init(struct kill_load *load);
void kill_load_deinit(struct kill_load *load);

void kill_load_start(struct kill_load *load, uint64_t dice);
void kill_load_join(struct kill_load *load);

#endif
