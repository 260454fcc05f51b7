#include <stdio.h>

#include "encoder/capture/capture_run.h"
#include "media/media_sampling.h"
#include "media/media_source.h"

static void send_opened(struct capture_link *link, const struct media_info *info, uint64_t step)
{
    struct capture_message opened = {
        .kind = CAPTURE_OPENED,
        .seq = info->expected_frames / step + (info->expected_frames % step != 0),
        .width = info->width,
        .height = info->height,
    };

    snprintf(opened.text, sizeof opened.text, "%s", info->codec);
    capture_link_send(link, &opened, true);
}

/* Hands over one frame; false when the picture cannot be had (*st says why) or the work is over. */
static bool send_frame(struct capture_link *link, struct media_source *source,
                       struct capture_message *message, struct status *st)
{
    if (!capture_link_take_slot(link, true, &message->slot))
        return false;
    if (!media_source_rgb(source, capture_link_slot(link, message->slot), link->slot_bytes, st))
        return false;
    return capture_link_send(link, message, true);
}

/* Frames that were stored before are decoded and not sent: later pictures need them, and their count is what
 * makes sequence numbers the same every time. */
static bool send_frames(struct capture_link *link, const struct capture_job *job, struct media_source *source,
                        struct status *st)
{
    uint64_t step = media_sample_step(media_source_info(source)->average_fps, job->sample_fps);
    struct capture_message end = { .kind = CAPTURE_END };
    struct media_frame frame;
    enum media_outcome outcome;

    send_opened(link, media_source_info(source), step);
    while ((outcome = media_source_next(source, &frame, st)) == MEDIA_FRAME) {
        struct capture_message message = {
            .kind = CAPTURE_FRAME,
            .seq = frame.index / step,
            .pts_ns = job->origin_ns + frame.media_ns,
            .width = frame.width,
            .height = frame.height,
        };

        if (frame.index % step != 0)
            continue;
        end.seq = message.seq + 1;
        if (message.seq >= job->from_seq && !send_frame(link, source, &message, st))
            return false;
    }
    if (outcome == MEDIA_FAILED)
        return false;
    snprintf(end.text, sizeof end.text, "%s", media_source_trouble(source));
    return capture_link_send(link, &end, true);
}

void capture_run_file(struct capture_link *link, const struct capture_job *job)
{
    struct media_options options = {
        .url = job->source,
        .open_timeout_ms = job->open_timeout_ms,
        .stall_timeout_ms = job->stall_timeout_ms,
        .stop = link->stop,
    };
    struct media_source *source = NULL;
    struct status st = { 0 };

    if ((!media_source_open(&source, &options, &st) || !send_frames(link, job, source, &st)) &&
        st.code != STATUS_OK)
        capture_link_send_status(link, CAPTURE_FAILED, &st);
    media_source_close(source);
}
