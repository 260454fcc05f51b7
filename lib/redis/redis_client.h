/* redis_client.h - inside lib/redis: one connection to Redis on a loop, made again whenever it is lost.
 *
 * hiredis' own libuv adapter drops error events, so that a refused connection is never noticed; this one
 * hands them on as the events that were wanted.
 *
 *   waiting --timer--> connecting --ok--> connected --error, deadline--> waiting (100 ms, doubling to 2 s)
 *                          '--------------error, deadline---------------^
 *
 * Connecting is looking up the host's name, which never blocks the loop, and then connecting.
 *
 * Owner:  directory. redis_client_destroy() sends what it was given, as far as the socket takes it, and calls every
 *         outstanding callback with NULL first.
 * Thread: the loop's.
 * Fails:  commands are refused (false) while not connected; a command whose reply does not come within
 *         REDIS_REPLY_MS loses the connection, and its callback gets NULL. Connecting may take as long, with looking up.
 * Bounds: REDIS_COMMANDS_MAX commands outstanding. */
#ifndef REELKV_REDIS_REDIS_CLIENT_H
#define REELKV_REDIS_REDIS_CLIENT_H

#include <hiredis/hiredis.h>

#include "base/status.h"
#include "loop/loop.h"

enum { REDIS_COMMANDS_MAX = 16384, REDIS_REPLY_MS = 3000 };

struct redis_client;

struct redis_client_events {
    void (*connected)(void *user);
    void (*lost)(const char *why, void *user); /* also when connecting failed */
    void *user;
};

/* INVALID when the address is not one. Connecting goes on in the background for ever. */
bool redis_client_create(struct redis_client **client_p, struct loop *loop, const char *address,
                         const struct redis_client_events *events, struct status *st);
void redis_client_destroy(struct redis_client *client); /* NULL is fine */

bool redis_client_is_connected(const struct redis_client *client);

/* `replied` is called once, with NULL when the connection was lost; it may be NULL itself. The reply is valid
 * during the call. False: not sent, `replied` is not called. */
bool redis_client_send(struct redis_client *client, void (*replied)(const redisReply *reply, void *user),
                       void *user, int argc, const char *const *argv);

#endif
