/* Sessions of processes that share memory with a store: each has its own pool, ends alone, and nobody can take so many, or
 * be silent so long, that others find no place. */
#include "kvstore/kvstore_shm.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "kv/kv_shm.h"
#include "support/test.h"

enum { POOL_BYTES = 64 << 10 };

static struct status st;
static struct loop *loop;
static struct kvstore_shm *shm;
static struct kv_pool *arena;
static char path[108];

static atomic_int accepts_fail; /* so many times: EMFILE (CMakeLists.txt) */

int __real_accept4(int fd, struct sockaddr *address, socklen_t *len, int flags);
int __wrap_accept4(int fd, struct sockaddr *address, socklen_t *len, int flags);

int __wrap_accept4(int fd, struct sockaddr *address, socklen_t *len, int flags)
{
    if (accepts_fail <= 0)
        return __real_accept4(fd, address, len, flags);
    accepts_fail--;
    errno = EMFILE;
    return -1;
}

static void start(void)
{
    snprintf(path, sizeof path, "%s/shm.sock", test_folder());
    CHECK_OK(loop_create(&loop, &st), st);
    CHECK_OK(kv_pool_create(&arena, "arena", POOL_BYTES, &st), st);
    CHECK_OK(kvstore_shm_create(&shm, loop, path, arena, &st), st);
    CHECK_STR(kvstore_shm_path(shm), path);
}

static void stop(void)
{
    kvstore_shm_destroy(shm);
    CHECK(access(path, F_OK) != 0); /* its socket goes with it */
    kv_pool_destroy(arena);
    loop_destroy(loop);
}

static void tick(struct loop_timer *timer)
{
}

#define TURN_UNTIL(condition)                                                            \
    do {                                                                                 \
        uint64_t limit_ = clock_mono_ns() + 10000000000ull;                              \
        struct loop_timer tick_ = { 0 };                                                 \
        while (!(condition)) {                                                           \
            if (clock_mono_ns() > limit_)                                                \
                test_fail(__FILE__, __LINE__, "not within ten seconds: %s", #condition); \
            loop_timer_start(loop, &tick_, 5, tick);                                     \
            loop_run_once(loop);                                                         \
        }                                                                                \
        loop_timer_stop(&tick_);                                                         \
    } while (0)

/* --- a peer, on a thread of its own: it blocks until the store has answered --- */

struct peer {
    struct kv_shm_peer *peer; /* NULL: refused */
    struct kv_pool *own;
    struct status st;
    atomic_bool is_done;
};

static void *connect_peer(void *arg)
{
    struct peer *peer = arg;

    if (!kv_shm_peer_create(&peer->peer, path, peer->own, 5000, &peer->st))
        peer->peer = NULL;
    peer->is_done = true;
    return NULL;
}

static void join(struct peer *peer, bool with_pool)
{
    pthread_t thread;

    memset(peer, 0, sizeof *peer);
    if (with_pool)
        CHECK_OK(kv_pool_create(&peer->own, "own", POOL_BYTES, &st), st);
    CHECK_EQ(pthread_create(&thread, NULL, connect_peer, peer), 0);
    TURN_UNTIL(peer->is_done);
    pthread_join(thread, NULL);
}

static void leave(struct peer *peer)
{
    uint64_t session = peer->peer == NULL ? 0 : kv_shm_peer_session(peer->peer);

    kv_shm_peer_destroy(peer->peer);
    kv_pool_destroy(peer->own);
    TURN_UNTIL(session == 0 || !kvstore_shm_has_session(shm, session));
}

/* --- a client that does what it likes --- */

static int connect_raw(void)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    CHECK(fd >= 0);
    CHECK_EQ(connect(fd, (const struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

/* What the store says, or 0 when it has closed. */
static ssize_t hear(int fd, char text[300])
{
    ssize_t len = -1;

    TURN_UNTIL((len = recv(fd, text, 300, 0)) >= 0 || errno != EAGAIN);
    return len < 0 ? 0 : len;
}

TEST(shm_sessions_end_alone)
{
    struct peer peers[3];
    struct shm_pool *held;
    uint64_t pool;

    start();
    for (unsigned i = 0; i < 3; i++) {
        join(&peers[i], i != 2);
        CHECK_OK(peers[i].peer != NULL, peers[i].st);
        CHECK(kvstore_shm_has_session(shm, kv_shm_peer_session(peers[i].peer)));
        CHECK_EQ(kv_shm_peer_arena_pool(peers[i].peer), kvstore_shm_arena_pool(shm));
        CHECK_EQ(kv_shm_peer_pool(peers[i].peer) != 0, i != 2);
    }
    CHECK(!kvstore_shm_has_session(shm, 0));
    CHECK(kvstore_shm_pool(shm, 0) == NULL && kvstore_shm_pool(shm, 12345) == NULL);
    pool = kv_shm_peer_pool(peers[0].peer);
    held = kvstore_shm_pool(shm, pool);
    CHECK(held != NULL && shm_pool_reader(held) != NULL);
    leave(&peers[0]); /* the oldest: it stands last in the list */
    CHECK(kvstore_shm_pool(shm, pool) == NULL);
    CHECK(kvstore_shm_has_session(shm, kv_shm_peer_session(peers[1].peer)));
    CHECK_OK(kv_pool_reader_check(shm_pool_reader(held), &(struct kv_place){ .offset = 8192, .length = 8 },
                                  &st),
             st); /* and is mapped as long as it is held */
    shm_pool_unref(held);
    leave(&peers[1]);
    leave(&peers[2]);
    stop();
}

TEST(shm_peers_that_make_no_sense_are_told_so)
{
    struct peer peer;
    char text[300];
    int fd;

    start();
    fd = connect_raw();
    CHECK_EQ(send(fd, "hello", 5, 0), 5);
    CHECK(hear(fd, text) > 40);
    CHECK_HAS(text + 40, "hello is not understood (5 bytes)");
    CHECK_EQ(hear(fd, text), 0);
    close(fd);
    join(&peer, false); /* one that goes on talking */
    CHECK_OK(peer.peer != NULL, peer.st);
    leave(&peer);
    fd = connect_raw(); /* one that says nothing, and goes */
    loop_run_once(loop);
    close(fd);
    join(&peer, true);
    CHECK_OK(peer.peer != NULL, peer.st);
    leave(&peer);
    stop();
}

/* So many at once, one more is refused; those who say no hello go after a while, and then there is room. */
TEST(shm_silent_peers_do_not_keep_others_out)
{
    static int fds[KVSTORE_SHM_SESSIONS + 1];
    struct peer peer;
    char text[300];

    start();
    for (unsigned i = 0; i <= KVSTORE_SHM_SESSIONS; i++) {
        fds[i] = connect_raw();
        loop_run_once(loop);
    }
    CHECK(hear(fds[KVSTORE_SHM_SESSIONS], text) > 40);
    CHECK_HAS(text + 40, "shares memory with 256 processes, its limit");
    CHECK_EQ(hear(fds[0], text), 0); /* KVSTORE_SHM_HELLO_MS are over */
    CHECK_EQ(hear(fds[KVSTORE_SHM_SESSIONS - 1], text), 0);
    join(&peer, false);
    CHECK_OK(peer.peer != NULL, peer.st);
    leave(&peer);
    for (unsigned i = 0; i <= KVSTORE_SHM_SESSIONS; i++)
        close(fds[i]);
    stop();
}

/* Without a descriptor for it, a peer waits in the line and is served when there is one. */
TEST(shm_peer_that_cannot_be_accepted_now_is_later)
{
    struct peer peer;

    start();
    accepts_fail = 1;
    join(&peer, false);
    CHECK_EQ(accepts_fail, 0);
    CHECK_OK(peer.peer != NULL, peer.st);
    leave(&peer);
    stop();
}

TEST(shm_socket_of_another_store_is_left_alone)
{
    struct kvstore_shm *other;

    start();
    CHECK(!kvstore_shm_create(&other, loop, path, arena, &st));
    CHECK_EQ(st.code, STATUS_EXISTS);
    CHECK(!kvstore_shm_create(&other, loop, "", arena, &st));
    CHECK_EQ(st.code, STATUS_INVALID);
    CHECK_EQ(access(path, F_OK), 0);
    stop();
}

TEST_MAIN()
