#include "kv/scrub_state.h"

#include <limits.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/bytes.h"
#include "base/name.h"
#include "kv/history.h"

/* --- damage --- */

bool scrub_damages_add(struct scrub_damages *damages, const struct scrub_damage *damage)
{
    struct scrub_damage *last = damages->count == 0 ? NULL : &damages->list[damages->count - 1];

    if (last != NULL && last->salt == damage->salt && damage->from_seq >= last->from_seq &&
        damage->from_seq <= last->to_seq) {
        last->to_seq = damage->to_seq > last->to_seq ? damage->to_seq : last->to_seq;
        return true;
    }
    if (damages->count == SCRUB_DAMAGE_MAX)
        return false;
    damages->list[damages->count++] = *damage;
    return true;
}

void scrub_damages_drop(struct scrub_damages *damages, uint64_t salt)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < damages->count; i++)
        if (damages->list[i].salt != salt)
            damages->list[kept++] = damages->list[i];
    damages->count = kept;
}

void scrub_damages_drop_older(struct scrub_damages *damages, int64_t than_ns)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < damages->count; i++)
        if (damages->list[i].found_ns >= than_ns)
            damages->list[kept++] = damages->list[i];
    damages->count = kept;
}

/* --- the file --- */

static struct json *damages_json(const struct scrub_damages *damages)
{
    struct json *rows = json_make_array();

    for (uint32_t i = 0; i < damages->count; i++) {
        const struct scrub_damage *damage = &damages->list[i];
        struct json *row = json_make_object();
        char salt[24];

        snprintf(salt, sizeof salt, "%016" PRIx64, damage->salt);
        json_set_str(row, "salt", salt);
        json_set_u64(row, "from_seq", damage->from_seq);
        json_set_u64(row, "to_seq", damage->to_seq);
        json_set_i64(row, "found_ns", damage->found_ns);
        json_append(rows, row);
    }
    return rows;
}

char *scrub_state_text(const struct scrub_state *state)
{
    struct json *object = checked_json_make("scrub.json");

    json_set_i64(object, "full_ns", state->full_ns);
    json_set_i64(object, "pass_ns", state->pass_ns);
    json_set_i64(object, "cursor_ns", state->cursor_ns);
    json_set(object, "damage", damages_json(&state->damages));
    return checked_json_text(object, 0);
}

static bool read_damage(const struct json *row, struct scrub_damage *damage, struct status *st)
{
    const char *salt;
    uint8_t bytes[sizeof damage->salt];

    if (!json_read_str(row, "salt", &salt, st) || !json_read_u64(row, "from_seq", &damage->from_seq, st) ||
        !json_read_u64(row, "to_seq", &damage->to_seq, st) ||
        !json_read_i64(row, "found_ns", &damage->found_ns, st))
        return false;
    if (!hex_read(salt, bytes, sizeof bytes) || damage->from_seq >= damage->to_seq ||
        damage->to_seq > HISTORY_NUMBER_MAX)
        return status_fail(st, STATUS_DATA_LOSS, "damage that was found makes no sense");
    damage->salt = __builtin_bswap64(get_u64(bytes)); /* the digit of most weight comes first */
    return true;
}

static bool read_damages(const struct json *object, struct scrub_damages *damages, struct status *st)
{
    const struct json *rows = json_get(object, "damage");

    damages->count = 0;
    if (rows == NULL)
        return true;
    if (!json_is_array(rows) || json_len(rows) > SCRUB_DAMAGE_MAX)
        return status_fail(st, STATUS_DATA_LOSS, "it has no list of at most %d damaged ranges",
                           SCRUB_DAMAGE_MAX);
    for (size_t i = 0; i < json_len(rows); i++)
        if (!read_damage(json_at(rows, i), &damages->list[damages->count++], st))
            return false;
    return true;
}

bool scrub_state_read(struct scrub_state *state, const struct file_ops *disk, const char *root,
                      struct status *st)
{
    struct scrub_state read;
    char path[PATH_MAX + 16];
    struct json *object;
    bool ok;

    snprintf(path, sizeof path, "%s/scrub.json", root);
    object = checked_json_read(disk, path, SCRUB_STATE_BYTES_MAX, "full_ns", st);
    ok = object != NULL && ((json_read_i64(object, "full_ns", &read.full_ns, st) &&
                             json_read_i64(object, "pass_ns", &read.pass_ns, st) &&
                             json_read_i64(object, "cursor_ns", &read.cursor_ns, st) &&
                             read_damages(object, &read.damages, st)) ||
                            status_wrap(st, "%s", path));
    json_free(object);
    *state = ok ? read : (struct scrub_state){ 0 };
    return ok;
}
