#include "damage_start.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/require.h"

enum { LOG_BYTES_MAX = 4 << 20 };

/* What was done to a file. */
struct harm {
    bool is_done;
    enum damage_kind kind;
    bool is_of_unused; /* behind the records of an open file: nothing that is there depends on it */
};

static bool damage_in(struct start_round *round, struct damage_file *file, struct harm *harm, uint64_t from,
                      uint64_t to)
{
    const struct damage_file *list = round->files->list;
    struct damage_file *other = &round->files->list[sim_pick(round->random, round->files->count)];
    const struct damage_place place = { file, from, to }, elsewhere = { other, 0, other->len };
    enum damage_kind kind = (enum damage_kind)sim_pick(round->random, KIND_TRUNCATED);

    REQUIRE(file >= list);
    if (kind == KIND_SWAPPED) /* the other file must not change */
        kind = KIND_DUPLICATED;
    if (!files_damage(kind, &place, &elsewhere, round->random))
        return false;
    harm->is_done = true;
    harm->kind = kind;
    return true;
}

static bool damage_record(struct start_round *round, struct damage_file *file, struct harm *harm)
{
    const struct damage_record *record = &file->records[sim_pick(round->random, file->record_count)];

    return damage_in(round, file, harm, record->offset, record->offset + record->layout.record_bytes);
}

static void damage_whole(struct start_round *round, struct damage_file *file, struct harm *harms)
{
    static const enum damage_kind kinds[] = { KIND_TRUNCATED,  KIND_TRUNCATED,       KIND_GROWN,
                                              KIND_FILE_STALE, KIND_FILE_DUPLICATED, KIND_FILE_SWAPPED };
    uint32_t at = sim_pick(round->random, round->files->count);
    struct harm *harm = &harms[file - round->files->list];
    struct damage_file *other = &round->files->list[at];
    const struct damage_place place = { file, 0, file->len }, elsewhere = { other, 0, other->len };
    enum damage_kind kind = kinds[sim_pick(round->random, ARRAY_LEN(kinds))];

    if (kind >= KIND_FILE_DUPLICATED && (other == file || (kind == KIND_FILE_SWAPPED && other->is_dirty)))
        return;
    harm->is_done = files_damage(kind, &place, &elsewhere, round->random);
    harm->kind = kind;
    harm->is_of_unused = file->is_open && kind == KIND_GROWN;
    if (kind == KIND_FILE_SWAPPED)
        harms[at] = *harm;
}

static void damage_one(struct start_round *round, struct damage_file *file, struct harm *harms)
{
    struct harm *harm = &harms[file - round->files->list];
    uint32_t what = sim_pick(round->random, 100);

    if (what < 15) {
        damage_in(round, file, harm, 0, KV_PAGE_BYTES);
    } else if (what < 30) {
        damage_whole(round, file, harms);
    } else if (file->is_open && what < 40) {
        harm->is_of_unused = damage_in(round, file, harm, file->records_end, file->len);
    } else if (file->is_open) {
        damage_record(round, file, harm);
    } else {
        damage_in(round, file, harm, file->records_end, file->len);
        if (harm->is_done && what < 60)
            damage_record(round, file, harm);
    }
}

/* --- what the store says --- */

static char *read_log(struct start_round *round)
{
    char *text = calloc(1, LOG_BYTES_MAX);
    ssize_t len;

    REQUIRE(text != NULL);
    len = pread(round->log, text, LOG_BYTES_MAX - 1, 0);
    REQUIRE(len >= 0 && len < LOG_BYTES_MAX - 1);
    return text;
}

/* The log has a line of this file that says that something is wrong. */
static bool is_told(const char *log, const struct damage_file *file)
{
    static const char sound[] = ": 0 torn bytes cut, 0 bytes and 0 frames damaged";

    for (const char *at = strstr(log, file->base); at != NULL; at = strstr(at + 1, file->base)) {
        const char *rest = at + strlen(file->base);

        if (!file->is_open || strncmp(rest, sound, strlen(sound)) != 0)
            return true;
    }
    return false;
}

enum verdict { MUST_BE_RIGHT, MUST_BE_QUARANTINED, MAY_BE_LOST };

/* Of a frame in a damaged file. */
static enum verdict verdict_of(const struct damage_file *file, const struct harm *harm,
                               const struct damage_record *record)
{
    bool is_record_sound = !files_differ(file, record->offset, record->offset + record->layout.record_bytes);

    if (!harm->is_done)
        return MUST_BE_RIGHT;
    if (harm->kind >= KIND_FILE_STALE || files_differ(file, 0, KV_PAGE_BYTES))
        return harm->kind >= KIND_TRUNCATED && file->is_open ? MAY_BE_LOST : MUST_BE_QUARANTINED;
    if (is_record_sound)
        return MUST_BE_RIGHT;
    return harm->kind == KIND_TRUNCATED ? MAY_BE_LOST : MUST_BE_QUARANTINED;
}

static bool is_as(enum verdict verdict, enum said said)
{
    if (verdict == MAY_BE_LOST)
        return said == SAID_QUARANTINED || said == SAID_OTHER || said == SAID_NOTHING;
    return said == (verdict == MUST_BE_RIGHT ? SAID_RIGHT : SAID_QUARANTINED);
}

static void judge_frames(struct start_round *round, const struct harm *harms, const struct asked *asked)
{
    uint32_t frames[DAMAGE_STREAMS] = { 0 };

    for (uint32_t i = 0; i < round->files->count; i++) {
        const struct damage_file *file = &round->files->list[i];

        for (uint32_t n = 0; n < file->record_count; n++) {
            const struct damage_record *record = &file->records[n];
            enum said said;

            if (record->header.type != KV_RECORD_FRAME)
                continue;
            said = asked->said[file->stream][frames[file->stream]++];
            if (!is_as(verdict_of(file, &harms[i], record), said))
                damage_fail("frame %llu of %s (%s, bytes %llu to %llu): answered %d",
                            (unsigned long long)record->header.seq, file->path,
                            harms[i].is_done ? damage_kind_words[harms[i].kind] : "not damaged",
                            (unsigned long long)file->dirty_from, (unsigned long long)file->dirty_to, said);
            round->frames_served += said == SAID_RIGHT;
        }
    }
}

struct numbers {
    uint64_t next_seq[DAMAGE_STREAMS];
};

static void read_numbers(struct host *host, void *arg)
{
    struct numbers *numbers = arg;

    for (uint32_t i = 0; i < DAMAGE_STREAMS; i++) {
        char name[16];

        damage_stream_name(i, name);
        numbers->next_seq[i] = store_find(host->kvstore.store, "default", name)->next_seq;
    }
}

/* What all of an open file had, or its cut end, nobody knows any more; a sealed one's numbers are in stream.json. */
static void judge_numbers(struct start_round *round, const struct harm *harms)
{
    struct numbers numbers;

    host_do(round->host, read_numbers, &numbers);
    for (uint32_t i = 0; i < round->files->count; i++) {
        const struct damage_file *file = &round->files->list[i];
        uint64_t end_seq = file->records[file->record_count - 1].header.end_seq;

        bool is_unknown = file->is_open && harms[i].is_done && harms[i].kind >= KIND_TRUNCATED;

        if (numbers.next_seq[file->stream] < end_seq && !is_unknown)
            damage_fail("%s (%s): number %llu would be given again", file->path,
                        harms[i].is_done ? damage_kind_words[harms[i].kind] : "not damaged",
                        (unsigned long long)numbers.next_seq[file->stream]);
    }
}

static void judge_log(struct start_round *round, const struct harm *harms, uint64_t *harmless_p)
{
    char *log = read_log(round);

    for (uint32_t i = 0; i < round->files->count; i++) {
        const struct damage_file *file = &round->files->list[i];
        const struct harm *harm = &harms[i];
        bool told = is_told(log, file);

        if (!harm->is_done && told)
            damage_fail("%s is not damaged, and the log says that it is", file->path);
        if (harm->is_done && !told && !harm->is_of_unused)
            damage_fail("%s (%s, bytes %llu to %llu): the log says nothing of it", file->path,
                        damage_kind_words[harm->kind], (unsigned long long)file->dirty_from,
                        (unsigned long long)file->dirty_to);
        round->samples[harm->kind] += harm->is_done && told;
        *harmless_p += harm->is_done && !told;
    }
    free(log);
}

void start_round(struct start_round *round, uint64_t *harmless_p)
{
    struct harm harms[DAMAGE_FILES] = { 0 };
    struct asked asked;

    for (uint32_t i = 0; i < round->files->count; i++)
        if (!harms[i].is_done && sim_chance(round->random, 50))
            damage_one(round, &round->files->list[i], harms);
    files_write_damage(round->files);
    if (ftruncate(round->log, 0) != 0)
        damage_fail("the log cannot be emptied");
    host_do(round->host, host_open, NULL);
    judge_log(round, harms, harmless_p);
    judge_numbers(round, harms);
    client_ask(round->client, ASK_FETCH, &asked);
    judge_frames(round, harms, &asked);
    host_do(round->host, host_close, NULL);
    files_restore(round->files);
    files_put(round->files, true);
}
