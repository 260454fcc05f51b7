/* damage_files.h - the segment files of a store as they were written, what lies where in them, and damage to them.
 *
 * Owner:  the program. Thread: its own; the store sees the files change under it. */
#ifndef REELKV_TEST_DAMAGE_FILES_H
#define REELKV_TEST_DAMAGE_FILES_H

#include "base/file.h"
#include "damage_host.h"
#include "kv/kv_footer.h"
#include "simulation/sim_random.h"

enum { DAMAGE_FILES = 3 * DAMAGE_STREAMS, DAMAGE_RECORDS_MAX = 8 };

/* What may happen to bytes on a disk. Those from KIND_TRUNCATED on happen to a file. */
#define DAMAGE_KINDS(X)                             \
    X(BIT, "one bit")                               \
    X(BITS, "2 to 64 bits")                         \
    X(BURST, "a run of other bytes")                \
    X(ZEROED, "a page of zeros")                    \
    X(TORN, "a torn page")                          \
    X(SHIFTED, "a page moved by sectors")           \
    X(SWAPPED, "two pages swapped")                 \
    X(STALE, "a page of an older file")             \
    X(DUPLICATED, "a page of elsewhere")            \
    X(TRUNCATED, "a file cut short")                \
    X(GROWN, "a file with bytes behind its end")    \
    X(FILE_STALE, "an older file in its place")     \
    X(FILE_DUPLICATED, "another file in its place") \
    X(FILE_SWAPPED, "two files swapped")
enum damage_kind {
#define KIND(name, words) KIND_##name,
    DAMAGE_KINDS(KIND)
#undef KIND
        KIND_COUNT
};
extern const char *const damage_kind_words[KIND_COUNT];

struct damage_record {
    uint64_t offset;
    struct kv_record header;
    struct kv_layout layout;
};

struct damage_file {
    char path[600], base[600]; /* with and without .seg or .open */
    uint32_t stream;
    bool is_open;
    uint8_t *bytes, *work, *older; /* as written; as it is now; of another store, at the same place */
    uint64_t len, work_len, older_len;
    struct damage_record records[DAMAGE_RECORDS_MAX];
    uint32_t record_count;
    uint64_t records_end, work_room;
    struct kv_footer footer; /* of a sealed one */
    bool is_dirty, has_other_length;
    uint64_t dirty_from, dirty_to;
};

struct damage_files {
    struct damage_file list[DAMAGE_FILES];
    uint32_t count;
    struct file_text definitions[DAMAGE_STREAMS]; /* stream.json */
    char definition_paths[DAMAGE_STREAMS][600];
};

/* Reads all segment files below root; with `older`, those of a store that was written in the same way. */
void files_read(struct damage_files *files, const char *root, const struct damage_files *older);
void files_free(struct damage_files *files);

/* Puts the files there as they were, stream.json too, and no others; only_open: of the segments those that were growing,
 * which a start seals. */
void files_put(const struct damage_files *files, bool only_open);

/* Damages bytes of [from, to) of the file's work copy; those of pages, one that lies in there partly. `other` is a place in
 * some file, for what comes from elsewhere. False: no byte changed, or the kind has no use for these bytes. */
struct damage_place {
    struct damage_file *file;
    uint64_t from, to;
};
bool files_damage(enum damage_kind kind, const struct damage_place *place, const struct damage_place *other,
                  struct sim_random *random);

/* Whether bytes of [from, to) are not what was written. */
bool files_differ(const struct damage_file *file, uint64_t from, uint64_t to);

/* The work copies of damaged files to the disk; and back to what was written. */
void files_write_damage(struct damage_files *files);
void files_restore(struct damage_files *files);

#endif
