#include "uring/uring.h"

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/require.h"

enum {
    REFUSALS_MAX = 8, /* of one read, by a kernel that says "again" */
    AGAIN_MS = 1,     /* the kernel takes nothing now */
};

struct uring_list {
    struct uring_read *first, **last_link;
};

struct uring {
    struct io_uring ring;
    bool has_ring;
    struct loop *loop;
    struct loop_poll *poll;
    struct loop_turn *turn;
    struct loop_timer again;
    struct uring_options options;
    uint32_t under_way;
    uint64_t bytes; /* of these */
    uint32_t waiting_count;
    struct uring_list waiting;
};

static void list_init(struct uring_list *list)
{
    list->first = NULL;
    list->last_link = &list->first;
}

static void list_add(struct uring_list *list, struct uring_read *read)
{
    read->next = NULL;
    *list->last_link = read;
    list->last_link = &read->next;
}

static struct uring_read *list_take(struct uring_list *list)
{
    struct uring_read *read = list->first;

    list->first = read->next;
    if (list->first == NULL)
        list->last_link = &list->first;
    return read;
}

static void wait_last(struct uring *ring, struct uring_read *read)
{
    list_add(&ring->waiting, read);
    ring->waiting_count++;
}

/* --- to the kernel --- */

/* One that was refused goes to a thread of the kernel's, where it may wait for what it lacks. */
static void prepare(struct io_uring_sqe *sqe, struct uring_read *read)
{
    io_uring_prep_read(sqe, read->fd, (char *)read->to + read->came, (unsigned)(read->bytes - read->came),
                       read->offset + read->came);
    if (read->refusals > 0)
        io_uring_sqe_set_flags(sqe, IOSQE_ASYNC);
    io_uring_sqe_set_data(sqe, read);
}

static bool has_room(const struct uring *ring, const struct uring_read *read)
{
    const struct uring_options *options = &ring->options;

    if (ring->under_way == 0)
        return true;
    return ring->under_way < options->depth &&
           (options->bytes_max == 0 || ring->bytes + read->bytes <= options->bytes_max);
}

static void prepare_all(struct uring *ring)
{
    struct io_uring_sqe *sqe;

    while (ring->waiting.first != NULL && has_room(ring, ring->waiting.first) &&
           (sqe = io_uring_get_sqe(&ring->ring)) != NULL) {
        struct uring_read *read = list_take(&ring->waiting);

        ring->waiting_count--;
        ring->under_way++;
        ring->bytes += read->bytes;
        prepare(sqe, read);
    }
}

static void try_again(struct loop_timer *timer);

/* A call takes what stands before one that is wrong by itself, which is answered all the same: the rest takes another. */
static void submit(struct uring *ring)
{
    prepare_all(ring);
    while (io_uring_sq_ready(&ring->ring) > 0)
        if (io_uring_submit(&ring->ring) <= 0) {
            if (!loop_timer_is_running(&ring->again))
                loop_timer_start(ring->loop, &ring->again, AGAIN_MS, try_again);
            return;
        }
}

static void try_again(struct loop_timer *timer)
{
    submit(container_of(timer, struct uring, again));
}

static void turn_ends(void *user)
{
    submit(user);
}

/* --- from the kernel --- */

static bool goes_on(struct uring_read *read, int result)
{
    if (result > 0) {
        read->came += (uint64_t)result;
        return read->came < read->bytes; /* it was cut short, or the file ends: the next one says */
    }
    if (result == -EINTR || result == -EAGAIN)
        return ++read->refusals < REFUSALS_MAX;
    return false;
}

static void take(struct uring *ring, struct uring_read *read, int result, struct uring_list *ended)
{
    ring->under_way--;
    ring->bytes -= read->bytes;
    if (goes_on(read, result)) {
        wait_last(ring, read);
        return;
    }
    read->error = result < 0 ? -result : 0;
    list_add(ended, read);
}

/* Some disks (virtio's) tell of reads only when they have nothing left to do: so those that wait leave first, and what came
 * is looked at while the disk is busy again. */
static void reap(struct uring *ring)
{
    struct io_uring_cqe *cqe;
    struct uring_list ended;

    list_init(&ended);
    while (io_uring_peek_cqe(&ring->ring, &cqe) == 0) {
        struct uring_read *read = io_uring_cqe_get_data(cqe);
        int result = cqe->res;

        io_uring_cqe_seen(&ring->ring, cqe);
        take(ring, read, result, &ended);
    }
    submit(ring);
    while (ended.first != NULL) {
        struct uring_read *read = list_take(&ended);

        read->done(read);
    }
}

/* The ring's descriptor is readable while completions lie in it. */
static void completions_arrived(struct loop_poll *poll, unsigned events, void *user)
{
    reap(user);
    loop_poll_want(poll, LOOP_READABLE);
}

/* --- the ring --- */

static bool refuse(struct status *st, int error, const char *what)
{
    enum status_code code = error == EPERM || error == EACCES ? STATUS_DENIED : status_code_of_errno(error);

    if (error == ENOSYS || error == EINVAL)
        code = STATUS_UNIMPLEMENTED;
    return status_fail(st, code, "io_uring: %s: %s", what, strerror(error));
}

static bool knows_reads(struct uring *ring, struct status *st)
{
    struct io_uring_probe *probe = io_uring_get_probe_ring(&ring->ring);
    bool ok = probe != NULL && io_uring_opcode_supported(probe, IORING_OP_READ);

    io_uring_free_probe(probe);
    return ok || status_fail(st, STATUS_UNIMPLEMENTED, "io_uring: this kernel's has no reads");
}

/* A filter may let rings be made and refuse their use. */
static bool is_usable(struct uring *ring, struct status *st)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->ring);
    struct io_uring_cqe *cqe;
    int failed;

    io_uring_prep_nop(sqe);
    failed = io_uring_submit_and_wait(&ring->ring, 1);
    if (failed < 0)
        return refuse(st, -failed, "enter");
    failed = io_uring_peek_cqe(&ring->ring, &cqe);
    if (failed < 0)
        return refuse(st, -failed, "complete");
    io_uring_cqe_seen(&ring->ring, cqe);
    return true;
}

static bool open_ring(struct uring *ring, struct status *st)
{
    int failed = io_uring_queue_init(ring->options.depth, &ring->ring, 0);

    if (failed < 0)
        return refuse(st, -failed, "set up");
    ring->has_ring = true;
    return knows_reads(ring, st) && is_usable(ring, st) &&
           loop_turn_create(&ring->turn, ring->loop, turn_ends, ring, st) &&
           loop_poll_create(&ring->poll, ring->loop, ring->ring.ring_fd, completions_arrived, ring, st);
}

bool uring_create(struct uring **ring_p, struct loop *loop, const struct uring_options *options,
                  struct status *st)
{
    struct uring *ring;

    REQUIRE(loop_is_here(loop) && options->depth > 0 && options->depth <= URING_DEPTH_MAX);
    ring = calloc(1, sizeof *ring);
    if (ring == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a ring of reads");
    ring->loop = loop;
    ring->options = *options;
    list_init(&ring->waiting);
    if (!open_ring(ring, st)) {
        uring_destroy(ring);
        return false;
    }
    loop_poll_want(ring->poll, LOOP_READABLE);
    *ring_p = ring;
    return true;
}

bool uring_read(struct uring *ring, struct uring_read *read)
{
    REQUIRE(loop_is_here(ring->loop) && read->bytes > 0 && read->bytes <= URING_READ_BYTES_MAX);
    if (ring->waiting_count >= ring->options.waiting_max)
        return false;
    read->came = 0;
    read->error = 0;
    read->refusals = 0;
    wait_last(ring, read);
    return true;
}

void uring_destroy(struct uring *ring)
{
    if (ring == NULL)
        return;
    while (ring->under_way > 0 || ring->waiting.first != NULL) {
        prepare_all(ring);
        if (io_uring_submit_and_wait(&ring->ring, 1) < 0)
            usleep(AGAIN_MS * 1000);
        reap(ring);
    }
    loop_timer_stop(&ring->again);
    loop_poll_destroy(ring->poll);
    loop_turn_destroy(ring->turn);
    if (ring->has_ring)
        io_uring_queue_exit(&ring->ring);
    free(ring);
}
