#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/name.h"
#include "encoder/capture_wire.h"
#include "media/media_sampling.h"
#include "media/media_source.h"

char *capture_job_write(const struct capture_job *job)
{
    struct json *object = json_make_object();
    char *text;

    json_set_str(object, "source", job->source);
    json_set_bool(object, "live", job->live);
    json_set_f64(object, "sample_fps", job->sample_fps);
    json_set_i64(object, "origin_ns", job->origin_ns);
    json_set_u64(object, "from_seq", job->from_seq);
    json_set_u64(object, "slots", job->slots);
    json_set_u64(object, "slot_bytes", job->slot_bytes);
    json_set_u64(object, "open_timeout_ms", job->open_timeout_ms);
    json_set_u64(object, "stall_timeout_ms", job->stall_timeout_ms);
    text = json_text(object, 0);
    json_free(object);
    return text;
}

static bool check_ranges(const struct capture_job *job, uint64_t origin_ns, struct status *st)
{
    if (!(job->sample_fps >= MEDIA_SAMPLE_FPS_MIN && job->sample_fps <= MEDIA_SAMPLE_FPS_MAX))
        return status_fail(st, STATUS_INVALID, "sample_fps must be %g to %g, not %g", MEDIA_SAMPLE_FPS_MIN,
                           MEDIA_SAMPLE_FPS_MAX, job->sample_fps);
    if (origin_ns > (uint64_t)INT64_MAX / 2)
        return status_fail(st, STATUS_INVALID, "origin_ns is out of range");
    if (job->slots < 1 || job->slots > CAPTURE_SLOTS_MAX || job->slot_bytes <= MEDIA_RGB_SLACK_BYTES ||
        job->slot_bytes > media_rgb_bytes(MEDIA_SIDE_MAX, MEDIA_SIDE_MAX) + 4096)
        return status_fail(st, STATUS_INVALID, "%u slots of %llu bytes are out of range", job->slots,
                           (unsigned long long)job->slot_bytes);
    if (job->open_timeout_ms == 0 || job->stall_timeout_ms == 0)
        return status_fail(st, STATUS_INVALID, "timeouts must not be 0");
    return true;
}

bool capture_job_read(struct bytes text, struct capture_job *job, struct status *st)
{
    struct json *object = json_parse(text, st);
    const char *source;
    uint64_t origin_ns;
    bool ok = false;

    if (object == NULL)
        return status_wrap(st, "read the job");
    memset(job, 0, sizeof *job);
    if (!json_read_str(object, "source", &source, st) ||
        !json_read_f64(object, "sample_fps", &job->sample_fps, st) ||
        !json_read_u64(object, "origin_ns", &origin_ns, st) ||
        !json_read_u64(object, "from_seq", &job->from_seq, st) ||
        !json_read_u32(object, "slots", &job->slots, st) ||
        !json_read_u64(object, "slot_bytes", &job->slot_bytes, st) ||
        !json_read_u32(object, "open_timeout_ms", &job->open_timeout_ms, st) ||
        !json_read_u32(object, "stall_timeout_ms", &job->stall_timeout_ms, st))
        status_wrap(st, "read the job");
    else if (!text_copy(job->source, sizeof job->source, source))
        status_fail(st, STATUS_INVALID, "read the job: the source is longer than %d bytes", LIMIT_URL_BYTES);
    else if (!check_ranges(job, origin_ns, st))
        status_wrap(st, "read the job");
    else
        ok = true;
    job->live = json_bool(json_get(object, "live"));
    job->origin_ns = ok ? (int64_t)origin_ns : 0;
    json_free(object);
    return ok;
}
