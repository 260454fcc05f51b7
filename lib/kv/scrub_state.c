#include "kv/scrub_state.h"

#include <limits.h>
#include <stdio.h>

char *scrub_state_text(const struct scrub_state *state)
{
    struct json *object = checked_json_make("scrub.json");

    json_set_i64(object, "full_ns", state->full_ns);
    json_set_i64(object, "pass_ns", state->pass_ns);
    json_set_i64(object, "cursor_ns", state->cursor_ns);
    return checked_json_text(object, 0);
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
                             json_read_i64(object, "cursor_ns", &read.cursor_ns, st)) ||
                            status_wrap(st, "%s", path));
    json_free(object);
    *state = ok ? read : (struct scrub_state){ 0 };
    return ok;
}
