/* address.h - inside lib/rpc: "host:port" and "unix:/path", checked; Unix sockets guarded by a lock file.
 *
 * gRPC removes whatever socket lies at its path and takes the place, also that of a running server. So a
 * server holds an flock on path + ".lock" as long as it listens. */
#ifndef REELKV_RPC_ADDRESS_H
#define REELKV_RPC_ADDRESS_H

#include "base/limits.h"
#include "base/status.h"

enum { ADDRESS_TEXT_MAX = 255, ADDRESS_TARGET_BYTES = 3 * LIMIT_SOCKET_PATH_BYTES + sizeof "unix:" };
static_assert((int)ADDRESS_TARGET_BYTES > (int)ADDRESS_TEXT_MAX, "host:port goes there as it is");

/* INVALID with what is wrong: no port, port above 65535, a path beyond LIMIT_SOCKET_PATH_BYTES, ... */
bool address_check(const char *address, struct status *st);

/* NULL when the address is not a Unix socket. */
const char *address_unix_path(const char *address);

/* A checked address as gRPC wants it: a client reads unix:/path as a URI, in which '#' and '?' end the path, and both a
 * client and a server decode %41. */
void address_target(const char *address, char target[ADDRESS_TARGET_BYTES]);

/* *fd_p holds the lock until socket_unlock(). UNAVAILABLE when another process (or this one) has it. */
bool socket_lock(const char *path, int *fd_p, struct status *st);
void socket_unlock(const char *path, int fd);

/* Why nothing could listen on host:port, found by trying: "Address already in use". */
void address_explain(const char *address, struct status *st);

#endif
