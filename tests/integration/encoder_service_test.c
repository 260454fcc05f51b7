/* reelkv-encoder as a process, with a real model: what it sends is, bit for bit, what the model makes of the file's
 * frames; it starts and ends with plain words; and no password is in anything it prints. */
#include <glob.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "encoder_neighbours.h"
#include "media/media_source.h"
#include "support/process.h"
#include "support/test.h"
#include "support/video.h"

#define MODEL REELKV_SOURCE_DIR "/tests/data/parity/tiny-a"

enum { FRAMES = 12, WIDTH = 192, HEIGHT = 64 };

/* The model that the process has, too, and what it makes of the file. */
struct reference {
    struct model *model;
    float *embeddings; /* [FRAMES, frame_tokens, hidden] */
};

static struct reference reference;

static struct model *open_model(void)
{
    const struct model_options options = { .ops = &tensor_ops_cpu,
                                           .threads = 1,
                                           .dtype = TENSOR_F32,
                                           .n_local = 256,
                                           .parts = MODEL_VISION,
                                           .batch_frames = 4 };
    struct model *model;
    struct status st = { 0 };

    CHECK_OK(model_open(&model, MODEL, &options, &st), st);
    return model;
}

static void fill_reference(const char *path)
{
    struct media_options options = { .url = path, .open_timeout_ms = 5000, .stall_timeout_ms = 5000 };
    const struct model_geometry *geometry = model_geometry(reference.model);
    size_t frame_floats = (size_t)geometry->frame_tokens * geometry->hidden;
    uint8_t *rgb = malloc(media_rgb_bytes(WIDTH, HEIGHT));
    struct media_source *source;
    struct media_frame frame;
    struct status st = { 0 };

    reference.embeddings = malloc(FRAMES * frame_floats * sizeof(float));
    CHECK(rgb != NULL && reference.embeddings != NULL);
    CHECK_OK(media_source_open(&source, &options, &st), st);
    for (uint32_t i = 0; i < FRAMES; i++) {
        struct model_picture picture = { rgb, HEIGHT, WIDTH };

        CHECK_EQ(media_source_next(source, &frame, &st), MEDIA_FRAME);
        CHECK_OK(media_source_rgb(source, rgb, media_rgb_bytes(WIDTH, HEIGHT), &st), st);
        CHECK_OK(model_encode_frames(reference.model, &picture, 1, reference.embeddings + i * frame_floats,
                                     &st),
                 st);
    }
    media_source_close(source);
    free(rgb);
}

static void compare(struct world *world, const Reelkv__V1__IngestFrame *frame,
                    const struct rpc_payload *payload)
{
    const struct model_geometry *geometry = model_geometry(reference.model);
    size_t bytes = (size_t)geometry->frame_tokens * geometry->hidden * sizeof(float);
    uint8_t *got = malloc(bytes);

    CHECK(frame->seq < FRAMES);
    CHECK_EQ(frame->tokens, geometry->frame_tokens);
    CHECK_EQ(frame->hidden, geometry->hidden);
    CHECK_EQ(payload->len, bytes);
    rpc_payload_copy(payload, 0, got, bytes);
    CHECK_MEM(got, (uint8_t *)reference.embeddings + frame->seq * bytes, bytes);
    free(got);
}

static void ignore(struct world *world, const Reelkv__V1__IngestFrame *frame,
                   const struct rpc_payload *payload)
{
}

/* Redis, the neighbours and one encoder process. */
struct town {
    struct world *world;
    struct process redis, encoder;
    struct neighbours neighbours;
};

static void town_start(struct town *town)
{
    const char *argv[] = { "reelkv-encoder",
                           "--name",
                           "encoder-0",
                           "--redis",
                           redis_address(),
                           "--model",
                           MODEL,
                           "--dtype",
                           "f32",
                           "--n-local",
                           "256",
                           "--batch-frames",
                           "4",
                           "--keep-frames",
                           "8",
                           "--threads",
                           "1",
                           NULL };

    memset(town, 0, sizeof *town);
    reference.model = open_model();
    town->world = world_create();
    memcpy(town->world->vision.fingerprint, model_geometry(reference.model)->fingerprint,
           MODEL_FINGERPRINT_BYTES);
    redis_start(&town->redis);
    neighbours_join(&town->neighbours, town->world);
    process_start(&town->encoder, "encoder", argv);
    if (!process_wait_text(&town->encoder, "\"ready\":true", 30000))
        test_fail(__FILE__, __LINE__, "the encoder did not start: %s", process_log(&town->encoder));
}

static void town_end(struct town *town)
{
    neighbours_leave(&town->neighbours);
    world_destroy(town->world);
    process_stop(&town->redis, SIGKILL, 1000);
    model_close(reference.model);
    free(reference.embeddings);
    memset(&reference, 0, sizeof reference);
}

static const char *make(uint32_t count)
{
    struct video_numbered video = { "a.mp4", "25", 0, count, WIDTH, HEIGHT, "" };

    return video_make_numbered(&video);
}

static bool ended(struct world *world)
{
    return world->streams[0].ends > 0 && world->streams[0].call == NULL;
}

static bool disconnected(struct world *world)
{
    return world->streams[0].call == NULL;
}

static bool three_received(struct world *world)
{
    return world->streams[0].received >= 3;
}

TEST(what_is_sent_is_what_the_model_makes_of_the_frames)
{
    struct town town;
    struct world_stream *stream;

    town_start(&town);
    fill_reference(make(FRAMES));
    town.world->inspect = compare;
    stream = world_add(town.world, "cam", make(FRAMES));
    stream->sample_fps = 25;
    world_until(town.world, ended, 40000);
    CHECK_EQ(stream->durable, FRAMES);
    CHECK_STR(stream->end_trouble, "");
    CHECK(process_wait_text(&town.encoder, "all of it is stored", 10000));
    CHECK_EQ(process_stop(&town.encoder, SIGTERM, 10000), 0);
    CHECK_HAS(process_log(&town.encoder), "stream_started");
    town_end(&town);
}

/* The newest child of a process; 0: it has none. */
static pid_t child_of(pid_t parent)
{
    glob_t stats;
    pid_t found = 0;

    CHECK(glob("/proc/[0-9]*/stat", 0, NULL, &stats) == 0);
    for (size_t i = 0; i < stats.gl_pathc; i++) {
        FILE *file = fopen(stats.gl_pathv[i], "re");
        int pid, its_parent;

        if (file == NULL)
            continue; /* it has just ended */
        if (fscanf(file, "%d (%*[^)]) %*c %d", &pid, &its_parent) == 2 && its_parent == parent && pid > found)
            found = pid;
        fclose(file);
    }
    globfree(&stats);
    return found;
}

TEST(a_terminated_encoder_drains_and_leaves_nobody_behind)
{
    struct town town;
    struct world_stream *stream;
    pid_t capture;

    town_start(&town);
    town.world->inspect = ignore;
    town.world->credits = 1;
    stream = world_add(town.world, "cam", make(400));
    stream->sample_fps = 25;
    world_until(town.world, three_received, 40000);
    capture = child_of(town.encoder.pid);
    CHECK(capture > 0);
    CHECK(kill(town.encoder.pid, SIGTERM) == 0);
    world_for(town.world, 4000); /* the store answers while the encoder says goodbye */
    CHECK_EQ(process_wait(&town.encoder, 2000), 0);
    CHECK(kill(capture, 0) != 0);
    CHECK_EQ(stream->ends, 0);
    CHECK_EQ(stream->durable, stream->received);
    CHECK(stream->durable < 400);
    town_end(&town);
}

/* The analyzer stores slowly, and the encoder has nothing else to wait for: with the call cut off, what it has read would
 * be lost of a live source. */
TEST(a_terminated_encoder_sends_what_it_has_read)
{
    struct town town;
    struct world_stream *stream;
    uint64_t received;

    town_start(&town);
    town.world->inspect = ignore;
    town.world->credits = 1;
    town.world->ack_ms = 100;
    stream = world_add(town.world, "cam", make(400));
    stream->sample_fps = 25;
    world_until(town.world, three_received, 40000);
    received = stream->received;
    CHECK(kill(town.encoder.pid, SIGTERM) == 0);
    world_for(town.world, 4000);
    CHECK_EQ(process_wait(&town.encoder, 2000), 0);
    CHECK(strstr(process_log(&town.encoder), "analyzer_lost") == NULL);
    CHECK(stream->received > received);
    CHECK_EQ(stream->durable, stream->received);
    CHECK_EQ(stream->hellos, 1);
    CHECK_EQ(stream->ends, 0);
    town_end(&town);
}

/* Another encoder took over only when the lease had run out. */
TEST(a_terminated_encoder_leaves_no_lease)
{
    static const char key[] = "reelkv:1:lease:default/cam";
    const char *socket = redis_address() + strlen("unix:");
    struct town town;
    struct world_stream *stream;
    struct process cli;

    town_start(&town);
    town.world->inspect = ignore;
    stream = world_add(town.world, "cam", make(400));
    stream->sample_fps = 25;
    world_until(town.world, three_received, 40000);
    CHECK(kill(town.encoder.pid, SIGTERM) == 0);
    world_until(town.world, disconnected, 20000);
    CHECK_EQ(process_wait(&town.encoder, 10000), 0);
    CHECK_EQ(process_run(&cli, "cli", PROCESS_ARGS("redis-cli", "-s", socket, "EXISTS", key), 5000), 0);
    CHECK_STR(process_log(&cli), "0\n");
    CHECK_EQ(stream->ends, 0);
    town_end(&town);
}

TEST(no_password_is_printed)
{
    struct town town;
    struct world_stream *stream;

    town_start(&town);
    stream = world_add(town.world, "cam", "rtsp://admin:s3cret@127.0.0.1:9/live?token=t0ken");
    stream->live = true;
    stream->origin_ns = clock_utc_ns();
    world_for(town.world, 5000);
    CHECK_EQ(process_stop(&town.encoder, SIGTERM, 10000), 0);
    CHECK_HAS(process_log(&town.encoder), "source_lost");
    CHECK_HAS(process_log(&town.encoder), "***@127.0.0.1:9/live");
    CHECK(strstr(process_log(&town.encoder), "s3cret") == NULL);
    CHECK(strstr(process_log(&town.encoder), "t0ken") == NULL);
    CHECK(strstr(process_log(&town.encoder), "admin") == NULL);
    town_end(&town);
}

TEST(what_cannot_start_says_why)
{
    static const struct {
        const char *argv[8];
        int code;
        const char *says;
    } rows[] = {
        { { "reelkv-encoder", NULL }, 2, "model" },
        { { "reelkv-encoder", "--model", "/nowhere", NULL }, 1, "/nowhere" },
        { { "reelkv-encoder", "--model", MODEL, "--dtype", "f8", NULL },
          1,
          "dtype must be f32 or bf16, not 'f8'" },
        { { "reelkv-encoder", "--model", MODEL, "--name", "No Good", NULL },
          1,
          "encoder name 'No Good' is not valid" },
        { { "reelkv-encoder", "--max-streams", "0", NULL }, 2, "max_streams must be 1 to 4096" },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct process encoder;

        CHECK_EQ(process_run(&encoder, "encoder", rows[i].argv, 20000), rows[i].code);
        CHECK_HAS(process_log(&encoder), rows[i].says);
    }
}

TEST_MAIN()
