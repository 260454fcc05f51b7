/* The capture child over files: real processes, real H.264. What it sends is what the sampling rule names, what it
 * cannot read it says in a sentence, and whatever it does its encoder stays whole. */
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "capture_watch.h"
#include "support/process.h"
#include "support/test.h"
#include "support/video.h"

static const char *make(const char *name, const char *rate, uint32_t count)
{
    struct video_numbered video = { name, rate, 0, count, 192, 64, "" };

    return video_make_numbered(&video);
}

static struct watch *run(const struct capture_job *job)
{
    struct watch *watch = watch_start(job, NULL);

    CHECK(watch_until(watch, watch_has_ended, 20000));
    return watch;
}

TEST(a_file_gives_the_frames_of_the_rule_with_their_times)
{
    static const struct {
        const char *name, *rate;
        double sample_fps;
        uint32_t step;
        double frame_ms;
    } rows[] = {
        { "a.mp4", "30", 2, 15, 1000.0 / 30 },
        { "b.mp4", "30000/1001", 1, 30, 1001.0 / 30 },
        { "c.mp4", "25", 2, 12, 40 },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct capture_job job = watch_job(make(rows[i].name, rows[i].rate, 100), rows[i].sample_fps);
        struct watch *watch = run(&job);
        uint32_t count = (100 + rows[i].step - 1) / rows[i].step;

        CHECK_EQ(watch->outcome, CAPTURE_DONE);
        CHECK_STR(watch->end_text, "");
        CHECK_STR(watch->codec, "h264");
        CHECK_EQ(watch->frame_count, count);
        CHECK_EQ(watch->end_seq, count);
        CHECK_EQ(watch->expected, count);
        for (uint32_t k = 0; k < count; k++) {
            CHECK_EQ(watch->frames[k].seq, k);
            CHECK_EQ(watch->frames[k].number, k * rows[i].step);
            CHECK_NEAR((double)(watch->frames[k].pts_ns - job.origin_ns) / 1e6,
                       k * rows[i].step * rows[i].frame_ms, 1.01);
        }
        watch_end(watch);
    }
}

/* Going on at frame 3 gives exactly the frames from 3 on; going on at or behind the end gives only the end. */
TEST(a_file_goes_on_where_it_was_left)
{
    struct capture_job job = watch_job(make("a.mp4", "25", 100), 2.5);
    struct watch *whole = run(&job), *rest;

    CHECK_EQ(whole->frame_count, 10);
    for (uint64_t from = 1; from <= 12; from += 2) {
        job.from_seq = from;
        rest = run(&job);
        CHECK_EQ(rest->outcome, CAPTURE_DONE);
        CHECK_EQ(rest->end_seq, 10);
        CHECK_EQ(rest->frame_count, from < 10 ? 10 - from : 0);
        for (uint32_t i = 0; i < rest->frame_count; i++) {
            CHECK_EQ(rest->frames[i].seq, from + i);
            CHECK_EQ(rest->frames[i].pts_ns, whole->frames[from + i].pts_ns);
            CHECK_EQ(rest->frames[i].number, whole->frames[from + i].number);
        }
        watch_end(rest);
    }
    watch_end(whole);
}

static bool all_slots_are_out(const struct watch *watch)
{
    return watch->held_count == 3;
}

TEST(a_file_waits_for_its_encoder)
{
    struct capture_job job = watch_job(make("a.mp4", "25", 50), 25);
    struct watch *watch = watch_start(&job, NULL);

    watch->hold = true;
    CHECK(watch_until(watch, all_slots_are_out, 10000));
    watch_for(watch, 300);
    CHECK_EQ(watch->frame_count, 3);
    CHECK(!watch->ended);
    watch_release_all(watch);
    CHECK(watch_until(watch, watch_has_ended, 10000));
    CHECK_EQ(watch->outcome, CAPTURE_DONE);
    CHECK_EQ(watch->frame_count, 50);
    watch_check_whole(watch, 0);
    watch_end(watch);
}

TEST(sizes_change_midway_and_pictures_too_large_for_a_slot_are_refused)
{
    struct video_numbered second = { "2.ts", "25", 20, 20, 640, 360, "" };
    struct capture_job job;
    struct watch *watch;
    char joined[VIDEO_PATH_BYTES];

    make("1.ts", "25", 20);
    video_make_numbered(&second);
    video_ffmpeg("-i concat:%/1.ts -c copy -f mpegts %/warmup.ts"); /* ffmpeg can read it */
    snprintf(joined, sizeof joined, "%s/joined.ts", test_folder());
    {
        const char *argv[] = { "sh", "-c", "cat \"$0/1.ts\" \"$0/2.ts\" >\"$0/joined.ts\"", test_folder(),
                               NULL };
        struct process shell;

        CHECK_EQ(process_run(&shell, "cat", argv, 5000), 0);
    }
    job = watch_job(joined, 25);
    watch = run(&job);
    CHECK_EQ(watch->outcome, CAPTURE_DONE);
    CHECK_EQ(watch->frame_count, 40);
    for (uint32_t i = 0; i < 40; i++) {
        CHECK_EQ(watch->frames[i].number, i);
        CHECK_EQ(watch->frames[i].width, i < 20 ? 192 : 640);
    }
    watch_end(watch);
    job.slot_bytes = 100000;
    watch = run(&job);
    CHECK_EQ(watch->outcome, CAPTURE_REFUSED);
    CHECK_EQ(watch->frame_count, 20);
    CHECK(!status_code_is_retryable(watch->st.code));
    CHECK_HAS(watch->st.text, "a picture of 640 x 360 is larger than the 100000 bytes set aside");
    watch_end(watch);
}

TEST(what_cannot_be_read_is_said_in_a_sentence)
{
    static const char text[] = "not a video";
    char path[VIDEO_PATH_BYTES];
    struct capture_job job;
    struct watch *watch;
    struct status st = { 0 };

    job = watch_job("/nowhere/a.mp4", 1);
    watch = run(&job);
    CHECK_EQ(watch->outcome, CAPTURE_REFUSED);
    CHECK_EQ(watch->st.code, STATUS_NOT_FOUND);
    CHECK_STR(watch->st.text, "open /nowhere/a.mp4: No such file or directory");
    watch_end(watch);

    snprintf(path, sizeof path, "%s/text.mp4", test_folder());
    CHECK_OK(file_write_durable(path, text, sizeof text - 1, &st), st);
    job = watch_job(path, 1);
    watch = run(&job);
    CHECK_EQ(watch->outcome, CAPTURE_REFUSED);
    CHECK_HAS(watch->st.text, "this is not a video");
    watch_end(watch);

    {
        struct video_numbered video = { "cut.mp4", "25", 0, 100, 192, 64, "-movflags +faststart" };
        struct stat info;

        snprintf(path, sizeof path, "%s", video_make_numbered(&video));
        CHECK(stat(path, &info) == 0 && truncate(path, info.st_size * 6 / 10) == 0);
    }
    job = watch_job(path, 25);
    watch = run(&job);
    CHECK_EQ(watch->outcome, CAPTURE_DONE);
    CHECK(watch->frame_count > 20 && watch->frame_count < 90);
    CHECK_HAS(watch->end_text, "is cut short or damaged");
    watch_end(watch);
}

/* Forty files with bytes changed anywhere, headers included: each ends, in frames or in a sentence. */
TEST(damaged_files_end_in_frames_or_in_words)
{
    static const char *const names[] = { "d.mp4", "d.ts", "d.mkv", "d.avi" };
    uint64_t state = 88172645463325252ull;
    uint32_t with_frames = 0, refused = 0;

    for (uint32_t round = 0; round < 40; round++) {
        uint32_t kind = round % ARRAY_LEN(names);
        struct capture_job job;
        struct file_text text;
        char whole[VIDEO_PATH_BYTES], path[VIDEO_PATH_BYTES + 8];
        struct status st = { 0 };
        struct watch *watch;

        if (round < ARRAY_LEN(names))
            make(names[kind], "25", 50);
        snprintf(whole, sizeof whole, "%s/%s", test_folder(), names[kind]);
        snprintf(path, sizeof path, "%s/damaged-%s", test_folder(), names[kind]);
        CHECK_OK(file_read_all(whole, 1 << 22, &text, &st), st);
        for (uint32_t i = 0; i < 1 + round * 3; i++) {
            state ^= state << 13, state ^= state >> 7, state ^= state << 17;
            /* Every other round in the first bytes, where the container says what there is. */
            text.data[state % (round & 4 ? 400 : text.len)] = (char)(state >> 40);
        }
        CHECK_OK(file_write_durable(path, text.data, text.len, &st), st);
        free(text.data);
        job = watch_job(path, 25);
        watch = run(&job);
        CHECK(watch->outcome == CAPTURE_DONE || watch->outcome == CAPTURE_REFUSED);
        CHECK(watch->outcome == CAPTURE_DONE || watch->st.text[0] != '\0');
        with_frames += watch->frame_count > 0;
        refused += watch->outcome == CAPTURE_REFUSED;
        watch_check_whole(watch, 0);
        watch_end(watch);
    }
    CHECK(with_frames > 10 && refused > 0);
}

/* The address goes through the socket: not into arguments or environment, which every user of a machine can read. */
TEST(passwords_are_not_in_the_list_of_processes)
{
    struct capture_job job = watch_job("rtsp://admin:s3cret@127.0.0.1:9/live", 1);
    struct watch *watch;
    struct process grep;
    char files[128];
    const char *argv[] = { "sh", "-c", files, NULL };

    job.live = true;
    watch = watch_start(&job, NULL);
    watch_for(watch, 400);
    snprintf(files, sizeof files, "cat /proc/%d/cmdline /proc/%d/environ | grep -c s3cret",
             capture_pid(watch->capture), capture_pid(watch->capture));
    CHECK_EQ(process_run(&grep, "grep", argv, 5000), 1);
    CHECK_HAS(process_log(&grep), "0");
    CHECK(watch->trouble_count >= 1);
    CHECK_HAS(watch->trouble, "rtsp://***@127.0.0.1:9/live");
    CHECK(strstr(watch->trouble, "s3cret") == NULL);
    watch_end(watch);
}

static bool some_frames(const struct watch *watch)
{
    return watch->frame_count >= 3;
}

TEST(a_killed_child_is_noticed_and_leaves_nothing_half_done)
{
    struct capture_job job = watch_job(make("a.mp4", "25", 200), 25);
    struct watch *watch = watch_start(&job, NULL);

    watch->hold = true;
    CHECK(watch_until(watch, some_frames, 10000));
    CHECK(kill(capture_pid(watch->capture), SIGKILL) == 0);
    CHECK(watch_until(watch, watch_has_ended, 5000));
    CHECK_EQ(watch->outcome, CAPTURE_BROKEN);
    CHECK_HAS(watch->st.text, "ended by signal 9");
    CHECK_EQ(watch->st.code, STATUS_UNAVAILABLE);
    watch_end(watch);
}

TEST(a_stop_is_obeyed_and_pixels_outlive_the_child)
{
    struct capture_job job = watch_job(make("a.mp4", "25", 200), 25);
    struct watch *watch = watch_start(&job, NULL);
    struct capture_pool *pool;
    const uint8_t *rgb;

    watch->hold = true;
    CHECK(watch_until(watch, all_slots_are_out, 10000));
    pool = capture_pool_ref(watch->capture);
    rgb = capture_rgb(watch->capture, watch->held[2]);
    capture_stop(watch->capture);
    CHECK(watch_until(watch, watch_has_ended, 5000));
    CHECK_EQ(watch->outcome, CAPTURE_STOPPED);
    watch_end(watch);
    CHECK_EQ(video_number(rgb, 192, 64), 2);
    capture_pool_unref(pool);
}

/* An encoder that is killed takes its children with it. */
TEST(children_die_with_their_encoder)
{
    struct capture_job job = watch_job(make("a.mp4", "25", 200), 25);
    int pipe_fds[2], status;
    pid_t encoder, child = 0;

    CHECK(pipe(pipe_fds) == 0);
    encoder = fork();
    if (encoder == 0) {
        struct watch *watch = watch_start(&job, NULL);

        watch->hold = true;
        watch_until(watch, all_slots_are_out, 10000);
        child = capture_pid(watch->capture);
        if (write(pipe_fds[1], &child, sizeof child) < 0)
            _exit(1);
        pause();
        _exit(0);
    }
    CHECK_EQ(read(pipe_fds[0], &child, sizeof child), sizeof child);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    CHECK(kill(child, 0) == 0);
    CHECK(kill(encoder, SIGKILL) == 0 && waitpid(encoder, &status, 0) == encoder);
    for (int i = 0; i < 200; i++) {
        char path[64], state[64] = "";
        FILE *stat_file;

        snprintf(path, sizeof path, "/proc/%d/stat", child);
        stat_file = fopen(path, "re");
        if (stat_file == NULL)
            return;
        if (fscanf(stat_file, "%*d %*s %63s", state) == 1 && state[0] == 'Z') {
            fclose(stat_file);
            return; /* dead; its new parent has yet to notice */
        }
        fclose(stat_file);
        test_pause_ms(20);
    }
    CHECK(!"the child is gone");
}

TEST_MAIN()
