/* served.h - services of a test's own, served by a thread of their own, so that the test may block in calls to them.
 *
 * Owner:  the test. Thread: the services' handlers, started() and ending() run on the server's loop. */
#ifndef REELKV_TEST_SERVED_H
#define REELKV_TEST_SERVED_H

#include <pthread.h>

#include "rpc/server.h"

struct served {
    const struct rpc_service *services; /* set by the test, with what follows */
    size_t service_count;
    void (*started)(struct served *served); /* may be NULL; what more is to live on the loop */
    void (*ending)(struct served *served);  /* may be NULL */
    struct loop *loop;
    struct rpc_server *server;
    struct rpc *rpc;
    pthread_t thread;
    pthread_barrier_t ready;
    struct status failure;
    struct letter stop;
};

/* On a port of 127.0.0.1. Fails the test when it cannot. */
void served_start(struct served *served);
void served_stop(struct served *served);
const char *served_address(const struct served *served);

#endif
