#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "encoder/capture/capture_run.h"
#include "media/media_sampling.h"
#include "media/media_source.h"

enum { BACKOFF_MIN_MS = 500, BACKOFF_MAX_MS = 10000, GAP_FIRST_MS = 1000, GAP_MAX_MS = 60000 };

struct live {
    struct capture_link *link;
    const struct capture_job *job;
    struct live_grid grid;
    struct live_clock clock;
    /* Taken at each connect, when it has grown: within a child's life our clock does not jump, and goes forward. */
    int64_t utc_minus_mono_ns;
    /* Missed slots not yet told: [gap_from, grid.next_seq) when gap_from is below. */
    uint64_t gap_from;
    char gap_reason[CAPTURE_TEXT_BYTES + 1];
    uint64_t gap_told_ns;
    uint32_t gap_pause_ms; /* from then on, unless a frame comes; 0: one came, or none was told */
    bool got_frame;        /* since the last connect */
};

static int64_t now_ns(const struct live *live)
{
    return (int64_t)clock_mono_ns() + live->utc_minus_mono_ns;
}

/* Each that is told takes a page of the store's disk, so of a camera that stays away they grow. */
static uint32_t next_pause(uint32_t ms)
{
    return ms == 0 ? GAP_FIRST_MS : 2 * ms < GAP_MAX_MS ? 2 * ms : GAP_MAX_MS;
}

/* False: the socket is full; the gap stays and grows. */
static bool tell_gap(struct live *live)
{
    struct capture_message gap = {
        .kind = CAPTURE_GAP,
        .seq = live->gap_from,
        .to_seq = live->grid.next_seq,
        .pts_ns = live_grid_time(&live->grid, live->gap_from),
        .to_pts_ns = live_grid_time(&live->grid, live->grid.next_seq),
    };

    if (gap.seq == gap.to_seq)
        return true;
    memcpy(gap.text, live->gap_reason, sizeof gap.text);
    if (!capture_link_send(live->link, &gap, false))
        return false;
    live->gap_from = gap.to_seq;
    live->gap_told_ns = clock_mono_ns();
    live->gap_pause_ms = next_pause(live->gap_pause_ms);
    return true;
}

/* Slots below to_seq will have no frame. Another reason than before is a gap of its own, when there is room. */
static void miss(struct live *live, uint64_t to_seq, const char *reason)
{
    if (to_seq <= live->grid.next_seq)
        return;
    if (strcmp(reason, live->gap_reason) != 0)
        tell_gap(live);
    if (live->gap_from == live->grid.next_seq)
        snprintf(live->gap_reason, sizeof live->gap_reason, "%s", reason);
    live->grid.next_seq = to_seq;
}

static void wait_to_reconnect(struct live *live, uint32_t ms, const struct status *why)
{
    uint64_t end_ns = clock_mono_ns() + (uint64_t)ms * 1000000;

    while (!*live->link->stop && clock_mono_ns() < end_ns) {
        miss(live, live_grid_slot(&live->grid, now_ns(live)), why->text);
        if (clock_mono_ns() - live->gap_told_ns >= live->gap_pause_ms * 1000000ull)
            tell_gap(live);
        capture_link_sleep(live->link, 100);
    }
}

/* A frame that the grid wants: into a slot if one is free, else it is missed. False: it cannot be converted. */
static bool hand_over(struct live *live, struct media_source *source, struct capture_message *message,
                      struct status *st)
{
    static const char too_slow[] = "the system is slower than the camera";

    if (!capture_link_take_slot(live->link, false, &message->slot)) {
        live->grid.next_seq = message->seq;
        miss(live, message->seq + 1, too_slow);
        return true;
    }
    if (!media_source_rgb(source, capture_link_slot(live->link, message->slot), live->link->slot_bytes, st))
        return false;
    live->grid.next_seq = message->seq;
    if (!tell_gap(live) || !capture_link_send(live->link, message, false)) {
        miss(live, message->seq + 1, too_slow);
        return true;
    }
    live->grid.next_seq = message->seq + 1;
    live->gap_from = live->grid.next_seq;
    live->gap_pause_ms = 0;
    return true;
}

static bool take_frame(struct live *live, struct media_source *source, const struct media_frame *frame,
                       struct status *st)
{
    int64_t arrival_ns = now_ns(live);
    struct capture_message message = { .kind = CAPTURE_FRAME,
                                       .width = frame->width,
                                       .height = frame->height };
    uint64_t next_seq = live->grid.next_seq;

    message.pts_ns = frame->has_time ? live_clock_map(&live->clock, arrival_ns, frame->media_ns)
                                     : live_clock_arrival(&live->clock, arrival_ns);
    if (!live_grid_place(&live->grid, message.pts_ns, &message.seq))
        return true;
    live->grid.next_seq = next_seq;
    miss(live, message.seq, "no picture came from the camera");
    return hand_over(live, source, &message, st);
}

/* From connecting to the loss; *st says what was lost. */
static void run_connection(struct live *live, struct status *st)
{
    struct media_options options = {
        .url = live->job->source,
        .live = true,
        .open_timeout_ms = live->job->open_timeout_ms,
        .stall_timeout_ms = live->job->stall_timeout_ms,
        .stop = live->link->stop,
    };
    struct capture_message opened = { .kind = CAPTURE_OPENED };
    struct media_source *source = NULL;
    struct media_frame frame;

    if (!media_source_open(&source, &options, st))
        return;
    opened.width = media_source_info(source)->width;
    opened.height = media_source_info(source)->height;
    snprintf(opened.text, sizeof opened.text, "%s", media_source_info(source)->codec);
    live->clock.tied = false;
    if (capture_link_send(live->link, &opened, true))
        while (media_source_next(source, &frame, st) == MEDIA_FRAME && take_frame(live, source, &frame, st))
            live->got_frame = true;
    media_source_close(source);
}

void capture_run_live(struct capture_link *link, const struct capture_job *job)
{
    struct live live = {
        .link = link,
        .job = job,
        .grid = { .origin_ns = job->origin_ns, .sample_fps = job->sample_fps, .next_seq = job->from_seq },
        .gap_from = job->from_seq,
    };
    uint32_t backoff_ms = BACKOFF_MIN_MS;

    while (!*link->stop) {
        int64_t utc_minus_mono_ns = clock_utc_ns() - (int64_t)clock_mono_ns();
        struct status st = { 0 };

        if (utc_minus_mono_ns > live.utc_minus_mono_ns)
            live.utc_minus_mono_ns = utc_minus_mono_ns;
        live_grid_anchor(&live.grid, now_ns(&live));
        live.got_frame = false;
        run_connection(&live, &st);
        if (*link->stop)
            break;
        if (live.got_frame)
            backoff_ms = BACKOFF_MIN_MS;
        capture_link_send_status(link, CAPTURE_TROUBLE, &st);
        wait_to_reconnect(&live, backoff_ms, &st);
        backoff_ms = 2 * backoff_ms < BACKOFF_MAX_MS ? 2 * backoff_ms : BACKOFF_MAX_MS;
    }
}
