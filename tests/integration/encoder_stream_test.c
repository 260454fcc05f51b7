/* One stream through the encoder: real capture processes and real calls, a store and an analyzer that break in
 * every way (encoder_world.h). Whatever breaks, every frame arrives, once for the store, in order, with the right
 * picture; what cannot arrive is a gap. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "encoder_world.h"
#include "support/process.h"
#include "support/test.h"
#include "support/video.h"

static const char *make(const char *name, uint32_t count)
{
    struct video_numbered video = { name, "25", 0, count, 192, 64, "" };

    return video_make_numbered(&video);
}

static bool ten_received(struct world *world)
{
    return world->streams[0].received >= 10;
}

static bool all_captured(struct world *world)
{
    return world->streams[0].stream != NULL && stream_progress(world->streams[0].stream).captured_seq == 9;
}

static bool connected(struct world *world)
{
    return world->streams[0].hellos > 0;
}

static bool connected_again(struct world *world)
{
    return world->streams[0].hellos > 1;
}

static bool connected_thrice(struct world *world)
{
    return world->streams[0].hellos > 2;
}

TEST(a_file_arrives_whole_and_ends)
{
    struct world *world = world_create();
    struct world_stream *stream = world_add(world, "cam", make("a.mp4", 60));

    stream->sample_fps = 5;
    world_start(world, stream);
    world_until(world, world_all_over, 20000);
    CHECK_EQ(stream->end, STREAM_END_DONE);
    CHECK_EQ(world_check(stream, 12, 5), 12);
    CHECK_EQ(stream->expected_frames, 12);
    CHECK_EQ(stream->hellos, 1);
    CHECK_EQ(stream->ends, 1);
    CHECK_STR(stream->end_trouble, "");
    for (uint32_t i = 0; i < 12; i++)
        CHECK_NEAR((double)(stream->pts_ns[i] - stream->origin_ns) / 1e6, i * 200.0, 1.01);
    world_destroy(world);
}

/* The call breaks after every four frames, of which two were durable: all are sent again from there, none twice
 * from the camera. */
TEST(breaks_of_the_call_lose_nothing)
{
    struct world *world = world_create();
    struct world_stream *stream = world_add(world, "cam", make("a.mp4", 20));

    world->break_after = 4;
    world->durable_lag = 1;
    world_start(world, stream);
    world_until(world, world_all_over, 60000);
    CHECK_EQ(stream->end, STREAM_END_DONE);
    CHECK_EQ(world_check(stream, 20, 1), 20);
    CHECK(stream->hellos >= 6 && stream->frames_in_all > 20);
    CHECK_EQ(stream->ends, 1);
    world_destroy(world);
}

static bool ten_kept_and_connected_again(struct world *world)
{
    const struct world_stream *stream = &world->streams[0];

    return connected_again(world) && stream_progress(stream->stream).connected && stream->received > 10;
}

/* A sync is slow, the analyzer dies, another begins; then the store dies with what it had in memory. Of a live camera
 * those frames were lost, though they had been here; and the first acknowledgement broke the second call. */
TEST(what_a_store_has_only_in_memory_is_kept_until_it_is_durable)
{
    struct world *world = world_create();
    struct world_stream *stream = world_add(world, "cam", make("a.mp4", 60));
    int capture_pid;

    world->remembers = true;
    world->durable_lag = 1000;
    world->encoder.keep_frames = 30;
    world_start(world, stream);
    world_until(world, ten_received, 20000);
    world_break(stream);
    world_until(world, ten_kept_and_connected_again, 20000);
    world_for(world, 1000);
    CHECK_EQ(stream->hellos, 2);
    CHECK_EQ(stream->frames_in_all, stream->received);
    CHECK_EQ(stream_progress(stream->stream).durable_seq, 0);
    CHECK_EQ(stream_progress(stream->stream).kept_frames, stream_progress(stream->stream).captured_seq);
    capture_pid = stream_progress(stream->stream).capture_pid;
    world_forget(world, stream, 0);
    world_until(world, connected_thrice, 20000);
    CHECK_EQ(stream_progress(stream->stream).capture_pid, capture_pid);
    world->durable_lag = 0;
    world_until(world, world_all_over, 20000);
    CHECK_EQ(world_check(stream, 60, 1), 60);
    CHECK_EQ(stream->hellos, 3);
    world_destroy(world);
}

static bool three_received(struct world *world)
{
    return world->streams[0].received >= 3;
}

/* Nobody acknowledges the gaps, so they are still here, and one, when the next call begins in the middle of it. */
TEST(a_gap_that_grew_between_two_calls_goes_on_where_the_store_is)
{
    struct world *world = world_create();
    struct world_stream *stream = world_add(world, "cam", make("a.mp4", 9));

    world->encode_fails = UINT32_MAX;
    world->remembers = true;
    world->silent = true;
    world_start(world, stream);
    world_until(world, three_received, 20000);
    world->absent = true;
    world_break(stream);
    world_until(world, all_captured, 30000);
    world_for(world, 3000);
    CHECK_EQ(stream->received, 3);
    world->silent = false;
    world->absent = false;
    world_until(world, world_all_over, 20000);
    CHECK_EQ(world_check(stream, 9, 1), 0);
    CHECK_EQ(stream->gaps, 4);
    CHECK_EQ(stream->hellos, 2);
    world_destroy(world);
}

/* The store comes back with less than it called durable: frames we no longer have are read from the file again. */
TEST(a_store_that_forgot_gets_the_file_again)
{
    struct world *world = world_create();
    struct world_stream *stream = world_add(world, "cam", make("a.mp4", 60));

    world->encode_ms = 20;
    world_start(world, stream);
    world_until(world, ten_received, 20000);
    world_forget(world, stream, 3);
    world_until(world, world_all_over, 30000);
    CHECK_EQ(world_check(stream, 60, 1), 60);
    world_destroy(world);
}

TEST(a_store_that_knows_more_is_followed)
{
    struct world *world = world_create();
    struct world_stream *stream = world_add(world, "cam", make("a.mp4", 60));

    world->encode_ms = 20;
    world_start(world, stream);
    world_until(world, ten_received, 20000);
    memset(stream->kind, 2, 40); /* another encoder was here */
    world_forget(world, stream, 40);
    world_until(world, world_all_over, 30000);
    CHECK(world_check(stream, 60, 1) >= 20);
    world_destroy(world);
}

TEST(a_killed_capture_is_replaced_at_the_next_frame)
{
    struct world *world = world_create();
    struct world_stream *stream = world_add(world, "cam", make("a.mp4", 60));

    world->encode_ms = 30;
    world_start(world, stream);
    world_until(world, ten_received, 20000);
    CHECK(stream_progress(stream->stream).capture_pid > 0);
    CHECK(kill(stream_progress(stream->stream).capture_pid, SIGKILL) == 0);
    world_until(world, world_all_over, 30000);
    CHECK_EQ(stream->end, STREAM_END_DONE);
    CHECK_EQ(world_check(stream, 60, 1), 60);
    CHECK_EQ(stream->frames_in_all, 60);
    world_destroy(world);
}

static struct world_stream *add_remote(struct world *world, struct process *server, const char *path,
                                       const char *ways)
{
    static uint32_t servers; /* each has a log of its own */
    char command[VIDEO_PATH_BYTES + 200], url[64], name[32];
    int port;

    snprintf(command, sizeof command, "exec /usr/bin/python3 %s/tests/support/http_server.py %s %s",
             REELKV_SOURCE_DIR, path, ways);
    snprintf(name, sizeof name, "http-%u", servers++);
    process_start(server, name, PROCESS_ARGS("sh", "-c", command));
    CHECK(process_wait_text(server, "\n", 10000));
    CHECK(sscanf(process_log(server), "port %d", &port) == 1);
    snprintf(url, sizeof url, "http://127.0.0.1:%d/a", port);
    return world_add(world, "cam", url);
}

/* The connection breaks within a picture, whose first part is not taken for all of it. */
TEST(a_web_server_that_goes_and_comes_back_costs_no_frame)
{
    static const char *const names[] = { "a.mp4", "a.ts", "a.mkv" };

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct video_numbered video = {
            names[i], "25", 0, 60, 192, 64, i == 0 ? "-movflags +faststart" : ""
        };
        struct world *world = world_create();
        struct process server;
        struct world_stream *stream =
            add_remote(world, &server, video_make_numbered(&video), "down torn cut down whole");

        world_start(world, stream);
        world_until(world, world_all_over, 30000);
        CHECK_EQ(stream->end, STREAM_END_DONE);
        CHECK_STR(stream->end_trouble, "");
        CHECK_HAS(stream->reported, "Server returned 5XX");
        CHECK_EQ(world_check(stream, 60, 1), 60);
        world_destroy(world);
        process_stop(&server, SIGKILL, 1000);
    }
}

TEST(a_web_server_that_stays_away_ends_its_file_with_the_reason)
{
    struct world *world = world_create();
    struct process server;
    struct world_stream *stream = add_remote(world, &server, make("a.ts", 20), "cut down");

    world_start(world, stream);
    world_until(world, world_all_over, 40000);
    CHECK_EQ(stream->end, STREAM_END_DONE);
    CHECK(stream->durable > 5 && stream->durable < 20);
    CHECK_HAS(stream->end_trouble, "reading failed 5 times in a row at frame");
    CHECK_HAS(stream->end_trouble, "Server returned 5XX");
    world_destroy(world);
    process_stop(&server, SIGKILL, 1000);
}

/* A program that dies each time stands for a file that kills its decoder. */
TEST(a_file_that_kills_its_reader_is_given_up_with_a_reason)
{
    struct world *world = world_create();
    struct world_stream *stream = world_add(world, "cam", "/any");

    world->encoder.capture_program = "/bin/false";
    world_start(world, stream);
    world_until(world, world_all_over, 40000);
    CHECK_EQ(stream->end, STREAM_END_DONE);
    CHECK_HAS(stream->end_trouble, "reading failed 5 times in a row at frame 0");
    CHECK_HAS(stream->end_trouble, "ended early with code 1");
    world_destroy(world);
}

TEST(never_more_in_flight_than_credits)
{
    struct world *world = world_create();
    struct world_stream *stream = world_add(world, "cam", make("a.mp4", 30));

    world->credits = 2;
    world->silent = true;
    world_start(world, stream);
    world_until(world, connected, 10000);
    world_for(world, 700);
    CHECK_EQ(stream->received, 2);
    CHECK_EQ(stream->most_in_flight, 2);
    world->silent = false;
    world_forget(world, stream, 0);
    world_until(world, world_all_over, 20000);
    CHECK_EQ(world_check(stream, 30, 1), 30);
    world_destroy(world);
}

/* Nothing gets durable: frames are kept up to the limit, then the file waits in its capture. */
TEST(what_is_kept_is_bounded)
{
    struct world *world = world_create();
    struct world_stream *stream = world_add(world, "cam", make("a.mp4", 60));
    struct stream_progress progress;

    world->encoder.keep_frames = 4;
    world->durable_lag = 1000;
    world_start(world, stream);
    world_until(world, connected, 10000);
    world_for(world, 1000);
    progress = stream_progress(stream->stream);
    CHECK_EQ(progress.kept_frames, 4 + 3);
    CHECK_EQ(progress.captured_seq, 4 + 3);
    world->durable_lag = 0;
    world_forget(world, stream, 0);
    world_until(world, world_all_over, 20000);
    CHECK_EQ(world_check(stream, 60, 1), 60);
    world_destroy(world);
}

static bool seven_kept(struct world *world)
{
    return stream_progress(world->streams[0].stream).kept_frames == 4 + 3;
}

/* Each capture that died while nothing got durable brought its slots' frames on top. */
TEST(what_is_kept_is_bounded_however_often_the_capture_dies)
{
    struct world *world = world_create();
    struct world_stream *stream = world_add(world, "cam", make("a.mp4", 60));

    world->encoder.keep_frames = 4;
    world->durable_lag = 1000;
    world_start(world, stream);
    world_until(world, seven_kept, 20000);
    CHECK(kill(stream_progress(stream->stream).capture_pid, SIGKILL) == 0);
    world_for(world, 2000);
    CHECK(seven_kept(world));
    world->durable_lag = 0;
    world_forget(world, stream, 0);
    world_until(world, world_all_over, 30000);
    CHECK_EQ(world_check(stream, 60, 1), 60);
    world_destroy(world);
}

TEST(a_source_that_cannot_be_read_ends_with_its_sentence)
{
    struct world *world = world_create();
    struct world_stream *stream = world_add(world, "cam", "/nowhere/a.mp4");

    world_start(world, stream);
    world_until(world, world_all_over, 10000);
    CHECK_EQ(stream->end, STREAM_END_DONE);
    CHECK_EQ(stream->ends, 1);
    CHECK_STR(stream->end_trouble, "open /nowhere/a.mp4: No such file or directory");
    world_destroy(world);
}

TEST(streams_the_store_has_no_use_for_are_let_go)
{
    struct world *world = world_create();
    struct world_stream *unknown = world_add(world, "unknown", "/any");
    struct world_stream *ended = world_add(world, "ended", "/any");

    unknown->missing = true;
    ended->state = REELKV__V1__STREAM_STATE__STREAM_STATE_ENDED;
    world_start(world, unknown);
    world_start(world, ended);
    world_until(world, world_all_over, 10000);
    CHECK_EQ(unknown->end, STREAM_END_GONE);
    CHECK_EQ(ended->end, STREAM_END_GONE);
    CHECK_EQ(unknown->hellos + ended->hellos, 0);
    world_destroy(world);
}

/* The encoder dies mid-file; another goes on where the store is. The file has shrunk for a third. */
TEST(another_encoder_goes_on_and_a_changed_file_is_noticed)
{
    struct world *world = world_create();
    struct world_stream *stream = world_add(world, "cam", make("a.mp4", 60));

    world->encode_ms = 20;
    world_start(world, stream);
    world_until(world, ten_received, 20000);
    stream_destroy(stream->stream);
    stream->stream = NULL;
    stream->received = stream->durable;
    world_for(world, 200);
    world_start(world, stream);
    world_until(world, world_all_over, 20000);
    CHECK_EQ(world_check(stream, 60, 1), 60);
    make("a.mp4", 20);
    world_start(world, stream);
    world_until(world, world_all_over, 20000);
    CHECK_HAS(stream->end_trouble, "the file gives 20 frames now; 60 were stored before");
    world_destroy(world);
}

TEST(an_analyzer_of_another_model_is_not_hammered)
{
    struct world *world = world_create();
    struct world_stream *stream = world_add(world, "cam", make("a.mp4", 10));

    status_fail(&world->refuse, STATUS_PRECONDITION, "encoder encoder-0 has another model");
    world_start(world, stream);
    world_until(world, connected, 10000);
    world_for(world, 2500);
    CHECK_EQ(stream->hellos, 1);
    world_destroy(world);
}

/* It was tried for ever, and only a log said why. */
TEST(what_keeps_a_stream_from_going_on_is_told_to_its_store_once)
{
    struct world *world = world_create();
    struct world_stream *stream = world_add(world, "cam", make("a.mp4", 10));

    status_fail(&world->refuse, STATUS_DATA_LOSS, "the window of cam cannot be read");
    world_start(world, stream);
    world_until(world, connected_thrice, 10000);
    CHECK_STR(stream->reported, "the window of cam cannot be read");
    CHECK_EQ(stream->reports, 1);
    world->refuse.code = STATUS_OK;
    world_until(world, world_all_over, 20000);
    CHECK_EQ(world_check(stream, 10, 1), 10);
    world_destroy(world);
}

TEST(an_analyzer_that_comes_late_gets_everything)
{
    struct world *world = world_create();
    struct world_stream *stream = world_add(world, "cam", make("a.mp4", 30));

    world->absent = true;
    world_start(world, stream);
    world_for(world, 1500);
    world->absent = false;
    world_until(world, world_all_over, 20000);
    CHECK_EQ(world_check(stream, 30, 1), 30);
    world_destroy(world);
}

TEST(an_analyzer_that_acknowledges_what_was_not_sent_is_not_believed)
{
    struct world *world = world_create();
    struct world_stream *stream = world_add(world, "cam", make("a.mp4", 10));

    world->lie = true;
    world_start(world, stream);
    world_until(world, connected_again, 10000);
    CHECK(!stream->over);
    world->lie = false;
    world_until(world, world_all_over, 20000);
    CHECK_EQ(world_check(stream, 10, 1), 10);
    world_destroy(world);
}

/* A definition that no encoder can read ends its stream: the sentence reaches the store, for a file and a live one. */
TEST(a_refused_definition_is_told_to_the_store)
{
    struct world *world = world_create();
    struct world_stream *fast = world_add(world, "fast", "/any"),
                        *gopher = world_add(world, "gopher", "gopher://h/x");

    fast->sample_fps = 1000;
    gopher->live = true;
    gopher->durable = 7; /* frames from another time */
    world_start(world, fast);
    world_start(world, gopher);
    world_until(world, world_all_over, 20000);
    CHECK_EQ(fast->end, STREAM_END_DONE);
    CHECK_STR(fast->end_trouble, "sample_fps must be 0.001 to 60, not 1000");
    CHECK_EQ(gopher->end, STREAM_END_DONE);
    CHECK_HAS(gopher->end_trouble, "this kind of URL cannot be read");
    CHECK_EQ(gopher->durable, 7);
    world_destroy(world);
}

/* The first batch fails, and what was in it alone too: the pictures are still there. */
TEST(frames_whose_encoding_fails_are_encoded_again)
{
    struct world *world = world_create();
    struct world_stream *stream = world_add(world, "cam", make("a.mp4", 30));

    world->encode_fails = 2;
    world_start(world, stream);
    world_until(world, world_all_over, 30000);
    CHECK_EQ(stream->end, STREAM_END_DONE);
    CHECK_EQ(world_check(stream, 30, 1), 30);
    CHECK_EQ(stream->hellos, 1);
    world_destroy(world);
}

TEST(a_frame_that_never_can_be_encoded_becomes_a_gap_with_the_reason)
{
    struct world *world = world_create();
    struct world_stream *stream = world_add(world, "cam", make("a.mp4", 30));

    world->bad_picture = 7;
    world_start(world, stream);
    world_until(world, world_all_over, 30000);
    CHECK_EQ(stream->end, STREAM_END_DONE);
    CHECK_EQ(world_check(stream, 30, 1), 29);
    CHECK_EQ(stream->kind[7], 2);
    CHECK_STR(stream->gap_reason,
              "the picture could not be encoded: the vision tower cannot bear this picture");
    CHECK_EQ(stream->hellos, 1);
    world_destroy(world);
}

/* Nobody takes the gaps meanwhile: they are one. */
TEST(gaps_that_nobody_takes_do_not_pile_up)
{
    struct world *world = world_create();
    struct world_stream *stream = world_add(world, "cam", make("a.mp4", 9));

    world->encode_fails = UINT32_MAX;
    world->absent = true;
    world_start(world, stream);
    world_until(world, all_captured, 30000);
    world_for(world, 3000);
    world->absent = false;
    world_until(world, world_all_over, 20000);
    CHECK_EQ(stream->end, STREAM_END_DONE);
    CHECK_EQ(world_check(stream, 9, 1), 0);
    CHECK_EQ(stream->gaps, 1);
    world_destroy(world);
}

/* The analyzer says of none of those in flight which one it is. */
TEST(a_frame_the_analyzer_refuses_becomes_a_gap_and_no_other_does)
{
    struct world *world = world_create();
    struct world_stream *stream = world_add(world, "cam", make("a.mp4", 30));

    world->ack_ms = 20;
    world->refuse_seq = 11;
    status_fail(&world->refuse_frame, STATUS_INVALID, "frame 11 has a wrong shape");
    world_start(world, stream);
    world_until(world, world_all_over, 60000);
    CHECK_EQ(stream->end, STREAM_END_DONE);
    CHECK_EQ(world_check(stream, 30, 1), 29);
    CHECK_EQ(stream->kind[11], 2);
    CHECK_STR(stream->gap_reason, "the analyzer refuses the frame: frame 11 has a wrong shape");
    world_destroy(world);
}

TEST(a_stream_that_may_have_no_more_frames_ends_with_the_reason)
{
    struct world *world = world_create();
    struct world_stream *stream = world_add(world, "cam", make("a.mp4", 30));

    world->refuse_seq = 11;
    status_fail(&world->refuse_frame, STATUS_OUT_OF_RANGE, "the stream has all the tokens it may have");
    world_start(world, stream);
    world_until(world, world_all_over, 20000);
    CHECK_EQ(stream->end, STREAM_END_DONE);
    CHECK_EQ(world_check(stream, 11, 1), 11);
    CHECK_STR(stream->end_trouble, "the stream has all the tokens it may have");
    CHECK_EQ(stream->hellos, 2);
    world_destroy(world);
}

/* Four streams and a slow vision tower: batches fill, and every stream still gets its own frames. */
TEST(streams_share_batches)
{
    struct world *world = world_create();
    char path[VIDEO_PATH_BYTES];
    struct batch_totals totals;

    snprintf(path, sizeof path, "%s", make("a.mp4", 30));
    world->encode_ms = 10;
    for (uint32_t i = 0; i < 4; i++) {
        char name[8];

        snprintf(name, sizeof name, "cam%u", i);
        world_start(world, world_add(world, name, path));
    }
    world_until(world, world_all_over, 30000);
    for (uint32_t i = 0; i < 4; i++)
        CHECK_EQ(world_check(&world->streams[i], 30, 1), 30);
    totals = batch_totals(world->encoder.batch);
    CHECK_EQ(totals.frames, 120);
    CHECK(totals.batches < 60);
    world_destroy(world);
}

/* A drain: no more is read, what was read gets durable, and the stream is not over. */
static bool drained(struct world *world)
{
    return stream_is_drained(world->streams[0].stream);
}

TEST(a_drain_makes_durable_what_was_read)
{
    struct world *world = world_create();
    struct world_stream *stream = world_add(world, "cam", make("a.mp4", 200));
    struct stream_progress progress;

    world->encode_ms = 20;
    world->durable_lag = 5;
    world_start(world, stream);
    world_until(world, ten_received, 20000);
    stream_drain(stream->stream);
    progress = stream_progress(stream->stream);
    world_until(world, drained, 3000);
    CHECK_EQ(stream->durable, progress.captured_seq);
    CHECK_EQ(stream->ends, 0);
    CHECK(!stream->over && stream->durable < 200);
    world_destroy(world);
}

static bool disconnected(struct world *world)
{
    return !stream_progress(world->streams[0].stream).connected;
}

/* Between two calls it was taken for drained: what had been read was given up, and of a camera it was lost. */
TEST(a_drain_waits_for_a_call_that_was_lost)
{
    struct world *world = world_create();
    struct world_stream *stream = world_add(world, "cam", make("a.mp4", 200));
    struct stream_progress progress;

    world->encode_ms = 20;
    world->durable_lag = 20;
    world_start(world, stream);
    world_until(world, ten_received, 20000);
    world_forget(world, stream, 0);
    world_until(world, disconnected, 20000);
    stream_drain(stream->stream);
    CHECK(!stream_is_drained(stream->stream));
    progress = stream_progress(stream->stream);
    world_until(world, drained, 20000);
    CHECK_EQ(stream->hellos, 2);
    CHECK_EQ(world_check(stream, progress.captured_seq, 1), progress.captured_seq);
    world_destroy(world);
}

TEST(a_stream_drained_before_its_definition_came_starts_nothing)
{
    struct world *world = world_create();
    struct world_stream *stream = world_add(world, "cam", make("a.mp4", 10));

    world_start(world, stream);
    stream_drain(stream->stream);
    CHECK(stream_is_drained(stream->stream));
    world_for(world, 1000);
    CHECK_EQ(stream_progress(stream->stream).capture_pid, 0);
    CHECK_EQ(stream->hellos, 0);
    world_destroy(world);
}

/* A live camera through an analyzer's outage, then through the encoder's own: every number is a frame or a gap. */
TEST(a_live_camera_is_frames_and_gaps_without_a_hole)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct world *world = world_create();
    struct world_stream *stream;
    struct process camera;
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    char url[64], tape[VIDEO_PATH_BYTES];
    const char *argv[] = { "ffmpeg", "-nostdin", "-loglevel", "error",  "-re", "-i", tape,
                           "-c",     "copy",     "-f",        "mpegts", url,   NULL };
    struct video_numbered video = { "tape.ts", "25", 0, 1500, 96, 32, "-g 12 -bf 0" };
    uint32_t frames;

    CHECK(bind(fd, (struct sockaddr *)&address, len) == 0 &&
          getsockname(fd, (struct sockaddr *)&address, &len) == 0);
    close(fd);
    snprintf(url, sizeof url, "udp://127.0.0.1:%d", ntohs(address.sin_port));
    snprintf(tape, sizeof tape, "%s", video_make_numbered(&video));
    stream = world_add(world, "cam", url);
    stream->live = true;
    stream->sample_fps = 10;
    stream->origin_ns = clock_utc_ns();
    world->encoder.keep_frames = 4;
    world_start(world, stream);
    process_start(&camera, "camera", argv);
    world_until(world, ten_received, 20000);
    world_for(world, 2000);
    world->absent = true; /* long enough to fill what is kept */
    world_forget(world, stream, stream->durable);
    world_for(world, 3000);
    world->absent = false;
    world_for(world, 3000);
    CHECK_HAS(stream->gap_reason, "the system is slower than the camera");
    stream_destroy(stream->stream);
    world_for(world, 1500);
    stream->received = stream->durable;
    world_start(world, stream);
    world_for(world, 4000);
    stream_drain(stream->stream);
    world_until(world, drained, 5000);
    frames = world_check(stream, stream->durable, 0);
    CHECK(frames > 40);
    CHECK((uint64_t)frames < stream->durable - 20);
    CHECK_NEAR((double)stream->durable / 10, (double)(clock_utc_ns() - stream->origin_ns) / 1e9, 1.5);
    process_stop(&camera, SIGKILL, 1000);
    world_destroy(world);
}

TEST_MAIN()
