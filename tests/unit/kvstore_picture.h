/* kvstore_picture.h - the files of a small stream as bytes, to be changed and put back: a store is opened on what a crash or a bad
 * disk left of them. */
#ifndef REELKV_TEST_KVSTORE_PICTURE_H
#define REELKV_TEST_KVSTORE_PICTURE_H

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/file.h"
#include "kvstore_fixture.h"

enum { PICTURE_FRAMES = 12 };

/* The bytes of the one segment file, and where it is. */
struct picture {
    char path[1024]; /* of the .open or .seg file */
    char json[1024];
    struct file_text segment, definition;
    struct fixture fixture; /* its options; the store is closed */
    bool is_open;
};

static inline void picture_find_segment(const char *folder, const char *suffix, char path[1024])
{
    DIR *dir = opendir(folder);
    struct dirent *entry;

    CHECK(dir != NULL);
    path[0] = '\0';
    while ((entry = readdir(dir)) != NULL) {
        size_t len = strlen(entry->d_name);

        if (len > strlen(suffix) && strcmp(entry->d_name + len - strlen(suffix), suffix) == 0)
            snprintf(path, 1024, "%s/%s", folder, entry->d_name);
    }
    closedir(dir);
    CHECK(path[0] != '\0');
}

/* A store with INIT and PICTURE_FRAMES frames; its files as they are while it runs (.open), or after it has closed. */
static inline void picture_take(struct picture *picture, bool is_open)
{
    struct fixture *fixture = &picture->fixture;
    struct fixture_writer writer;
    struct stream *stream;
    char folder[600];

    memset(picture, 0, sizeof *picture);
    picture->is_open = is_open;
    fixture_start(fixture);
    stream = fixture_write(fixture, "cam-1", &writer, PICTURE_FRAMES);
    fixture_wait_durable(fixture, stream);
    snprintf(folder, sizeof folder, "%s/v1/default/cam-1/%020d", fixture->root, 1);
    snprintf(picture->json, sizeof picture->json, "%s/v1/default/cam-1/stream.json", fixture->root);
    if (!is_open) {
        stream_detach(stream, &writer.base);
        fixture_wait_sealed(fixture, stream);
    }
    picture_find_segment(folder, is_open ? ".open" : ".seg", picture->path);
    CHECK_OK(file_read_all(picture->path, 64 << 20, &picture->segment, &fixture->st), fixture->st);
    CHECK_OK(file_read_all(picture->json, 64 << 20, &picture->definition, &fixture->st), fixture->st);
    if (is_open)
        stream_detach(stream, &writer.base);
    fixture_stop(fixture);
}

static inline void picture_drop(struct picture *picture)
{
    free(picture->segment.data);
    free(picture->definition.data);
}

static inline void picture_write_file(const char *path, const char *data, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    struct status st;

    CHECK(fd >= 0);
    CHECK_OK(file_write_fully(fd, data, len, &st), st);
    close(fd);
}

/* Puts the files back as the picture shows them, with these bytes for the segment, and opens the store. */
static inline struct stream *picture_restore(struct picture *picture, const char *bytes, size_t len)
{
    struct fixture *fixture = &picture->fixture;
    char folder[600];

    snprintf(folder, sizeof folder, "%s/v1/default/cam-1", fixture->root);
    CHECK_OK(file_remove_tree(folder, &fixture->st), fixture->st);
    snprintf(folder, sizeof folder, "%s/v1/default/cam-1/%020d", fixture->root, 1);
    CHECK_OK(file_make_folders(folder, &fixture->st), fixture->st);
    picture_write_file(picture->path, bytes, len);
    picture_write_file(picture->json, picture->definition.data, picture->definition.len);
    fixture_open(fixture);
    return store_find(fixture->store, "default", "cam-1");
}

struct picture_tally {
    unsigned right, quarantined, absent;
};

/* Reads everything; wrong bytes fail the test inside. */
static inline struct picture_tally picture_count(struct picture *picture, struct stream *stream)
{
    struct picture_tally tally = { 0 };

    for (uint64_t seq = 0; seq < PICTURE_FRAMES; seq++) {
        bool is_right = true, is_quarantined = false;

        for (uint32_t layer = 0; layer <= fixture_geometry.layers; layer++) {
            enum frame_result result =
                fixture_read_layer(&picture->fixture, stream, seq,
                                   layer == fixture_geometry.layers ? (uint32_t)SLICE_THUMBNAIL : layer);

            is_right &= result == FRAME_OK;
            is_quarantined |= result == FRAME_QUARANTINED;
        }
        tally.right += is_right;
        tally.quarantined += is_quarantined;
        tally.absent += !is_right && !is_quarantined;
    }
    return tally;
}

static inline uint64_t picture_record_bytes(void)
{
    struct kv_record record;
    struct kv_layout layout;

    kv_record_init_block(&record, KV_RECORD_FRAME, &fixture_geometry, FIXTURE_TOKENS);
    record.thumbnail_bytes = 4;
    kv_record_layout(&record, &layout);
    return layout.record_bytes;
}

static inline uint64_t picture_init_bytes(void)
{
    struct kv_record record;
    struct kv_layout layout;

    kv_record_init_block(&record, KV_RECORD_INIT, &fixture_geometry, FIXTURE_INIT_TOKENS);
    kv_record_layout(&record, &layout);
    return layout.record_bytes;
}

static inline uint64_t picture_offset(uint64_t seq)
{
    return KV_PAGE_BYTES + picture_init_bytes() + seq * picture_record_bytes();
}

#endif
