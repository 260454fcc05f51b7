#include "encoder/encoder_directory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/name.h"
#include "base/require.h"

/* What is known of one stream that is, or may become, ours. */
struct claim {
    struct directory_lease lease; /* names the stream */
    struct encoder_directory *directory;
    char store[LIMIT_NAME_BYTES + 1];
    struct stream *stream; /* while it runs here */
    bool asked;            /* for the lease */
    bool waiting;          /* as the directory says now: it has no writer */
    bool seen;             /* in the newest view */
    uint64_t waiting_since_ms, rest_until_ms;
    struct claim *next; /* by namespace, then name */
};

struct encoder_directory {
    struct encoder *encoder;
    struct encoder_directory_options options;
    struct directory *directory;
    struct claim *claims;
    uint32_t asked, running;
    int64_t started_ms;
    bool draining;
};

static uint64_t now_ms(void)
{
    return clock_mono_ns() / 1000000;
}

/* -------------------------------------------------------------------------------------- where others are */

static bool find_store(void *user, const char *store, char address[DIRECTORY_ADDRESS_BYTES],
                       struct status *st)
{
    struct encoder_directory *own = user;
    const struct worker_record *worker =
        directory_view_worker(directory_view(own->directory), WORKER_KVSTORE, store);

    if (worker == NULL)
        return status_fail(st, STATUS_UNAVAILABLE, "kvstore %s is not in the directory now", store);
    return text_copy(address, DIRECTORY_ADDRESS_BYTES, worker->address);
}

/* Of the analyzers with our model and room, the one that rendezvous names. */
static bool find_analyzer(void *user, const char *ns, const char *name, char address[DIRECTORY_ADDRESS_BYTES],
                          struct status *st)
{
    struct encoder_directory *own = user;
    const struct directory_view *view = directory_view(own->directory);
    const char *names[DIRECTORY_WORKERS_MAX];
    const struct worker_record *fit[DIRECTORY_WORKERS_MAX];
    uint32_t analyzers = 0, same_model = 0, count = 0;
    char key[2 * LIMIT_NAME_BYTES + 2];

    for (uint32_t i = 0; i < view->worker_count && count < DIRECTORY_WORKERS_MAX; i++) {
        const struct worker_record *worker = &view->workers[i];

        if (worker->kind != WORKER_ANALYZER || worker->draining)
            continue;
        analyzers++;
        if (!worker->has_model ||
            memcmp(worker->fingerprint, own->encoder->vision->fingerprint, sizeof worker->fingerprint) != 0)
            continue;
        same_model++;
        if (worker->capacity != 0 && worker->streams >= worker->capacity)
            continue;
        names[count] = worker->name;
        fit[count++] = worker;
    }
    if (analyzers == 0)
        return status_fail(st, STATUS_UNAVAILABLE, "there is no analyzer in the directory now");
    if (same_model == 0)
        return status_fail(
            st, STATUS_PRECONDITION,
            "none of %u analyzers has this encoder's model: start both with the same model folder, "
            "dtype and n_local",
            analyzers);
    if (count == 0)
        return status_fail(st, STATUS_EXHAUSTED, "all %u analyzers have as many streams as they take",
                           same_model);
    snprintf(key, sizeof key, "%s/%s", ns, name);
    return text_copy(address, DIRECTORY_ADDRESS_BYTES, fit[rendezvous_pick(key, names, count)]->address);
}

/* ------------------------------------------------------------------------------------------------ claims */

static int claim_order(const struct claim *claim, const char *ns, const char *name)
{
    int order = strcmp(claim->lease.ns, ns);

    return order != 0 ? order : strcmp(claim->lease.name, name);
}

static void let_go(struct claim *claim)
{
    struct encoder_directory *own = claim->directory;

    if (claim->stream != NULL)
        own->running--;
    stream_destroy(claim->stream);
    claim->stream = NULL;
    if (claim->asked)
        own->asked--;
    claim->asked = false;
    directory_lease_release(&claim->lease);
}

static void rest(struct claim *claim)
{
    let_go(claim);
    claim->rest_until_ms = now_ms() + ENCODER_DIRECTORY_REST_MS;
}

static void stream_over(struct stream *stream, enum stream_end end, void *user)
{
    rest(user); /* the directory hears of the end a little later than we do */
}

static void lease_changed(struct directory_lease *lease, bool held)
{
    struct claim *claim = container_of(lease, struct claim, lease);
    struct encoder_directory *own = claim->directory;
    const struct stream_options options = { lease->ns, lease->name, claim->store, stream_over, claim };
    struct status st = { 0 };

    if (held && claim->stream == NULL && !own->draining) {
        if (stream_start(&claim->stream, own->encoder, &options, &st)) {
            own->running++;
        } else {
            log_error(NULL, "stream_refused", "%s/%s: %s", lease->ns, lease->name, st.text);
            rest(claim); /* another may have it meanwhile */
        }
    } else if (!held && claim->stream != NULL) {
        log_warn(NULL, "lease_lost", "%s/%s has another encoder now", lease->ns, lease->name);
        own->running--;
        stream_destroy(claim->stream);
        claim->stream = NULL;
    }
}

/* Whether this encoder should ask for the stream. */
static bool is_wanted(const struct claim *claim, const struct directory_view *view, uint64_t at_ms)
{
    struct encoder_directory *own = claim->directory;
    const struct worker_record *named;
    char key[2 * LIMIT_NAME_BYTES + 2];

    if (!claim->seen || at_ms < claim->rest_until_ms)
        return false;
    if (claim->waiting && at_ms - claim->waiting_since_ms >= ENCODER_DIRECTORY_WAITED_MS)
        return true;
    snprintf(key, sizeof key, "%s/%s", claim->lease.ns, claim->lease.name);
    named = directory_view_pick(view, WORKER_ENCODER, key, NULL);
    return named != NULL && strcmp(named->name, own->encoder->name) == 0;
}

static void decide(struct claim *claim, const struct directory_view *view, uint64_t at_ms)
{
    struct encoder_directory *own = claim->directory;

    if (claim->stream != NULL)
        return;
    if (!is_wanted(claim, view, at_ms)) {
        let_go(claim);
    } else if (!claim->asked && own->asked < own->options.max_streams) {
        own->asked++;
        claim->asked = true;
        directory_lease_claim(own->directory, &claim->lease, own->encoder->name);
    }
}

static struct claim *claim_create(struct encoder_directory *own, const struct stream_record *record)
{
    struct claim *claim = calloc(1, sizeof *claim);

    if (claim == NULL)
        return NULL; /* the next reading tries again */
    claim->directory = own;
    claim->lease.changed = lease_changed;
    text_copy(claim->lease.ns, sizeof claim->lease.ns, record->ns);
    text_copy(claim->lease.name, sizeof claim->lease.name, record->name);
    return claim;
}

/* Takes over what the view says of streams that want a writer. Both lists are in the same order. */
static void merge(struct encoder_directory *own, const struct directory_view *view, uint64_t at_ms)
{
    struct claim **at = &own->claims;

    for (struct claim *claim = own->claims; claim != NULL; claim = claim->next)
        claim->seen = false;
    for (uint32_t i = 0; i < view->stream_count; i++) {
        const struct stream_record *record = &view->streams[i];
        bool waiting = record->phase == STREAM_WAITING;

        if (!waiting && record->phase != STREAM_RUNNING)
            continue;
        while (*at != NULL && claim_order(*at, record->ns, record->name) < 0)
            at = &(*at)->next;
        if (*at == NULL || claim_order(*at, record->ns, record->name) != 0) {
            struct claim *claim = claim_create(own, record);

            if (claim == NULL)
                return;
            claim->next = *at;
            *at = claim;
        }
        (*at)->seen = true;
        text_copy((*at)->store, sizeof(*at)->store, record->store);
        if (waiting && !(*at)->waiting)
            (*at)->waiting_since_ms = at_ms;
        (*at)->waiting = waiting;
    }
}

static void refreshed(const struct directory_view *view, void *user)
{
    struct encoder_directory *own = user;
    uint64_t at_ms = now_ms();

    if (own->draining)
        return;
    merge(own, view, at_ms);
    for (struct claim **at = &own->claims; *at != NULL;) {
        struct claim *claim = *at;

        decide(claim, view, at_ms);
        /* A stream missing from the view still runs: a Redis that came back empty forgets nothing. */
        if (claim->seen || claim->stream != NULL || at_ms < claim->rest_until_ms) {
            at = &claim->next;
            continue;
        }
        *at = claim->next;
        let_go(claim);
        free(claim);
    }
}

static void describe(struct worker_record *record, void *user)
{
    struct encoder_directory *own = user;

    record->kind = WORKER_ENCODER;
    text_copy(record->name, sizeof record->name, own->encoder->name);
    text_copy(record->address, sizeof record->address, own->options.address);
    record->pid = (uint64_t)getpid();
    record->started_ms = own->started_ms;
    record->streams = own->running;
    record->capacity = own->options.max_streams;
    record->has_model = true;
    memcpy(record->fingerprint, own->encoder->vision->fingerprint, sizeof record->fingerprint);
    record->draining = own->draining;
}

/* ---------------------------------------------------------------------------------------- life and death */

bool encoder_directory_create(struct encoder_directory **directory_p, struct encoder *encoder,
                              const struct encoder_directory_options *options, struct status *st)
{
    struct encoder_directory *own = calloc(1, sizeof *own);
    const struct directory_events events = { .describe = describe, .refreshed = refreshed, .user = own };

    if (own == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for the directory");
    own->encoder = encoder;
    own->options = *options;
    own->started_ms = clock_utc_ns() / 1000000;
    encoder->places = (struct encoder_places){ find_store, find_analyzer, own };
    if (!directory_create(&own->directory, encoder->loop, options->redis, &events, st)) {
        free(own);
        return false;
    }
    *directory_p = own;
    return true;
}

void encoder_directory_drain(struct encoder_directory *own)
{
    own->draining = true;
    directory_leave(own->directory);
    for (struct claim *claim = own->claims; claim != NULL; claim = claim->next) {
        if (claim->stream != NULL)
            stream_drain(claim->stream);
        else
            let_go(claim);
    }
}

bool encoder_directory_release_drained(struct encoder_directory *own)
{
    bool none_left = true;

    for (struct claim *claim = own->claims; claim != NULL; claim = claim->next) {
        if (claim->stream != NULL && stream_is_drained(claim->stream))
            let_go(claim);
        none_left = none_left && claim->stream == NULL;
    }
    return none_left;
}

void encoder_directory_destroy(struct encoder_directory *own)
{
    if (own == NULL)
        return;
    while (own->claims != NULL) {
        struct claim *claim = own->claims;

        own->claims = claim->next;
        let_go(claim);
        free(claim);
    }
    directory_destroy(own->directory);
    free(own);
}
