#include "store/store_link.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/name.h"
#include "base/require.h"
#include "reelkv/v1/kvstore.pb-c.h"
#include "rpc/api.h"

enum { INFO_TIMEOUT_MS = 2000, SHM_TIMEOUT_MS = 1000 };

enum share_state { SHARE_UNKNOWN, SHARE_ASKING, SHARE_KNOWN };

struct waiter {
    void (*ready)(void *user, uint64_t pool);
    void *user;
    struct waiter *next;
};

/* The pool thread's from its submission to handshake_done(). */
struct handshake {
    struct work work;
    char socket[PATH_MAX];
    struct kv_shm_peer *peer; /* NULL: it failed */
    struct status failure;
};

struct store_link {
    struct store_links *links;
    struct store_link *next;
    char name[LIMIT_NAME_BYTES + 1];
    char address[DIRECTORY_ADDRESS_BYTES];
    int64_t started_ms; /* of the store's process: a restarted one is another store to us */
    uint32_t refs;
    struct rpc_channel *channel;
    struct rpc_sync *sync;
    enum share_state share;
    _Atomic(struct kv_shm_peer *) peer; /* NULL: chunks; once set it stays */
    struct waiter *waiters;
    struct handshake handshake;
    struct letter tell;
    bool telling; /* `tell` lies in the loop's box */
};

static void unlist(struct store_link *link)
{
    for (struct store_link **at = &link->links->first; *at != NULL; at = &(*at)->next) {
        if (*at == link) {
            *at = link->next;
            return;
        }
    }
}

void store_link_unref(struct store_link *link)
{
    if (link == NULL || --link->refs > 0)
        return;
    REQUIRE(link->waiters == NULL);
    unlist(link);
    kv_shm_peer_destroy(link->peer);
    rpc_sync_destroy(link->sync);
    rpc_channel_destroy(link->channel);
    free(link);
}

static struct store_link *link_create(struct store_links *links, const struct worker_record *worker,
                                      struct status *st)
{
    struct store_link *link = calloc(1, sizeof *link);

    if (link == NULL) {
        status_fail(st, STATUS_EXHAUSTED, "no memory for a link to %s", worker->name);
        return NULL;
    }
    if (!rpc_channel_create(&link->channel, links->rpc, worker->address, NULL, st) ||
        !rpc_sync_create(&link->sync, worker->address, NULL, st)) {
        rpc_channel_destroy(link->channel);
        free(link);
        return NULL;
    }
    link->links = links;
    link->refs = 1;
    link->started_ms = worker->started_ms;
    text_copy(link->name, sizeof link->name, worker->name);
    text_copy(link->address, sizeof link->address, worker->address);
    link->next = links->first;
    links->first = link;
    return link;
}

struct store_link *store_link_get(struct store_links *links, const struct directory_view *view,
                                  const char *store, struct status *st)
{
    const struct worker_record *worker = directory_view_worker(view, WORKER_KVSTORE, store);

    if (worker == NULL) {
        status_fail(st, STATUS_UNAVAILABLE, "kvstore %s is not in the directory now", store);
        return NULL;
    }
    for (struct store_link *link = links->first; link != NULL; link = link->next) {
        if (strcmp(link->name, store) == 0 && strcmp(link->address, worker->address) == 0 &&
            link->started_ms == worker->started_ms) {
            link->refs++;
            return link;
        }
    }
    return link_create(links, worker, st);
}

struct rpc_channel *store_link_channel(const struct store_link *link)
{
    return link->channel;
}

struct rpc_sync *store_link_sync(const struct store_link *link)
{
    return link->sync;
}

const struct kv_shm_peer *store_link_peer(const struct store_link *link)
{
    return link->peer;
}

static uint64_t shared_pool(const struct store_link *link)
{
    return link->peer != NULL && kv_shm_peer_is_alive(link->peer) ? kv_shm_peer_pool(link->peer) : 0;
}

static void tell_waiters(struct store_link *link)
{
    link->refs++; /* a waiter may let go of the link */
    while (link->waiters != NULL) {
        struct waiter *waiter = link->waiters;

        link->waiters = waiter->next;
        waiter->ready(waiter->user, shared_pool(link));
        free(waiter);
    }
    store_link_unref(link);
}

static void run_handshake(struct work *work)
{
    struct store_link *link = container_of(work, struct store_link, handshake.work);
    struct handshake *handshake = &link->handshake;

    kv_shm_peer_create(&handshake->peer, handshake->socket, link->links->memory, SHM_TIMEOUT_MS,
                       &handshake->failure);
}

static void finish_sharing(struct store_link *link, enum share_state share)
{
    link->share = share;
    tell_waiters(link);
    store_link_unref(link);
}

/* A store that was too slow, or had no room, may share with the next who asks. */
static void handshake_done(struct work *work)
{
    struct store_link *link = container_of(work, struct store_link, handshake.work);
    const struct status *failure = &link->handshake.failure;
    bool again = false;

    if (link->handshake.peer != NULL) {
        link->peer = link->handshake.peer;
    } else {
        log_info(NULL, "store_not_shared", "%s: %s; its bytes travel inline", link->name, failure->text);
        again = status_code_is_retryable(failure->code);
    }
    finish_sharing(link, again ? SHARE_UNKNOWN : SHARE_KNOWN);
}

static bool start_handshake(struct store_link *link, const char *socket)
{
    struct handshake *handshake = &link->handshake;

    *handshake = (struct handshake){ .work = { .run = run_handshake, .done = handshake_done } };
    text_copy(handshake->socket, sizeof handshake->socket, socket);
    if (work_pool_submit(link->links->pool, &handshake->work))
        return true;
    log_warn(NULL, "store_not_shared", "%s: too many handshakes wait; its bytes travel inline", link->name);
    return false;
}

static void on_info(const struct status *status, const struct rpc_message *reply, void *user)
{
    struct store_link *link = user;
    const Reelkv__V1__ServerInfo *info = reply != NULL ? (const Reelkv__V1__ServerInfo *)reply->body : NULL;
    bool shares = info != NULL && info->shm_socket[0] != '\0' && strlen(info->shm_socket) < PATH_MAX;

    if (shares && start_handshake(link, info->shm_socket))
        return;
    finish_sharing(link, info != NULL && !shares ? SHARE_KNOWN : SHARE_UNKNOWN);
}

static void tell_known(struct letter *letter)
{
    struct store_link *link = container_of(letter, struct store_link, tell);

    link->telling = false;
    finish_sharing(link, SHARE_KNOWN);
}

void store_link_share(struct store_link *link, void (*ready)(void *user, uint64_t pool), void *user)
{
    static const Reelkv__V1__GetServerInfoRequest request = REELKV__V1__GET_SERVER_INFO_REQUEST__INIT;
    struct rpc_stream_options options = { .timeout_ms = INFO_TIMEOUT_MS };
    struct waiter *waiter = calloc(1, sizeof *waiter);

    REQUIRE(waiter != NULL);
    *waiter = (struct waiter){ ready, user, link->waiters };
    link->waiters = waiter;
    if (link->share == SHARE_ASKING || link->telling)
        return; /* told with the others */
    link->refs++;
    if (link->share == SHARE_KNOWN) {
        link->telling = true;
        link->tell.open = tell_known;
        loop_post(rpc_loop(link->links->rpc), &link->tell);
        return;
    }
    link->share = SHARE_ASKING;
    rpc_unary(link->channel, &api_get_server_info, &options, &request.base, on_info, link);
}

void store_link_forget(struct store_link *link, void *user)
{
    for (struct waiter **at = &link->waiters; *at != NULL;) {
        struct waiter *waiter = *at;

        if (waiter->user == user) {
            *at = waiter->next;
            free(waiter);
        } else {
            at = &waiter->next;
        }
    }
}
