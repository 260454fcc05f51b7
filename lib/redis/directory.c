#include "redis/directory.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/name.h"
#include "base/require.h"
#include "redis/directory_reply.h"
#include "redis/redis_client.h"

enum {
    STREAMS_EVERY = 5,
    KEY_BYTES = 2 * LIMIT_NAME_BYTES + 32,
    REPLIES = WORKER_KINDS + 1,
    SILENT_MS = DIRECTORY_WORKER_TTL_MS,
};

struct vanished {
    struct stream_record record;
    uint64_t until_ns; /* recalled; clock_mono_ns() */
};

struct silent {
    struct directory_forgotten worker;
    uint64_t since_ns; /* its record has stood as it is; clock_mono_ns() */
};

struct directory {
    struct loop *loop;
    struct redis_client *client;
    struct directory_events events;
    struct directory_view view;
    struct directory_view reading; /* replies so far of the reading under way */
    uint32_t replies_missing;      /* of the reading under way; 0: none is */
    struct vanished *vanished;     /* [LIMIT_STREAMS]; NULL: nothing ever has */
    uint32_t vanished_count;
    struct silent silent[DIRECTORY_FORGOTTEN_MAX]; /* as of the latest reading */
    uint32_t silent_count;
    bool reading_lost;
    bool is_known; /* a reading has come through */
    bool left;
    bool told_lost; /* one log line an outage */
    bool told_unreadable;
    struct loop_timer heartbeat;
    uint64_t beats;
    char holder[LIMIT_NAME_BYTES + 1];
    struct directory_lease *leases;
};

/* A command that names its lease by stream, because the lease may be released before the reply. */
struct lease_claim {
    struct directory *directory;
    char key[KEY_BYTES];
};

static const char claim_script[] = "local holder = redis.call('GET', KEYS[1]) "
                                   "if holder and holder ~= ARGV[1] then return 0 end "
                                   "redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) return 1";
static const char release_script[] = "if redis.call('GET', KEYS[1]) == ARGV[1] then "
                                     "return redis.call('DEL', KEYS[1]) end return 0";

static void lease_key(const char *ns, const char *name, char key[KEY_BYTES])
{
    snprintf(key, KEY_BYTES, "reelkv:1:lease:%s/%s", ns, name);
}

static void announce(struct directory *directory)
{
    struct worker_record record = { 0 };
    char key[KEY_BYTES], text[DIRECTORY_RECORD_BYTES];

    if (directory->events.describe == NULL || directory->left)
        return;
    record.seen_ms = clock_utc_ns() / 1000000;
    directory->events.describe(&record, directory->events.user);
    snprintf(key, sizeof key, "reelkv:1:workers:%s", worker_kind_names[record.kind]);
    worker_record_write(&record, text);
    redis_client_send(directory->client, NULL, NULL, 4, (const char *[]){ "HSET", key, record.name, text });
}

void directory_put_stream(struct directory *directory, const struct stream_record *record)
{
    struct stream_record now = *record;
    char path[KEY_BYTES], text[DIRECTORY_RECORD_BYTES];

    now.seen_ms = clock_utc_ns() / 1000000;
    snprintf(path, sizeof path, "%s/%s", record->ns, record->name);
    stream_record_write(&now, text);
    redis_client_send(directory->client, NULL, NULL, 4,
                      (const char *[]){ "HSET", "reelkv:1:streams", path, text });
}

void directory_remove_stream(struct directory *directory, const char *ns, const char *name)
{
    char path[KEY_BYTES];

    snprintf(path, sizeof path, "%s/%s", ns, name);
    redis_client_send(directory->client, NULL, NULL, 3, (const char *[]){ "HDEL", "reelkv:1:streams", path });
}

static void publish_streams(struct directory *directory)
{
    struct stream_record *records;
    uint32_t count;

    if (directory->events.streams == NULL)
        return;
    records = calloc(LIMIT_STREAMS, sizeof *records);
    if (records == NULL)
        return; /* the next beat tries again */
    count = directory->events.streams(records, LIMIT_STREAMS, directory->events.user);
    for (uint32_t i = 0; i < count; i++)
        directory_put_stream(directory, &records[i]);
    free(records);
}

static struct directory_lease *find_lease(struct directory *directory, const char *key)
{
    char own[KEY_BYTES];

    for (struct directory_lease *lease = directory->leases; lease != NULL; lease = lease->next) {
        lease_key(lease->ns, lease->name, own);
        if (strcmp(own, key) == 0)
            return lease;
    }
    return NULL;
}

static void on_claimed(const redisReply *reply, void *user)
{
    struct lease_claim *claim = user;
    struct directory_lease *lease = find_lease(claim->directory, claim->key);
    bool known = reply != NULL && reply->type == REDIS_REPLY_INTEGER;

    free(claim);
    if (lease == NULL || !known) /* released meanwhile, or Redis is away: it stays as it was */
        return;
    if (lease->answered && lease->held == (reply->integer == 1))
        return;
    lease->answered = true;
    lease->held = reply->integer == 1;
    lease->changed(lease, lease->held);
}

static void send_claim(struct directory_lease *lease)
{
    struct directory *directory = lease->directory;
    struct lease_claim *claim = malloc(sizeof *claim);
    char ttl[16];

    if (claim == NULL)
        return;
    claim->directory = directory;
    lease_key(lease->ns, lease->name, claim->key);
    snprintf(ttl, sizeof ttl, "%d", DIRECTORY_LEASE_TTL_MS);
    if (!redis_client_send(directory->client, on_claimed, claim, 6,
                           (const char *[]){ "EVAL", claim_script, "1", claim->key, directory->holder, ttl }))
        free(claim);
}

static bool is_in(const struct directory_view *view, const struct stream_record *record)
{
    return directory_view_stream(view, record->ns, record->name) != NULL;
}

/* Adds what was in the view and is not in the new reading; drops what is there again, or has been recalled long enough. */
static void recall_vanished(struct directory *directory)
{
    const struct directory_view *old = &directory->view, *new = &directory->reading;
    uint64_t now_ns = clock_mono_ns();
    struct vanished *list = directory->vanished;
    uint32_t count = 0;

    for (uint32_t i = 0; i < directory->vanished_count; i++)
        if (list[i].until_ns > now_ns && !is_in(new, &list[i].record))
            list[count++] = list[i];
    for (uint32_t i = 0; i < old->stream_count && count < LIMIT_STREAMS; i++) {
        if (is_in(new, &old->streams[i]))
            continue;
        if (list == NULL)
            list = directory->vanished = calloc(LIMIT_STREAMS, sizeof *list);
        if (list == NULL)
            return;
        list[count++] = (struct vanished){ old->streams[i], now_ns + DIRECTORY_RECALL_MS * 1000000ull };
    }
    directory->vanished_count = count;
}

static void remove_worker(struct directory *directory, enum worker_kind kind, const char *name)
{
    char key[KEY_BYTES];

    snprintf(key, sizeof key, "reelkv:1:workers:%s", worker_kind_names[kind]);
    redis_client_send(directory->client, NULL, NULL, 3, (const char *[]){ "HDEL", key, name });
}

static uint64_t silent_since(const struct directory *directory, const struct directory_forgotten *worker,
                             uint64_t now_ns)
{
    for (uint32_t i = 0; i < directory->silent_count; i++) {
        const struct directory_forgotten *before = &directory->silent[i].worker;

        if (before->kind == worker->kind && before->seen_ms == worker->seen_ms &&
            strcmp(before->name, worker->name) == 0)
            return directory->silent[i].since_ns;
    }
    return now_ns;
}

/* By times of day alone all others would be silent to one whose clock is ahead: their records must not have changed
 * either. One that comes back just now writes its record again with its next heartbeat. */
static void remove_forgotten(struct directory *directory)
{
    const struct directory_view *view = &directory->view;
    struct silent silent[DIRECTORY_FORGOTTEN_MAX];
    uint64_t now_ns = clock_mono_ns();

    if (directory->events.describe == NULL)
        return; /* who only looks on changes nothing */
    for (uint32_t i = 0; i < view->forgotten_count; i++) {
        const struct directory_forgotten *worker = &view->forgotten[i];

        silent[i] = (struct silent){ *worker, silent_since(directory, worker, now_ns) };
        if (now_ns - silent[i].since_ns >= SILENT_MS * 1000000ull)
            remove_worker(directory, worker->kind, worker->name);
    }
    directory->silent_count = view->forgotten_count;
    memcpy(directory->silent, silent, directory->silent_count * sizeof *silent);
}

static void finish_reading(struct directory *directory)
{
    if (directory->reading_lost) {
        directory_view_deinit(&directory->reading);
        return;
    }
    directory->told_unreadable = false;
    directory_view_finish(&directory->reading);
    recall_vanished(directory);
    directory_view_deinit(&directory->view);
    directory->view = directory->reading;
    directory->is_known = true;
    memset(&directory->reading, 0, sizeof directory->reading);
    remove_forgotten(directory);
    if (directory->events.refreshed != NULL)
        directory->events.refreshed(&directory->view, directory->events.user);
}

static void unreadable(struct directory *directory, const struct status *why)
{
    directory->reading_lost = true;
    if (!directory->told_unreadable)
        log_warn(NULL, "directory_unreadable", "%s; what was read before stays", why->text);
    directory->told_unreadable = true;
}

/* Replies come in the order of the commands: the kinds, then the streams. */
static void on_read(const redisReply *reply, void *user)
{
    struct directory *directory = user;
    int which = REPLIES - (int)directory->replies_missing--;
    struct status st = { 0 };
    bool ok = true;

    if (reply == NULL)
        directory->reading_lost = true;
    else if (which < WORKER_KINDS)
        ok = directory_reply_workers(reply, (enum worker_kind)which, clock_utc_ns() / 1000000,
                                     &directory->reading, &st);
    else
        ok = directory_reply_streams(reply, &directory->reading, &st);
    if (!ok)
        unreadable(directory, &st);
    if (directory->replies_missing == 0)
        finish_reading(directory);
}

static void read_directory(struct directory *directory)
{
    char key[KEY_BYTES];

    if (directory->replies_missing > 0)
        return; /* Redis is slower than the heartbeat; the reading under way will do */
    directory->reading_lost = false;
    for (int i = 0; i < REPLIES; i++) {
        if (i < WORKER_KINDS)
            snprintf(key, sizeof key, "reelkv:1:workers:%s", worker_kind_names[i]);
        else
            snprintf(key, sizeof key, "reelkv:1:streams");
        if (!redis_client_send(directory->client, on_read, directory, 2,
                               (const char *[]){ "HGETALL", key })) {
            directory->reading_lost = true; /* finished by the replies already asked for, all NULL */
            return;
        }
        directory->replies_missing++;
    }
}

static void beat(struct directory *directory, bool all)
{
    announce(directory);
    if (all || directory->beats % STREAMS_EVERY == 0)
        publish_streams(directory);
    for (struct directory_lease *lease = directory->leases; lease != NULL; lease = lease->next)
        send_claim(lease);
    read_directory(directory);
    directory->beats++;
}

static void on_heartbeat(struct loop_timer *timer)
{
    struct directory *directory = container_of(timer, struct directory, heartbeat);

    loop_timer_start(directory->loop, timer, DIRECTORY_HEARTBEAT_MS, on_heartbeat);
    if (redis_client_is_connected(directory->client))
        beat(directory, false);
}

static void on_connected(void *user)
{
    struct directory *directory = user;

    if (directory->told_lost)
        log_info(NULL, "redis_back", "announcing again");
    directory->told_lost = false;
    beat(directory, true);
}

static void on_lost(const char *why, void *user)
{
    struct directory *directory = user;

    if (!directory->told_lost)
        log_warn(NULL, "redis_lost", "%s; what runs goes on, retrying", why);
    directory->told_lost = true;
    directory->silent_count = 0; /* nobody could write */
}

bool directory_create(struct directory **directory_p, struct loop *loop, const char *redis,
                      const struct directory_events *events, struct status *st)
{
    struct directory *directory = calloc(1, sizeof *directory);
    struct redis_client_events on = { on_connected, on_lost, directory };

    if (directory == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for the directory");
    directory->loop = loop;
    directory->events = *events;
    if (!redis_client_create(&directory->client, loop, redis, &on, st)) {
        free(directory);
        return false;
    }
    loop_timer_start(loop, &directory->heartbeat, DIRECTORY_HEARTBEAT_MS, on_heartbeat);
    *directory_p = directory;
    return true;
}

void directory_destroy(struct directory *directory)
{
    if (directory == NULL)
        return;
    loop_timer_stop(&directory->heartbeat);
    directory->events.refreshed = NULL;
    redis_client_destroy(directory->client);
    directory_view_deinit(&directory->view);
    directory_view_deinit(&directory->reading);
    free(directory->vanished);
    free(directory);
}

const struct directory_view *directory_view(const struct directory *directory)
{
    return &directory->view;
}

const struct stream_record *directory_recall_stream(const struct directory *directory, const char *ns,
                                                    const char *name)
{
    const struct stream_record *record = directory_view_stream(&directory->view, ns, name);

    for (uint32_t i = 0; record == NULL && i < directory->vanished_count; i++) {
        const struct stream_record *old = &directory->vanished[i].record;

        if (strcmp(old->ns, ns) == 0 && strcmp(old->name, name) == 0)
            record = old;
    }
    return record;
}

bool directory_is_reachable(const struct directory *directory)
{
    return redis_client_is_connected(directory->client);
}

bool directory_is_known(const struct directory *directory)
{
    return directory->is_known;
}

void directory_leave(struct directory *directory)
{
    struct worker_record record = { 0 };

    REQUIRE(directory->events.describe != NULL);
    directory->left = true;
    directory->events.describe(&record, directory->events.user);
    remove_worker(directory, record.kind, record.name);
}

void directory_lease_claim(struct directory *directory, struct directory_lease *lease, const char *holder)
{
    REQUIRE(lease->directory == NULL && lease->changed != NULL);
    REQUIRE(text_copy(directory->holder, sizeof directory->holder, holder));
    lease->directory = directory;
    lease->held = lease->answered = false;
    lease->next = directory->leases;
    lease->link = &directory->leases;
    if (lease->next != NULL)
        lease->next->link = &lease->next;
    directory->leases = lease;
    send_claim(lease);
}

void directory_lease_release(struct directory_lease *lease)
{
    struct directory *directory = lease->directory;
    char key[KEY_BYTES];

    if (directory == NULL)
        return;
    *lease->link = lease->next;
    if (lease->next != NULL)
        lease->next->link = lease->link;
    lease->directory = NULL;
    lease->held = false;
    lease_key(lease->ns, lease->name, key);
    redis_client_send(directory->client, NULL, NULL, 5,
                      (const char *[]){ "EVAL", release_script, "1", key, directory->holder });
}
