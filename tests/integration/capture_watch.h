/* capture_watch.h - runs a capture child in a loop and writes down all it says, for tests. */
#ifndef REELKV_TEST_CAPTURE_WATCH_H
#define REELKV_TEST_CAPTURE_WATCH_H

#include "encoder/capture.h"

enum { WATCH_FRAMES_MAX = 2000, WATCH_GAPS_MAX = 256 };

struct watched_frame {
    uint64_t seq;
    int64_t pts_ns;
    uint32_t width, height;
    uint32_t number; /* that the picture shows (support/video.h) */
    uint64_t at_ms;  /* since the start */
};
struct watched_gap {
    uint64_t from_seq, to_seq;
    char reason[CAPTURE_TEXT_BYTES + 1];
};

struct watch {
    struct loop *loop;
    struct capture *capture;
    uint64_t start_ns;
    uint64_t expected;
    char codec[32];
    uint32_t frame_count, gap_count, opened_count, trouble_count;
    struct watched_frame frames[WATCH_FRAMES_MAX];
    struct watched_gap gaps[WATCH_GAPS_MAX];
    char trouble[CAPTURE_TEXT_BYTES + 1]; /* the newest */
    bool hold;                            /* release nothing */
    uint32_t held[CAPTURE_SLOTS_MAX], held_count;
    bool ended;
    enum capture_outcome outcome;
    uint64_t end_seq;
    struct status st;
    char end_text[CAPTURE_TEXT_BYTES + 1];
};

/* A job with the tests' usual values for a file. */
struct capture_job watch_job(const char *source, double sample_fps);

/* program NULL: reelkv-capture of this build. Fails the test when it cannot start. */
struct watch *watch_start(const struct capture_job *job, const char *program);

/* Turns the loop until the condition holds or the time is over; returns whether it holds. */
bool watch_until(struct watch *watch, bool (*holds)(const struct watch *watch), uint32_t timeout_ms);
bool watch_has_ended(const struct watch *watch);
void watch_for(struct watch *watch, uint32_t ms);
void watch_release_all(struct watch *watch);

/* Every number from `from` to the newest one is a frame or in a gap, once, in order. Fails the test. */
void watch_check_whole(const struct watch *watch, uint64_t from);

void watch_end(struct watch *watch);

#endif
