/* mem dump: one record of a segment file as JSON, or what the file says of itself. Needs no cluster. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/name.h"
#include "base/require.h"
#include "cli_command.h"
#include "kv/kv_footer.h"
#include "kv/kv_reader.h"

enum { PAYLOAD_BYTES_MAX = 16 << 20 };

#define MEM_DUMP_OPTIONS(OPT)                                                       \
    OPT(json, BOOL, "false", "", "", "what is printed is JSON with and without it") \
    OPT(seq, STR, "", "0", "20", "the frame or gap of this number")                 \
    OPT(offset, STR, "", "0", "20", "the record that begins at this byte")          \
    OPT(payload, BOOL, "false", "", "", "and the bytes of its parts, in hexadecimal")

struct mem_dump_options {
    MEM_DUMP_OPTIONS(OPTION_FIELD)
};
static const struct option_row rows[] = {
#define ROW(...) OPTION_ROW(mem_dump_options, __VA_ARGS__),
    MEM_DUMP_OPTIONS(ROW)
#undef ROW
};

struct dump {
    const char *path;
    struct kv_reader reader;
    struct kv_super super;
    bool has_payload, is_sealed;
    bool has_misfit; /* something that is shown is not as it was written */
};

static const char *type_words(enum kv_record_type type)
{
    static const char *const words[] = { "?", "init", "frame", "gap", "event", "derived", "tombstone" };

    return words[(size_t)type < ARRAY_LEN(words) ? (size_t)type : 0];
}

static void set_crc(struct json *object, const char *key, uint32_t crc)
{
    char text[9];

    snprintf(text, sizeof text, "%08x", crc);
    json_set_str(object, key, text);
}

static void set_hex(struct json *object, const char *key, const void *bytes, size_t len)
{
    char *text = malloc(2 * len + 1);

    REQUIRE(text != NULL);
    hex_write(bytes, len, text);
    json_set_str(object, key, text);
    free(text);
}

/* --- the file --- */

static struct json *super_to_json(const struct kv_super *super)
{
    struct json *object = json_make_object();
    char salt[17], geometry[KV_GEOMETRY_TEXT_BYTES];

    snprintf(salt, sizeof salt, "%016llx", (unsigned long long)super->salt);
    json_set_u64(object, "minor", super->minor);
    json_set_u64(object, "compat", super->compat);
    json_set_str(object, "salt", salt);
    set_hex(object, "fingerprint", super->fingerprint, KV_FINGERPRINT_BYTES);
    json_set_str(object, "namespace", super->ns);
    json_set_str(object, "stream", super->stream);
    json_set_u64(object, "epoch", super->epoch);
    json_set_u64(object, "layers", super->geometry.layers);
    json_set_u64(object, "kv_heads", super->geometry.kv_heads);
    json_set_u64(object, "head_dim", super->geometry.head_dim);
    json_set_str(object, "geometry", kv_geometry_text(&super->geometry, geometry));
    if (super->replaces != 0) {
        snprintf(salt, sizeof salt, "%016llx", (unsigned long long)super->replaces);
        json_set_str(object, "replaces", salt);
    }
    json_set_i64(object, "created_ns", super->created_ns);
    json_set_u64(object, "first_seq", super->first_seq);
    set_crc(object, "crc32c", super->crc);
    return object;
}

static struct json *footer_to_json(const struct kv_footer *footer)
{
    struct json *object = json_make_object();

    json_set_u64(object, "records", footer->records);
    json_set_u64(object, "frames", footer->frames);
    json_set_u64(object, "end_seq", footer->end_seq);
    json_set_u64(object, "table", footer->table);
    json_set_u64(object, "notes", footer->notes);
    json_set_u64(object, "notes_bytes", footer->notes_bytes);
    json_set_u64(object, "sums", footer->sums);
    json_set_u64(object, "columns", footer->columns);
    json_set_u64(object, "column_stride", footer->column_stride);
    json_set_u64(object, "file_bytes", footer->file_bytes);
    set_crc(object, "chain", footer->chain);
    return object;
}

/* Its last page is a trailer or a mark, or neither. */
static void dump_file(struct dump *dump, struct json *value)
{
    uint64_t bytes = dump->reader.bytes, synced;
    struct json *mark;
    const uint8_t *page;
    struct kv_footer footer;
    struct status st;

    json_set_u64(value, "bytes", bytes + dump->reader.rest);
    json_set(value, "superblock", super_to_json(&dump->super));
    page = kv_reader_view(&dump->reader, bytes - KV_PAGE_BYTES, KV_PAGE_BYTES, &st);
    if (page != NULL && kv_mark_get(dump->super.salt, &synced, page)) {
        mark = json_make_object();
        json_set_u64(mark, "synced", synced);
        json_set(value, "mark", mark);
    } else if (page != NULL && kv_footer_get(&footer, &dump->super, bytes, page, &st)) {
        json_set(value, "footer", footer_to_json(&footer));
    } else {
        json_set_str(value, "footer", NULL);
        json_set_str(value, "why", st.text);
        dump->has_misfit = dump->is_sealed;
    }
}

/* --- one record --- */

/* The header at `at`, if one of this segment's stands there. */
static bool read_header(struct dump *dump, uint64_t at, struct kv_record *record, uint32_t *header_crc,
                        struct status *st)
{
    uint64_t left = dump->reader.bytes - at;
    const uint8_t *header = kv_reader_view(&dump->reader, at, KV_PAGE_BYTES, st);
    uint32_t bytes = header == NULL ? 0 : kv_record_header_bytes(header);
    struct kv_layout layout;

    if (header == NULL)
        return false;
    if (bytes == 0 || bytes > left)
        return status_fail(st, STATUS_DATA_LOSS, "no record begins there");
    header = kv_reader_view(&dump->reader, at, bytes, st);
    if (header == NULL || !kv_record_get(record, header_crc, &dump->super, header, st))
        return false;
    kv_record_layout(record, &layout);
    return layout.record_bytes <= left ||
           status_fail(st, STATUS_DATA_LOSS, "record %llu is longer than what is left of the file",
                       (unsigned long long)record->seq);
}

/* The frame or gap that has this number; others stand between numbers. */
static bool find_seq(struct dump *dump, uint64_t seq, uint64_t *at_p, struct status *st)
{
    uint64_t at = KV_PAGE_BYTES;
    struct kv_record record;
    struct kv_layout layout;
    uint32_t crc;

    while (at < dump->reader.bytes) {
        if (!read_header(dump, at, &record, &crc, st)) {
            if (st->code == STATUS_UNAVAILABLE)
                return false;
            at = disk_skip_hole(dump->reader.disk, dump->reader.fd, at + KV_PAGE_BYTES, dump->reader.bytes);
            continue;
        }
        if (seq >= record.seq && seq < record.end_seq) {
            *at_p = at;
            return true;
        }
        kv_record_layout(&record, &layout);
        at += layout.record_bytes;
    }
    return status_fail(st, STATUS_NOT_FOUND, "%s has no record of number %llu", dump->path,
                       (unsigned long long)seq);
}

static bool set_payload(struct dump *dump, struct json *row, uint64_t at, uint64_t bytes, struct status *st)
{
    uint8_t *copy = malloc(bytes + 1);
    uint64_t part;
    bool ok = true;

    REQUIRE(copy != NULL);
    for (uint64_t done = 0; ok && done < bytes; done += part) {
        const uint8_t *view;

        part = bytes - done < KV_VIEW_BYTES_MAX ? bytes - done : (uint64_t)KV_VIEW_BYTES_MAX;
        view = kv_reader_view(&dump->reader, at + done, part, st);
        ok = view != NULL;
        if (ok)
            memcpy(copy + done, view, part);
    }
    if (ok)
        set_hex(row, "hex", copy, bytes);
    free(copy);
    return ok;
}

static bool dump_part(struct dump *dump, struct json *parts, uint64_t at, const struct kv_record *record,
                      const struct kv_record_part *part, struct status *st)
{
    const struct kv_slice *slice = part->slice < 0 ? NULL : &record->slices[part->slice];
    struct json *row = json_make_object();
    uint64_t start = at + part->at, end = start + part->bytes;
    bool is_zero = true, fits;
    uint32_t crc = 0;

    json_append(parts, row);
    if (!kv_reader_crc(&dump->reader, start, part->bytes, &crc, st) ||
        !kv_reader_is_zero(&dump->reader, end, at + part->zeros_end - end, &is_zero, st))
        return false;
    fits = crc == part->crc && is_zero;
    dump->has_misfit |= !fits;
    if (slice == NULL) {
        json_set_str(row, "part", part->what);
    } else {
        json_set_str(row, "part", part->slice % 2 == 0 ? "K" : "V");
        json_set_u64(row, "layer", (uint64_t)part->slice / 2);
        json_set_u64(row, "tokens", slice->tokens);
        json_set_u64(row, "encoding", slice->encoding.bits);
        json_set_u64(row, "group", slice->encoding.group);
    }
    json_set_u64(row, "offset", start);
    json_set_u64(row, "bytes", part->bytes);
    set_crc(row, "crc32c", part->crc);
    json_set_bool(row, "fits", fits);
    return !dump->has_payload || set_payload(dump, row, start, part->bytes, st);
}

static void set_fields(struct json *value, uint64_t at, const struct kv_record *record, uint32_t header_crc)
{
    struct kv_layout layout;

    kv_record_layout(record, &layout);
    json_set_u64(value, "offset", at);
    json_set_u64(value, "bytes", layout.record_bytes);
    json_set_str(value, "type", type_words(record->type));
    json_set_u64(value, "event", record->event);
    json_set_u64(value, "seq", record->seq);
    json_set_u64(value, "end_seq", record->end_seq);
    json_set_i64(value, "pts_ns", record->pts_ns);
    json_set_str(value, "pts", cli_rfc3339(record->pts_ns));
    json_set_i64(value, "end_pts_ns", record->end_pts_ns);
    json_set_u64(value, "token_index", record->token_index);
    json_set_u64(value, "tokens", record->tokens);
    json_set_u64(value, "epoch", record->epoch);
    json_set_u64(value, "supersedes", record->supersedes);
    json_set_u64(value, "key_id", record->key_id);
    json_set_u64(value, "layers", record->layers);
    set_crc(value, "header_crc32c", header_crc);
    set_crc(value, "chain", record->chain);
}

static bool dump_record(struct dump *dump, struct json *value, uint64_t at, struct status *st)
{
    struct json *parts = json_make_array();
    struct kv_record_part part = { 0 };
    struct kv_record record;
    uint32_t header_crc;
    bool ok;

    json_set(value, "parts", parts);
    if (at % KV_PAGE_BYTES != 0 || at < KV_PAGE_BYTES || at >= dump->reader.bytes)
        return status_fail(st, STATUS_INVALID,
                           "records begin at multiples of %d, behind the first one and before byte %llu",
                           KV_PAGE_BYTES, (unsigned long long)dump->reader.bytes);
    if (!read_header(dump, at, &record, &header_crc, st))
        return status_wrap(st, "%s: byte %llu", dump->path, (unsigned long long)at);
    if (dump->has_payload && kv_record_payload_bytes(&record) > PAYLOAD_BYTES_MAX)
        return status_fail(st, STATUS_INVALID,
                           "the record's bytes are too many to be printed: %s, at most %s",
                           cli_bytes(kv_record_payload_bytes(&record)), cli_bytes(PAYLOAD_BYTES_MAX));
    set_fields(value, at, &record, header_crc);
    ok = true;
    while (ok && kv_record_next_part(&record, &part))
        ok = dump_part(dump, parts, at, &record, &part, st);
    return ok;
}

static bool open_file(struct dump *dump, struct status *st)
{
    const char *slash = strrchr(dump->path, '/');
    struct kv_file_name name;
    const uint8_t *page;

    if (!kv_file_name_get(&name, slash != NULL ? slash + 1 : dump->path))
        return status_fail(st, STATUS_INVALID,
                           "%s is not named as a segment file is, <first number>-<salt>.seg or .open",
                           dump->path);
    dump->is_sealed = !name.is_open;
    if (!kv_reader_open(&dump->reader, &file_system, dump->path, st))
        return false;
    if (dump->reader.bytes < 2 * KV_PAGE_BYTES)
        return status_fail(st, STATUS_DATA_LOSS, "%s: it is too short for a segment", dump->path);
    page = kv_reader_view(&dump->reader, 0, KV_PAGE_BYTES, st);
    return (page != NULL && kv_super_get(&dump->super, page, st)) || status_wrap(st, "%s", dump->path);
}

static bool read_number(const char *flag, const char *text, uint64_t *number_p, struct status *st)
{
    return text[0] == '\0' || option_parse_bytes(text, number_p) ||
           status_fail(st, STATUS_INVALID, "--%s must be a whole number, not %.20s", flag, text);
}

static enum cli_exit run_mem_dump(const struct cli_run *run)
{
    const struct mem_dump_options *options = run->options;
    struct dump dump = { .path = run->arguments[0], .has_payload = options->payload };
    struct json *value = json_make_object();
    bool has_seq = options->seq[0] != '\0', has_offset = options->offset[0] != '\0';
    uint64_t seq = 0, at = 0;
    struct status st = { 0 };
    bool ok;

    json_set_str(value, "path", dump.path);
    ok = !(has_seq && has_offset) || status_fail(&st, STATUS_INVALID, "--seq and --offset name two records");
    ok = ok && (!options->payload || has_seq || has_offset ||
                status_fail(&st, STATUS_INVALID, "--payload is of a record: name it with --seq or --offset"));
    ok = ok && read_number("seq", options->seq, &seq, &st) &&
         read_number("offset", options->offset, &at, &st) && open_file(&dump, &st) &&
         (!has_seq || find_seq(&dump, seq, &at, &st));
    if (ok && (has_seq || has_offset))
        ok = dump_record(&dump, value, at, &st);
    else if (ok)
        dump_file(&dump, value);
    kv_reader_close(&dump.reader);
    if (!ok) {
        json_free(value);
        return cli_fail(&st, run->json);
    }
    cli_print_json(value);
    return dump.has_misfit ? CLI_DATA_LOSS : CLI_OK;
}

const struct cli_command cli_mem_dump = {
    .path = "mem dump",
    .group = "What is stored",
    .table = { .program = "reelkv mem dump",
               .summary = "one record of a segment file as JSON; needs no cluster",
               .arguments = "FILE",
               .arguments_min = 1,
               .arguments_max = 1,
               .rows = rows,
               .count = ARRAY_LEN(rows) },
    .options_bytes = sizeof(struct mem_dump_options),
    .run = run_mem_dump,
};
