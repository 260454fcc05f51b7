#include "damage_small.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/require.h"
#include "kv/checked_json.h"
#include "kv/history.h"
#include "kvstore/stream_forget.h"
#include "kvstore/stream_hold.h"

enum { LOG_BYTES_MAX = 1 << 20, ADDED_MAX = 600, SECTOR_BYTES = 512 };

static const char *const names[SMALL_KINDS] = { "stream.json", "history.json", "holds.json", "forget.json" };
static const enum damage_kind kinds[] = { KIND_BIT,    KIND_BITS,         KIND_BURST,
                                          KIND_ZEROED, KIND_TORN,         KIND_TRUNCATED,
                                          KIND_GROWN,  KIND_FILE_SWAPPED, KIND_FILE_DUPLICATED };

/* What was done to a camera. */
struct small_harm {
    bool is_done;
    uint32_t which; /* of its files */
    enum damage_kind kind;
    char *text;
    size_t len;
};

/* --- as they were --- */

/* A hold and a receipt of a time when nothing was captured, and an empty history: the camera is as it is without them. */
static char *made_text(uint32_t stream, uint32_t which)
{
    static const struct history nothing;
    struct json *object, *rows = json_make_array(), *row = json_make_object();
    char camera[16], file[CHECKED_JSON_FILE_BYTES];

    damage_stream_name(stream, camera);
    snprintf(file, sizeof file, "default/%s/%s", camera, names[which]);
    if (which == 1) {
        json_free(rows);
        json_free(row);
        return history_text(&nothing, file);
    }
    json_set_u64(row, "number", 1);
    json_set_i64(row, "from_ns", 1000);
    json_set_i64(row, "to_ns", 2000 + stream);
    if (which == 2) {
        json_set_str(row, "owner", "police");
        json_set_str(row, "reason", "case 17");
        json_set_i64(row, "until_ns", 0);
        json_set_i64(row, "created_ns", 3000);
    } else {
        json_set_u64(row, "next_seq", 0);
        json_set_i64(row, "asked_ns", 3000);
        json_set_i64(row, "done_ns", 4000);
        json_set_u64(row, "frames", 0);
        json_set_u64(row, "bytes", 0);
        json_set_u64(row, "files", 0);
        json_set_str(row, "store", "kv-a");
        json_set_str(row, "version", "0");
    }
    json_append(rows, row);
    object = checked_json_make(file);
    json_set_u64(object, "next", 2);
    json_set(object, which == 2 ? "holds" : "receipts", rows);
    return checked_json_text(object, 0);
}

void small_files_read(struct small_files *files, const char *root)
{
    for (uint32_t stream = 0; stream < DAMAGE_STREAMS; stream++)
        for (uint32_t which = 0; which < SMALL_KINDS; which++) {
            struct small_file *file = &files->list[stream][which];
            struct file_text text = { 0 };
            char camera[16];
            struct status st;

            damage_stream_name(stream, camera);
            snprintf(file->path, sizeof file->path, "%s/v1/default/%s/%s", root, camera, names[which]);
            if (which == 0 && !file_read_all(file->path, 1 << 16, &text, &st))
                damage_fail("%s", st.text);
            file->text = which == 0 ? text.data : made_text(stream, which);
            REQUIRE(file->text != NULL);
            file->len = which == 0 ? text.len : strlen(file->text);
        }
}

void small_files_free(struct small_files *files)
{
    for (uint32_t stream = 0; stream < DAMAGE_STREAMS; stream++)
        for (uint32_t which = 0; which < SMALL_KINDS; which++)
            free(files->list[stream][which].text);
}

static void put(const char *path, const char *text, size_t len)
{
    struct status st;

    if (!file_write_through(path, text, len, &st))
        damage_fail("%s", st.text);
}

static void put_all(const struct small_files *files)
{
    for (uint32_t stream = 0; stream < DAMAGE_STREAMS; stream++)
        for (uint32_t which = 0; which < SMALL_KINDS; which++) {
            const struct small_file *file = &files->list[stream][which];

            put(file->path, file->text, file->len);
        }
}

static void take_away(const struct small_files *files)
{
    for (uint32_t stream = 0; stream < DAMAGE_STREAMS; stream++)
        for (uint32_t which = 1; which < SMALL_KINDS; which++)
            if (unlink(files->list[stream][which].path) != 0)
                damage_fail("%s cannot be removed", files->list[stream][which].path);
}

/* --- damage --- */

static void take(struct small_harm *harm, const struct small_file *file)
{
    harm->text = realloc(harm->text, file->len + ADDED_MAX);
    REQUIRE(harm->text != NULL);
    memcpy(harm->text, file->text, file->len);
    harm->len = file->len;
}

static void change_bytes(struct small_harm *harm, struct sim_random *random)
{
    uint32_t len = (uint32_t)harm->len, at = sim_pick(random, len);
    uint32_t count = harm->kind == KIND_BIT ? 1 : harm->kind == KIND_BITS ? 2 + sim_pick(random, 63) : 0;

    for (uint32_t i = 0; i < count; i++)
        harm->text[sim_pick(random, len)] ^= (char)(1u << sim_pick(random, 8));
    for (uint32_t i = at; harm->kind == KIND_BURST && i < len && i < at + 16; i++)
        harm->text[i] = (char)sim_next(random);
}

/* Files of less than a page: zeros are all of it; what is torn is torn at a sector, of a shorter one at any byte. */
static void change_whole(struct small_harm *harm, struct sim_random *random)
{
    size_t len = harm->len;

    if (harm->kind == KIND_ZEROED)
        memset(harm->text, 0, len);
    else if (harm->kind == KIND_TORN && len > SECTOR_BYTES)
        memset(harm->text + SECTOR_BYTES, 0, len - SECTOR_BYTES);
    else if (harm->kind == KIND_TORN)
        memset(harm->text + sim_pick(random, (uint32_t)len), 0, 1);
    else if (harm->kind == KIND_TRUNCATED)
        harm->len = sim_pick(random, (uint32_t)len);
    else if (harm->kind == KIND_GROWN)
        for (harm->len += 1 + sim_pick(random, ADDED_MAX - 1); len < harm->len; len++)
            harm->text[len] = (char)sim_next(random);
}

static bool damage_one(struct small_round *round, uint32_t stream, struct small_harm *harms)
{
    struct small_harm *harm = &harms[stream];
    uint32_t other = (stream + 1 + sim_pick(round->random, DAMAGE_STREAMS - 1)) % DAMAGE_STREAMS;
    const struct small_file *file;

    harm->which = sim_pick(round->random, SMALL_KINDS);
    harm->kind = kinds[sim_pick(round->random, ARRAY_LEN(kinds))];
    file = &round->files->list[stream][harm->which];
    take(harm, file);
    if (harm->kind == KIND_FILE_SWAPPED && harms[other].is_done)
        return false;
    if (harm->kind == KIND_FILE_SWAPPED) {
        take(harm, &round->files->list[other][harm->which]);
        take(&harms[other], file);
        harms[other].is_done = true;
        harms[other].which = harm->which;
        harms[other].kind = harm->kind;
    } else if (harm->kind == KIND_FILE_DUPLICATED) {
        uint32_t which = sim_pick(round->random, SMALL_KINDS);

        take(harm, &round->files->list[which == harm->which ? other : stream][which]);
    }
    change_bytes(harm, round->random);
    change_whole(harm, round->random);
    return harm->len != file->len || memcmp(harm->text, file->text, file->len) != 0;
}

/* --- what the store says --- */

struct found {
    const struct small_harm *harms;
    const struct small_files *files;
    char log[LOG_BYTES_MAX];
};

static void look(struct host *host, void *arg)
{
    const struct found *found = arg;

    for (uint32_t i = 0; i < DAMAGE_STREAMS; i++) {
        const struct small_harm *harm = &found->harms[i];
        const char *path = found->files->list[i][harm->which].path;
        const struct stream *stream;
        struct status st;
        char camera[16];

        damage_stream_name(i, camera);
        stream = store_find(host->kvstore.store, "default", camera);
        if (harm->is_done && stream != NULL)
            damage_fail("%s (%s) is believed", path, damage_kind_words[harm->kind]);
        if (harm->is_done && (store_say_absent(host->kvstore.store, "default", camera, &st) ||
                              st.code != STATUS_DATA_LOSS || strstr(found->log, path) == NULL))
            damage_fail("%s (%s): nobody is told of it", path, damage_kind_words[harm->kind]);
        if (!harm->is_done && (stream == NULL || stream_frame_count(stream) != host->frame_count[i] ||
                               stream_hold_at(stream, 0) == NULL || stream_receipt_at(stream, 0) == NULL))
            damage_fail("%s is not damaged, and not as it was", camera);
    }
}

void small_round(struct small_round *round)
{
    static struct found found;
    struct small_harm harms[DAMAGE_STREAMS] = { 0 };
    ssize_t len;

    put_all(round->files);
    for (uint32_t i = 0; i < DAMAGE_STREAMS; i++)
        if (!harms[i].is_done && sim_chance(round->random, 80))
            harms[i].is_done = damage_one(round, i, harms);
    for (uint32_t i = 0; i < DAMAGE_STREAMS; i++)
        if (harms[i].is_done)
            put(round->files->list[i][harms[i].which].path, harms[i].text, harms[i].len);
    if (ftruncate(round->log, 0) != 0)
        damage_fail("the log cannot be emptied");
    host_do(round->host, host_open, NULL);
    len = pread(round->log, found.log, LOG_BYTES_MAX - 1, 0);
    REQUIRE(len >= 0 && len < LOG_BYTES_MAX - 1);
    found.log[len] = '\0';
    found.harms = harms;
    found.files = round->files;
    host_do(round->host, look, &found);
    host_do(round->host, host_close, NULL);
    for (uint32_t i = 0; i < DAMAGE_STREAMS; i++) {
        round->samples[harms[i].kind] += harms[i].is_done;
        free(harms[i].text);
    }
    put_all(round->files);
    take_away(round->files);
}
