#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/require.h"
#include "rpc/rpc_internal.h"

#ifdef __SANITIZE_THREAD__
void __tsan_acquire(void *address);
void __tsan_release(void *address);
#endif

void rpc_handing_over(void *what)
{
#ifdef __SANITIZE_THREAD__
    __tsan_release(what);
#endif
}

void rpc_taken_over(void *what)
{
#ifdef __SANITIZE_THREAD__
    __tsan_acquire(what);
#endif
}

/* glibc gives large blocks back to the kernel at once and faults them in again for the next message: 1.1
 * against 3.3 GB/s for messages of 11 MB. */
static void prepare_process(void)
{
    mallopt(M_MMAP_THRESHOLD, 256 << 20);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    signal(SIGPIPE, SIG_IGN);
    setenv("GRPC_VERBOSITY", "NONE", 0); /* what goes wrong comes back as a status; no second log on stderr */
}

void rpc_library_ref(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    sigset_t before;

    pthread_once(&once, prepare_process);
    loop_signals_block(&before);
    grpc_init();
    loop_signals_restore(&before);
}

void rpc_library_unref(void)
{
    grpc_shutdown_blocking();
}

void rpc_args_fill(grpc_arg *args, const struct rpc_arg *rows, size_t count)
{
    for (size_t i = 0; i < count; i++)
        args[i] = (grpc_arg){ .type = GRPC_ARG_INTEGER,
                              .key = (char *)rows[i].key,
                              .value.integer = (int)rows[i].value };
}

static void op_arrived(struct letter *letter)
{
    struct rpc_op *op = container_of(letter, struct rpc_op, letter);

    op->rpc->in_flight--;
    op->done(op, op->ok);
}

/* Owns nothing: carries results over, and ends when the queue is shut down and empty. */
static void *queue_thread(void *arg)
{
    struct rpc *rpc = arg;

    for (;;) {
        grpc_event event = grpc_completion_queue_next(rpc->cq, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
        struct rpc_op *op = event.tag;

        if (event.type == GRPC_QUEUE_SHUTDOWN)
            return NULL;
        if (event.type != GRPC_OP_COMPLETE)
            continue; /* a poll error reads as a timeout, without a tag */
        rpc_taken_over(op);
        op->ok = event.success != 0;
        loop_post(rpc->loop, &op->letter);
    }
}

static int start_queue_thread(struct rpc *rpc)
{
    sigset_t before;
    int error;

    loop_signals_block(&before);
    error = pthread_create(&rpc->thread, NULL, queue_thread, rpc);
    loop_signals_restore(&before);
    if (error == 0)
        pthread_setname_np(rpc->thread, "rpc-queue");
    return error;
}

bool rpc_create(struct rpc **rpc_p, struct loop *loop, struct status *st)
{
    struct rpc *rpc = calloc(1, sizeof *rpc);
    int error;

    REQUIRE(loop_is_here(loop));
    if (rpc == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for gRPC");
    rpc_library_ref();
    rpc->loop = loop;
    rpc->cq = grpc_completion_queue_create_for_next(NULL);
    error = start_queue_thread(rpc);
    if (error != 0) {
        grpc_completion_queue_shutdown(rpc->cq);
        grpc_completion_queue_destroy(rpc->cq);
        rpc_library_unref();
        free(rpc);
        return status_fail(st, STATUS_EXHAUSTED, "start gRPC's thread: %s", strerror(error));
    }
    *rpc_p = rpc;
    return true;
}

void rpc_settle(struct rpc *rpc)
{
    REQUIRE(loop_is_here(rpc->loop) && !loop_is_running(rpc->loop));
    while (rpc->in_flight > 0) {
        streams_cancel(rpc);
        loop_run_once(rpc->loop);
    }
}

void rpc_destroy(struct rpc *rpc)
{
    if (rpc == NULL)
        return;
    REQUIRE(rpc->servers == 0);
    rpc_settle(rpc);
    grpc_completion_queue_shutdown(rpc->cq);
    pthread_join(rpc->thread, NULL);
    grpc_completion_queue_destroy(rpc->cq);
    rpc_library_unref();
    free(rpc);
}

struct loop *rpc_loop(struct rpc *rpc)
{
    return rpc->loop;
}

void rpc_op_start(struct rpc *rpc, struct rpc_op *op, void (*done)(struct rpc_op *op, bool ok))
{
    REQUIRE(loop_is_here(rpc->loop));
    op->letter.open = op_arrived;
    op->rpc = rpc;
    op->done = done;
    rpc->in_flight++;
    rpc_handing_over(op);
}

void rpc_batch_start(struct rpc *rpc, grpc_call *call, const grpc_op *ops, size_t count, struct rpc_op *op,
                     void (*done)(struct rpc_op *op, bool ok))
{
    grpc_call_error error;
    sigset_t before;

    rpc_op_start(rpc, op, done);
    loop_signals_block(&before);
    error = grpc_call_start_batch(call, ops, count, op, NULL);
    loop_signals_restore(&before);
    REQUIRE(error == GRPC_CALL_OK);
}

bool rpc_request_id_is_fine(const char *id, size_t len)
{
    if (len == 0 || len > RPC_REQUEST_ID_BYTES)
        return false;
    for (size_t i = 0; i < len; i++)
        if (id[i] <= ' ' || id[i] > '~')
            return false;
    return true;
}

const grpc_slice *rpc_metadata_get(const grpc_metadata_array *metadata, const char *key)
{
    for (size_t i = 0; i < metadata->count; i++)
        if (grpc_slice_str_cmp(metadata->metadata[i].key, key) == 0)
            return &metadata->metadata[i].value;
    return NULL;
}
