#include "kvstore/kvstore_shm.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/random.h"
#include "base/require.h"
#include "kv/kv_shm.h"

enum { ACCEPT_AGAIN_MS = 1000 };

struct shm_pool {
    uint32_t refs;
    uint64_t number;
    struct kv_pool_reader *reader;
};

struct session {
    struct kvstore_shm *shm;
    struct session *next;
    int fd;
    struct loop_poll *poll;
    struct loop_timer hello_timer;
    uint64_t number; /* 0: no hello yet */
    struct shm_pool *pool;
};

struct kvstore_shm {
    struct loop *loop;
    const struct kv_pool *arena;
    uint64_t arena_pool;
    char path[PATH_MAX];
    int listener;
    struct loop_poll *listener_poll;
    struct loop_timer accept_timer;
    struct session *sessions;
    uint32_t session_count;
};

static uint64_t new_number(void)
{
    return random_u64() | 1; /* never 0 */
}

struct shm_pool *kvstore_shm_pool(struct kvstore_shm *shm, uint64_t number)
{
    for (struct session *session = shm->sessions; session != NULL; session = session->next)
        if (session->pool != NULL && session->pool->number == number) {
            session->pool->refs++;
            return session->pool;
        }
    return NULL;
}

void shm_pool_unref(struct shm_pool *pool)
{
    if (pool == NULL || --pool->refs > 0)
        return;
    kv_pool_reader_destroy(pool->reader);
    free(pool);
}

const struct kv_pool_reader *shm_pool_reader(const struct shm_pool *pool)
{
    return pool->reader;
}

const char *kvstore_shm_path(const struct kvstore_shm *shm)
{
    return shm->path;
}

uint64_t kvstore_shm_arena_pool(const struct kvstore_shm *shm)
{
    return shm->arena_pool;
}

bool kvstore_shm_has_session(const struct kvstore_shm *shm, uint64_t number)
{
    for (const struct session *session = shm->sessions; session != NULL; session = session->next)
        if (session->number == number && number != 0)
            return true;
    return false;
}

static void session_end(struct session *session)
{
    struct session **link = &session->shm->sessions;

    while (*link != session)
        link = &(*link)->next;
    *link = session->next;
    session->shm->session_count--;
    loop_timer_stop(&session->hello_timer);
    loop_poll_destroy(session->poll);
    shm_pool_unref(session->pool);
    close(session->fd);
    free(session);
}

static bool take_pool(struct session *session, int fd, struct status *st)
{
    struct shm_pool *pool = calloc(1, sizeof *pool);

    if (pool == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a shared pool");
    if (!kv_pool_reader_create(&pool->reader, fd, KV_SHM_POOL_BYTES_MAX, st)) {
        free(pool);
        return false;
    }
    pool->refs = 1;
    pool->number = new_number();
    session->pool = pool;
    return true;
}

static void say_hello(struct session *session)
{
    struct kvstore_shm *shm = session->shm;
    struct kv_shm_welcome welcome = { .session = new_number(), .arena_pool = shm->arena_pool };
    struct status st = { 0 };
    int pool_fd = -1;
    bool ok = kv_shm_read_hello(session->fd, &pool_fd, &st);

    loop_timer_stop(&session->hello_timer);
    if (ok && pool_fd >= 0)
        ok = take_pool(session, pool_fd, &st);
    if (pool_fd >= 0)
        close(pool_fd);
    if (ok) {
        welcome.pool = session->pool == NULL ? 0 : session->pool->number;
        ok = kv_shm_send_welcome(session->fd, &welcome, kv_pool_fd(shm->arena), &st);
    } else {
        kv_shm_send_refusal(session->fd, &st);
    }
    if (!ok) {
        log_warn(NULL, "shm_refused", "%s", st.text);
        session_end(session);
        return;
    }
    session->number = welcome.session;
}

/* The first message is the hello; after that there is only the end. */
static void session_ready(struct loop_poll *poll, unsigned events, void *user)
{
    struct session *session = user;

    if (session->number == 0 && (events & LOOP_READABLE) != 0)
        say_hello(session);
    else
        session_end(session);
}

static void hello_late(struct loop_timer *timer)
{
    session_end(container_of(timer, struct session, hello_timer));
}

static void session_start(struct kvstore_shm *shm, int fd)
{
    struct session *session = calloc(1, sizeof *session);
    struct status st;

    if (session == NULL || shm->session_count >= KVSTORE_SHM_SESSIONS ||
        !loop_poll_create(&session->poll, shm->loop, fd, session_ready, session, &st)) {
        status_fail(&st, STATUS_EXHAUSTED, "this store shares memory with %u processes, its limit",
                    shm->session_count);
        kv_shm_send_refusal(fd, &st);
        close(fd);
        free(session);
        return;
    }
    session->shm = shm;
    session->fd = fd;
    session->next = shm->sessions;
    shm->sessions = session;
    shm->session_count++;
    loop_poll_want(session->poll, LOOP_READABLE);
    loop_timer_start(shm->loop, &session->hello_timer, KVSTORE_SHM_HELLO_MS, hello_late);
}

static void accept_again(struct loop_timer *timer)
{
    loop_poll_want(container_of(timer, struct kvstore_shm, accept_timer)->listener_poll, LOOP_READABLE);
}

/* Out of descriptors, the peer stays in the queue: asked at once, the loop would turn for nothing else. */
static void listener_ready(struct loop_poll *poll, unsigned events, void *user)
{
    struct kvstore_shm *shm = user;
    int fd = accept4(shm->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd >= 0) {
        session_start(shm, fd);
    } else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
        log_warn(NULL, "shm_accept_failed", "%s: %s", shm->path, strerror(errno));
        loop_poll_want(poll, 0);
        loop_timer_start(shm->loop, &shm->accept_timer, ACCEPT_AGAIN_MS, accept_again);
        return;
    }
    loop_poll_want(poll, LOOP_READABLE);
}

/* In full: its readers run in folders of their own. */
static bool find_path(struct kvstore_shm *shm, const char *socket_path, struct status *st)
{
    return realpath(socket_path, shm->path) != NULL ||
           status_fail(st, status_code_of_errno(errno), "%s: %m", socket_path);
}

bool kvstore_shm_create(struct kvstore_shm **shm_p, struct loop *loop, const char *socket_path,
                        const struct kv_pool *arena, struct status *st)
{
    struct kvstore_shm *shm = calloc(1, sizeof *shm);

    if (shm == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for shared memory");
    shm->loop = loop;
    shm->arena = arena;
    shm->arena_pool = new_number();
    shm->listener = kv_shm_listen(socket_path, st);
    if (shm->listener < 0 || !find_path(shm, socket_path, st) ||
        !loop_poll_create(&shm->listener_poll, loop, shm->listener, listener_ready, shm, st)) {
        kvstore_shm_destroy(shm);
        return false;
    }
    loop_poll_want(shm->listener_poll, LOOP_READABLE);
    *shm_p = shm;
    return true;
}

void kvstore_shm_destroy(struct kvstore_shm *shm)
{
    if (shm == NULL)
        return;
    while (shm->sessions != NULL)
        session_end(shm->sessions);
    loop_timer_stop(&shm->accept_timer);
    loop_poll_destroy(shm->listener_poll);
    if (shm->listener >= 0) {
        close(shm->listener);
        unlink(shm->path);
    }
    free(shm);
}
