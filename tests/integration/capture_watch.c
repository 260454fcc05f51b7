#include "capture_watch.h"

#include <stdlib.h>

#include "base/clock.h"
#include "support/test.h"
#include "support/video.h"

struct capture_job watch_job(const char *source, double sample_fps)
{
    struct capture_job job = {
        .sample_fps = sample_fps,
        .origin_ns = 1700000000000000000,
        .slots = 3,
        .slot_bytes = 8 << 20,
        .open_timeout_ms = 10000,
        .stall_timeout_ms = 10000,
    };

    snprintf(job.source, sizeof job.source, "%s", source);
    return job;
}

static void take_message(struct capture *capture, const struct capture_message *m, void *user)
{
    struct watch *watch = user;

    if (m->kind == CAPTURE_OPENED) {
        watch->opened_count++;
        watch->expected = m->seq;
        snprintf(watch->codec, sizeof watch->codec, "%.31s", m->text);
    } else if (m->kind == CAPTURE_TROUBLE) {
        watch->trouble_count++;
        memcpy(watch->trouble, m->text, sizeof watch->trouble);
    } else if (m->kind == CAPTURE_GAP) {
        struct watched_gap *gap = &watch->gaps[watch->gap_count++];

        CHECK(watch->gap_count <= WATCH_GAPS_MAX);
        gap->from_seq = m->seq;
        gap->to_seq = m->to_seq;
        memcpy(gap->reason, m->text, sizeof gap->reason);
    } else {
        CHECK(watch->frame_count < WATCH_FRAMES_MAX);
        watch->frames[watch->frame_count++] = (struct watched_frame){
            .seq = m->seq,
            .pts_ns = m->pts_ns,
            .width = m->width,
            .height = m->height,
            .number = video_number(capture_rgb(capture, m->slot), m->width, m->height),
            .at_ms = (clock_mono_ns() - watch->start_ns) / 1000000,
        };
        if (watch->hold)
            watch->held[watch->held_count++] = m->slot;
        else
            capture_release(capture, m->slot);
    }
}

static void take_end(struct capture *capture, enum capture_outcome outcome, const struct capture_message *end,
                     const struct status *st, void *user)
{
    struct watch *watch = user;

    CHECK(!watch->ended);
    watch->ended = true;
    watch->outcome = outcome;
    watch->end_seq = end->seq;
    watch->st = *st;
    memcpy(watch->end_text, end->text, sizeof watch->end_text);
}

struct watch *watch_start(const struct capture_job *job, const char *program)
{
    struct watch *watch = calloc(1, sizeof *watch);
    struct capture_options options = {
        .program = program != NULL ? program : REELKV_BIN_DIR "/reelkv-capture",
        .job = job,
        .events = { take_message, take_end, watch },
    };
    struct status st = { 0 };

    CHECK(watch != NULL);
    watch->start_ns = clock_mono_ns();
    CHECK_OK(loop_create(&watch->loop, &st), st);
    CHECK_OK(capture_create(&watch->capture, watch->loop, &options, &st), st);
    return watch;
}

/* Wakes the loop now and then, so that conditions about time are seen. */
struct ticker {
    struct loop_timer timer;
    struct loop *loop;
};

static void tick(struct loop_timer *timer)
{
    loop_timer_start(container_of(timer, struct ticker, timer)->loop, timer, 20, tick);
}

bool watch_until(struct watch *watch, bool (*holds)(const struct watch *watch), uint32_t timeout_ms)
{
    uint64_t end_ns = clock_mono_ns() + (uint64_t)timeout_ms * 1000000;
    struct ticker ticker = { .loop = watch->loop };

    loop_timer_start(watch->loop, &ticker.timer, 20, tick);
    while (!holds(watch) && clock_mono_ns() < end_ns)
        loop_run_once(watch->loop);
    loop_timer_stop(&ticker.timer);
    return holds(watch);
}

bool watch_has_ended(const struct watch *watch)
{
    return watch->ended;
}

static bool never(const struct watch *watch)
{
    return false;
}

void watch_for(struct watch *watch, uint32_t ms)
{
    watch_until(watch, never, ms);
}

void watch_release_all(struct watch *watch)
{
    watch->hold = false;
    while (watch->held_count > 0)
        capture_release(watch->capture, watch->held[--watch->held_count]);
}

void watch_check_whole(const struct watch *watch, uint64_t from)
{
    uint32_t frame = 0, gap = 0;

    while (frame < watch->frame_count || gap < watch->gap_count) {
        if (gap < watch->gap_count && watch->gaps[gap].from_seq == from) {
            from = watch->gaps[gap++].to_seq;
        } else {
            CHECK(frame < watch->frame_count);
            CHECK_EQ(watch->frames[frame].seq, from);
            CHECK(frame == 0 || watch->frames[frame].pts_ns > watch->frames[frame - 1].pts_ns);
            frame++;
            from++;
        }
    }
}

void watch_end(struct watch *watch)
{
    capture_destroy(watch->capture);
    loop_destroy(watch->loop);
    free(watch);
}
