#include "encoder/encoder_server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/name.h"
#include "base/require.h"
#include "encoder/encoder_directory.h"

enum { PROGRAM_PATH_BYTES = 4096 };

struct encoder_server {
    const struct encoder_options *options;
    struct rpc_host *host;
    struct model *model;
    struct vision vision;
    struct encoder encoder;
    struct encoder_directory *directory;
    char capture_program[PROGRAM_PATH_BYTES];
};

static const struct option_row rows[] = {
#define OPT(...) OPTION_ROW(encoder_options, __VA_ARGS__),
#include "encoder/encoder_options.def"
#undef OPT
};

const struct option_table encoder_option_table = {
    .program = "reelkv-encoder",
    .summary =
        "Reads cameras and files, turns sampled frames into embeddings, and sends them to the analyzers.",
    .rows = rows,
    .count = ARRAY_LEN(rows),
};

/* reelkv-capture lies beside this program. */
static bool find_capture_program(char path[PROGRAM_PATH_BYTES], struct status *st)
{
    static const char name[] = "reelkv-capture";
    ssize_t len = readlink("/proc/self/exe", path, PROGRAM_PATH_BYTES - sizeof name);
    char *slash = len > 0 ? memrchr(path, '/', (size_t)len) : NULL;

    if (slash == NULL)
        return status_fail(st, STATUS_NOT_FOUND, "find this program's folder: %m");
    memcpy(slash + 1, name, sizeof name);
    if (access(path, X_OK) < 0)
        return status_fail(st, status_code_of_errno(errno), "%s: %m; it must lie beside reelkv-encoder",
                           path);
    return true;
}

static bool open_model(struct encoder_server *server, struct status *st)
{
    const struct encoder_options *options = server->options;
    const struct model_spec spec = MODEL_SPEC(options, MODEL_VISION, options->batch_frames);

    if (!model_open_spec(&server->model, &spec, st))
        return false;
    server->vision = vision_of_model(server->model);
    return true;
}

static void on_drain(void *user)
{
    struct encoder_server *server = user;

    encoder_directory_drain(server->directory);
}

/* Wakes the loop, so that a time limit is seen. */
struct ticker {
    struct loop_timer timer;
    struct loop *loop;
};

static void tick(struct loop_timer *timer)
{
    loop_timer_start(container_of(timer, struct ticker, timer)->loop, timer, 20, tick);
}

/* The server has no calls and closes at once; what was read is still on its way to the analyzers. */
static void say_goodbye(void *user)
{
    struct encoder_server *server = user;
    uint64_t end_ns = clock_mono_ns() + ENCODER_GOODBYE_MS * 1000000ull;
    struct ticker ticker = { .loop = server->encoder.loop };

    tick(&ticker.timer);
    while ((!encoder_directory_release_drained(server->directory) || server->encoder.retired > 0) &&
           clock_mono_ns() < end_ns)
        loop_run_once(server->encoder.loop);
    loop_timer_stop(&ticker.timer);
}

static bool open_parts(struct encoder_server *server, struct status *st)
{
    const struct encoder_options *options = server->options;
    struct encoder_directory_options directory = { .redis = options->redis,
                                                   .max_streams = options->max_streams };

    if (!name_check("encoder", options->name, st) || !find_capture_program(server->capture_program, st) ||
        !open_model(server, st))
        return false;
    server->encoder = (struct encoder){
        .name = options->name,
        .capture_program = server->capture_program,
        .slots = options->capture_slots,
        .keep_frames = options->keep_frames,
        .picture_bytes_max = options->picture_bytes_max,
        .open_timeout_ms = options->open_timeout_ms,
        .stall_timeout_ms = options->stall_timeout_ms,
        .loop = rpc_host_loop(server->host),
        .vision = &server->vision,
        .peers = { .rpc = rpc_host_rpc(server->host) },
    };
    if (!batch_create(&server->encoder.batch, server->encoder.loop, &server->vision, options->batch_frames,
                      st) ||
        !rpc_host_serve(server->host, NULL, 0, st))
        return false;
    directory.address = rpc_host_address(server->host);
    if (!encoder_directory_create(&server->directory, &server->encoder, &directory, st))
        return false;
    rpc_host_on_drain(server->host, on_drain, server);
    rpc_host_on_drained(server->host, say_goodbye, server);
    return true;
}

bool encoder_server_create(struct encoder_server **server_p, struct rpc_host *host,
                           const struct encoder_options *options, struct status *st)
{
    struct encoder_server *server = calloc(1, sizeof *server);

    if (server == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for the encoder");
    server->options = options;
    server->host = host;
    if (!open_parts(server, st)) {
        encoder_server_destroy(server);
        return false;
    }
    *server_p = server;
    return true;
}

void encoder_server_destroy(struct encoder_server *server)
{
    if (server == NULL)
        return;
    encoder_directory_destroy(server->directory);
    batch_destroy(server->encoder.batch);
    model_close(server->model);
    free(server);
}
