/* mem import: a camera from a file that mem export wrote, whole or not at all. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/name.h"
#include "base/require.h"
#include "camera.h"
#include "cli_cluster.h"
#include "cli_command.h"
#include "cli_hint.h"
#include "export_file.h"
#include "interrupt.h"
#include "kv/kv_format.h"
#include "other_settings.h"
#include "reelkv/v1/kvstore.pb-c.h"

#define MEM_IMPORT_OPTIONS(OPT)                                                            \
    CLI_STREAM_OPTIONS(OPT)                                                                \
    OPT(as, STR, "", "0", "63", "its name here; '': the one it had")                       \
    OPT(check, BOOL, "false", "", "",                                                      \
        "import nothing: read the file to its end and tell what it has; needs no cluster") \
    CLI_TIMEOUT_OPTION(OPT)

enum { NAME_AGAIN_MS = 200 };

struct mem_import_options {
    MEM_IMPORT_OPTIONS(OPTION_FIELD)
};
static const struct option_row rows[] = {
#define ROW(...) OPTION_ROW(mem_import_options, __VA_ARGS__),
    MEM_IMPORT_OPTIONS(ROW)
#undef ROW
};

struct importing {
    struct export_reader reader;
    struct cli_progress progress;
    Reelkv__V1__ExportHead *head; /* of the file; unpacked */
    const char *name;
    const struct worker_record *store;
    struct interrupt *interrupt;
    uint8_t *chunk;
    uint64_t frames;
    bool has_end;
    bool is_asked; /* all has been sent: the store makes it a camera */
};

static bool misfits(const struct importing *importing, const char *what, struct status *st)
{
    return status_fail(st, STATUS_DATA_LOSS, "%s is damaged before byte %llu: %s", importing->reader.path,
                       (unsigned long long)importing->reader.at, what);
}

static bool read_head(struct importing *importing, struct status *st)
{
    struct export_reader *reader = &importing->reader;
    uint64_t payload_bytes;
    enum export_kind kind;

    if (!export_reader_item(reader, &kind, &payload_bytes, st))
        return false;
    if (kind == EXPORT_HEAD && payload_bytes == 0)
        importing->head = reelkv__v1__export_head__unpack(NULL, reader->message_bytes, reader->message);
    if (importing->head == NULL || importing->head->definition == NULL ||
        importing->head->definition->id == NULL)
        return misfits(importing, "it does not begin with whose it is", st);
    return true;
}

/* --- sending, or only checking: without a call --- */

static bool put(struct rpc_sync_stream *call, const Reelkv__V1__AppendRequest *request,
                const struct rpc_attachment *attachment, struct status *st)
{
    return call == NULL || rpc_sync_write(call, &request->base, attachment, st);
}

static bool send_payload(struct importing *importing, struct rpc_sync_stream *call, uint64_t bytes,
                         struct status *st)
{
    while (bytes > 0) {
        Reelkv__V1__AppendRequest request = REELKV__V1__APPEND_REQUEST__INIT;
        Reelkv__V1__Chunk chunk = REELKV__V1__CHUNK__INIT;
        struct rpc_attachment attachment = { .data = importing->chunk,
                                             .len = bytes < LIMIT_CHUNK_BYTES ? bytes : LIMIT_CHUNK_BYTES };

        request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_CHUNK;
        request.chunk = &chunk;
        if (!export_reader_payload(&importing->reader, importing->chunk, attachment.len, st) ||
            !put(call, &request, &attachment, st))
            return false;
        bytes -= attachment.len;
    }
    return true;
}

static bool send_block(struct importing *importing, struct rpc_sync_stream *call, uint64_t payload_bytes,
                       struct status *st)
{
    Reelkv__V1__AppendRequest request = REELKV__V1__APPEND_REQUEST__INIT;
    Reelkv__V1__Block *block =
        reelkv__v1__block__unpack(NULL, importing->reader.message_bytes, importing->reader.message);
    bool ok;

    if (block == NULL || block->payload_bytes != payload_bytes) {
        if (block != NULL)
            reelkv__v1__block__free_unpacked(block, NULL);
        return misfits(importing, "a block is none", st);
    }
    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_BLOCK;
    request.block = block;
    ok = put(call, &request, NULL, st) && send_payload(importing, call, payload_bytes, st);
    if (block->kind == REELKV__V1__BLOCK_KIND__BLOCK_KIND_FRAME)
        cli_progress_draw(&importing->progress, call == NULL ? "checking, frames" : "importing, frames",
                          ++importing->frames, importing->head->frames);
    reelkv__v1__block__free_unpacked(block, NULL);
    return ok;
}

static bool send_gap(struct importing *importing, struct rpc_sync_stream *call, struct status *st)
{
    Reelkv__V1__AppendRequest request = REELKV__V1__APPEND_REQUEST__INIT;
    bool ok;

    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_GAP;
    request.gap =
        reelkv__v1__append_gap__unpack(NULL, importing->reader.message_bytes, importing->reader.message);
    if (request.gap == NULL)
        return misfits(importing, "a gap is none", st);
    ok = put(call, &request, NULL, st);
    reelkv__v1__append_gap__free_unpacked(request.gap, NULL);
    return ok;
}

static bool send_end(struct importing *importing, struct rpc_sync_stream *call, struct status *st)
{
    Reelkv__V1__AppendRequest request = REELKV__V1__APPEND_REQUEST__INIT;
    bool ok;

    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_END;
    request.end =
        reelkv__v1__append_end__unpack(NULL, importing->reader.message_bytes, importing->reader.message);
    if (request.end == NULL)
        return misfits(importing, "its end is none", st);
    importing->has_end = true;
    ok = put(call, &request, NULL, st);
    reelkv__v1__append_end__free_unpacked(request.end, NULL);
    return ok;
}

/* The call is half-closed, which makes the camera seen, only after the whole file has been found sound. */
static bool send_all(struct importing *importing, struct rpc_sync_stream *call, struct status *st)
{
    for (;;) {
        uint64_t payload_bytes;
        enum export_kind kind;
        bool ok;

        if (call == NULL && interrupt_has_come(importing->interrupt))
            return status_fail(st, STATUS_CANCELLED, "interrupted");
        if (!export_reader_item(&importing->reader, &kind, &payload_bytes, st))
            return false;
        if (kind == 0)
            break;
        if (importing->has_end || (kind != EXPORT_BLOCK && payload_bytes > 0))
            return misfits(importing, "something comes where nothing may", st);
        switch (kind) {
        case EXPORT_BLOCK:
            ok = send_block(importing, call, payload_bytes, st);
            break;
        case EXPORT_GAP:
            ok = send_gap(importing, call, st);
            break;
        case EXPORT_END:
            ok = send_end(importing, call, st);
            break;
        default:
            ok = misfits(importing, "an item is of no kind that this version knows", st);
        }
        if (!ok)
            return false;
    }
    if (!importing->has_end)
        return misfits(importing, "it has no end", st);
    importing->is_asked = true;
    return call == NULL || rpc_sync_finish(call, st);
}

static bool begin(const struct importing *importing, struct rpc_sync_stream *call, const char *ns,
                  struct status *st)
{
    Reelkv__V1__AppendRequest request = REELKV__V1__APPEND_REQUEST__INIT;
    Reelkv__V1__AppendBegin begin = REELKV__V1__APPEND_BEGIN__INIT;
    Reelkv__V1__StreamId id = REELKV__V1__STREAM_ID__INIT;

    id.namespace_ = (char *)(uintptr_t)ns;
    id.name = (char *)(uintptr_t)importing->name;
    begin.id = &id;
    begin.import = importing->head;
    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_BEGIN;
    request.begin = &begin;
    return rpc_sync_write(call, &request.base, NULL, st);
}

/* --- the verb --- */

static void cancel(void *user)
{
    rpc_sync_cancel(user);
}

/* The end of a call of which the store did not tell the end. */
static bool say_cut(const struct importing *importing, enum status_code code, const char *how,
                    struct status *st)
{
    if (importing->is_asked)
        return status_fail(st, code, "%s; whether it was imported all the same, `%s` tells", how,
                           cli_hint("cam ls"));
    return status_fail(st, code, "%s; nothing was imported", how);
}

static bool send_once(struct importing *importing, struct rpc_sync *sync, const char *ns,
                      uint64_t deadline_ns, struct status *st)
{
    const struct rpc_stream_options options = { .timeout_ms = cluster_left_ms(deadline_ns) };
    struct rpc_sync_stream *call;
    bool ok;

    if (!rpc_sync_open(&call, sync, &api_append, &options, st))
        return false;
    interrupt_watch(importing->interrupt, cancel, call);
    ok = begin(importing, call, ns, st) && send_all(importing, call, st);
    interrupt_watch(importing->interrupt, NULL, NULL);
    rpc_sync_stream_destroy(call);
    return ok;
}

/* To the first item behind the head. */
static bool rewind_file(struct importing *importing, struct status *st)
{
    const char *path = importing->reader.path;
    uint64_t payload_bytes;
    enum export_kind kind;

    export_reader_deinit(&importing->reader);
    importing->frames = 0;
    importing->has_end = importing->is_asked = false;
    return export_reader_begin(&importing->reader, path, st) &&
           export_reader_item(&importing->reader, &kind, &payload_bytes, st);
}

/* One of this name is still being removed: an import that failed just now, perhaps. */
static bool waits_for_name(struct importing *importing, uint64_t deadline_ns, const struct status *st)
{
    const struct timespec pause = { .tv_nsec = NAME_AGAIN_MS * 1000000 };

    if (st->code != STATUS_ABORTED || interrupt_has_come(importing->interrupt))
        return false;
    cli_progress_say(&importing->progress, "waiting until what had its name is removed");
    nanosleep(&pause, NULL);
    return clock_mono_ns() < deadline_ns;
}

static bool send(struct importing *importing, struct cluster *cluster,
                 const struct mem_import_options *options, struct status *st)
{
    uint64_t deadline_ns = cluster_deadline(options->timeout);
    struct rpc_sync *sync;
    char late[32];
    bool ok;

    importing->store = cluster_store_of(cluster, options->namespace, importing->name, st);
    sync = importing->store == NULL ? NULL : cluster_connect(cluster, importing->store->address, st);
    if (sync == NULL)
        return false;
    for (;;) {
        ok = send_once(importing, sync, options->namespace, deadline_ns, st);
        if (ok || !waits_for_name(importing, deadline_ns, st))
            break;
        if (!rewind_file(importing, st))
            return false;
    }
    if (!ok && interrupt_has_come(importing->interrupt))
        return say_cut(importing, STATUS_CANCELLED, "interrupted", st);
    if (!ok && (st->code == STATUS_DEADLINE || st->code == STATUS_ABORTED)) {
        snprintf(late, sizeof late, "not done in %u s", options->timeout);
        return say_cut(importing, STATUS_DEADLINE, late, st);
    }
    if (!ok && st->code == STATUS_EXISTS)
        return status_fail(st, STATUS_EXISTS,
                           "there is a camera '%s' already; give it another name with --as", importing->name);
    return ok || cluster_blame(importing->store, st);
}

static bool check(struct importing *importing, struct status *st)
{
    if (importing->head->fingerprint.len != KV_FINGERPRINT_BYTES)
        return misfits(importing, "its fingerprint is none", st);
    return send_all(importing, NULL, st);
}

static void print_result(const struct importing *importing, const char *ns, bool as_json)
{
    struct json *value;

    if (!as_json) {
        printf("Camera %s imported: %llu frames, kept by %s.\n", importing->name,
               (unsigned long long)importing->frames, importing->store->name);
        return;
    }
    value = json_make_object();
    json_set_str(value, "namespace", ns);
    json_set_str(value, "name", importing->name);
    json_set_str(value, "store", importing->store->name);
    json_set_u64(value, "frames", importing->frames);
    json_set_u64(value, "bytes", importing->reader.sum.payload_bytes);
    cli_print_json(value);
}

static void print_checked(const struct importing *importing, bool as_json)
{
    const Reelkv__V1__ExportHead *head = importing->head;
    const Reelkv__V1__StreamId *id = head->definition->id;
    char fingerprint[2 * KV_FINGERPRINT_BYTES + 1];
    struct json *value;

    if (!as_json) {
        printf("%s is whole: %llu frames, %s, of camera %s (namespace %s), exported %s.\n",
               importing->reader.path, (unsigned long long)importing->frames,
               cli_bytes(importing->reader.sum.file_bytes), id->name, id->namespace_,
               cli_time(head->exported_ns));
        return;
    }
    hex_write(head->fingerprint.data, KV_FINGERPRINT_BYTES, fingerprint);
    value = json_make_object();
    json_set_str(value, "namespace", id->namespace_);
    json_set_str(value, "name", id->name);
    json_set_u64(value, "frames", importing->frames);
    json_set_u64(value, "bytes", importing->reader.sum.payload_bytes);
    json_set_u64(value, "file_bytes", importing->reader.sum.file_bytes);
    json_set_str(value, "fingerprint", fingerprint);
    json_set_str(value, "exported", cli_rfc3339(head->exported_ns));
    cli_print_json(value);
}

/* What it was stored with says its fingerprint alone; questions need the same. */
static void warn_of_settings(const struct importing *importing, struct cluster *cluster, const char *ns)
{
    struct camera *camera = calloc(1, sizeof *camera);
    char way_back[4 * CLUSTER_PATH_BYTES];

    REQUIRE(camera != NULL);
    if (camera_get(cluster, ns, importing->name, camera, NULL) &&
        camera_has_other_settings(cluster, camera)) {
        other_settings_way_back(cluster_data(cluster), camera->fingerprint, way_back, sizeof way_back);
        fprintf(stderr,
                "reelkv: it was stored with another model, dtype or window than the cluster runs with now "
                "(fingerprint %s): it cannot be asked about until %s\n",
                camera->fingerprint, way_back);
    }
    free(camera);
}

static enum cli_exit run_mem_import(const struct cli_run *run)
{
    const struct mem_import_options *options = run->options;
    struct importing importing = { .chunk = malloc(LIMIT_CHUNK_BYTES), .interrupt = interrupt_create() };
    struct cluster *cluster = NULL;
    struct status st = { 0 };
    bool ok;

    REQUIRE(importing.chunk != NULL);
    ok = export_reader_begin(&importing.reader, run->arguments[0], &st) && read_head(&importing, &st);
    if (ok)
        importing.name = options->as[0] != '\0' ? options->as : importing.head->definition->id->name;
    if (ok && options->check)
        ok = check(&importing, &st);
    else
        ok = ok && name_check("camera", importing.name, &st) &&
             name_check("namespace", options->namespace, &st) &&
             cluster_open(&cluster, options->data, options->redis, &st) &&
             send(&importing, cluster, options, &st);
    cli_progress_end(&importing.progress);
    interrupt_destroy(importing.interrupt);
    if (ok && options->check)
        print_checked(&importing, run->json);
    else if (ok)
        print_result(&importing, options->namespace, run->json);
    if (ok && !options->check)
        warn_of_settings(&importing, cluster, options->namespace);
    cluster_close(cluster);
    export_reader_deinit(&importing.reader);
    if (importing.head != NULL)
        reelkv__v1__export_head__free_unpacked(importing.head, NULL);
    free(importing.chunk);
    return ok ? CLI_OK : cli_fail(&st, run->json);
}

const struct cli_command cli_mem_import = {
    .path = "mem import",
    .group = "What is stored",
    .table = { .program = "reelkv mem import",
               .summary = "a camera from such a file, whole or not at all",
               .arguments = "FILE",
               .arguments_min = 1,
               .arguments_max = 1,
               .rows = rows,
               .count = ARRAY_LEN(rows) },
    .options_bytes = sizeof(struct mem_import_options),
    .run = run_mem_import,
};
