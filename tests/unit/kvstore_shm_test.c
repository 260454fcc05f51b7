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

/* Calls that fail so many times (CMakeLists.txt); those for memory on the loop's thread alone. */
static atomic_int accepts_fail, accept_error = EMFILE, memory_passes, memory_fails;
static pthread_t loop_thread;

void *__real_calloc(size_t count, size_t each);
void *__wrap_calloc(size_t count, size_t each);

void *__wrap_calloc(size_t count, size_t each)
{
    if (memory_fails <= 0 || !pthread_equal(pthread_self(), loop_thread) ||
        atomic_fetch_sub(&memory_passes, 1) > 0)
        return __real_calloc(count, each);
    memory_fails--;
    return NULL;
}

int __real_accept4(int fd, struct sockaddr *address, socklen_t *len, int flags);
int __wrap_accept4(int fd, struct sockaddr *address, socklen_t *len, int flags);

int __wrap_accept4(int fd, struct sockaddr *address, socklen_t *len, int flags)
{
    if (accepts_fail <= 0)
        return __real_accept4(fd, address, len, flags);
    accepts_fail--;
    errno = accept_error;
    return -1;
}

static void start(void)
{
    loop_thread = pthread_self();
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

/* A connection that broke, or a call that was interrupted, is nothing to wait for. */
TEST(shm_peer_behind_one_that_broke_is_accepted_at_once)
{
    static const int errors[] = { EAGAIN, EINTR, ECONNABORTED };
    struct peer peer;

    start();
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        accept_error = errors[i];
        accepts_fail = 1;
        join(&peer, false);
        CHECK_EQ(accepts_fail, 0);
        CHECK_OK(peer.peer != NULL, peer.st);
        leave(&peer);
    }
    accept_error = EMFILE;
    stop();
}

/* Of the store's allocations for it the n-th is refused. */
static void first_without_memory(struct peer *peer, int n)
{
    pthread_t thread;

    memset(peer, 0, sizeof *peer);
    CHECK_OK(kv_pool_create(&peer->own, "own", POOL_BYTES, &st), st);
    memory_passes = n - 1;
    memory_fails = 1;
    CHECK_EQ(pthread_create(&thread, NULL, connect_peer, peer), 0);
    TURN_UNTIL(peer->is_done);
    pthread_join(thread, NULL);
    CHECK_EQ(memory_fails, 0);
}

/* Each is told so, and the next one is served. */
TEST(shm_peers_for_which_there_is_no_memory)
{
    struct kvstore_shm *other;
    struct peer peer;

    start();
    for (int n = 1; n <= 3; n++) { /* its session, what the loop needs for it, its pool */
        struct peer first;

        first_without_memory(&first, n);
        CHECK(first.peer == NULL);
        CHECK_EQ(first.st.code, STATUS_EXHAUSTED);
        kv_pool_destroy(first.own);
        join(&peer, true);
        CHECK_OK(peer.peer != NULL, peer.st);
        leave(&peer);
    }
    memory_passes = 0;
    memory_fails = 1;
    CHECK(!kvstore_shm_create(&other, loop, path, arena, &st));
    CHECK_EQ(st.code, STATUS_EXHAUSTED);
    stop();
}

/* A descriptor that is no pool: here a socket. */
TEST(shm_pool_that_is_none_is_refused)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = { 0 };
    uint8_t hello[24] = "RKVHELLO\1\0\0\0\1";
    struct iovec piece = { hello, sizeof hello };
    struct msghdr message = {
        .msg_iov = &piece, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room
    };
    char text[300];
    int fd;

    start();
    fd = connect_raw();
    control.header = (struct cmsghdr){ .cmsg_level = SOL_SOCKET,
                                       .cmsg_type = SCM_RIGHTS,
                                       .cmsg_len = CMSG_LEN(sizeof fd) };
    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    CHECK_EQ(sendmsg(fd, &message, 0), (ssize_t)sizeof hello);
    CHECK(hear(fd, text) > 40);
    CHECK_HAS(text + 40, "not a memory file");
    CHECK_EQ(hear(fd, text), 0);
    close(fd);
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
