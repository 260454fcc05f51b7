/* The ring of reads (uring/uring.h) on the simulation's disk: each read is a work of a pool, so that they come in any order
 * among those under way. */
#include <errno.h>
#include <stdlib.h>

#include "base/require.h"
#include "loop/work_pool.h"
#include "sim_disk.h"
#include "uring/uring.h"

struct uring {
    struct work_pool *pool;
};

struct sim_read {
    struct work work;
    struct uring_read *read;
};

bool uring_create(struct uring **ring_p, struct loop *loop, const struct uring_options *options,
                  struct status *st)
{
    const struct work_pool_options pool = { .threads = options->depth, .queue_max = options->waiting_max };
    struct uring *ring = calloc(1, sizeof *ring);

    REQUIRE(ring != NULL);
    if (!work_pool_create(&ring->pool, loop, &pool, st)) {
        free(ring);
        return false;
    }
    *ring_p = ring;
    return true;
}

/* As the real one: on from where a read was cut short, to the file's end. */
static void run(struct work *work)
{
    struct uring_read *read = container_of(work, struct sim_read, work)->read;

    while (read->came < read->bytes && read->error == 0) {
        ssize_t n = sim_disk.pread(read->fd, (char *)read->to + read->came, read->bytes - read->came,
                                   (off_t)(read->offset + read->came));

        if (n == 0)
            break;
        if (n > 0)
            read->came += (uint64_t)n;
        else
            read->error = errno == EINTR ? 0 : errno;
    }
}

static void done(struct work *work)
{
    struct sim_read *sim = container_of(work, struct sim_read, work);
    struct uring_read *read = sim->read;

    free(sim);
    read->done(read);
}

bool uring_read(struct uring *ring, struct uring_read *read)
{
    struct sim_read *sim = calloc(1, sizeof *sim);

    REQUIRE(sim != NULL);
    *sim = (struct sim_read){ .work = { .run = run, .done = done }, .read = read };
    read->came = 0;
    read->error = 0;
    if (work_pool_submit(ring->pool, &sim->work))
        return true;
    free(sim);
    return false;
}

void uring_destroy(struct uring *ring)
{
    if (ring == NULL)
        return;
    work_pool_destroy(ring->pool);
    free(ring);
}
