/* cam add, cam rm: which cameras there are. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/name.h"
#include "base/require.h"
#include "camera.h"
#include "cli_command.h"
#include "cli_hint.h"
#include "media/media_sampling.h"
#include "media/media_url.h"
#include "reelkv/v1/catalog.pb-c.h"

/* ----------------------------------------------------------------------------------------------- add */

#define CAM_ADD_OPTIONS(OPT)                                                                           \
    CLI_STREAM_OPTIONS(OPT)                                                                            \
    OPT(fps, F64, "0", "0", "60",                                                                      \
        "frames a second to remember; 0: what the cluster's model advises, else 0.5")                  \
    OPT(start_time, STR, "", "0", "40",                                                                \
        "of a file's first frame: 2026-11-21T14:05:00Z; '': the file's own date")                      \
    OPT(class, STR, "", "0", "63", "how its frames age: a class of the store's --ageing; '': default") \
    OPT(live, BOOL, "false", "", "", "the source goes on for ever, whatever its name says")

struct cam_add_options {
    CAM_ADD_OPTIONS(OPTION_FIELD)
};
static const struct option_row add_rows[] = {
#define ROW(...) OPTION_ROW(cam_add_options, __VA_ARGS__),
    CAM_ADD_OPTIONS(ROW)
#undef ROW
};

struct source {
    char url[LIMIT_URL_BYTES + 1];
    bool is_live;
    bool is_elsewhere; /* a path that only the machine of an encoder can check */
    int64_t start_time_ns;
};

/* "rtsp:/user:password@host" would be looked for on the disk, and told as it is. */
static bool lacks_slashes(const char *source)
{
#define BEGINNING(scheme, live) scheme ":",
    static const char *const beginnings[] = { MEDIA_URL_SCHEMES(BEGINNING) };
#undef BEGINNING

    for (size_t i = 0; i < ARRAY_LEN(beginnings); i++)
        if (strncasecmp(source, beginnings[i], strlen(beginnings[i])) == 0)
            return strncmp(source + strlen(beginnings[i]), "//", 2) != 0;
    return false;
}

static bool take_path(struct source *source, const char *path, struct status *st)
{
    return text_copy(source->url, sizeof source->url, path) ||
           status_fail(st, STATUS_INVALID, "the path of the video is longer than %d bytes", LIMIT_URL_BYTES);
}

/* The encoders of a cluster found by --redis may be on another machine: a path that names nothing here may be one there. */
static bool check_file(const char *path, bool may_be_elsewhere, struct source *source, struct status *st)
{
    struct stat info;
    char *full = realpath(path, NULL), shown[LIMIT_URL_BYTES + 1];
    bool fits;

    if (full == NULL && errno == ENOENT && may_be_elsewhere && path[0] == '/') {
        source->is_elsewhere = true;
        source->start_time_ns = clock_utc_ns();
        return take_path(source, path, st);
    }
    if (full == NULL) {
        text_show(path, shown, sizeof shown); /* user:password@host/live */
        return status_fail(st, status_code_of_errno(errno), "video %s: %m%s", shown,
                           may_be_elsewhere ? "; name a file of the encoder's machine by its whole path"
                                            : "");
    }
    fits = take_path(source, full, st);
    free(full);
    if (!fits)
        return false;
    if (stat(source->url, &info) != 0 || access(source->url, R_OK) != 0)
        return status_fail(st, status_code_of_errno(errno), "video %s: %m", source->url);
    if (S_ISDIR(info.st_mode))
        return status_fail(st, STATUS_INVALID, "%s is a folder; name a video file or a URL", source->url);
    if (!S_ISREG(info.st_mode))
        return status_fail(st, STATUS_INVALID, "%s is not a regular file; name a video file or a URL",
                           source->url);
    if (info.st_size == 0)
        return status_fail(st, STATUS_INVALID, "%s is empty", source->url);
    source->start_time_ns = (int64_t)info.st_mtim.tv_sec * 1000000000 + info.st_mtim.tv_nsec;
    return true;
}

static bool read_source(const struct cam_add_options *options, const char *text, struct source *source,
                        struct status *st)
{
    bool is_url = strstr(text, "://") != NULL && strncmp(text, "file://", 7) != 0;

    memset(source, 0, sizeof *source);
    if (text[0] == '\0')
        return status_fail(st, STATUS_INVALID, "the source is empty; name a video file or a URL");
    if (options->fps > 0 && options->fps < MEDIA_SAMPLE_FPS_MIN)
        return status_fail(st, STATUS_INVALID, "fps must be %g to %g, not %g", MEDIA_SAMPLE_FPS_MIN,
                           MEDIA_SAMPLE_FPS_MAX, options->fps);
    if (lacks_slashes(text))
        return status_fail(
            st, STATUS_INVALID,
            "a URL has two slashes, as in rtsp://host/path; a file of such a name wants ./ before it");
    if (!is_url && !check_file(strncmp(text, "file://", 7) == 0 ? text + 7 : text, options->redis[0] != '\0',
                               source, st))
        return false;
    if (is_url && !media_url_check(text, st))
        return false;
    if (is_url && !text_copy(source->url, sizeof source->url, text))
        return status_fail(st, STATUS_INVALID, "the URL is longer than %d bytes", LIMIT_URL_BYTES);
    source->is_live = options->live || media_url_is_live(text);
    if (source->is_live && options->start_time[0] != '\0')
        return status_fail(st, STATUS_INVALID,
                           "a live source has the times at which frames arrive; leave "
                           "--start-time away");
    if (source->is_live)
        source->start_time_ns = 0;
    else if (is_url)
        source->start_time_ns = clock_utc_ns();
    return options->start_time[0] == '\0' ||
           cli_parse_time(options->start_time, clock_utc_ns(), &source->start_time_ns, st) ||
           status_wrap(st, "--start-time");
}

static bool create(struct cluster *cluster, const struct cam_add_options *options, const char *name,
                   const struct source *source, struct camera *camera, struct status *st)
{
    Reelkv__V1__StreamId id = REELKV__V1__STREAM_ID__INIT;
    Reelkv__V1__StreamDefinition definition = REELKV__V1__STREAM_DEFINITION__INIT;
    Reelkv__V1__CreateStreamRequest request = REELKV__V1__CREATE_STREAM_REQUEST__INIT;
    const struct worker_record *store = cluster_store_of(cluster, options->namespace, name, st);
    struct rpc_sync_stream *call;
    const ProtobufCMessage *reply;
    bool ok;

    if (store == NULL)
        return false;
    id.namespace_ = (char *)options->namespace;
    id.name = (char *)name;
    definition.id = &id;
    definition.source = (char *)source->url;
    definition.kind = source->is_live ? REELKV__V1__SOURCE_KIND__SOURCE_KIND_LIVE
                                      : REELKV__V1__SOURCE_KIND__SOURCE_KIND_FILE;
    definition.sample_fps = options->fps;
    definition.class_ = (char *)options->class;
    definition.start_time_ns = source->start_time_ns;
    request.definition = &definition;
    ok = cluster_call(cluster, store, &api_create_stream, &request.base, &call, &reply, st);
    if (ok)
        camera_from_reply(reply, camera);
    else if (st->code == STATUS_EXISTS)
        status_fail(st, STATUS_EXISTS, "there is a camera '%s' already; choose another name, or `%s`", name,
                    cli_hint("cam rm %s", name));
    rpc_sync_stream_destroy(call);
    return ok || cluster_blame(store, st);
}

static void warn_elsewhere(const struct cam_add_options *options, const struct source *source)
{
    char shown[sizeof source->url];

    text_copy(shown, sizeof shown, source->url);
    fprintf(stderr, "reelkv: %s is not on this machine: the encoder must be able to read it on its own%s\n",
            cli_make_safe(shown),
            options->start_time[0] == '\0' && !source->is_live
                ? "; its first frame has the time of now, --start-time names another"
                : "");
}

static enum cli_exit run_add(const struct cli_run *run)
{
    const struct cam_add_options *options = run->options;
    const char *name = run->arguments[0];
    struct cluster *cluster = NULL;
    struct status st = { 0 };
    struct source source;
    struct camera camera;
    bool ok;

    ok = name_check("camera", name, &st) && name_check("namespace", options->namespace, &st) &&
         read_source(options, run->arguments[1], &source, &st) &&
         cluster_open(&cluster, options->data, options->redis, &st) &&
         create(cluster, options, name, &source, &camera, &st);
    cluster_close(cluster);
    if (!ok)
        return cli_fail(&st, run->json);
    if (source.is_elsewhere)
        warn_elsewhere(options, &source);
    if (run->json)
        cli_print_json(camera_to_json(&camera));
    else
        printf("Camera %s added: %s, %g frames/s, kept by %s. `%s` %s.\n", name, camera.source,
               camera.sample_fps, camera.store, cli_hint("cam %s %s", camera.is_live ? "show" : "wait", name),
               camera.is_live ? "says how it is" : "waits for it");
    return CLI_OK;
}

const struct cli_command cli_cam_add = {
    .path = "cam add",
    .group = "Cameras",
    .table = { .program = "reelkv cam add",
               .summary = "watch a video file, or a camera by its URL",
               .arguments = "NAME SOURCE",
               .arguments_min = 2,
               .arguments_max = 2,
               .rows = add_rows,
               .count = ARRAY_LEN(add_rows) },
    .options_bytes = sizeof(struct cam_add_options),
    .run = run_add,
};

/* ------------------------------------------------------------------------------------------------ rm */

struct cam_rm_options {
    CLI_STREAM_OPTIONS(OPTION_FIELD)
};
static const struct option_row rm_rows[] = {
#define ROW(...) OPTION_ROW(cam_rm_options, __VA_ARGS__),
    CLI_STREAM_OPTIONS(ROW)
#undef ROW
};

static bool forget(struct cluster *cluster, const char *ns, const char *name, uint64_t *frames_p,
                   uint64_t *bytes_p, struct status *st)
{
    Reelkv__V1__StreamId id = REELKV__V1__STREAM_ID__INIT;
    Reelkv__V1__DeleteStreamRequest request = REELKV__V1__DELETE_STREAM_REQUEST__INIT;
    const struct worker_record *store;
    struct rpc_sync_stream *call;
    const ProtobufCMessage *reply;
    struct camera camera;
    bool ok;

    if (!camera_find(cluster, ns, name, &camera, &store, st))
        return false;
    id.namespace_ = (char *)ns;
    id.name = (char *)name;
    request.id = &id;
    ok = cluster_call(cluster, store, &api_delete_stream, &request.base, &call, &reply, st);
    if (ok) {
        *frames_p = ((const Reelkv__V1__DeleteStreamReply *)reply)->frames;
        *bytes_p = ((const Reelkv__V1__DeleteStreamReply *)reply)->bytes;
    }
    rpc_sync_stream_destroy(call);
    return ok || cluster_blame(store, st);
}

static enum cli_exit run_rm(const struct cli_run *run)
{
    const struct cam_rm_options *options = run->options;
    const char *name = run->arguments[0];
    struct cluster *cluster = NULL;
    uint64_t frames = 0, bytes = 0;
    struct status st = { 0 };
    struct json *value;
    bool ok;

    ok = cluster_open(&cluster, options->data, options->redis, &st) &&
         forget(cluster, options->namespace, name, &frames, &bytes, &st);
    cluster_close(cluster);
    if (!ok)
        return cli_fail(&st, run->json);
    if (!run->json) {
        printf("Camera %s removed with all it saw: %llu frames, %s.\n", name, (unsigned long long)frames,
               cli_bytes(bytes));
        return CLI_OK;
    }
    value = json_make_object();
    json_set_str(value, "name", name);
    json_set_u64(value, "frames", frames);
    json_set_u64(value, "bytes", bytes);
    cli_print_json(value);
    return CLI_OK;
}

const struct cli_command cli_cam_rm = {
    .path = "cam rm",
    .group = "Cameras",
    .table = { .program = "reelkv cam rm",
               .summary = "stop watching, and forget all it saw",
               .arguments = "NAME",
               .arguments_min = 1,
               .arguments_max = 1,
               .rows = rm_rows,
               .count = ARRAY_LEN(rm_rows) },
    .options_bytes = sizeof(struct cam_rm_options),
    .run = run_rm,
};
