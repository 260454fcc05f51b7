/* media_sampling.h - which frames of a source are taken, and when they were.
 *
 * Files (ReKV's rule): with fps = round(average fps), half to even, and s = int(fps / sample_fps), at least
 * 1, the frames 0, s, 2s, ... in the order of presentation are taken; frame k * s has sequence number k.
 *
 * Live: sequence numbers name the slots of a grid of 1 / sample_fps that starts at a fixed time (the stream's
 * creation), so that every restart finds the same numbers and an outage leaves exactly its own slots empty.
 * The first frame of a slot is taken. A frame that follows the last one taken by at most one and a half
 * periods does not skip a slot: a camera as fast as the grid, whose frames fall now before, now after the
 * slot's edge, loses nothing.
 *
 * Thread: pure functions over the caller's structs. */
#ifndef REELKV_MEDIA_MEDIA_SAMPLING_H
#define REELKV_MEDIA_MEDIA_SAMPLING_H

#include <stdbool.h>
#include <stdint.h>

#define MEDIA_SAMPLE_FPS_MIN 0.001
#define MEDIA_SAMPLE_FPS_MAX 60.0

/* s of the rule above; 1 when the average is not known (0). */
uint64_t media_sample_step(double average_fps, double sample_fps);

/* When a live frame was taken. The camera's clock gives the distances, ours the time: of the frames of the
 * last minutes, the one that came with the least delay ties the two. So jitter and segments that arrive at
 * once (HLS) do not disturb the distances, and the clocks may drift apart. Times never go back. */
struct live_clock {
    bool tied;
    int64_t least_ns, least_before_ns; /* arrival minus media time: of this window and of the one before */
    int64_t window_ns;                 /* arrival that began this window */
    int64_t last_ns;                   /* newest result */
};
enum {
    LIVE_CLOCK_WINDOW_S = 60,
    LIVE_CLOCK_LAG_MAX_S = 30 /* more behind its arrival: the camera's clock jumped */
};

int64_t live_clock_map(struct live_clock *clock, int64_t arrival_ns, int64_t media_ns);

/* For a frame without a time of its own. */
int64_t live_clock_arrival(struct live_clock *clock, int64_t arrival_ns);

struct live_grid {
    int64_t origin_ns; /* start of slot 0 */
    double sample_fps;
    uint64_t next_seq; /* the lowest that is still free */
    uint64_t shift;    /* added to slot numbers; not 0 after our clock went back */
    bool any;
    int64_t last_ns; /* of the newest frame taken */
};

/* Call at the start and after each reconnect: when our clock now says a slot before the last one taken, the grid
 * is shifted, so that a clock set back costs a jump in time and not the frames until then. */
void live_grid_anchor(struct live_grid *grid, int64_t now_ns);

/* Whether a frame of this time is taken; then *seq_p is its number (next_seq or above) and next_seq follows
 * it. Numbers between the old next_seq and *seq_p are missed slots. */
bool live_grid_place(struct live_grid *grid, int64_t pts_ns, uint64_t *seq_p);

/* Slots below it are over at `now_ns`: those from next_seq on are missed. */
uint64_t live_grid_slot(const struct live_grid *grid, int64_t now_ns);

/* Start of a slot. */
int64_t live_grid_time(const struct live_grid *grid, uint64_t seq);

#endif
