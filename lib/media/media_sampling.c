#include "media/media_sampling.h"

#include <math.h>

static const int64_t second_ns = 1000000000;

uint64_t media_sample_step(double average_fps, double sample_fps)
{
    double step = nearbyint(average_fps) / sample_fps;

    return step >= 1 ? (uint64_t)step : 1;
}

static int64_t keep_forward(struct live_clock *clock, int64_t time_ns)
{
    if (clock->last_ns != 0 && time_ns <= clock->last_ns)
        time_ns = clock->last_ns + 1;
    clock->last_ns = time_ns;
    return time_ns;
}

int64_t live_clock_map(struct live_clock *clock, int64_t arrival_ns, int64_t media_ns)
{
    int64_t delay_ns = arrival_ns - media_ns;
    int64_t least_ns = clock->least_ns < clock->least_before_ns ? clock->least_ns : clock->least_before_ns;

    if (!clock->tied || delay_ns - least_ns > LIVE_CLOCK_LAG_MAX_S * second_ns) {
        clock->tied = true;
        clock->least_ns = delay_ns;
        clock->least_before_ns = delay_ns;
        clock->window_ns = arrival_ns;
    } else if (arrival_ns - clock->window_ns > LIVE_CLOCK_WINDOW_S * second_ns) {
        clock->least_before_ns = clock->least_ns;
        clock->least_ns = delay_ns;
        clock->window_ns = arrival_ns;
    } else if (delay_ns < clock->least_ns) {
        clock->least_ns = delay_ns;
    }
    least_ns = clock->least_ns < clock->least_before_ns ? clock->least_ns : clock->least_before_ns;
    return keep_forward(clock, media_ns + least_ns);
}

int64_t live_clock_arrival(struct live_clock *clock, int64_t arrival_ns)
{
    return keep_forward(clock, arrival_ns);
}

uint64_t live_grid_slot(const struct live_grid *grid, int64_t now_ns)
{
    long double slots = (long double)(now_ns - grid->origin_ns) * (long double)grid->sample_fps / 1e9L;

    return (slots > 0 ? (uint64_t)slots : 0) + grid->shift;
}

int64_t live_grid_time(const struct live_grid *grid, uint64_t seq)
{
    long double slots = (long double)(int64_t)(seq - grid->shift); /* before a shift: negative */

    return grid->origin_ns + (int64_t)ceill(slots * 1e9L / (long double)grid->sample_fps);
}

void live_grid_anchor(struct live_grid *grid, int64_t now_ns)
{
    uint64_t slot = live_grid_slot(grid, now_ns);

    if (slot + 1 < grid->next_seq) { /* the slot of now may have its frame already */
        grid->shift += grid->next_seq - slot;
        grid->any = false;
    }
}

bool live_grid_place(struct live_grid *grid, int64_t pts_ns, uint64_t *seq_p)
{
    uint64_t slot = live_grid_slot(grid, pts_ns);
    double apart = (double)(pts_ns - grid->last_ns) * grid->sample_fps / 1e9; /* in periods */

    if (slot < grid->next_seq)
        return false;
    if (grid->any && slot > grid->next_seq && apart <= 1.5)
        slot--;
    grid->any = true;
    grid->last_ns = pts_ns;
    grid->next_seq = slot + 1;
    *seq_p = slot;
    return true;
}
