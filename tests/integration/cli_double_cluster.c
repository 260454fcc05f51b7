/* A stand-in for a whole cluster in tests of the command line: one process that announces itself as a kvstore and a qa,
 * keeps definitions of cameras in memory, and gives made-up answers. What a question does depends on its words:
 *   "hang"   evidence, then nothing until the call is cancelled
 *   "break"  evidence and half an answer, then UNAVAILABLE
 *   else     evidence of two frames, an answer in three parts, the end
 * What is stored it neither gives nor takes nor forgets (cli_double_slow.h). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/name.h"
#include "base/options.h"
#include "base/require.h"
#include "cli_double_slow.h"
#include "redis/directory.h"
#include "reelkv/v1/catalog.pb-c.h"
#include "reelkv/v1/kvstore.pb-c.h"
#include "reelkv/v1/qa.pb-c.h"
#include "rpc/api.h"
#include "rpc/host.h"

enum { CAMERAS_MAX = 8 };

#define START_NS 1767225600000000000ll /* 2026-01-01T00:00:00Z */

struct double_options {
#define OPT OPTION_FIELD
#include "rpc/host_options.def"
    OPT(redis, STR, "", "1", "127", "directory")
#undef OPT
};

static const struct option_row rows[] = {
#define OPT(...) OPTION_ROW(double_options, __VA_ARGS__),
#include "rpc/host_options.def"
    OPT(redis, STR, "", "1", "127", "directory")
#undef OPT
};

static const struct option_table table = { .program = "cli-double-cluster",
                                           .summary = "Stands in for a cluster.",
                                           .rows = rows,
                                           .count = ARRAY_LEN(rows) };

struct double_camera {
    bool used;
    char name[LIMIT_NAME_BYTES + 1];
    char source[LIMIT_URL_BYTES + 1];
    Reelkv__V1__SourceKind kind;
    double fps;
    int64_t start_ns;
    uint64_t durable; /* grows with each look, up to 10 */
};

struct double_cluster {
    struct rpc_host *host;
    struct directory *store, *qa;
    struct double_camera cameras[CAMERAS_MAX];
    bool walk_has_broken, watch_has_broken, damage_shows;
};

static struct double_camera *find(struct double_cluster *cluster, const char *name)
{
    for (size_t i = 0; i < CAMERAS_MAX; i++)
        if (cluster->cameras[i].used && strcmp(cluster->cameras[i].name, name) == 0)
            return &cluster->cameras[i];
    return NULL;
}

/* --------------------------------------------------------------------------------------------- catalog */

/* Of the made-up model, and of another. */
static uint8_t own_print[DIRECTORY_FINGERPRINT_BYTES] = { 7 },
               other_print[DIRECTORY_FINGERPRINT_BYTES] = { 9 };

static bool is_foreign(const struct double_camera *camera)
{
    return strstr(camera->source, "foreign") != NULL;
}

struct filled {
    Reelkv__V1__StreamStatus status;
    Reelkv__V1__StreamDefinition definition;
    Reelkv__V1__StreamId id;
};

/* As one of which a small file is damaged. */
static bool is_aside(const struct double_camera *camera)
{
    return strstr(camera->source, "aside") != NULL;
}

static void fill(struct double_camera *camera, struct filled *filled)
{
    bool failed = strstr(camera->source, "broken") != NULL || is_aside(camera);

    reelkv__v1__stream_status__init(&filled->status);
    reelkv__v1__stream_definition__init(&filled->definition);
    reelkv__v1__stream_id__init(&filled->id);
    filled->id.namespace_ = (char *)"default";
    filled->id.name = camera->name;
    filled->definition.id = &filled->id;
    filled->definition.source = camera->source;
    filled->definition.kind = camera->kind;
    filled->definition.sample_fps = camera->fps;
    filled->definition.start_time_ns = camera->start_ns;
    filled->definition.store = (char *)"kvstore-0";
    filled->status.definition = &filled->definition;
    filled->status.next_seq = filled->status.expected_frames = 10;
    filled->status.durable_seq = filled->status.stored_frames = camera->durable;
    if (strstr(camera->source, "gappy") != NULL) {
        filled->status.gap_frames = filled->status.durable_seq < 4 ? filled->status.durable_seq : 4;
        filled->status.stored_frames -= filled->status.gap_frames;
    }
    filled->status.fingerprint =
        (ProtobufCBinaryData){ DIRECTORY_FINGERPRINT_BYTES, is_foreign(camera) ? other_print : own_print };
    filled->status.evicted_frames = strstr(camera->source, "forgotten") != NULL ? camera->durable : 0;
    filled->status.damaged_frames = strstr(camera->source, "spoilt") != NULL ? 3 : 0;
    filled->status.state =
        failed ? REELKV__V1__STREAM_STATE__STREAM_STATE_FAILED
        : camera->durable == 10 && camera->kind == REELKV__V1__SOURCE_KIND__SOURCE_KIND_FILE
            ? REELKV__V1__STREAM_STATE__STREAM_STATE_ENDED
            : REELKV__V1__STREAM_STATE__STREAM_STATE_RUNNING;
    filled->status.trouble = (char *)(failed ? "it is not a video" : "");
}

static void refuse(struct rpc_call *call, enum status_code code, const char *text)
{
    struct status st = { 0 };

    status_fail(&st, code, "%s", text);
    rpc_call_finish(call, &st);
}

static void create_stream(struct rpc_call *call, void *state)
{
    const Reelkv__V1__CreateStreamRequest *request =
        (const Reelkv__V1__CreateStreamRequest *)rpc_call_request(call)->body;
    struct double_cluster *cluster = state;
    struct double_camera *camera = NULL;
    struct filled filled;

    if (find(cluster, request->definition->id->name) != NULL) {
        refuse(call, STATUS_EXISTS, "taken");
        return;
    }
    for (size_t i = 0; camera == NULL && i < CAMERAS_MAX; i++)
        camera = cluster->cameras[i].used ? NULL : &cluster->cameras[i];
    if (camera == NULL) {
        refuse(call, STATUS_EXHAUSTED, "no room for another camera");
        return;
    }
    *camera = (struct double_camera){ .used = true,
                                      .kind = request->definition->kind,
                                      .fps = request->definition->sample_fps,
                                      .start_ns = request->definition->start_time_ns };
    if (camera->fps == 0)
        camera->fps = 0.5; /* the store's default */
    text_copy(camera->name, sizeof camera->name, request->definition->id->name);
    url_mask(request->definition->source, camera->source, sizeof camera->source);
    fill(camera, &filled);
    rpc_call_reply(call, &filled.status.base, NULL);
}

/* Calls about such a camera do not end, as with a store that hangs. */
static bool is_mute(const struct double_camera *camera)
{
    return strstr(camera->source, "mute") != NULL;
}

/* The first look for a camera "damaged" does not find it; at those that follow the damage shows. */
static void get_stream(struct rpc_call *call, void *state)
{
    const Reelkv__V1__GetStreamRequest *request =
        (const Reelkv__V1__GetStreamRequest *)rpc_call_request(call)->body;
    struct double_cluster *cluster = state;
    struct double_camera *camera = find(cluster, request->id->name);
    struct filled filled;

    if (camera == NULL && cluster->damage_shows && strcmp(request->id->name, "damaged") == 0) {
        refuse(call, STATUS_DATA_LOSS, "the catalog is damaged");
        return;
    }
    if (camera == NULL) {
        cluster->damage_shows = true;
        refuse(call, STATUS_NOT_FOUND, "unknown");
        return;
    }
    if (is_mute(camera))
        return;
    camera->durable += camera->durable < 10;
    fill(camera, &filled);
    rpc_call_reply(call, &filled.status.base, NULL);
}

/* The first time it breaks off half way; the second it goes on until what a file holds is on disk, or for a live camera does
 * not end. */
static void watch_stream(struct rpc_call *call, void *state)
{
    const Reelkv__V1__WatchStreamRequest *request =
        (const Reelkv__V1__WatchStreamRequest *)rpc_call_request(call)->body;
    struct double_cluster *cluster = state;
    struct double_camera *camera = find(cluster, request->id->name);
    uint64_t end = cluster->watch_has_broken ? 10 : 5;
    struct filled filled;

    if (camera == NULL) {
        refuse(call, STATUS_NOT_FOUND, "unknown");
        return;
    }
    for (; camera->durable < end; camera->durable++) {
        fill(camera, &filled);
        rpc_call_write(call, &filled.status.base, NULL);
    }
    if (!cluster->watch_has_broken)
        refuse(call, STATUS_UNAVAILABLE, "the store is going away");
    cluster->watch_has_broken = true;
    fill(camera, &filled);
    rpc_call_write(call, &filled.status.base, NULL);
}

/* One camera a page, so that pages are walked. The first time that the walk comes to a "torn" one it breaks off. */
static void list_streams(struct rpc_call *call, void *state)
{
    const Reelkv__V1__ListStreamsRequest *request =
        (const Reelkv__V1__ListStreamsRequest *)rpc_call_request(call)->body;
    Reelkv__V1__ListStreamsReply reply = REELKV__V1__LIST_STREAMS_REPLY__INIT;
    Reelkv__V1__StreamStatus *statuses[1];
    struct double_cluster *cluster = state;
    struct filled filled;
    unsigned long at = strtoul(request->page_token, NULL, 10), next;
    char token[32];

    while (at < CAMERAS_MAX && !cluster->cameras[at].used)
        at++;
    if (at < CAMERAS_MAX) {
        if (is_mute(&cluster->cameras[at]))
            return;
        if (!cluster->walk_has_broken && strstr(cluster->cameras[at].source, "torn") != NULL) {
            cluster->walk_has_broken = true;
            refuse(call, STATUS_UNAVAILABLE, "the disk is gone");
            return;
        }
        fill(&cluster->cameras[at], &filled);
        statuses[0] = &filled.status;
        reply.streams = statuses;
        reply.n_streams = 1;
    }
    for (next = at + 1; next < CAMERAS_MAX && !cluster->cameras[next].used;)
        next++;
    snprintf(token, sizeof token, "%lu", next);
    if (next < CAMERAS_MAX)
        reply.next_page_token = token;
    rpc_call_reply(call, &reply.base, NULL);
}

static void delete_stream(struct rpc_call *call, void *state)
{
    const Reelkv__V1__DeleteStreamRequest *request =
        (const Reelkv__V1__DeleteStreamRequest *)rpc_call_request(call)->body;
    Reelkv__V1__DeleteStreamReply reply = REELKV__V1__DELETE_STREAM_REPLY__INIT;
    struct double_camera *camera = find(state, request->id->name);

    if (camera == NULL) {
        refuse(call, STATUS_NOT_FOUND, "unknown");
        return;
    }
    camera->used = false;
    reply.frames = camera->durable;
    reply.bytes = 4096;
    rpc_call_reply(call, &reply.base, NULL);
}

static void get_server_info(struct rpc_call *call, void *state)
{
    Reelkv__V1__ServerInfo info = REELKV__V1__SERVER_INFO__INIT;

    (void)state;
    info.name = (char *)"kvstore-0";
    info.ram_budget_bytes = 1 << 20;
    info.sketch_bytes = 96 << 10;
    info.disk_budget_bytes = 1 << 30;
    info.disk_used_bytes = 1 << 29;
    info.frames = 77;
    info.quarantined_frames = 2;
    info.read_ahead_slices = 400;
    info.read_ahead_used = 300;
    info.scrub_bytes_per_second = 50 << 20;
    info.full_scrub_ns = 1700000000000000000ll;
    rpc_call_reply(call, &info.base, NULL);
}

/* -------------------------------------------------------------------------------------------------- qa */

static void asked_ended(struct rpc_call *call, void *user)
{
    (void)user;
    if (rpc_call_was_cancelled(call))
        log_info(NULL, "cancelled", "the question was cancelled");
}

static void send_evidence(struct rpc_call *call, bool with_picture)
{
    static uint8_t jpeg[] = { 0xFF, 0xD8, 0xFF, 0xD9 };
    Reelkv__V1__EvidenceFrame frames[2] = { REELKV__V1__EVIDENCE_FRAME__INIT,
                                            REELKV__V1__EVIDENCE_FRAME__INIT };
    Reelkv__V1__EvidenceFrame *list[] = { &frames[0], &frames[1] };
    Reelkv__V1__Evidence evidence = REELKV__V1__EVIDENCE__INIT;
    Reelkv__V1__AskReply reply = REELKV__V1__ASK_REPLY__INIT;
    char *notes[] = { (char *)"12 frames of dock\x1b[2J are gone" };

    frames[0].seq = 4;
    frames[0].pts_ns = START_NS + 2000000000;
    frames[0].layers = 3;
    frames[0].mean_rank = 1.5;
    frames[0].score = 0.25;
    frames[1].seq = 5;
    frames[1].pts_ns = START_NS + 2500000000ll;
    frames[1].layers = 1;
    if (with_picture)
        frames[0].thumbnail = (ProtobufCBinaryData){ sizeof jpeg, jpeg };
    evidence.frames = list;
    evidence.n_frames = 2;
    evidence.frames_in_view = 10;
    evidence.notes = notes;
    evidence.n_notes = 1;
    reply.item_case = REELKV__V1__ASK_REPLY__ITEM_EVIDENCE;
    reply.evidence = &evidence;
    rpc_call_write(call, &reply.base, NULL);
}

static void send_text(struct rpc_call *call, const char *text)
{
    Reelkv__V1__AnswerText answer = REELKV__V1__ANSWER_TEXT__INIT;
    Reelkv__V1__AskReply reply = REELKV__V1__ASK_REPLY__INIT;

    answer.text = (char *)(uintptr_t)text;
    reply.item_case = REELKV__V1__ASK_REPLY__ITEM_ANSWER;
    reply.answer = &answer;
    rpc_call_write(call, &reply.base, NULL);
}

static void ask(struct rpc_call *call, void *state)
{
    const Reelkv__V1__AskRequest *request = (const Reelkv__V1__AskRequest *)rpc_call_request(call)->body;
    Reelkv__V1__AnswerEnd end = REELKV__V1__ANSWER_END__INIT;
    Reelkv__V1__AskReply reply = REELKV__V1__ASK_REPLY__INIT;

    rpc_call_on_end(call, asked_ended);
    for (size_t i = 0; i < request->n_streams; i++) {
        if (find(state, request->streams[i]) == NULL) {
            refuse(call, STATUS_NOT_FOUND, "no such stream");
            return;
        }
        if (is_foreign(find(state, request->streams[i]))) {
            refuse(call, STATUS_PRECONDITION, "its blocks are of another fingerprint");
            return;
        }
        if (is_aside(find(state, request->streams[i]))) {
            refuse(call, STATUS_DATA_LOSS, "it is set aside");
            return;
        }
    }
    send_evidence(call, request->thumbnails);
    if (strcmp(request->question, "hang") == 0) {
        log_info(NULL, "hangs", "until it is cancelled");
        return;
    }
    send_text(call, "A red");
    if (strcmp(request->question, "break") == 0) {
        refuse(call, STATUS_UNAVAILABLE, "the device is gone");
        return;
    }
    send_text(call, " st\x1b[31m");
    send_text(call, "ar");
    end.stop = REELKV__V1__STOP_REASON__STOP_REASON_EOS;
    end.answer_tokens = 3;
    end.total_ms = 12;
    reply.item_case = REELKV__V1__ASK_REPLY__ITEM_END;
    reply.end = &end;
    rpc_call_write(call, &reply.base, NULL);
    rpc_call_finish(call, NULL);
}

/* The newest thing of every camera is a gap; of a "torn" one the second page cannot be had. */
static void timeline(struct rpc_call *call, void *state)
{
    const Reelkv__V1__TimelineRequest *request =
        (const Reelkv__V1__TimelineRequest *)rpc_call_request(call)->body;
    const struct double_camera *camera = find(state, request->id->name);
    Reelkv__V1__TimelineReply reply = REELKV__V1__TIMELINE_REPLY__INIT;
    Reelkv__V1__TimelineSpan span = REELKV__V1__TIMELINE_SPAN__INIT;
    Reelkv__V1__TimelineSpan *spans[] = { &span };

    span.result = REELKV__V1__FRAME_RESULT__FRAME_RESULT_GAP;
    span.from_seq = 6;
    span.to_seq = 10;
    span.from_pts_ns = 1767225603000000000; /* 2026-01-01T00:00:03Z */
    span.reason = (char *)"nobody answers there";
    reply.spans = spans;
    reply.n_spans = 1;
    if (camera != NULL && strstr(camera->source, "torn") != NULL) {
        if (request->after_seq > 0) {
            refuse(call, STATUS_UNAVAILABLE, "the disk is gone");
            return;
        }
        reply.next_seq = span.to_seq;
    }
    rpc_call_reply(call, &reply.base, NULL);
}

/* ------------------------------------------------------------------------------------------------ main */

static const struct rpc_handler catalog[] = { { &api_create_stream, create_stream },
                                              { &api_get_stream, get_stream },
                                              { &api_watch_stream, watch_stream },
                                              { &api_list_streams, list_streams },
                                              { &api_delete_stream, delete_stream } };
static const struct rpc_handler kvstore[] = { { &api_get_server_info, get_server_info },
                                              { &api_timeline, timeline },
                                              { &api_export, double_export },
                                              { &api_append, double_append } };
static const struct rpc_handler retention[] = { { &api_forget, double_forget },
                                                { &api_list_receipts, double_list_receipts } };
static const struct rpc_handler qa[] = { { &api_ask, ask } };

static void describe(struct double_cluster *cluster, enum worker_kind kind, struct worker_record *record)
{
    record->kind = kind;
    snprintf(record->name, sizeof record->name, "%s-0", worker_kind_names[kind]);
    text_copy(record->address, sizeof record->address, rpc_host_address(cluster->host));
    record->pid = (uint64_t)getpid();
    record->started_ms = clock_utc_ns() / 1000000;
}

static void describe_store(struct worker_record *record, void *user)
{
    describe(user, WORKER_KVSTORE, record);
}

static void describe_qa(struct worker_record *record, void *user)
{
    describe(user, WORKER_QA, record);
    record->has_model = true;
    memcpy(record->fingerprint, own_print, sizeof own_print);
}

static bool open_all(struct double_cluster *cluster, const struct double_options *options, struct status *st)
{
    struct directory_events store = { .describe = describe_store, .user = cluster };
    struct directory_events answers = { .describe = describe_qa, .user = cluster };
    static struct rpc_service services[] = { { "reelkv.v1.Catalog", catalog, ARRAY_LEN(catalog), NULL },
                                             { "reelkv.v1.KvStore", kvstore, ARRAY_LEN(kvstore), NULL },
                                             { "reelkv.v1.Retention", retention, ARRAY_LEN(retention), NULL },
                                             { "reelkv.v1.Qa", qa, ARRAY_LEN(qa), NULL } };

    for (size_t i = 0; i < ARRAY_LEN(services); i++)
        services[i].state = cluster;
    return rpc_host_create(&cluster->host, &(struct rpc_host_options)RPC_HOST_OPTIONS("double", options),
                           st) &&
           rpc_host_serve(cluster->host, services, ARRAY_LEN(services), st) &&
           directory_create(&cluster->store, rpc_host_loop(cluster->host), options->redis, &store, st) &&
           directory_create(&cluster->qa, rpc_host_loop(cluster->host), options->redis, &answers, st);
}

int main(int argc, char **argv)
{
    static struct double_cluster cluster;
    struct double_options options;
    struct status st = { 0 };
    bool ok;

    if (options_parse(&table, &options, argc, argv, NULL, &st) != OPTIONS_RUN) {
        fprintf(stderr, "cli-double-cluster: %s\n", st.text);
        return 2;
    }
    log_init("double", LOG_INFO);
    ok = open_all(&cluster, &options, &st);
    if (ok)
        rpc_host_run(cluster.host);
    else
        log_error(NULL, "start_failed", "%s", st.text);
    directory_destroy(cluster.qa);
    directory_destroy(cluster.store);
    rpc_host_destroy(cluster.host);
    return ok ? 0 : 1;
}
