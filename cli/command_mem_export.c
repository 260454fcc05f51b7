/* mem export: what a camera saw, as one file that another cluster can take in. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/name.h"
#include "base/require.h"
#include "camera.h"
#include "cli_command.h"
#include "cli_hint.h"
#include "export_file.h"
#include "interrupt.h"
#include "reelkv/v1/kvstore.pb-c.h"

#define MEM_EXPORT_OPTIONS(OPT)                                                      \
    CLI_STREAM_OPTIONS(OPT)                                                          \
    OPT(from, STR, "", "0", "40", "only what was seen since this time")              \
    OPT(to, STR, "", "0", "40", "only what was seen before this time")               \
    OPT(output, STR, "", "0", "3800", "the file to write; '': CAMERA.kvexport here") \
    CLI_TIMEOUT_OPTION(OPT)

struct mem_export_options {
    MEM_EXPORT_OPTIONS(OPTION_FIELD)
};
static const struct option_row rows[] = {
#define ROW(...) OPTION_ROW(mem_export_options, __VA_ARGS__),
    MEM_EXPORT_OPTIONS(ROW)
#undef ROW
};

struct exporting {
    struct export_writer writer;
    struct cli_progress progress;
    uint64_t frames, gap_frames, expected_frames;
    int64_t first_pts_ns, last_pts_ns;
    bool has_end;
};

static bool read_times(const struct mem_export_options *options, Reelkv__V1__TimeRange *range,
                       struct status *st)
{
    int64_t now = clock_utc_ns();

    if (options->from[0] != '\0' && !cli_parse_time(options->from, now, &range->from_ns, st))
        return status_wrap(st, "--from");
    if (options->to[0] != '\0' && !cli_parse_time(options->to, now, &range->to_ns, st))
        return status_wrap(st, "--to");
    return range->to_ns == 0 || range->from_ns < range->to_ns ||
           status_fail(st, STATUS_INVALID, "--from must be before --to");
}

/* --- what comes --- */

static bool write_item(struct exporting *exporting, enum export_kind kind, const ProtobufCMessage *message,
                       const Reelkv__V1__Block *block, struct status *st)
{
    size_t len = protobuf_c_message_get_packed_size(message);
    uint8_t *bytes;
    bool ok;

    if (len > EXPORT_MESSAGE_BYTES_MAX)
        return status_fail(st, STATUS_EXHAUSTED, "the store sent a message of %zu bytes", len);
    bytes = malloc(len + 1);
    REQUIRE(bytes != NULL);
    protobuf_c_message_pack(message, bytes);
    ok = export_writer_item(&exporting->writer, kind, bytes, len, block == NULL ? 0 : block->payload_bytes,
                            block == NULL ? 0 : block->payload_crc32c, st);
    free(bytes);
    return ok;
}

static bool take_block(struct exporting *exporting, const Reelkv__V1__Block *block, struct status *st)
{
    if (block->kind == REELKV__V1__BLOCK_KIND__BLOCK_KIND_FRAME) {
        if (exporting->frames++ == 0)
            exporting->first_pts_ns = block->pts_ns;
        exporting->last_pts_ns = block->pts_ns;
        cli_progress_draw(&exporting->progress, "exporting, frames", exporting->frames,
                          exporting->expected_frames);
    }
    return write_item(exporting, EXPORT_BLOCK, &block->base, block, st);
}

static bool take_chunk(struct exporting *exporting, const struct rpc_payload *payload, struct status *st)
{
    bool ok = payload->len <= exporting->writer.payload_left ||
              status_fail(st, STATUS_DATA_LOSS, "the store sent more of a block than it said");

    for (uint32_t i = 0; ok && i < payload->piece_count; i++)
        ok = export_writer_payload(&exporting->writer, payload->pieces[i].data, payload->pieces[i].len, st);
    return ok;
}

static bool take_reply(struct exporting *exporting, const struct rpc_message *message, struct status *st)
{
    const Reelkv__V1__ExportReply *reply = (const Reelkv__V1__ExportReply *)message->body;
    bool is_chunk = reply->item_case == REELKV__V1__EXPORT_REPLY__ITEM_CHUNK;

    if (exporting->has_end || is_chunk != (exporting->writer.payload_left > 0))
        return status_fail(st, STATUS_DATA_LOSS,
                           "the store sent what does not follow on what it sent before");
    switch (reply->item_case) {
    case REELKV__V1__EXPORT_REPLY__ITEM_HEAD:
        exporting->expected_frames = reply->head->frames;
        return write_item(exporting, EXPORT_HEAD, &reply->head->base, NULL, st);
    case REELKV__V1__EXPORT_REPLY__ITEM_BLOCK:
        return take_block(exporting, reply->block, st);
    case REELKV__V1__EXPORT_REPLY__ITEM_GAP:
        exporting->gap_frames += reply->gap->to_seq - reply->gap->from_seq;
        return write_item(exporting, EXPORT_GAP, &reply->gap->base, NULL, st);
    case REELKV__V1__EXPORT_REPLY__ITEM_END:
        exporting->has_end = true;
        return write_item(exporting, EXPORT_END, &reply->end->base, NULL, st);
    case REELKV__V1__EXPORT_REPLY__ITEM_CHUNK:
        return take_chunk(exporting, &message->payload, st);
    default:
        return status_fail(st, STATUS_UNIMPLEMENTED,
                           "the store sent an item that this version does not know");
    }
}

static bool check_end(const struct exporting *exporting, struct status *st)
{
    if (!exporting->has_end)
        return status_fail(st, STATUS_DATA_LOSS, "the store ended before its end");
    return exporting->frames > 0 ||
           status_fail(
               st, STATUS_NOT_FOUND,
               "no frame of that range can be read in full: what is left of them (keys and thumbnails, or "
               "damaged blocks) is not exported");
}

static bool receive(struct exporting *exporting, struct rpc_sync_stream *call,
                    const Reelkv__V1__ExportRequest *request, struct status *st)
{
    const struct rpc_message *message;

    if (!rpc_sync_write(call, &request->base, NULL, st) || !rpc_sync_half_close(call, st))
        return false;
    for (;;) {
        if (!rpc_sync_read(call, &message, st))
            return false;
        if (message == NULL)
            return check_end(exporting, st);
        if (!take_reply(exporting, message, st))
            return false;
    }
}

/* --- the verb --- */

static bool check_output(const char *output, struct status *st)
{
    return strcmp(output, "-") != 0 ||
           status_fail(
               st, STATUS_INVALID,
               "an export has its name only when it is whole, so it cannot go to standard output: name a "
               "file with --output");
}

static void cancel(void *user)
{
    rpc_sync_cancel(user);
}

static bool fetch(struct exporting *exporting, struct cluster *cluster, struct interrupt *interrupt,
                  const struct mem_export_options *options, const char *name, struct status *st)
{
    const struct rpc_stream_options call_options = { .timeout_ms = cluster_left_ms(
                                                         cluster_deadline(options->timeout)) };
    Reelkv__V1__TimeRange range = REELKV__V1__TIME_RANGE__INIT;
    Reelkv__V1__ExportRequest request = REELKV__V1__EXPORT_REQUEST__INIT;
    Reelkv__V1__StreamId id = REELKV__V1__STREAM_ID__INIT;
    const struct worker_record *store;
    struct rpc_sync_stream *call;
    struct rpc_sync *sync;
    struct camera camera;
    bool ok;

    if (!read_times(options, &range, st) ||
        !camera_find(cluster, options->namespace, name, &camera, &store, st))
        return false;
    sync = cluster_connect(cluster, store->address, st);
    if (sync == NULL || !rpc_sync_open(&call, sync, &api_export, &call_options, st))
        return false;
    id.namespace_ = (char *)options->namespace;
    id.name = (char *)name;
    request.id = &id;
    request.range = &range;
    interrupt_watch(interrupt, cancel, call);
    ok = receive(exporting, call, &request, st);
    interrupt_watch(interrupt, NULL, NULL);
    rpc_sync_stream_destroy(call);
    if (!ok && interrupt_has_come(interrupt))
        return status_fail(st, STATUS_CANCELLED, "interrupted; nothing was written");
    if (!ok && st->code == STATUS_DEADLINE)
        return status_fail(st, STATUS_DEADLINE, "not done in %u s; nothing was written", options->timeout);
    if (!ok && st->code == STATUS_NOT_FOUND && camera.stored_frames == 0)
        return status_fail(st, STATUS_NOT_FOUND, "nothing of camera %s is stored yet; `%s` says how it is",
                           name, cli_hint("cam show %s", name));
    return ok || cluster_blame(store, st);
}

static void print_result(const struct exporting *exporting, const char *name, bool as_json)
{
    const struct export_sum *sum = &exporting->writer.sum;
    struct json *value;

    if (!as_json) {
        printf("Camera %s exported to %s: %llu frames from %s to %s, %s", name, exporting->writer.path,
               (unsigned long long)exporting->frames, cli_time(exporting->first_pts_ns),
               cli_time(exporting->last_pts_ns), cli_bytes(sum->file_bytes));
        if (exporting->gap_frames > 0)
            printf("; %llu between them were never stored, have gone or are damaged",
                   (unsigned long long)exporting->gap_frames);
        printf(".\n");
        return;
    }
    value = json_make_object();
    json_set_str(value, "name", name);
    json_set_str(value, "file", exporting->writer.path);
    json_set_u64(value, "frames", exporting->frames);
    json_set_u64(value, "frames_gap", exporting->gap_frames);
    json_set_u64(value, "bytes", sum->file_bytes);
    json_set_str(value, "first", cli_rfc3339(exporting->first_pts_ns));
    json_set_str(value, "last", cli_rfc3339(exporting->last_pts_ns));
    cli_print_json(value);
}

static enum cli_exit run_mem_export(const struct cli_run *run)
{
    const struct mem_export_options *options = run->options;
    struct exporting *exporting = calloc(1, sizeof *exporting);
    struct interrupt *interrupt = interrupt_create();
    const char *name = run->arguments[0];
    struct cluster *cluster = NULL;
    char path[LIMIT_NAME_BYTES + 16];
    struct status st = { 0 };
    bool ok;

    REQUIRE(exporting != NULL);
    exporting->writer.fd = -1;
    snprintf(path, sizeof path, "%.*s.kvexport", LIMIT_NAME_BYTES, name);
    ok = check_output(options->output, &st) && name_check("camera", name, &st) &&
         name_check("namespace", options->namespace, &st) &&
         cluster_open(&cluster, options->data, options->redis, &st) &&
         export_writer_begin(&exporting->writer, options->output[0] != '\0' ? options->output : path, &st) &&
         fetch(exporting, cluster, interrupt, options, name, &st) &&
         export_writer_finish(&exporting->writer, &st);
    cli_progress_end(&exporting->progress);
    export_writer_deinit(&exporting->writer);
    interrupt_destroy(interrupt);
    cluster_close(cluster);
    if (ok)
        print_result(exporting, name, run->json);
    free(exporting);
    return ok ? CLI_OK : cli_fail(&st, run->json);
}

const struct cli_command cli_mem_export = {
    .path = "mem export",
    .group = "What is stored",
    .table = { .program = "reelkv mem export",
               .summary = "what a camera saw, as one file",
               .arguments = "CAMERA",
               .arguments_min = 1,
               .arguments_max = 1,
               .rows = rows,
               .count = ARRAY_LEN(rows) },
    .options_bytes = sizeof(struct mem_export_options),
    .run = run_mem_export,
};
