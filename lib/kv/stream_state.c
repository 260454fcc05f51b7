#include "kv/stream_state.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/name.h"
#include "kv/history.h"

char *stream_state_text(const struct stream_state *state, const char *ns, const char *name)
{
    const struct stream_definition *definition = &state->definition;
    char file[CHECKED_JSON_FILE_BYTES];
    struct json *object;

    snprintf(file, sizeof file, "%s/%s/stream.json", ns, name);
    object = checked_json_make(file);
    json_set_str(object, "namespace", ns);
    json_set_str(object, "name", name);
    json_set_str(object, "source", definition->source);
    json_set_str(object, "kind", definition->kind == STREAM_FILE ? "file" : "live");
    json_set_f64(object, "sample_fps", definition->sample_fps);
    json_set_i64(object, "start_time_ns", definition->start_time_ns);
    json_set_i64(object, "created_ns", definition->created_ns);
    json_set_str(object, "class", definition->class);
    json_set_u64(object, "epoch", state->epoch);
    json_set_u64(object, "next_seq", state->next_seq);
    json_set_str(object, "writer", state->writer);
    json_set_u64(object, "expected_frames", state->expected_frames);
    json_set_bool(object, "ended", state->has_ended);
    json_set_str(object, "trouble", state->trouble);
    if (state->is_importing)
        json_set_bool(object, "importing", true);
    return checked_json_text(object, 2);
}

/* --- reading --- */

static bool read_text(const struct json *object, const char *key, char *out, size_t room, struct status *st)
{
    const char *text;

    if (!json_read_str(object, key, &text, st))
        return false;
    return text_copy(out, room, text) || status_fail(st, STATUS_DATA_LOSS, "its %s is too long", key);
}

static bool read_kind(const struct json *object, enum stream_source_kind *kind_p, struct status *st)
{
    const char *kind;

    if (!json_read_str(object, "kind", &kind, st))
        return false;
    *kind_p = strcmp(kind, "file") == 0 ? STREAM_FILE : STREAM_LIVE;
    return *kind_p == STREAM_FILE || strcmp(kind, "live") == 0 ||
           status_fail(st, STATUS_DATA_LOSS, "it is neither of a file nor live");
}

static bool read_flag(const struct json *object, const char *key, bool is_required, bool *flag_p,
                      struct status *st)
{
    const struct json *value = json_get(object, key);

    *flag_p = json_bool(value);
    return json_is_bool(value) || (value == NULL && !is_required) ||
           status_fail(st, STATUS_DATA_LOSS, "\"%s\" is neither true nor false", key);
}

static bool read_definition(struct stream_definition *definition, const struct json *object,
                            struct status *st)
{
    if (!read_text(object, "source", definition->source, sizeof definition->source, st) ||
        !read_kind(object, &definition->kind, st) ||
        !json_read_f64(object, "sample_fps", &definition->sample_fps, st) ||
        !json_read_i64(object, "start_time_ns", &definition->start_time_ns, st) ||
        !json_read_i64(object, "created_ns", &definition->created_ns, st))
        return false;
    if (json_get(object, "class") != NULL &&
        !read_text(object, "class", definition->class, sizeof definition->class, st))
        return false;
    return definition->sample_fps >= 0 ||
           status_fail(st, STATUS_DATA_LOSS, "its frames a second are less than none");
}

static bool read_state(struct stream_state *state, const struct json *object, struct status *st)
{
    if (!read_definition(&state->definition, object, st) ||
        !json_read_u64(object, "epoch", &state->epoch, st) ||
        !read_text(object, "writer", state->writer, sizeof state->writer, st) ||
        !json_read_u64(object, "expected_frames", &state->expected_frames, st) ||
        !read_flag(object, "ended", true, &state->has_ended, st) ||
        !read_text(object, "trouble", state->trouble, sizeof state->trouble, st) ||
        !read_flag(object, "importing", false, &state->is_importing, st))
        return false;
    if (json_get(object, "next_seq") != NULL && !json_read_u64(object, "next_seq", &state->next_seq, st))
        return false;
    return (state->epoch <= HISTORY_NUMBER_MAX && state->next_seq <= HISTORY_NUMBER_MAX &&
            state->expected_frames <= HISTORY_NUMBER_MAX) ||
           status_fail(st, STATUS_DATA_LOSS, "its numbers make no sense");
}

static bool is_of(const struct json *object, const char *ns, const char *name, struct status *st)
{
    const char *its_ns, *its_name;

    if (!json_read_str(object, "namespace", &its_ns, st) || !json_read_str(object, "name", &its_name, st))
        return false;
    return (strcmp(its_ns, ns) == 0 && strcmp(its_name, name) == 0) ||
           status_fail(st, STATUS_DATA_LOSS, "it is of camera %s of namespace %s", its_name, its_ns);
}

bool stream_state_read(struct stream_state *state, const struct file_ops *disk, const char *folder,
                       const char *ns, const char *name, struct status *st)
{
    struct stream_state read = { 0 };
    char path[PATH_MAX + 16];
    struct json *object;
    bool ok;

    snprintf(path, sizeof path, "%s/stream.json", folder);
    object = checked_json_read(disk, path, STREAM_STATE_BYTES_MAX, "namespace", st);
    ok = object != NULL &&
         ((is_of(object, ns, name, st) && read_state(&read, object, st)) || status_wrap(st, "%s", path));
    json_free(object);
    if (ok)
        *state = read;
    return ok;
}

static bool is_left_over(const char *name)
{
    const char *dot = strrchr(name, '.');

    return dot != NULL && strcmp(dot, ".new") == 0;
}

bool stream_folder_has_files(const struct file_ops *disk, const char *folder, bool *has_p, struct status *st)
{
    struct file_names names;
    bool ok = file_list_on(disk, folder, &names, st);

    *has_p = false;
    for (uint32_t i = 0; ok && i < names.count; i++)
        *has_p |= !is_left_over(names.list[i]);
    file_names_free(&names);
    return ok;
}
