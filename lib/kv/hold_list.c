#include "kv/hold_list.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/name.h"

bool stream_hold_counts(const struct stream_hold *hold, int64_t now_ns)
{
    return hold->until_ns == 0 || hold->until_ns > now_ns;
}

char *hold_list_text(const struct hold_list *holds, const char *file, int64_t now_ns)
{
    struct json *object = checked_json_make(file), *rows = json_make_array();

    json_set_u64(object, "next", holds->next);
    for (uint32_t i = 0; i < holds->count; i++) {
        const struct stream_hold *hold = &holds->list[i];
        struct json *row;

        if (!stream_hold_counts(hold, now_ns))
            continue;
        row = json_make_object();
        json_set_u64(row, "number", hold->number);
        json_set_i64(row, "from_ns", hold->from_ns);
        json_set_i64(row, "to_ns", hold->to_ns);
        json_set_str(row, "owner", hold->owner);
        json_set_str(row, "reason", hold->reason);
        json_set_i64(row, "until_ns", hold->until_ns);
        json_set_i64(row, "created_ns", hold->created_ns);
        json_append(rows, row);
    }
    json_set(object, "holds", rows);
    return checked_json_text(object, 0);
}

static bool read_hold(const struct json *row, struct stream_hold *hold, struct status *st)
{
    const char *owner, *reason;

    if (!json_read_u64(row, "number", &hold->number, st) ||
        !json_read_i64(row, "from_ns", &hold->from_ns, st) ||
        !json_read_i64(row, "to_ns", &hold->to_ns, st) || !json_read_str(row, "owner", &owner, st) ||
        !json_read_str(row, "reason", &reason, st) || !json_read_i64(row, "until_ns", &hold->until_ns, st) ||
        !json_read_i64(row, "created_ns", &hold->created_ns, st))
        return false;
    return (text_copy(hold->owner, sizeof hold->owner, owner) &&
            text_copy(hold->reason, sizeof hold->reason, reason) && hold->from_ns < hold->to_ns) ||
           status_fail(st, STATUS_DATA_LOSS, "a hold makes no sense");
}

static bool read_holds(struct hold_list *holds, const struct json *object, struct status *st)
{
    const struct json *rows = json_get(object, "holds");
    uint64_t before = 0;

    if (!json_read_u64(object, "next", &holds->next, st))
        return false;
    if (!json_is_array(rows) || json_len(rows) > STREAM_HOLDS_MAX)
        return status_fail(st, STATUS_DATA_LOSS, "it has no list of at most %d holds", STREAM_HOLDS_MAX);
    for (size_t i = 0; i < json_len(rows); i++) {
        struct stream_hold *hold = &holds->list[holds->count++];

        if (!read_hold(json_at(rows, i), hold, st))
            return false;
        if (hold->number <= before || hold->number >= holds->next)
            return status_fail(st, STATUS_DATA_LOSS, "its holds are not numbered as they must be");
        before = hold->number;
    }
    return true;
}

bool hold_list_read(struct hold_list *holds, const struct file_ops *disk, const char *folder,
                    struct status *st)
{
    char path[PATH_MAX + 16];
    struct json *object;
    bool ok;

    *holds = (struct hold_list){ .next = 1 };
    snprintf(path, sizeof path, "%s/holds.json", folder);
    object = checked_json_read(disk, path, HOLDS_BYTES_MAX, "next", st);
    ok = object != NULL && (read_holds(holds, object, st) || status_wrap(st, "%s", path));
    json_free(object);
    return ok;
}
