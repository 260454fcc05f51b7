/* ask: a question about what cameras saw. The answer is printed as it comes, then the frames it rests on. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ask_result.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/name.h"
#include "base/require.h"
#include "camera.h"
#include "cli_command.h"
#include "cli_hint.h"
#include "interrupt.h"
#include "other_settings.h"
#include "reelkv/v1/catalog.pb-c.h"

enum { HEARD_OF_MS = 3 * DIRECTORY_HEARTBEAT_MS, AGAIN_MS = 200 };

#define ASK_OPTIONS(OPT)                                                                                     \
    CLI_STREAM_OPTIONS(OPT)                                                                                  \
    OPT(cam, STR, "", "0", "4096", "cameras the question is about, comma-separated; '': all of them")        \
    OPT(from, STR, "", "0", "40", "only what was seen since: 2026-11-21T14:05:00Z, seconds since 1970, -2h") \
    OPT(to, STR, "", "0", "40", "only what was seen before")                                                 \
    OPT(as_of, STR, "", "0", "40",                                                                           \
        "answer as if it were this time: nothing seen later counts, 'recent' ends here")                     \
    OPT(top_r, U32, "0", "0", "3072", "frames each layer retrieves; 0: the cluster's default")               \
    OPT(recent, STR, "", "0", "40", "newest frames always added, 0 to 1024; '': the cluster's default")      \
    OPT(selector, STR, "rekv", "1", "16", "how frames are chosen: rekv, recent or all")                      \
    OPT(max_tokens, U32, "0", "0", "1024", "longest answer; 0: the cluster's default")                       \
    OPT(thumbnails, STR, "", "0", "3800", "folder to write the pictures of the evidence to")                 \
    OPT(layers, BOOL, "false", "", "", "with --json: which frames each layer chose")                         \
    OPT(timeout, U32, "300", "1", "2592000", "seconds")

struct ask_options {
    ASK_OPTIONS(OPTION_FIELD)
};
static const struct option_row rows[] = {
#define ROW(...) OPTION_ROW(ask_options, __VA_ARGS__),
    ASK_OPTIONS(ROW)
#undef ROW
};

struct ask {
    const struct ask_options *options;
    struct cluster *cluster;
    struct interrupt *interrupt;
    char names[LIMIT_STREAMS_PER_QUESTION][LIMIT_NAME_BYTES + 1];
    char *cameras[LIMIT_STREAMS_PER_QUESTION];
    size_t camera_count;
    Reelkv__V1__AskRequest request;
    Reelkv__V1__TimeRange range;
    Reelkv__V1__Count top_r, recent_window, max_tokens;
    struct ask_result result;
    struct cli_progress waiting; /* until the answer begins */
};

/* ----------------------------------------------------------------------------------------- the request */

static bool add_camera(struct ask *ask, const char *name, size_t len, struct status *st)
{
    char *place;

    if (ask->camera_count == LIMIT_STREAMS_PER_QUESTION)
        return status_fail(st, STATUS_INVALID, "one question may be about %d cameras; name fewer with --cam",
                           LIMIT_STREAMS_PER_QUESTION);
    place = ask->names[ask->camera_count];
    snprintf(place, sizeof ask->names[0], "%.*s", (int)len, name);
    if (len > LIMIT_NAME_BYTES || !name_check("camera", place, NULL))
        return name_check("camera", len > 0 ? name : "", st) &&
               status_fail(st, STATUS_INVALID, "camera name '%.*s' is not valid", (int)len, name);
    for (size_t i = 0; i < ask->camera_count; i++)
        if (strcmp(ask->names[i], place) == 0)
            return status_fail(st, STATUS_INVALID, "camera %s is named twice", place);
    ask->cameras[ask->camera_count++] = place;
    return true;
}

/* What an answer from the others says of those that were stored with other settings. */
static void note_left_out(struct ask *ask, const struct camera_list *list)
{
    char text[LIMIT_STREAMS_PER_QUESTION * LIMIT_NAME_BYTES];
    size_t used = 0, count = 0;

    for (size_t i = 0; i < list->count; i++) {
        if (!camera_has_other_settings(ask->cluster, &list->cameras[i]))
            continue;
        if (used == 0)
            used =
                (size_t)snprintf(text, sizeof text,
                                 "stored with another model, dtype or window than the cluster runs with now, "
                                 "and left out (`%s` tells more):",
                                 cli_hint("cam show NAME"));
        if (used < sizeof text)
            used += (size_t)snprintf(text + used, sizeof text - used, "%s %s", count++ > 0 ? "," : "",
                                     list->cameras[i].name);
    }
    if (used > 0)
        json_append_str(ask->result.notes, text);
}

/* Nothing more comes of these: the answer is from what they showed before, if they showed anything. */
static void note_failed(struct ask *ask, const struct camera_list *list)
{
    char text[2 * STATUS_TEXT_BYTES];

    for (size_t i = 0; i < list->count; i++) {
        if (list->cameras[i].state != REELKV__V1__STREAM_STATE__STREAM_STATE_FAILED)
            continue;
        snprintf(text, sizeof text, "camera %s cannot be read: %s", list->cameras[i].name,
                 list->cameras[i].trouble);
        json_append_str(ask->result.notes, text);
    }
}

static bool refuse_other_settings(const struct ask *ask, const struct camera *camera, struct status *st)
{
    char back[STATUS_TEXT_BYTES];

    other_settings_way_back(cluster_data(ask->cluster), camera->fingerprint, back, sizeof back);
    return status_fail(
        st, STATUS_PRECONDITION,
        "the frames of camera %s were stored with another model, dtype or window than the cluster "
        "runs with now (fingerprint %s): forget it with `%s`, or it waits until %s",
        camera->name, camera->fingerprint, cli_hint("cam rm %s", camera->name), back);
}

/* Its source never gave a frame, or its store has set it aside: a question about it is refused. */
static bool is_out_of_reach(const struct camera *camera)
{
    return camera->state == REELKV__V1__STREAM_STATE__STREAM_STATE_FAILED && camera->stored_frames == 0;
}

static bool add_listed_cameras(struct ask *ask, const struct camera_list *list, bool out_of_reach,
                               struct status *st)
{
    bool ok = true;

    for (size_t i = 0; ok && i < list->count; i++)
        if (!camera_has_other_settings(ask->cluster, &list->cameras[i]) &&
            is_out_of_reach(&list->cameras[i]) == out_of_reach)
            ok = add_camera(ask, list->cameras[i].name, strlen(list->cameras[i].name), st);
    return ok;
}

/* Those out of reach only when there are no others, for qa to say why. */
static bool add_all_cameras(struct ask *ask, struct status *st)
{
    struct camera_list list;
    bool ok = camera_list_read(ask->cluster, ask->options->namespace, &list, st);

    if (ok && list.count == 0)
        ok = status_fail(st, STATUS_NOT_FOUND, "there are no cameras to ask about; `%s`",
                         cli_hint("cam add NAME FILE-OR-URL"));
    ok = ok && add_listed_cameras(ask, &list, false, st) &&
         (ask->camera_count > 0 || add_listed_cameras(ask, &list, true, st));
    if (ok && ask->camera_count == 0)
        ok = refuse_other_settings(ask, &list.cameras[0], st);
    if (ok) {
        note_left_out(ask, &list);
        note_failed(ask, &list);
        camera_list_warn(&list, "left out");
    }
    camera_list_deinit(&list);
    return ok;
}

static bool add_named_cameras(struct ask *ask, struct status *st)
{
    const char *list = ask->options->cam;

    for (;;) {
        size_t len = strcspn(list, ",");

        if (!add_camera(ask, list, len, st))
            return false;
        if (list[len] == '\0')
            return true;
        list += len + 1;
    }
}

static bool read_times(struct ask *ask, struct status *st)
{
    const struct ask_options *options = ask->options;
    int64_t now_ns = clock_utc_ns();

    if (options->from[0] != '\0' && !cli_parse_time(options->from, now_ns, &ask->range.from_ns, st))
        return status_wrap(st, "--from");
    if (options->to[0] != '\0' && !cli_parse_time(options->to, now_ns, &ask->range.to_ns, st))
        return status_wrap(st, "--to");
    if (options->as_of[0] != '\0' && !cli_parse_time(options->as_of, now_ns, &ask->request.as_of_ns, st))
        return status_wrap(st, "--as-of");
    if (ask->range.to_ns != 0 && ask->range.to_ns <= ask->range.from_ns)
        return status_fail(st, STATUS_INVALID, "--to must be later than --from");
    return true;
}

static bool read_selector(const char *text, Reelkv__V1__SelectorKind *kind_p, struct status *st)
{
    static const struct {
        const char *name;
        Reelkv__V1__SelectorKind kind;
    } selectors[] = { { "rekv", REELKV__V1__SELECTOR_KIND__SELECTOR_KIND_REKV },
                      { "recent", REELKV__V1__SELECTOR_KIND__SELECTOR_KIND_RECENT },
                      { "all", REELKV__V1__SELECTOR_KIND__SELECTOR_KIND_ALL } };

    for (size_t i = 0; i < ARRAY_LEN(selectors); i++) {
        if (strcmp(text, selectors[i].name) == 0) {
            *kind_p = selectors[i].kind;
            return true;
        }
    }
    return status_fail(st, STATUS_INVALID, "selector must be rekv, recent or all, not '%s'", text);
}

static Reelkv__V1__Count *count_of(Reelkv__V1__Count *count, uint32_t value, bool said)
{
    reelkv__v1__count__init(count);
    count->value = value;
    return said ? count : NULL;
}

static bool read_recent(struct ask *ask, struct status *st)
{
    const char *text = ask->options->recent;
    char *end;
    unsigned long value = strtoul(text, &end, 10);

    if (text[0] != '\0' && (text[0] < '0' || text[0] > '9' || *end != '\0' || value > LIMIT_RECENT_WINDOW))
        return status_fail(st, STATUS_INVALID, "recent must be 0 to %d, not '%s'", LIMIT_RECENT_WINDOW, text);
    ask->request.recent_window = count_of(&ask->recent_window, (uint32_t)value, text[0] != '\0');
    return true;
}

static bool check_question(const char *question, struct status *st)
{
    size_t len = strlen(question), blank = strspn(question, " \t\r\n");

    if (len == blank)
        return status_fail(st, STATUS_INVALID, "the question is empty");
    if (len > LIMIT_QUESTION_BYTES)
        return status_fail(st, STATUS_INVALID, "the question has %zu bytes, at most %d are taken", len,
                           LIMIT_QUESTION_BYTES);
    return utf8_is_valid(question, len) || status_fail(st, STATUS_INVALID, "the question is not valid UTF-8");
}

static bool make_request(struct ask *ask, const char *question, struct status *st)
{
    const struct ask_options *options = ask->options;
    Reelkv__V1__AskRequest *request = &ask->request;

    reelkv__v1__ask_request__init(request);
    reelkv__v1__time_range__init(&ask->range);
    if (!check_question(question, st) || !name_check("namespace", options->namespace, st) ||
        !read_times(ask, st) || !read_selector(options->selector, &request->selector, st) ||
        !read_recent(ask, st))
        return false;
    request->namespace_ = (char *)options->namespace;
    request->question = (char *)question;
    request->range = options->from[0] != '\0' || options->to[0] != '\0' ? &ask->range : NULL;
    request->top_r = count_of(&ask->top_r, options->top_r, options->top_r > 0);
    request->max_tokens = count_of(&ask->max_tokens, options->max_tokens, options->max_tokens > 0);
    request->layer_lists = options->layers;
    request->thumbnails = options->thumbnails[0] != '\0';
    return options->cam[0] == '\0' || add_named_cameras(ask, st);
}

/* -------------------------------------------------------------------------------------------- the call */

static void cancel(void *user)
{
    rpc_sync_cancel(user);
}

static bool talk(struct ask *ask, struct rpc_sync_stream *stream, struct status *st)
{
    const struct rpc_message *message;

    if (!rpc_sync_write(stream, &ask->request.base, NULL, st) || !rpc_sync_half_close(stream, st))
        return false;
    for (;;) {
        const Reelkv__V1__AskReply *reply;

        if (!rpc_sync_read(stream, &message, st))
            return false;
        if (message == NULL)
            return ask->result.has_end ||
                   status_fail(st, STATUS_INTERNAL, "qa ended the answer without saying that it is whole");
        reply = (const Reelkv__V1__AskReply *)message->body;
        if (reply->item_case == REELKV__V1__ASK_REPLY__ITEM_ANSWER)
            cli_progress_end(&ask->waiting);
        if (!ask_result_take(&ask->result, reply, st))
            return false;
    }
}

static bool ask_worker(struct ask *ask, const struct worker_record *worker, struct status *st)
{
    struct rpc_stream_options options = { .timeout_ms = ask->options->timeout * 1000 };
    struct rpc_sync *sync = cluster_connect(ask->cluster, worker->address, st);
    struct rpc_sync_stream *stream;
    bool ok;

    if (sync == NULL || !rpc_sync_open(&stream, sync, &api_ask, &options, st))
        return false;
    interrupt_watch(ask->interrupt, cancel, stream);
    ok = talk(ask, stream, st);
    interrupt_watch(ask->interrupt, NULL, NULL);
    rpc_sync_stream_destroy(stream);
    if (!ok && interrupt_has_come(ask->interrupt))
        return status_fail(st, STATUS_CANCELLED, "interrupted");
    return ok ||
           (st->code == STATUS_UNAVAILABLE && status_wrap(st, "no answer now, see `%s`", cli_hint("doctor")));
}

/* Another qa is tried only while nothing has been heard of the answer. */
static bool ask_any(struct ask *ask, struct status *st)
{
    const struct directory_view *view = cluster_view(ask->cluster);
    uint32_t first = view->worker_count > 0 ? (uint32_t)(clock_mono_ns() / 1000 % view->worker_count) : 0;
    bool tried = false;

    for (uint32_t i = 0; i < view->worker_count; i++) {
        const struct worker_record *worker = &view->workers[(first + i) % view->worker_count];

        if (worker->kind != WORKER_QA || worker->draining)
            continue;
        tried = true;
        if (ask_worker(ask, worker, st))
            return true;
        if (ask->result.has_evidence || (st->code != STATUS_UNAVAILABLE && st->code != STATUS_EXHAUSTED))
            return false;
    }
    return tried ? false
                 : status_fail(st, STATUS_UNAVAILABLE, "no qa is running to answer; see `%s` and `%s`",
                               cli_hint("node ls"), cli_hint("doctor"));
}

/* A camera of the question that no store says it has; NULL when all are there. */
static const char *unknown_camera(const struct ask *ask)
{
    for (size_t i = 0; i < ask->camera_count; i++)
        if (directory_view_stream(cluster_view(ask->cluster), ask->options->namespace, ask->names[i]) == NULL)
            return ask->names[i];
    return NULL;
}

/* A qa reads the directory once a heartbeat: it may not have heard yet of a camera that was just added, or of any just
 * after it was started, or after the directory was emptied; it says when a retry helps. */
static bool ask_until_heard_of(struct ask *ask, struct status *st)
{
    uint64_t deadline = clock_mono_ns() + HEARD_OF_MS * 1000000ull;

    while (!ask_any(ask, st)) {
        if ((st->code != STATUS_NOT_FOUND && st->retry_after_ms == 0) || ask->result.has_evidence ||
            clock_mono_ns() > deadline)
            return false;
        if (st->code == STATUS_NOT_FOUND && unknown_camera(ask) != NULL)
            return status_fail(st, STATUS_NOT_FOUND, "there is no camera '%s'; `%s` lists them",
                               unknown_camera(ask), cli_hint("cam ls"));
        usleep(AGAIN_MS * 1000);
    }
    return true;
}

/* When nobody named a time, none is to blame: the cameras have nothing yet. Of what was evicted qa has told. */
static void explain_nothing(struct ask *ask, struct status *st)
{
    struct camera *camera = calloc(1, sizeof *camera);
    bool all_there = ask->request.range == NULL && ask->request.as_of_ns == 0;
    size_t used = strlen(st->text);

    REQUIRE(camera != NULL);
    for (size_t i = 0; all_there && i < ask->camera_count; i++)
        all_there = camera_get(ask->cluster, ask->options->namespace, ask->names[i], camera, NULL) &&
                    camera->evicted_frames == 0;
    if (all_there && ask->camera_count > 1)
        status_fail(st, STATUS_OUT_OF_RANGE, "nothing of these cameras is stored yet; see `%s`",
                    cli_hint("cam ls"));
    else if (all_there && camera->trouble[0] != '\0')
        status_fail(st, STATUS_OUT_OF_RANGE, "camera %s has nothing to ask about: %s", camera->name,
                    camera->trouble);
    else if (all_there && camera->stored_frames > 0)
        status_fail(
            st, STATUS_OUT_OF_RANGE,
            "of camera %s no frame can be read any more that a question could use (aged to keys and thumbnails, "
            "or damaged); `%s` says how it is",
            camera->name, cli_hint("cam show %s", camera->name));
    else if (all_there)
        status_fail(st, STATUS_OUT_OF_RANGE, "nothing of camera %s is stored yet; `%s` says how it is",
                    camera->name, cli_hint("cam show %s", camera->name));
    else
        snprintf(st->text + used, sizeof st->text - used, "; see what there is with `%s`",
                 cli_hint("mem ls"));
    free(camera);
}

/* A store says which fingerprints do not fit; what to do about it is ours to say. */
static void explain_settings(struct ask *ask, struct status *st)
{
    struct camera *camera = calloc(1, sizeof *camera);

    REQUIRE(camera != NULL);
    for (size_t i = 0; i < ask->camera_count; i++)
        if (camera_get(ask->cluster, ask->options->namespace, ask->names[i], camera, NULL) &&
            camera_has_other_settings(ask->cluster, camera)) {
            refuse_other_settings(ask, camera, st);
            break;
        }
    free(camera);
}

static bool run_question(struct ask *ask, const char *question, struct status *st)
{
    const struct ask_options *options = ask->options;

    if (options->layers && ask->result.prints_text)
        return status_fail(st, STATUS_INVALID, "--layers needs --json: the table does not show them");
    if (!make_request(ask, question, st))
        return false;
    if (ask->result.thumbnails != NULL && !file_make_folders(ask->result.thumbnails, st))
        return status_wrap(st, "--thumbnails");
    if (!cluster_open_for(&ask->cluster, CLUSTER_NEEDS_STORES_AND_QAS, options->data, options->redis, st) ||
        (options->cam[0] == '\0' && !add_all_cameras(ask, st)))
        return false;
    ask->request.streams = ask->cameras;
    ask->request.n_streams = ask->camera_count;
    ask->result.cameras = (const char *const *)ask->cameras;
    ask->result.camera_count = ask->camera_count;
    if (ask->result.prints_text)
        cli_progress_say(&ask->waiting, "asking ...");
    if (ask_until_heard_of(ask, st))
        return true;
    if (st->code == STATUS_OUT_OF_RANGE)
        explain_nothing(ask, st);
    if (st->code == STATUS_PRECONDITION)
        explain_settings(ask, st);
    return false;
}

static enum cli_exit run_ask(const struct cli_run *run)
{
    struct ask *ask = calloc(1, sizeof *ask);
    struct status st = { 0 };
    bool ok;

    REQUIRE(ask != NULL);
    ask->options = run->options;
    ask->interrupt = interrupt_create();
    ask_result_init(&ask->result);
    ask->result.prints_text = !run->json;
    ask->result.thumbnails = ask->options->thumbnails[0] != '\0' ? ask->options->thumbnails : NULL;
    ok = run_question(ask, run->arguments[0], &st);
    cli_progress_end(&ask->waiting);
    if (ok && run->json)
        ask_result_print_json(&ask->result);
    else if (ok)
        ask_result_print(&ask->result);
    else if (json_len(ask->result.answer_parts) > 0 && !run->json)
        printf("\n");
    ask_result_deinit(&ask->result);
    cluster_close(ask->cluster);
    interrupt_destroy(ask->interrupt);
    free(ask);
    return ok ? CLI_OK : cli_fail(&st, run->json);
}

const struct cli_command cli_ask = {
    .path = "ask",
    .group = "Questions",
    .table = { .program = "reelkv ask",
               .summary = "ask about what cameras saw",
               .arguments = "\"QUESTION\"",
               .arguments_min = 1,
               .arguments_max = 1,
               .rows = rows,
               .count = ARRAY_LEN(rows) },
    .options_bytes = sizeof(struct ask_options),
    .run = run_ask,
};
