#include "damage_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/require.h"

enum { SECTOR_BYTES = 512, GROWTH_BYTES = 3 * KV_PAGE_BYTES };

const char *const damage_kind_words[KIND_COUNT] = {
#define WORDS(name, words) words,
    DAMAGE_KINDS(WORDS)
#undef WORDS
};

/* --- as they were written --- */

static void map_records(struct damage_file *file)
{
    struct kv_super super;
    struct status st;
    uint64_t at = KV_PAGE_BYTES;

    if (!kv_super_get(&super, file->bytes, &st))
        damage_fail("%s: %s", file->path, st.text);
    while (at + KV_PAGE_BYTES <= file->len && file->record_count < DAMAGE_RECORDS_MAX) {
        struct damage_record *record = &file->records[file->record_count];
        uint32_t crc;

        if (!kv_record_get(&record->header, &crc, &super, file->bytes + at, &st))
            break;
        record->offset = at;
        kv_record_layout(&record->header, &record->layout);
        at += record->layout.record_bytes;
        file->record_count++;
    }
    file->records_end = at;
    if (!file->is_open &&
        !kv_footer_get(&file->footer, &super, file->len, file->bytes + file->len - KV_PAGE_BYTES, &st))
        damage_fail("%s: %s", file->path, st.text);
}

static void read_file(struct damage_files *files, const char *path, uint32_t stream,
                      const struct damage_files *older)
{
    struct damage_file *file = &files->list[files->count];
    struct file_text text;
    struct status st;

    REQUIRE(files->count < DAMAGE_FILES);
    if (!file_read_all(path, 4 << 20, &text, &st))
        damage_fail("%s", st.text);
    *file = (struct damage_file){ .stream = stream, .bytes = (uint8_t *)text.data, .len = text.len };
    snprintf(file->path, sizeof file->path, "%s", path);
    snprintf(file->base, sizeof file->base, "%.*s", (int)(strrchr(path, '.') - path), path);
    file->is_open = strcmp(strrchr(path, '.'), ".open") == 0;
    if (older != NULL) {
        file->older = older->list[files->count].bytes;
        file->older_len = older->list[files->count].len;
    }
    file->work_len = file->len;
    file->work_room = 2 * file->len + file->older_len + (1 << 20);
    file->work = calloc(1, file->work_room);
    REQUIRE(file->work != NULL);
    memcpy(file->work, file->bytes, file->len);
    map_records(file);
    files->count++;
}

static void read_folder(struct damage_files *files, const char *folder, uint32_t stream,
                        const struct damage_files *older)
{
    struct file_names epochs, names;
    char path[600];
    struct status st;

    if (!file_list_on(&file_system, folder, &epochs, &st))
        damage_fail("%s", st.text);
    for (uint32_t i = 0; i < epochs.count; i++) {
        if (strchr(epochs.list[i], '.') != NULL)
            continue;
        if (snprintf(path, sizeof path, "%s/%s", folder, epochs.list[i]) >= (int)sizeof path)
            damage_fail("%s: its path is too long", folder);
        if (!file_list_on(&file_system, path, &names, &st))
            damage_fail("%s", st.text);
        for (uint32_t n = 0; n < names.count; n++) {
            char file[600];

            if (snprintf(file, sizeof file, "%s/%s", path, names.list[n]) < (int)sizeof file)
                read_file(files, file, stream, older);
        }
        file_names_free(&names);
    }
    file_names_free(&epochs);
}

void files_read(struct damage_files *files, const char *root, const struct damage_files *older)
{
    struct status st;

    files->count = 0;
    for (uint32_t i = 0; i < DAMAGE_STREAMS; i++) {
        char name[16], folder[600];

        damage_stream_name(i, name);
        snprintf(folder, sizeof folder, "%s/v1/default/%s", root, name);
        read_folder(files, folder, i, older);
        snprintf(files->definition_paths[i], sizeof files->definition_paths[i],
                 "%s/v1/default/%s/stream.json", root, name);
        if (!file_read_all(files->definition_paths[i], 1 << 16, &files->definitions[i], &st))
            damage_fail("%s", st.text);
    }
    REQUIRE(older == NULL || older->count == files->count);
}

void files_free(struct damage_files *files)
{
    for (uint32_t i = 0; i < files->count; i++) {
        free(files->list[i].bytes);
        free(files->list[i].work);
    }
    for (uint32_t i = 0; i < DAMAGE_STREAMS; i++)
        free(files->definitions[i].data);
    files->count = 0;
}

/* --- on the disk --- */

static void write_range(const struct damage_file *file, const uint8_t *bytes, uint64_t from, uint64_t to,
                        uint64_t len)
{
    int fd = open(file->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    bool ok = fd >= 0 && ftruncate(fd, (off_t)len) == 0;

    to = to < len ? to : len;
    while (ok && from < to) {
        ssize_t n = pwrite(fd, bytes + from, to - from, (off_t)from);

        ok = n > 0;
        from += ok ? (uint64_t)n : 0;
    }
    if (!ok)
        damage_fail("write %s: %s", file->path, strerror(errno));
    close(fd);
}

/* What was never written of a file that grows stays a hole. */
static void put(const struct damage_file *file)
{
    char path[620];

    snprintf(path, sizeof path, "%s%s", file->base, file->is_open ? ".seg" : ".open");
    unlink(path);
    unlink(file->path);
    write_range(file, file->bytes, 0, file->is_open ? file->records_end : file->len, file->len);
    if (file->is_open)
        write_range(file, file->bytes, file->len - KV_PAGE_BYTES, file->len, file->len);
}

void files_put(const struct damage_files *files, bool only_open)
{
    for (uint32_t i = 0; i < files->count; i++)
        if (files->list[i].is_open || !only_open)
            put(&files->list[i]);
    for (uint32_t i = 0; i < DAMAGE_STREAMS; i++) {
        const struct file_text *text = &files->definitions[i];
        struct status st;

        if (!file_write_through(files->definition_paths[i], text->data, text->len, &st))
            damage_fail("%s", st.text);
    }
}

void files_write_damage(struct damage_files *files)
{
    for (uint32_t i = 0; i < files->count; i++) {
        const struct damage_file *file = &files->list[i];

        if (file->is_dirty)
            write_range(file, file->work, file->dirty_from, file->dirty_to, file->work_len);
    }
}

static void forget_damage(struct damage_file *file)
{
    memcpy(file->work + file->dirty_from, file->bytes + file->dirty_from,
           file->dirty_from < file->len
               ? (file->dirty_to < file->len ? file->dirty_to : file->len) - file->dirty_from
               : 0);
    file->work_len = file->len;
    file->is_dirty = file->has_other_length = false;
}

void files_restore(struct damage_files *files)
{
    for (uint32_t i = 0; i < files->count; i++) {
        struct damage_file *file = &files->list[i];

        if (!file->is_dirty)
            continue;
        if (file->has_other_length)
            file->dirty_from = 0, file->dirty_to = file->len;
        write_range(file, file->bytes, file->dirty_from, file->dirty_to, file->len);
        forget_damage(file);
    }
}

/* --- damage --- */

static void touch(struct damage_file *file, uint64_t from, uint64_t to)
{
    if (!file->is_dirty || from < file->dirty_from)
        file->dirty_from = from;
    if (!file->is_dirty || to > file->dirty_to)
        file->dirty_to = to;
    file->is_dirty = true;
}

static uint64_t pick_between(struct sim_random *random, uint64_t from, uint64_t to)
{
    return from + sim_next(random) % (to - from);
}

static void flip_bits(const struct damage_place *place, uint32_t count, struct sim_random *random)
{
    for (uint32_t i = 0; i < count; i++)
        place->file->work[pick_between(random, place->from, place->to)] ^=
            (uint8_t)(1u << sim_pick(random, 8));
}

static void other_bytes(const struct damage_place *place, struct sim_random *random)
{
    uint64_t from = pick_between(random, place->from, place->to);
    uint64_t to = from + 1 + sim_pick(random, sim_chance(random, 50) ? 16 : KV_PAGE_BYTES);

    for (; from < to && from < place->to; from++)
        place->file->work[from] = (uint8_t)sim_next(random);
}

/* The sectors behind some are zeros, or those of an older file. */
static void tear(struct damage_file *file, uint64_t page, struct sim_random *random)
{
    uint64_t at = page + SECTOR_BYTES * pick_between(random, 1, KV_PAGE_BYTES / SECTOR_BYTES),
             end = page + KV_PAGE_BYTES;

    if (sim_chance(random, 50) && end <= file->older_len)
        memcpy(file->work + at, file->older + at, end - at);
    else
        memset(file->work + at, 0, end - at);
}

static void shift(struct damage_file *file, uint64_t page, struct sim_random *random)
{
    uint64_t by = SECTOR_BYTES * pick_between(random, 1, KV_PAGE_BYTES / SECTOR_BYTES);

    memmove(file->work + page + by, file->bytes + page, KV_PAGE_BYTES - by);
    memset(file->work + page, 0, by);
}

static void swap_pages(struct damage_file *a, uint64_t at_a, struct damage_file *b, uint64_t at_b)
{
    memcpy(a->work + at_a, b->bytes + at_b, KV_PAGE_BYTES);
    memcpy(b->work + at_b, a->bytes + at_a, KV_PAGE_BYTES);
    touch(b, at_b, at_b + KV_PAGE_BYTES);
}

static bool damage_page(enum damage_kind kind, const struct damage_place *place,
                        const struct damage_place *other, struct sim_random *random)
{
    struct damage_file *file = place->file;
    uint64_t page = round_down(pick_between(random, place->from, place->to), KV_PAGE_BYTES);
    uint64_t from = round_down(pick_between(random, other->from, other->to), KV_PAGE_BYTES);

    if (page + KV_PAGE_BYTES > file->len || from + KV_PAGE_BYTES > other->file->len)
        return false;
    if (kind == KIND_ZEROED)
        memset(file->work + page, 0, KV_PAGE_BYTES);
    else if (kind == KIND_TORN)
        tear(file, page, random);
    else if (kind == KIND_SHIFTED)
        shift(file, page, random);
    else if (kind == KIND_SWAPPED)
        swap_pages(file, page, other->file, from);
    else if (kind == KIND_STALE && page + KV_PAGE_BYTES <= file->older_len)
        memcpy(file->work + page, file->older + page, KV_PAGE_BYTES);
    else if (kind == KIND_DUPLICATED)
        memcpy(file->work + page, other->file->bytes + from, KV_PAGE_BYTES);
    touch(file, page, page + KV_PAGE_BYTES);
    return memcmp(file->work + page, file->bytes + page, KV_PAGE_BYTES) != 0;
}

static void take_content(struct damage_file *file, const uint8_t *bytes, uint64_t len)
{
    REQUIRE(len <= file->work_room);
    memcpy(file->work, bytes, len);
    file->work_len = len;
    file->has_other_length = true;
    touch(file, 0, len > file->len ? len : file->len);
}

static bool damage_file(enum damage_kind kind, const struct damage_place *place,
                        const struct damage_place *other, struct sim_random *random)
{
    struct damage_file *file = place->file;

    switch (kind) {
    case KIND_TRUNCATED:
        file->work_len = pick_between(random, place->from, place->to);
        file->has_other_length = true;
        touch(file, file->work_len, file->len);
        return true;
    case KIND_GROWN:
        file->work_len = file->len + 1 + sim_pick(random, GROWTH_BYTES);
        for (uint64_t i = file->len; i < file->work_len; i++)
            file->work[i] = (uint8_t)sim_next(random);
        file->has_other_length = true;
        touch(file, file->len, file->work_len);
        return true;
    case KIND_FILE_STALE:
        take_content(file, file->older, file->older_len);
        return file->older_len > 0;
    case KIND_FILE_SWAPPED:
        take_content(other->file, file->bytes, file->len);
        break;
    default:
        break;
    }
    take_content(file, other->file->bytes, other->file->len);
    return file != other->file;
}

bool files_damage(enum damage_kind kind, const struct damage_place *place, const struct damage_place *other,
                  struct sim_random *random)
{
    struct damage_file *file = place->file;

    if (place->from >= place->to || other->from >= other->to || file->has_other_length ||
        other->file->has_other_length)
        return false;
    if (kind >= KIND_TRUNCATED)
        return damage_file(kind, place, other, random);
    if (kind > KIND_BURST)
        return damage_page(kind, place, other, random);
    if (kind == KIND_BURST)
        other_bytes(place, random);
    else
        flip_bits(place, kind == KIND_BIT ? 1 : 2 + sim_pick(random, 63), random);
    touch(file, place->from, place->to);
    return files_differ(file, place->from, place->to);
}

bool files_differ(const struct damage_file *file, uint64_t from, uint64_t to)
{
    return file->is_dirty &&
           (to > file->work_len || memcmp(file->work + from, file->bytes + from, to - from) != 0);
}
