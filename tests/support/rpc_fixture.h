/* rpc_fixture.h - a server with made-up services on the real API, for tests of lib/rpc.
 *
 *   GetServerInfo  answers at once: name = the request id, version = the peer, streams = remaining ms (capped)
 *   OpenStream     fails: code `geometry.layers`, sentence `writer`, retry_after_ms `expected_frames`
 *   Score          holds the call until it is over (or fixture_release_held()); counts ends
 *   Timeline       answers with page_size spans, then OK: a large reply on request
 *   Fetch          sends `first_layer` messages of `layers` KiB payload each, zero-copy, as fast as there is room
 *   Append         for each message: stored_seq = payload bytes, durable_seq = fixture_sum(), credit_bytes = item case;
 *                  an End with a trouble ends the call at once as ABORTED with that sentence
 *   Collect        the client-stream shape, which the real API does not have: one reply at the end, stored_seq = messages,
 *                  durable_seq = payload bytes
 *   Push           reads only the first message, then waits for fixture_read_on()
 *   LoadWindow     endless: `tokens` KiB each until the call is over
 *
 * A fixture runs on a thread of its own (fixture_start) so that blocking clients can be used, or on a loop of
 * the test's (fixture_services). Counters are atomics: read them from anywhere. */
#ifndef REELKV_TEST_RPC_FIXTURE_H
#define REELKV_TEST_RPC_FIXTURE_H

#include <pthread.h>
#include <stdatomic.h>

#include "rpc/rpc.h"
#include "rpc/server.h"

struct rpc_call;

extern const struct rpc_method fixture_collect;

enum { FIXTURE_HELD = 4096 };

struct fixture {
    struct loop *loop;
    struct rpc *rpc;
    struct rpc_server *server;
    struct rpc_service services[3];
    atomic_uint opened, ended, cancelled; /* of held calls and streams */
    atomic_uint messages;                 /* received by Append and Push */
    atomic_uint writes, releases;         /* payloads sent by Fetch and LoadWindow, and given back */
    struct rpc_call *held[FIXTURE_HELD];
    uint32_t held_count;
    bool released;
    struct rpc_call *stalled; /* the Push that waits for fixture_read_on() */

    struct rpc_server_options options;
    pthread_t thread;
    struct status failure;
    pthread_barrier_t started;
    char address[128];
    atomic_bool drained;
};

/* Fills fixture->services, to be served by a server of the test's own. Zero the fixture before. */
void fixture_services(struct fixture *fixture);

/* Starts a thread that serves on `options` (addresses NULL: 127.0.0.1, any port). Fails the test when it
 * cannot. */
void fixture_start(struct fixture *fixture, const struct rpc_server_options *options);
const char *fixture_address(const struct fixture *fixture);

/* From the test's thread, for fixture_start()'s fixtures. */
void fixture_read_on(struct fixture *fixture);
void fixture_release_held(struct fixture *fixture); /* answers the held calls, and later ones at once */
void fixture_drain(struct fixture *fixture, uint32_t lame_ms,
                   uint32_t drain_ms); /* fixture->drained follows */
void fixture_stop(struct fixture *fixture);

/* Waits until `*counter` reaches `want`, at most 20 s. */
bool fixture_wait(const atomic_uint *counter, unsigned want);

/* A checksum that knows positions. */
uint64_t fixture_sum(const void *data, size_t len);

#endif
