/* The handshake's two messages, little endian:
 *
 *   hello    0 u64 magic "RKVHELLO"   8 u32 version 1   12 u32 1: a pool comes with it   16 u64 zero
 *   welcome  0 u64 magic "RKVWELCO"   8 u32 version 1   12 u32 status code               16 u64 session
 *           24 u64 the peer's pool   32 u64 the store's arena pool   40 sentence, NUL-terminated */
#include "kv/kv_shm.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "base/require.h"

#define HELLO_MAGIC   0x4f4c4c4548564b52ull
#define WELCOME_MAGIC 0x4f434c4557564b52ull
enum {
    SHM_VERSION = 1,
    HELLO_BYTES = 24,
    WELCOME_TEXT = 40,
    WELCOME_BYTES = WELCOME_TEXT + 256,
    BACKLOG = 64,
};

struct kv_shm_peer {
    int fd;
    struct kv_shm_welcome welcome;
    struct kv_pool_reader *arena;
};

/* Where a socket is. A path that its address cannot hold is reached through its folder, open meanwhile. */
struct socket_place {
    const char *path;
    struct sockaddr_un address;
    int folder; /* -1: not needed */
};

static bool place_through_folder(struct socket_place *place, struct status *st)
{
    const char *name = strrchr(place->path, '/');
    size_t room = sizeof place->address.sun_path;
    char folder[PATH_MAX];

    if (name == NULL ||
        snprintf(folder, sizeof folder, "%.*s", (int)(name - place->path), place->path) >= PATH_MAX)
        return status_fail(st, STATUS_INVALID, "socket path %s is too long", place->path);
    place->folder = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (place->folder < 0)
        return status_fail(st, status_code_of_errno(errno), "open folder %s: %m", folder);
    if (snprintf(place->address.sun_path, room, "/proc/self/fd/%d%s", place->folder, name) < (int)room)
        return true;
    return status_fail(st, STATUS_INVALID, "socket path %s: its last part is too long", place->path);
}

static void close_if_open(int fd)
{
    if (fd >= 0)
        close(fd);
}

static bool place_open(struct socket_place *place, const char *path, struct status *st)
{
    size_t len = strlen(path);

    *place = (struct socket_place){ .path = path, .address.sun_family = AF_UNIX, .folder = -1 };
    if (len == 0)
        return status_fail(st, STATUS_INVALID, "a socket needs a path");
    if (len <= LIMIT_SOCKET_PATH_BYTES) {
        memcpy(place->address.sun_path, path, len + 1);
        return true;
    }
    if (place_through_folder(place, st))
        return true;
    close_if_open(place->folder);
    return false;
}

/* One message with at most one descriptor. */
static bool send_message(int fd, const uint8_t *bytes, size_t len, int passed_fd)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = { 0 };
    struct iovec piece = { .iov_base = (void *)(uintptr_t)bytes, .iov_len = len };
    struct msghdr message = { .msg_iov = &piece, .msg_iovlen = 1 };
    ssize_t sent;

    if (passed_fd >= 0) {
        message.msg_control = control.room;
        message.msg_controllen = sizeof control.room;
        control.header = (struct cmsghdr){ .cmsg_level = SOL_SOCKET,
                                           .cmsg_type = SCM_RIGHTS,
                                           .cmsg_len = CMSG_LEN(sizeof(int)) };
        memcpy(CMSG_DATA(&control.header), &passed_fd, sizeof passed_fd);
    }
    do
        sent = sendmsg(fd, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent == (ssize_t)len;
}

/* Keeps the first; a peer that sends more (alignment leaves room for two) loses them. */
static void take_descriptors(const struct cmsghdr *part, int *passed_fd_p)
{
    size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);

    for (size_t i = 0; i < count; i++) {
        int fd;

        memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
        if (*passed_fd_p < 0)
            *passed_fd_p = fd;
        else
            close(fd);
    }
}

/* -1: failed (errno); 0: closed; else bytes. *passed_fd_p: -1 or a descriptor, the caller's. */
static ssize_t receive_message(int fd, uint8_t *bytes, size_t room, int *passed_fd_p)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec piece = { .iov_base = bytes, .iov_len = room };
    struct msghdr message = {
        .msg_iov = &piece, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room
    };
    ssize_t got;

    *passed_fd_p = -1;
    do
        got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return got;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(&message); part != NULL; part = CMSG_NXTHDR(&message, part))
        if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_RIGHTS)
            take_descriptors(part, passed_fd_p);
    return got;
}

/* --- the peer's side --- */

static bool peer_connect(struct kv_shm_peer *peer, const char *path, uint32_t timeout_ms, struct status *st)
{
    struct timeval timeout = { .tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000 };
    struct socket_place place;
    bool ok;

    peer->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (peer->fd < 0)
        return status_fail(st, STATUS_EXHAUSTED, "socket: %m");
    if (setsockopt(peer->fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) != 0 ||
        setsockopt(peer->fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout) != 0)
        return status_fail(st, STATUS_INTERNAL, "socket timeouts: %m");
    if (!place_open(&place, path, st))
        return false;
    ok = connect(peer->fd, (struct sockaddr *)&place.address, sizeof place.address) == 0 ||
         status_fail(st, errno == ENOENT ? STATUS_NOT_FOUND : STATUS_UNAVAILABLE,
                     "connect to kvstore's shared memory at %s: %m", path);
    close_if_open(place.folder);
    return ok;
}

static bool peer_take_welcome(struct kv_shm_peer *peer, const uint8_t *bytes, ssize_t len, int arena_fd,
                              struct status *st)
{
    if (len != WELCOME_BYTES || get_u64(bytes) != WELCOME_MAGIC || get_u32(bytes + 8) != SHM_VERSION ||
        bytes[WELCOME_BYTES - 1] != '\0')
        return status_fail(st, STATUS_INVALID, "kvstore's welcome is not understood (%zd bytes)", len);
    if (get_u32(bytes + 12) != STATUS_OK)
        return status_fail(st, (enum status_code)get_u32(bytes + 12), "kvstore shares no memory: %s",
                           (const char *)bytes + WELCOME_TEXT);
    if (arena_fd < 0)
        return status_fail(st, STATUS_INVALID, "kvstore's welcome came without its arena");
    peer->welcome.session = get_u64(bytes + 16);
    peer->welcome.pool = get_u64(bytes + 24);
    peer->welcome.arena_pool = get_u64(bytes + 32);
    return kv_pool_reader_create(&peer->arena, arena_fd, KV_SHM_POOL_BYTES_MAX, st);
}

static bool peer_shake(struct kv_shm_peer *peer, const struct kv_pool *own, struct status *st)
{
    uint8_t hello[HELLO_BYTES] = { 0 }, bytes[WELCOME_BYTES + 1];
    int arena_fd;
    ssize_t len;
    bool ok;

    put_u64(hello, HELLO_MAGIC);
    put_u32(hello + 8, SHM_VERSION);
    put_u32(hello + 12, own != NULL);
    /* A store that has no place for one more says so before it has heard anything, and closes. */
    if (!send_message(peer->fd, hello, sizeof hello, own == NULL ? -1 : kv_pool_fd(own)) && errno != EPIPE)
        return status_fail(st, STATUS_UNAVAILABLE, "hello to kvstore: %m");
    len = receive_message(peer->fd, bytes, sizeof bytes, &arena_fd);
    if (len < 0 && errno == ECONNRESET) /* told once; then comes what it said */
        len = receive_message(peer->fd, bytes, sizeof bytes, &arena_fd);
    if (len < 0)
        return status_fail(st, STATUS_UNAVAILABLE, "no welcome from kvstore: %m");
    if (len == 0)
        return status_fail(st, STATUS_UNAVAILABLE, "kvstore closed the socket without a welcome");
    ok = peer_take_welcome(peer, bytes, len, arena_fd, st);
    close_if_open(arena_fd);
    return ok;
}

bool kv_shm_peer_create(struct kv_shm_peer **peer_p, const char *socket_path, const struct kv_pool *own,
                        uint32_t timeout_ms, struct status *st)
{
    struct kv_shm_peer *peer = calloc(1, sizeof *peer);

    if (peer == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a shared memory session");
    peer->fd = -1;
    if (!peer_connect(peer, socket_path, timeout_ms, st) || !peer_shake(peer, own, st)) {
        kv_shm_peer_destroy(peer);
        return false;
    }
    *peer_p = peer;
    return true;
}

void kv_shm_peer_destroy(struct kv_shm_peer *peer)
{
    if (peer == NULL)
        return;
    close_if_open(peer->fd);
    kv_pool_reader_destroy(peer->arena);
    free(peer);
}

uint64_t kv_shm_peer_session(const struct kv_shm_peer *peer)
{
    return peer->welcome.session;
}

uint64_t kv_shm_peer_pool(const struct kv_shm_peer *peer)
{
    return peer->welcome.pool;
}

const struct kv_pool_reader *kv_shm_peer_arena(const struct kv_shm_peer *peer)
{
    return peer->arena;
}

uint64_t kv_shm_peer_arena_pool(const struct kv_shm_peer *peer)
{
    return peer->welcome.arena_pool;
}

bool kv_shm_peer_is_alive(const struct kv_shm_peer *peer)
{
    struct pollfd want = { .fd = peer->fd, .events = POLLIN };

    /* The store never speaks again: readable means it has closed. */
    return poll(&want, 1, 0) == 0;
}

/* --- the store's side --- */

/* A socket file that nobody listens on is left from a store that was killed. */
static bool remove_stale(const struct socket_place *place, struct status *st)
{
    int probe = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    int refused;

    if (probe < 0)
        return status_fail(st, STATUS_EXHAUSTED, "socket: %m");
    refused =
        connect(probe, (const struct sockaddr *)&place->address, sizeof place->address) == 0 ? 0 : errno;
    close(probe);
    if (refused == 0)
        return status_fail(st, STATUS_EXISTS, "%s: another process listens there", place->path);
    if (refused == ECONNREFUSED && unlink(place->path) != 0)
        return status_fail(st, status_code_of_errno(errno), "remove stale socket %s: %m", place->path);
    return true;
}

static int listen_at(const struct socket_place *place, struct status *st)
{
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    /* fchmod() before bind() gives the socket its mode with no moment in between. */
    if (fd >= 0 && fchmod(fd, 0600) == 0 &&
        bind(fd, (const struct sockaddr *)&place->address, sizeof place->address) == 0 &&
        chmod(place->path, 0600) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    status_fail(st, STATUS_UNAVAILABLE, "listen on %s: %m", place->path);
    close_if_open(fd);
    return -1;
}

int kv_shm_listen(const char *socket_path, struct status *st)
{
    struct socket_place place;
    int fd = -1;

    if (!place_open(&place, socket_path, st))
        return -1;
    if (remove_stale(&place, st))
        fd = listen_at(&place, st);
    close_if_open(place.folder);
    return fd;
}

bool kv_shm_read_hello(int fd, int *pool_fd_p, struct status *st)
{
    uint8_t bytes[HELLO_BYTES + 1];
    int pool_fd;
    ssize_t len = receive_message(fd, bytes, sizeof bytes, &pool_fd);

    if (len == HELLO_BYTES && get_u64(bytes) == HELLO_MAGIC && get_u32(bytes + 8) == SHM_VERSION &&
        get_u32(bytes + 12) == (pool_fd >= 0)) {
        *pool_fd_p = pool_fd;
        return true;
    }
    if (len < 0)
        status_fail(st, STATUS_UNAVAILABLE, "no hello: %m");
    else
        status_fail(st, STATUS_INVALID, "hello is not understood (%zd bytes)", len);
    close_if_open(pool_fd);
    return false;
}

static bool send_welcome(int fd, const struct kv_shm_welcome *welcome, int arena_fd,
                         const struct status *refusal)
{
    uint8_t bytes[WELCOME_BYTES] = { 0 };

    put_u64(bytes, WELCOME_MAGIC);
    put_u32(bytes + 8, SHM_VERSION);
    put_u32(bytes + 12, refusal == NULL ? STATUS_OK : (uint32_t)refusal->code);
    put_u64(bytes + 16, welcome->session);
    put_u64(bytes + 24, welcome->pool);
    put_u64(bytes + 32, welcome->arena_pool);
    if (refusal != NULL)
        memcpy(bytes + WELCOME_TEXT, refusal->text, strnlen(refusal->text, WELCOME_BYTES - WELCOME_TEXT - 1));
    return send_message(fd, bytes, sizeof bytes, arena_fd);
}

bool kv_shm_send_welcome(int fd, const struct kv_shm_welcome *welcome, int arena_fd, struct status *st)
{
    if (send_welcome(fd, welcome, arena_fd, NULL))
        return true;
    return status_fail(st, STATUS_UNAVAILABLE, "welcome: %m");
}

void kv_shm_send_refusal(int fd, const struct status *refusal)
{
    struct kv_shm_welcome none = { 0 };

    /* A peer that is gone does not hear it, and needs not. */
    (void)send_welcome(fd, &none, -1, refusal);
}
