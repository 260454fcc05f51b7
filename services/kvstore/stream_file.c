/* The small files of a stream: stream.json (kv/stream_state.h) and those beside it. Each is replaced durably, one save after
 * the other; whoever asked is told when its content is on the disk. */
#include "kvstore/stream_forget.h"
#include "kvstore/stream_hold.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/name.h"
#include "base/require.h"
#include "kvstore/store.h"

size_t stream_copy_text(char *out, size_t room, const char *text)
{
    size_t len = strnlen(text, room);
    bool is_valid;

    while (len == room && len > 0 && ((uint8_t)text[len] & 0xc0) == 0x80)
        room = --len;
    memcpy(out, text, len);
    is_valid = utf8_is_valid(out, len);
    for (size_t i = 0; !is_valid && i < len; i++)
        if ((uint8_t)out[i] >= 0x80)
            out[i] = '?';
    return len;
}

void stream_set_trouble(struct stream *stream, const char *trouble)
{
    stream->trouble[stream_copy_text(stream->trouble, sizeof stream->trouble - 1, trouble)] = '\0';
}

void stream_set_encoder_says(struct stream *stream, const char *trouble)
{
    char *text = stream->encoder_says;

    text[stream_copy_text(text, sizeof stream->encoder_says - 1, trouble)] = '\0';
}

struct stream_save {
    struct work work;
    struct stream *stream;
    struct stream_save *next;
    const char *name;     /* of the file */
    char *text, *history; /* history: of an import that begins; else NULL */
    bool is_first;        /* of a new stream: its folders too */
    bool ok, is_running;
    struct status st;
    stream_done_fn *done;
    void *user;
};

void stream_file_of(const struct stream *stream, const char *name, char file[CHECKED_JSON_FILE_BYTES])
{
    snprintf(file, CHECKED_JSON_FILE_BYTES, "%s/%s/%s", stream->ns, stream->name, name);
}

static char *text_of(const struct stream *stream)
{
    struct stream_state state = { .definition = stream->definition,
                                  .epoch = stream->epoch,
                                  .next_seq = stream_durable_seq(stream),
                                  .expected_frames = stream->expected_frames,
                                  .has_ended = stream->has_ended,
                                  .is_importing = stream->is_importing && !stream->is_finishing };

    text_copy(state.writer, sizeof state.writer, stream->writer_name);
    text_copy(state.trouble, sizeof state.trouble, stream->trouble);
    return stream_state_text(&state, stream->ns, stream->name);
}

static bool make_folders(const struct stream *stream, struct status *st)
{
    const struct file_ops *disk = stream->store->disk;
    char path[PATH_MAX];

    if (!file_make_folders_on(disk, stream->folder, st))
        return false;
    snprintf(path, sizeof path, "%s/v1/%s", stream->store->options.root, stream->ns);
    if (!file_sync_folder_on(disk, path, st))
        return false;
    snprintf(path, sizeof path, "%s/v1", stream->store->options.root);
    return file_sync_folder_on(disk, path, st);
}

static bool write_text(struct stream_save *save, const char *name, const char *text)
{
    char path[PATH_MAX + 16];

    snprintf(path, sizeof path, "%s/%s", save->stream->folder, name);
    return file_write_durable_on(save->stream->store->disk, path, text, strlen(text), &save->st);
}

static void save_run(struct work *work)
{
    struct stream_save *save = container_of(work, struct stream_save, work);

    save->ok = (!save->is_first || make_folders(save->stream, &save->st)) &&
               write_text(save, save->name, save->text) &&
               (save->history == NULL || write_text(save, "history.json", save->history));
}

static void save_done(struct work *work)
{
    struct stream_save *save = container_of(work, struct stream_save, work);
    struct stream *stream = save->stream;

    stream->saves = save->next;
    if (stream->saves == NULL)
        stream->saves_end = &stream->saves;
    if (!save->ok)
        log_error(NULL, "stream_not_saved", "%s/%s: %s: %s", stream->ns, stream->name, save->name,
                  save->st.text);
    if (save->is_first && save->ok)
        stream->is_ready = true;
    if (save->is_first && !save->ok)
        store_remove_stream(stream->store, stream);
    if (save->done != NULL)
        save->done(save->user, save->ok ? stream : NULL, save->ok ? NULL : &save->st);
    if (save->is_first && !save->ok) {
        stream_free(stream);
    } else {
        stream_pump_saves(stream);
        stream_progress(stream);
    }
    free(save->history);
    free(save->text);
    free(save);
}

void stream_pump_saves(struct stream *stream)
{
    struct stream_save *save = stream->saves;

    if (save == NULL || save->is_running)
        return;
    save->work = (struct work){ .run = save_run, .done = save_done };
    save->is_running = work_pool_submit(stream->store->writing, &save->work);
    if (!save->is_running)
        store_retry_later(stream->store);
}

bool stream_save(struct stream *stream, stream_done_fn *done, void *user, struct status *st)
{
    return stream_save_text(stream, "stream.json", text_of(stream), done, user, st);
}

bool stream_save_text(struct stream *stream, const char *name, char *text, stream_done_fn *done, void *user,
                      struct status *st)
{
    struct stream_save *save = calloc(1, sizeof *save);
    bool is_first = !stream->is_ready && stream->saves == NULL,
         has_history = is_first && stream->is_importing;
    char file[CHECKED_JSON_FILE_BYTES], *history;

    stream_file_of(stream, "history.json", file);
    history = has_history ? history_text(&stream->history, file) : NULL;
    if (save == NULL || text == NULL || (has_history && history == NULL)) {
        free(save);
        free(text);
        free(history);
        return status_fail(st, STATUS_EXHAUSTED, "no memory to save stream %s", stream->name);
    }
    save->stream = stream;
    save->name = name;
    save->text = text;
    save->history = history;
    save->is_first = is_first;
    save->done = done;
    save->user = user;
    *stream->saves_end = save;
    stream->saves_end = &save->next;
    stream_pump_saves(stream);
    return true;
}

bool stream_begin(struct stream *stream, stream_done_fn *done, void *user, struct status *st)
{
    stream->definition.created_ns = clock_utc_ns();
    if (!store_add_stream(stream->store, stream, st)) {
        stream_free(stream);
        return false;
    }
    if (stream_save(stream, done, user, st))
        return true;
    store_remove_stream(stream->store, stream);
    stream_free(stream);
    return false;
}

bool stream_define(struct store *store, const char *ns, const char *name,
                   const struct stream_definition *definition, stream_done_fn *done, void *user,
                   struct status *st)
{
    struct stream *stream;

    if (store->disk_used_bytes + STORE_STREAM_DISK_BYTES > store->options.disk_bytes)
        return status_fail(st, STATUS_EXHAUSTED, "disk_budget_bytes has no room for one more stream");
    if (!stream_create(&stream, store, ns, name, st))
        return false;
    stream->definition = *definition;
    return stream_begin(stream, done, user, st);
}

static bool has_shape_of(const struct stream *stream, const struct stream_open_request *request)
{
    return memcmp(stream->fingerprint, request->fingerprint, KV_FINGERPRINT_BYTES) == 0 &&
           kv_geometry_is_equal(&stream->geometry, &request->geometry);
}

static bool check_request(const struct stream *stream, const struct stream_open_request *request,
                          struct status *st)
{
    char held[2 * KV_FINGERPRINT_BYTES + 1], wanted[2 * KV_FINGERPRINT_BYTES + 1];
    char text[KV_GEOMETRY_TEXT_BYTES];

    if (!kv_geometry_check(&request->geometry, st))
        return false;
    if (request->expected_frames > STREAM_NUMBER_MAX)
        return status_fail(st, STATUS_INVALID, "stream %s: %llu frames expected; a stream has at most %llu",
                           stream->name, (unsigned long long)request->expected_frames, STREAM_NUMBER_MAX);
    if (!stream->has_shape || stream_frame_count(stream) == 0)
        return true;
    hex_write(stream->fingerprint, KV_FINGERPRINT_BYTES, held);
    hex_write(request->fingerprint, KV_FINGERPRINT_BYTES, wanted);
    if (memcmp(stream->fingerprint, request->fingerprint, KV_FINGERPRINT_BYTES) != 0)
        return status_fail(
            st, STATUS_PRECONDITION,
            "stream %s holds blocks of fingerprint %s, not %s: start with the model, dtype and "
            "window of then, or remove it",
            stream->name, held, wanted);
    if (!kv_geometry_is_equal(&stream->geometry, &request->geometry))
        return status_fail(st, STATUS_PRECONDITION, "stream %s holds blocks of %s", stream->name,
                           kv_geometry_text(&stream->geometry, text));
    return true;
}

/* Whoever was told that they are there would not write them again. */
static bool is_synced(const struct stream *stream, struct status *st)
{
    for (uint32_t i = 0; i < stream->segment_count; i++)
        if (stream->segments[i]->is_unsynced)
            return status_fail(
                st, STATUS_UNAVAILABLE,
                "stream %s cannot be written: what the store found in %s.open could not be synced; start "
                "it again when the disk takes it",
                stream->name, stream->segments[i]->base);
    return true;
}

static void give_to_writer(struct stream *stream, const struct stream_open_request *request)
{
    stream->epoch++;
    stream->has_shape = true;
    stream->geometry = request->geometry;
    memcpy(stream->fingerprint, request->fingerprint, KV_FINGERPRINT_BYTES);
    snprintf(stream->writer_name, sizeof stream->writer_name, "%s", request->writer);
    if (request->expected_frames > 0)
        stream->expected_frames = request->expected_frames;
}

bool stream_open(struct stream *stream, const struct stream_open_request *request, stream_done_fn *done,
                 void *user, struct status *st)
{
    struct stream then =
        *stream; /* for its text: the stream itself stays as it is until that is on its way */
    struct status why;

    if (stream->deletion != NULL)
        return status_fail(st, STATUS_NOT_FOUND, "stream %s is being removed", stream->name);
    if (!check_request(stream, request, st) || !is_synced(stream, st))
        return false;
    give_to_writer(&then, request);
    if (!stream_save_text(stream, "stream.json", text_of(&then), done, user, st))
        return false;
    status_fail(&why, STATUS_ABORTED, "stream %s was taken over by %s", stream->name, request->writer);
    stream_fence_writer(stream, &why);
    if (!has_shape_of(stream, request))
        stream_drop_init(stream);
    give_to_writer(stream, request);
    return true;
}

/* --- at start --- */

bool stream_load_file(struct stream *stream, struct status *st)
{
    const struct file_ops *disk = stream->store->disk;
    struct stream_state state;
    char path[PATH_MAX + 16];

    if (!stream_state_read(&state, disk, stream->folder, stream->ns, stream->name, st))
        return false;
    stream->definition = state.definition;
    stream->epoch = state.epoch;
    stream->saved_seq = state.next_seq;
    stream->expected_frames = state.expected_frames;
    stream->has_ended = state.has_ended;
    stream->is_importing = state.is_importing;
    text_copy(stream->writer_name, sizeof stream->writer_name, state.writer);
    stream_set_trouble(stream, state.trouble);
    if (stream->is_importing) /* it goes */
        return true;
    snprintf(path, sizeof path, "%s/history.json", stream->folder);
    stream->is_ready = true;
    return history_read(&stream->history, disk, path, st) && stream_holds_load(stream, st) &&
           stream_forget_load(stream, st);
}
