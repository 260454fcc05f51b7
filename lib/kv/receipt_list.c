#include "kv/receipt_list.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/name.h"
#include "kv/history.h"

char *receipt_list_text(const struct receipt_list *receipts, const char *file)
{
    struct json *object = checked_json_make(file), *rows = json_make_array();

    json_set_u64(object, "next", receipts->next);
    for (uint32_t i = 0; i < receipts->count; i++) {
        const struct forget_receipt *receipt = &receipts->list[i];
        struct json *row = json_make_object();

        json_set_u64(row, "number", receipt->number);
        json_set_i64(row, "from_ns", receipt->from_ns);
        json_set_i64(row, "to_ns", receipt->to_ns);
        json_set_u64(row, "next_seq", receipt->next_seq);
        json_set_i64(row, "asked_ns", receipt->asked_ns);
        json_set_i64(row, "done_ns", receipt->done_ns);
        json_set_u64(row, "frames", receipt->frames);
        json_set_u64(row, "bytes", receipt->bytes);
        json_set_u64(row, "files", receipt->files);
        json_set_str(row, "store", receipt->store);
        json_set_str(row, "version", receipt->version);
        json_append(rows, row);
    }
    json_set(object, "receipts", rows);
    return checked_json_text(object, 0);
}

static bool read_receipt(const struct json *row, struct forget_receipt *receipt, struct status *st)
{
    const char *store, *version;

    if (!json_read_u64(row, "number", &receipt->number, st) ||
        !json_read_i64(row, "from_ns", &receipt->from_ns, st) ||
        !json_read_i64(row, "to_ns", &receipt->to_ns, st) ||
        !json_read_u64(row, "next_seq", &receipt->next_seq, st) ||
        !json_read_i64(row, "asked_ns", &receipt->asked_ns, st) ||
        !json_read_i64(row, "done_ns", &receipt->done_ns, st) ||
        !json_read_u64(row, "frames", &receipt->frames, st) ||
        !json_read_u64(row, "bytes", &receipt->bytes, st) ||
        !json_read_u64(row, "files", &receipt->files, st) || !json_read_str(row, "store", &store, st) ||
        !json_read_str(row, "version", &version, st))
        return false;
    return (text_copy(receipt->store, sizeof receipt->store, store) &&
            text_copy(receipt->version, sizeof receipt->version, version) &&
            receipt->from_ns < receipt->to_ns && receipt->next_seq <= HISTORY_NUMBER_MAX) ||
           status_fail(st, STATUS_DATA_LOSS, "a receipt makes no sense");
}

static bool read_receipts(struct receipt_list *receipts, const struct json *object, struct status *st)
{
    const struct json *rows = json_get(object, "receipts");
    uint64_t before = 0;

    if (!json_read_u64(object, "next", &receipts->next, st))
        return false;
    if (!json_is_array(rows) || json_len(rows) > FORGET_RECEIPTS_MAX)
        return status_fail(st, STATUS_DATA_LOSS, "it has no list of at most %d receipts",
                           FORGET_RECEIPTS_MAX);
    for (size_t i = 0; i < json_len(rows); i++) {
        struct forget_receipt *receipt = &receipts->list[receipts->count++];

        if (!read_receipt(json_at(rows, i), receipt, st))
            return false;
        if (receipt->number <= before || receipt->number >= receipts->next)
            return status_fail(st, STATUS_DATA_LOSS, "its receipts are not numbered as they must be");
        if (receipt->done_ns == 0 && receipts->count < json_len(rows))
            return status_fail(st, STATUS_DATA_LOSS, "a receipt other than the newest is under way");
        before = receipt->number;
    }
    return true;
}

bool receipt_list_read(struct receipt_list *receipts, const struct file_ops *disk, const char *folder,
                       struct status *st)
{
    char path[PATH_MAX + 16];
    struct json *object;
    bool ok;

    *receipts = (struct receipt_list){ .next = 1 };
    snprintf(path, sizeof path, "%s/forget.json", folder);
    object = checked_json_read(disk, path, RECEIPTS_BYTES_MAX, "next", st);
    ok = object != NULL && (read_receipts(receipts, object, st) || status_wrap(st, "%s", path));
    json_free(object);
    return ok;
}
