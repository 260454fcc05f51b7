#include "redis/directory_view.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/clock.h"
#include "base/name.h"
#include "redis/directory_reply.h"

void directory_view_deinit(struct directory_view *view)
{
    free(view->workers);
    free(view->streams);
    memset(view, 0, sizeof *view);
}

static int compare_workers(const void *a, const void *b)
{
    const struct worker_record *left = a, *right = b;

    return left->kind != right->kind ? (int)left->kind - (int)right->kind : strcmp(left->name, right->name);
}

static int compare_streams(const void *a, const void *b)
{
    const struct stream_record *left = a, *right = b;
    int by_ns = strcmp(left->ns, right->ns);

    return by_ns != 0 ? by_ns : strcmp(left->name, right->name);
}

void directory_view_finish(struct directory_view *view)
{
    if (view->worker_count > 0)
        qsort(view->workers, view->worker_count, sizeof *view->workers, compare_workers);
    if (view->stream_count > 0)
        qsort(view->streams, view->stream_count, sizeof *view->streams, compare_streams);
}

const struct worker_record *directory_view_worker(const struct directory_view *view, enum worker_kind kind,
                                                  const char *name)
{
    for (uint32_t i = 0; i < view->worker_count; i++)
        if (view->workers[i].kind == kind && strcmp(view->workers[i].name, name) == 0)
            return &view->workers[i];
    return NULL;
}

const struct worker_record *directory_view_pick(const struct directory_view *view, enum worker_kind kind,
                                                const char *key, const uint8_t *fingerprint)
{
    const struct worker_record *fit[DIRECTORY_WORKERS_MAX];
    const char *names[DIRECTORY_WORKERS_MAX];
    uint32_t count = 0;

    for (uint32_t i = 0; i < view->worker_count; i++) {
        const struct worker_record *worker = &view->workers[i];

        if (worker->kind != kind || worker->draining)
            continue;
        if (fingerprint != NULL &&
            (!worker->has_model || memcmp(worker->fingerprint, fingerprint, sizeof worker->fingerprint) != 0))
            continue;
        fit[count] = worker;
        names[count++] = worker->name;
    }
    return count == 0 ? NULL : fit[rendezvous_pick(key, names, count)];
}

const struct stream_record *directory_view_stream(const struct directory_view *view, const char *ns,
                                                  const char *name)
{
    struct stream_record wanted = { 0 };

    if (view->stream_count == 0 || !text_copy(wanted.ns, sizeof wanted.ns, ns) ||
        !text_copy(wanted.name, sizeof wanted.name, name))
        return NULL;
    return bsearch(&wanted, view->streams, view->stream_count, sizeof *view->streams, compare_streams);
}

static struct bytes text_of(const redisReply *reply)
{
    if (reply->type != REDIS_REPLY_STRING)
        return (struct bytes){ (const uint8_t *)"", 0 };
    return (struct bytes){ (const uint8_t *)reply->str, reply->len };
}

static bool check_hash(const redisReply *reply, struct status *st)
{
    if (reply->type == REDIS_REPLY_ARRAY && reply->elements % 2 == 0)
        return true;
    return status_fail(st, STATUS_UNAVAILABLE, "redis gives no directory: %.200s",
                       reply->type == REDIS_REPLY_ERROR ? reply->str : "its answer is no hash");
}

static void note_forgotten(struct directory_view *view, const struct worker_record *record)
{
    struct directory_forgotten *one = &view->forgotten[view->forgotten_count];

    if (view->forgotten_count == DIRECTORY_FORGOTTEN_MAX)
        return; /* a later reading finds it */
    one->kind = record->kind;
    one->seen_ms = record->seen_ms;
    text_copy(one->name, sizeof one->name, record->name);
    view->forgotten_count++;
}

bool directory_reply_workers(const redisReply *reply, enum worker_kind kind, int64_t now_ms,
                             struct directory_view *view, struct status *st)
{
    if (!check_hash(reply, st))
        return false;
    for (size_t i = 0; i < reply->elements; i += 2) {
        struct worker_record record;
        struct worker_record *grown;
        bool readable = worker_record_read(kind, text_of(reply->element[i]), text_of(reply->element[i + 1]),
                                           &record, NULL);

        if (readable && record.seen_ms < now_ms - DIRECTORY_FORGET_MS)
            note_forgotten(view, &record);
        if (!readable || view->worker_count == DIRECTORY_WORKERS_MAX ||
            record.seen_ms < now_ms - DIRECTORY_WORKER_TTL_MS) {
            view->skipped++;
            continue;
        }
        grown = array_grow(view->workers, view->worker_count, sizeof record);
        if (grown == NULL)
            return status_fail(st, STATUS_EXHAUSTED, "no memory for the directory");
        view->workers = grown;
        view->workers[view->worker_count++] = record;
    }
    return true;
}

bool directory_reply_streams(const redisReply *reply, struct directory_view *view, struct status *st)
{
    if (!check_hash(reply, st))
        return false;
    for (size_t i = 0; i < reply->elements; i += 2) {
        struct stream_record record;
        struct stream_record *grown;

        if (view->stream_count == LIMIT_STREAMS ||
            !stream_record_read(text_of(reply->element[i]), text_of(reply->element[i + 1]), &record, NULL)) {
            view->skipped++;
            continue;
        }
        grown = array_grow(view->streams, view->stream_count, sizeof record);
        if (grown == NULL)
            return status_fail(st, STATUS_EXHAUSTED, "no memory for the directory");
        view->streams = grown;
        view->streams[view->stream_count++] = record;
    }
    return true;
}

bool redis_address_read(const char *text, struct redis_address *address, struct status *st)
{
    const char *colon = strrchr(text, ':');
    char *end, shown[DIRECTORY_ADDRESS_BYTES];
    long port;

    memset(address, 0, sizeof *address);
    if (strncmp(text, "unix:", 5) == 0) {
        address->is_unix = true;
        if (text[5] == '\0' || strlen(text + 5) > LIMIT_SOCKET_PATH_BYTES)
            return status_fail(st, STATUS_INVALID, "socket path in '%s' must have 1 to %d bytes", text,
                               LIMIT_SOCKET_PATH_BYTES);
        text_copy(address->host, sizeof address->host, text + 5);
        return true;
    }
    if (strchr(text, '@') != NULL) /* nothing of it is said: before the '@' is a password */
        return status_fail(st, STATUS_INVALID,
                           "a redis address is unix:/path or host:port, without a user and password");
    if (colon == NULL || colon == text || (size_t)(colon - text) >= sizeof address->host ||
        strstr(text, "://") != NULL) {
        text_show(text, shown, sizeof shown);
        return status_fail(st, STATUS_INVALID, "redis address '%.100s' must be unix:/path or host:port",
                           shown);
    }
    port = strtol(colon + 1, &end, 10);
    if (*end != '\0' || port < 1 || port > 65535)
        return status_fail(st, STATUS_INVALID, "redis address '%.100s' has no port 1 to 65535", text);
    memcpy(address->host, text, (size_t)(colon - text));
    address->port = (uint16_t)port;
    return true;
}

static redisContext *connect_once(const char *redis, uint32_t timeout_ms, struct status *st)
{
    struct timeval timeout = { timeout_ms / 1000, timeout_ms % 1000 * 1000 };
    struct redis_address address;
    redisContext *context;

    if (!redis_address_read(redis, &address, st))
        return NULL;
    context = address.is_unix ? redisConnectUnixWithTimeout(address.host, timeout)
                              : redisConnectWithTimeout(address.host, address.port, timeout);
    if (context == NULL) {
        status_fail(st, STATUS_EXHAUSTED, "no memory to connect to redis");
        return NULL;
    }
    if (context->err != 0 || redisSetTimeout(context, timeout) != REDIS_OK) {
        status_fail(st, STATUS_UNAVAILABLE, "connect to redis at %s: %s", redis, context->errstr);
        redisFree(context);
        return NULL;
    }
    return context;
}

/* One pipelined round trip: the four workers hashes, then the streams. */
static bool read_all(redisContext *context, struct directory_view *view, struct status *st)
{
    int64_t now_ms = clock_utc_ns() / 1000000;
    bool ok = true;

    for (int kind = 0; kind < WORKER_KINDS; kind++)
        redisAppendCommand(context, "HGETALL reelkv:1:workers:%s", worker_kind_names[kind]);
    redisAppendCommand(context, "HGETALL reelkv:1:streams");
    for (int i = 0; ok && i <= WORKER_KINDS; i++) {
        void *reply = NULL;

        if (redisGetReply(context, &reply) != REDIS_OK)
            return status_fail(st, STATUS_UNAVAILABLE, "read the directory from redis: %s",
                               context->err == REDIS_ERR_IO && errno == EAGAIN ? "it did not answer in time"
                                                                               : context->errstr);
        ok = i < WORKER_KINDS ? directory_reply_workers(reply, (enum worker_kind)i, now_ms, view, st)
                              : directory_reply_streams(reply, view, st);
        freeReplyObject(reply);
    }
    return ok;
}

bool directory_read_once(const char *redis, uint32_t timeout_ms, struct directory_view *view,
                         struct status *st)
{
    redisContext *context = connect_once(redis, timeout_ms, st);
    struct directory_view fresh = { 0 };
    bool ok;

    if (context == NULL)
        return false;
    ok = read_all(context, &fresh, st);
    redisFree(context);
    if (!ok) {
        directory_view_deinit(&fresh);
        return false;
    }
    directory_view_finish(&fresh);
    directory_view_deinit(view);
    *view = fresh;
    return true;
}
