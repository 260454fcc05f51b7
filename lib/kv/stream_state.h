/* stream_state.h - what of a stream must outlive every process: its definition, its epoch, whether it has ended.
 *
 * JSON in <stream>/stream.json (checked_json.h), durable before anything of the stream is acknowledged:
 *   { "format": 2, "file": S, "namespace": S, "name": S, "source": S, "kind": "file"|"live", "sample_fps": F, "start_time_ns": N,
 *     "created_ns": N, "class": S, "epoch": N, "next_seq": N, "writer": S, "expected_frames": N, "ended": B, "trouble": S,
 *     "importing": true }
 *
 * `importing` is there until all of an import is. `next_seq` is that of the moment it was written, as far as blocks were
 * durable, and not older than the last sealed segment; a file without it, or without `class`, is of an older store.
 *
 * A start of the store and `mem fsck` read it by this one reader, as they do the other small files.
 *
 * Thread: any. Fails: as checked_json.h; INVALID or DATA_LOSS, with the path, for members that are missing or make no sense.
 * Bounds: STREAM_STATE_BYTES_MAX of a file. */
#ifndef REELKV_KV_STREAM_STATE_H
#define REELKV_KV_STREAM_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/limits.h"
#include "kv/checked_json.h"

enum {
    STREAM_TROUBLE_BYTES = 512,
    STREAM_WRITER_BYTES = 128,
    STREAM_STATE_BYTES_MAX = 64 << 10,
};

enum stream_source_kind { STREAM_FILE = 1, STREAM_LIVE = 2 }; /* numbers of proto SourceKind */

struct stream_definition {
    char source[LIMIT_URL_BYTES + 1];
    enum stream_source_kind kind;
    double sample_fps;
    int64_t start_time_ns;
    int64_t created_ns;
    char class[LIMIT_NAME_BYTES + 1]; /* of --ageing; "": default */
};

struct stream_state {
    struct stream_definition definition;
    uint64_t epoch, next_seq, expected_frames;
    char writer[STREAM_WRITER_BYTES], trouble[STREAM_TROUBLE_BYTES];
    bool has_ended, is_importing;
};

/* free(); NULL: no memory. */
char *stream_state_text(const struct stream_state *state, const char *ns, const char *name);

/* Of the stream's folder; it must be that stream's. What was read is in *state only when all of it makes sense. */
bool stream_state_read(struct stream_state *state, const struct file_ops *disk, const char *folder,
                       const char *ns, const char *name, struct status *st);

/* Without a stream.json: has the folder anything else than what a definition may leave that was never durable? */
bool stream_folder_has_files(const struct file_ops *disk, const char *folder, bool *has_p, struct status *st);

#endif
