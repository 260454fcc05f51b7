/* The whole of it through the command line: real processes, a real video, questions; bad input; every process killed
 * while it works; stopped and started again. The checkpoint is a tiny random one: answers mean nothing here, that they
 * are equal before and after does. */
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "cluster_file.h"
#include "support/process.h"
#include "support/test.h"

enum { READY_MS = 120000, VERB_MS = 180000, MODEL_LAYERS = 3, TOP_R = 4 };

#define MODEL    REELKV_SOURCE_DIR "/tests/data/parity/tiny-a"
#define QUESTION "What colour was the star?"

static char data[512], video[512];

static void set_up(uint32_t seconds)
{
    struct process truthcam;
    char length[16];

    snprintf(data, sizeof data, "%s/data", test_folder());
    snprintf(video, sizeof video, "%s/dock.mp4", test_folder());
    snprintf(length, sizeof length, "%u", seconds);
    CHECK_EQ(process_run(&truthcam, "truthcam",
                         PROCESS_ARGS("truthcam", "--seconds", length, "--profile", "demo", "--questions",
                                      "0", "--out", video),
                         VERB_MS),
             0);
}

/* Ready when it has said `words`; `more` is one more flag, or NULL. */
static void start_and_wait(struct process *up, const char *name, const char *more, const char *words)
{
    process_start(up, name,
                  PROCESS_ARGS("reelkv", "up", "--data", data, "--model", MODEL, "--dtype", "f32",
                               "--n-local", "64", "--top-r", "4", "--ram", "64M", "--disk", "256M",
                               "--threads", "1", "--foreground", more));
    if (!process_wait_text(up, words, READY_MS))
        test_fail(__FILE__, __LINE__, "not ready: %s", process_log(up));
}

static void start_cluster(struct process *up, const char *name)
{
    start_and_wait(up, name, NULL, "ReelKV is ready.");
}

/* Runs a verb with --json on the test's cluster; *value_p (may be NULL) gets what it printed. */
static int run_json(const char *const *words, struct json **value_p)
{
    static unsigned runs;
    const char *argv[32] = { "reelkv" };
    struct process process;
    char name[32];
    const char *text;
    size_t n = 1;
    int code;

    while (*words != NULL)
        argv[n++] = *words++;
    argv[n++] = "--json";
    argv[n++] = "--data";
    argv[n++] = data;
    snprintf(name, sizeof name, "verb-%u", runs++);
    code = process_run(&process, name, argv, VERB_MS);
    text = strchr(process_log(&process), '{');
    if (value_p != NULL)
        *value_p =
            text != NULL ? json_parse((struct bytes){ (const uint8_t *)text, strlen(text) }, NULL) : NULL;
    if (value_p != NULL && *value_p == NULL)
        test_fail(__FILE__, __LINE__, "no JSON from %s: %s", argv[1], process_log(&process));
    return code;
}
#define VERB(value_p, ...) run_json((const char *const[]){ __VA_ARGS__, NULL }, value_p)

static double number(const struct json *object, const char *key)
{
    if (!json_is_number(json_get(object, key)))
        test_fail(__FILE__, __LINE__, "no number '%s'", key);
    return json_number(json_get(object, key));
}

static void add(const char *name, const char *fps)
{
    CHECK_EQ(VERB(NULL, "cam", "add", name, video, "--fps", fps, "--start-time", "2026-01-01T00:00:00Z"), 0);
}

static void add_and_wait(const char *name, double *frames_p)
{
    struct json *value;

    add(name, "2");
    CHECK_EQ(VERB(&value, "cam", "wait", name, "--timeout", "170"), 0);
    *frames_p = number(json_at(json_get(value, "cameras"), 0), "frames_stored");
    json_free(value);
}

/* The answer's ids and the seq of every evidence frame, as text. */
static char *ask(const char *cameras)
{
    struct json *value;
    char *text;

    CHECK_EQ(VERB(&value, "ask", QUESTION, "--cam", cameras, "--max-tokens", "8", "--layers"), 0);
    CHECK(json_len(json_get(value, "evidence")) > 0);
    CHECK(json_len(json_get(value, "layers")) > 0);
    CHECK(json_is_string(json_get(value, "answer")));
    CHECK(number(json_get(value, "timings"), "total_ms") > 0);
    text = json_text(json_get(value, "layers"), 0);
    json_free(value);
    return text;
}

static void check_refused(int code, int wanted, const struct json *value, const char *part)
{
    const char *message = json_str(json_get(json_get(value, "error"), "message"));

    if (code != wanted)
        test_fail(__FILE__, __LINE__, "exit code %d, not %d: %s", code, wanted, message);
    CHECK_HAS(message, part);
}

/* A verb that must fail: exit code and a part of the sentence. */
#define REFUSED(wanted, part, ...)                  \
    do {                                            \
        struct json *value_;                        \
        int code_ = VERB(&value_, __VA_ARGS__);     \
        check_refused(code_, wanted, value_, part); \
        json_free(value_);                          \
    } while (0)

/* One camera's life, every verb in --json, and what each says to bad input. */
TEST(a_camera_from_add_to_rm)
{
    struct process up;
    struct json *value;
    char pictures[600], path[640];
    struct status st;
    double frames;

    set_up(20);
    start_cluster(&up, "up");
    REFUSED(5, "already runs on", "up");
    add_and_wait("dock", &frames);
    CHECK_EQ(frames, 40);

    REFUSED(5, "already", "cam", "add", "dock", video);
    REFUSED(2, "not valid", "cam", "add", "Dock!", video);
    REFUSED(3, "No such file", "cam", "add", "gate", "/no/such/video.mp4");
    REFUSED(2, "is a folder", "cam", "add", "gate", test_folder());
    REFUSED(2, "has no class night", "cam", "add", "gate", video, "--class", "night");
    REFUSED(3, "cam ls", "cam", "show", "nobody");
    REFUSED(3, "nobody", "ask", QUESTION, "--cam", "nobody");
    REFUSED(2, "empty", "ask", "  ", "--cam", "dock");
    REFUSED(2, "UTF-8", "ask", "\xff\xfe", "--cam", "dock");
    REFUSED(2, "twice", "ask", QUESTION, "--cam", "dock,dock");
    REFUSED(2, "later than", "ask", QUESTION, "--cam", "dock", "--from", "now", "--to", "-5m");
    REFUSED(2, "rekv, recent or all", "ask", QUESTION, "--selector", "best");
    REFUSED(3, "cam ls", "cam", "rm", "nobody");

    snprintf(path, sizeof path, "%s/junk.mp4", test_folder());
    CHECK_OK(file_write_durable(path, "this is no video", 16, &st), st);
    CHECK_EQ(VERB(NULL, "cam", "add", "junk", path), 0);
    REFUSED(1, "not a video", "cam", "wait", "junk", "--timeout", "60");
    REFUSED(3, "camera junk has nothing to ask about", "ask", QUESTION, "--cam", "junk");
    REFUSED(3, "nothing is stored for that time", "ask", QUESTION, "--cam", "junk", "--from", "-5m");
    CHECK_EQ(VERB(NULL, "cam", "rm", "junk"), 0);

    CHECK_EQ(VERB(&value, "cam", "show", "dock"), 0);
    CHECK_STR(json_str(json_get(value, "state")), "ended");
    CHECK_STR(json_str(json_get(value, "first")), "2026-01-01T00:00:00Z");
    CHECK(number(value, "disk_bytes") > 0);
    json_free(value);
    CHECK_EQ(VERB(&value, "mem", "ls"), 0);
    CHECK_EQ(number(json_at(json_get(value, "stores"), 0), "frames"), 40);
    CHECK_EQ(json_len(json_get(value, "cameras")), 1);
    json_free(value);
    CHECK_EQ(VERB(&value, "node", "ls"), 0);
    CHECK_EQ(json_len(json_get(value, "nodes")), 4);
    json_free(value);
    CHECK_EQ(VERB(&value, "doctor"), 0);
    json_free(value);

    snprintf(pictures, sizeof pictures, "%s/pictures", test_folder());
    CHECK_EQ(VERB(&value, "ask", QUESTION, "--cam", "dock", "--max-tokens", "4", "--thumbnails", pictures),
             0);
    snprintf(path, sizeof path, "%s",
             json_str(json_get(json_at(json_get(value, "evidence"), 0), "thumbnail")));
    CHECK(access(path, R_OK) == 0);
    json_free(value);

    CHECK_EQ(VERB(NULL, "cam", "rm", "dock"), 0);
    CHECK_EQ(VERB(&value, "cam", "ls"), 0);
    CHECK_EQ(json_len(json_get(value, "cameras")), 0);
    json_free(value);
    CHECK_EQ(process_stop(&up, SIGTERM, VERB_MS), 0);
}

/* A budget's bytes hold so many hours of one camera. */
static void check_hours(const struct json *budget, const char *bytes, const char *hours)
{
    double wanted =
        number(budget, bytes) / number(budget, "frame_bytes") / number(budget, "sample_fps") / 3600;

    CHECK(wanted > 0);
    CHECK_NEAR(number(budget, hours), wanted, wanted * 1e-6);
}

/* What --json says of a cluster that is ready: who listens where, on what folder and model, how fast, and how much fits. */
static void check_ready_json(const struct json *ready)
{
    static const char *const names[] = { "redis", "kvstore-0", "analyzer-0", "encoder-0", "qa-0" };
    const struct json *processes = json_get(ready, "processes"), *speed = json_get(ready, "speed"),
                      *budget = json_get(ready, "budget"), *model = json_get(ready, "model");

    CHECK(json_bool(json_get(ready, "ready")));
    CHECK_STR(json_str(json_get(ready, "data")), data);
    CHECK_EQ(json_len(processes), ARRAY_LEN(names));
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        CHECK_STR(json_str(json_get(json_at(processes, i), "name")), names[i]);
        CHECK(strlen(json_str(json_get(json_at(processes, i), "address"))) > 0);
        CHECK_EQ(kill((pid_t)number(json_at(processes, i), "pid"), 0), 0);
    }
    CHECK_STR(json_str(json_get(model, "folder")), MODEL);
    CHECK_STR(json_str(json_get(model, "family")), "llava_onevision");
    CHECK_STR(json_str(json_get(model, "dtype")), "f32");
    CHECK_EQ(number(model, "n_local"), 64);
    CHECK(number(speed, "vision_frames_per_s") > 0);
    CHECK(number(speed, "language_frames_per_s") > 0);
    CHECK(number(speed, "frames_per_s") > 0);
    CHECK(number(speed, "frames_per_s") < number(speed, "vision_frames_per_s"));
    CHECK_EQ(number(budget, "ram_bytes"), 64 << 20);
    CHECK_EQ(number(budget, "disk_bytes"), 256 << 20);
    check_hours(budget, "ram_bytes", "ram_camera_hours");
    check_hours(budget, "disk_bytes", "disk_camera_hours");
}

/* The same in words. */
static void check_ready_text(const struct json *ready, const char *said)
{
    const struct json *processes = json_get(ready, "processes");

    for (size_t i = 0; i < json_len(processes); i++) /* sockets are where they were */
        CHECK_HAS(said, json_str(json_get(json_at(processes, i), "address")));
    CHECK_HAS(said, data);
    CHECK_HAS(said, MODEL "\n");
    CHECK_HAS(said, " frames/s expected (vision ");
    CHECK_HAS(said, "  memory   64 MiB of KV: ");
    CHECK_HAS(said, " of one camera at 0.5 frames/s (");
    CHECK_HAS(said, "  disk     256 MiB of KV: ");
    CHECK_HAS(said, " of one camera; then the oldest goes first\n");
}

TEST(up_says_what_runs_where_how_fast_and_how_much_fits)
{
    struct process up;
    struct json *ready;
    const char *text;

    set_up(20);
    start_and_wait(&up, "json", "--json", "\n}\n");
    text = strchr(process_log(&up), '{');
    ready = json_parse((struct bytes){ (const uint8_t *)text, strlen(text) }, NULL);
    CHECK(ready != NULL);
    check_ready_json(ready);
    CHECK_EQ(process_stop(&up, SIGTERM, VERB_MS), 0);

    start_and_wait(&up, "words", NULL, "Go on with:  ");
    check_ready_text(ready, process_log(&up));
    json_free(ready);
    CHECK_EQ(process_stop(&up, SIGTERM, VERB_MS), 0);
}

/* A frame of the evidence: what programs read of it, and that it lies behind `better` in rank (NULL: it is the first). */
static void check_evidence(const struct json *frame, const struct json *better)
{
    double seq = number(frame, "seq"), layers = number(frame, "layers");

    CHECK_STR(json_str(json_get(frame, "cam")), "dock");
    CHECK(strncmp(json_str(json_get(frame, "pts")), "2026-01-01T00:00:", 17) == 0);
    CHECK_EQ(number(frame, "pts_ns"), 1767225600e9 + seq * 5e8);
    number(frame, "score");
    CHECK(number(frame, "mean_rank") >= 1);
    CHECK(layers >= 1 && layers <= MODEL_LAYERS);
    if (better != NULL && number(better, "layers") == layers)
        CHECK(number(better, "mean_rank") <= number(frame, "mean_rank"));
    else if (better != NULL)
        CHECK(number(better, "layers") > layers);
}

/* The fields a program reads of an answer are there and agree with each other. */
TEST(an_answer_in_json_has_evidence_usage_and_timings)
{
    const struct json *evidence, *usage, *timings, *stop;
    struct process up;
    struct json *value;
    double frames;

    set_up(20);
    start_cluster(&up, "up");
    add_and_wait("dock", &frames);
    CHECK_EQ(VERB(&value, "ask", QUESTION, "--cam", "dock", "--max-tokens", "8"), 0);
    CHECK(json_is_string(json_get(value, "answer")));
    evidence = json_get(value, "evidence");
    CHECK(json_len(evidence) >= TOP_R && json_len(evidence) <= TOP_R * MODEL_LAYERS);
    for (size_t i = 0; i < json_len(evidence); i++)
        check_evidence(json_at(evidence, i), i > 0 ? json_at(evidence, i - 1) : NULL);

    usage = json_get(value, "usage");
    CHECK_EQ(number(usage, "frames_in_view"), frames);
    CHECK_EQ(number(usage, "frames_evicted"), 0);
    CHECK_EQ(number(usage, "frames_gap"), 0);
    CHECK(number(usage, "question_tokens") > 0);
    CHECK(number(usage, "context_tokens") > number(usage, "question_tokens"));
    CHECK(number(usage, "fetched_bytes") > 0);
    CHECK_EQ(number(usage, "answer_tokens"), json_len(json_get(usage, "answer_ids")));
    stop = json_get(usage, "stop");
    CHECK(strcmp(json_str(stop), "end") == 0 || strcmp(json_str(stop), "length") == 0);

    timings = json_get(value, "timings");
    CHECK(number(timings, "retrieve_ms") > 0);
    CHECK(number(timings, "prefill_ms") > 0);
    CHECK(number(timings, "decode_ms") >= 0);
    CHECK(number(timings, "total_ms") >= number(timings, "retrieve_ms") + number(timings, "prefill_ms"));
    json_free(value);
    CHECK_EQ(process_stop(&up, SIGTERM, VERB_MS), 0);
}

/* Stopped and started again, the cameras are there and the answer is the same; without --data that a cluster has, and
 * after `down`, verbs say how to start it. */
TEST(cameras_and_answers_survive_a_restart)
{
    struct process up;
    struct json *value;
    char *before, *after;
    double frames;

    set_up(20);
    start_cluster(&up, "first");
    add_and_wait("dock", &frames);
    before = ask("dock");
    CHECK_EQ(VERB(NULL, "down"), 0);
    CHECK_EQ(process_wait(&up, VERB_MS), 4);
    REFUSED(3, "reelkv up --data", "cam", "ls");

    start_cluster(&up, "second");
    CHECK_HAS(process_log(&up), "1 camera found again");
    CHECK_EQ(VERB(&value, "cam", "show", "dock"), 0);
    CHECK_EQ(number(value, "frames_stored"), 40);
    json_free(value);
    after = ask("dock");
    CHECK_STR(after, before);
    free(before);
    free(after);
    CHECK_EQ(process_stop(&up, SIGTERM, VERB_MS), 0);
}

/* Blocks of another window are neither read nor continued, and everybody says so. A wait ends when the cluster does. */
TEST(other_settings_and_a_stopped_cluster_are_told)
{
    struct process up, wait;
    struct json *value;
    double frames;

    set_up(20);
    start_cluster(&up, "first");
    add_and_wait("dock", &frames);
    REFUSED(3, "nothing is stored for that time", "ask", QUESTION, "--cam", "dock", "--from",
            "2100-01-01T00:00:00Z");
    CHECK_EQ(VERB(&value, "cam", "add", "gate", "udp://127.0.0.1:9"), 0);
    CHECK_NEAR(number(value, "sample_fps"), 0.5, 0); /* the store's: nobody said */
    json_free(value);
    REFUSED(3, "nothing of camera gate is stored yet", "ask", QUESTION, "--cam", "gate");
    process_start(&wait, "wait",
                  PROCESS_ARGS("reelkv", "cam", "wait", "gate", "--frames", "100000", "--data", data));
    test_pause_ms(500);
    CHECK_EQ(VERB(NULL, "down"), 0);
    CHECK_EQ(process_wait(&wait, VERB_MS), 3);
    CHECK_HAS(process_log(&wait), "reelkv up --data");
    CHECK_EQ(process_wait(&up, VERB_MS), 4);

    process_start(&up, "second",
                  PROCESS_ARGS("reelkv", "up", "--data", data, "--n-local", "48", "--top-r", "4", "--ram",
                               "64M", "--disk", "256M", "--threads", "1", "--foreground"));
    if (!process_wait_text(&up, "ReelKV is ready.", READY_MS))
        test_fail(__FILE__, __LINE__, "not ready: %s", process_log(&up));
    CHECK(process_wait_text(&up, "--dtype f32 --n-local 64", READY_MS));
    CHECK_HAS(process_log(&up),
              "until `reelkv down --data /"); /* without it a cluster elsewhere was stopped */
    REFUSED(1, "--dtype f32 --n-local 64`", "ask", QUESTION, "--cam", "dock");
    CHECK_EQ(process_stop(&up, SIGTERM, VERB_MS), 0);

    start_and_wait(&up, "back", NULL, "Go on with:  "); /* it said once more what it had said before */
    CHECK(strstr(process_log(&up), "other settings") == NULL);
    free(ask("dock"));
    CHECK_EQ(process_stop(&up, SIGTERM, VERB_MS), 0);
}

static void write_file(const char *path, const char *text)
{
    struct status st;

    CHECK_OK(file_write_durable(path, text, strlen(text), &st), st);
}

/* The text of a member of the camera in `cam ls`. */
static void check_camera(const char *name, const char *member, const char *part)
{
    struct json *value;
    const struct json *rows;
    bool found = false;

    CHECK_EQ(VERB(&value, "cam", "ls"), 0);
    rows = json_get(value, "cameras");
    for (size_t i = 0; i < json_len(rows); i++)
        if (strcmp(json_str(json_get(json_at(rows, i), "name")), name) == 0) {
            CHECK_HAS(json_str(json_get(json_at(rows, i), member)), part);
            found = true;
        }
    CHECK(found);
    json_free(value);
}

/* One camera's definition that cannot be read leaves the others as they are: which file that is, and what to do, is said to its
 * end. */
TEST(a_damaged_definition_is_told_whole)
{
    char folder[700], path[800], away[700];
    struct process up, verb;
    struct json *value;

    set_up(20);
    start_cluster(&up, "first");
    CHECK_EQ(VERB(NULL, "cam", "add", "gate", "udp://127.0.0.1:9"), 0);
    CHECK_EQ(VERB(NULL, "cam", "add", "yard", "udp://127.0.0.1:9"), 0);
    CHECK_EQ(process_stop(&up, SIGTERM, VERB_MS), 0);
    snprintf(folder, sizeof folder, "%s/store/kvstore-0/v1/default/gate", data);
    snprintf(path, sizeof path, "%s/stream.json", folder);
    write_file(path, "{ co");

    start_cluster(&up, "beside");
    check_camera("gate", "state", "failed");
    check_camera("gate", "trouble", path);
    check_camera(
        "gate", "trouble",
        "move the folder it is in, this camera's, out of the data folder, and start the store again");
    check_camera("yard", "state", "waiting");
    CHECK_EQ(process_run(&verb, "mem", PROCESS_ARGS("reelkv", "mem", "ls", "--data", data), VERB_MS), 0);
    CHECK_HAS(process_log(&verb), path);
    CHECK_EQ(VERB(&value, "doctor"), 1);
    json_free(value);
    CHECK_EQ(VERB(&value, "cam", "add", "gate", "udp://127.0.0.1:9"), 5);
    json_free(value);
    CHECK_EQ(process_stop(&up, SIGTERM, VERB_MS), 0);

    snprintf(away, sizeof away, "%s/away", test_folder());
    CHECK_EQ(rename(folder, away), 0);
    start_cluster(&up, "second");
    CHECK_HAS(process_log(&up), "1 camera found again");
    CHECK_EQ(process_stop(&up, SIGTERM, VERB_MS), 0);
}

/* It was said to be a cluster that does not answer (4). */
TEST(an_ageing_that_means_nothing_is_usage)
{
    struct json *value;
    int code;

    set_up(20);
    code = VERB(&value, "up", "--model", MODEL, "--n-local", "64", "--ageing", "default=full:24");
    check_refused(code, 2, value, "ageing: 24: a time is a number and s, m, h or d");
    json_free(value);
}

static void kill_one(const char *name)
{
    static struct cluster_file file;
    struct status st;

    CHECK_OK(cluster_file_read(data, &file, &st), st);
    for (uint32_t i = 0; i < file.process_count; i++)
        if (strcmp(file.processes[i].name, name) == 0)
            CHECK(process_signal(&file.processes[i].id, SIGKILL));
}

/* Everything is ready again, and seen in the directory. */
static void wait_until_healthy(void)
{
    struct json *value;
    int code = 1;

    for (int i = 0; i < 100 && code != 0; i++) {
        code = VERB(&value, "doctor");
        if (code != 0)
            test_pause_ms(100);
        if (code == 0 || i + 1 < 100)
            json_free(value);
    }
    if (code != 0)
        test_fail(__FILE__, __LINE__, "not healthy: %s", json_text(value, 1));
}

/* Each process is killed while a camera is being read: it comes back, no frame is missing, and what the layers choose
 * for a question equals what they choose for the same video read in peace. */
TEST(killed_processes_lose_nothing)
{
    static const char *const names[] = { "analyzer-0", "kvstore-0", "encoder-0", "redis", "qa-0" };
    struct process up;
    char *peaceful;
    double frames;

    set_up(40);
    start_cluster(&up, "up");
    add_and_wait("dock", &frames);
    CHECK_EQ(frames, 80);
    peaceful = ask("dock");
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct json *value;
        char *shaken;

        CHECK_EQ(VERB(NULL, "cam", "rm", "dock"), 0);
        add("dock", "2");
        CHECK_EQ(VERB(NULL, "cam", "wait", "dock", "--frames", "5"), 0);
        kill_one(names[i]);
        if (VERB(&value, "cam", "wait", "dock", "--timeout", "100") != 0)
            test_fail(__FILE__, __LINE__, "after the death of %s: %s", names[i],
                      json_str(json_get(json_get(value, "error"), "message")));
        CHECK_EQ(number(json_at(json_get(value, "cameras"), 0), "frames_stored"), 80);
        CHECK_EQ(number(json_at(json_get(value, "cameras"), 0), "frames_gap"), 0);
        json_free(value);
        wait_until_healthy();
        shaken = ask("dock");
        CHECK_STR(shaken, peaceful);
        free(shaken);
    }
    free(peaceful);
    CHECK_EQ(process_stop(&up, SIGTERM, VERB_MS), 0);
}

/* As when the machine is switched off: the supervisor dies first, so that it starts nothing again. */
static void kill_all(struct process *up)
{
    static struct cluster_file file;
    struct status st;

    CHECK_OK(cluster_file_read(data, &file, &st), st);
    CHECK(process_signal(&file.supervisor, SIGKILL));
    for (uint32_t i = 0; i < file.process_count; i++)
        process_signal(&file.processes[i].id, SIGKILL); /* some follow the supervisor by themselves */
    process_wait(up, VERB_MS);
}

/* The camera is at its end, each of its frames was offered once and is stored, and writers took it `epochs` times or more. */
static void check_whole(double frames, double epochs)
{
    struct json *value;

    CHECK_EQ(VERB(NULL, "cam", "wait", "dock", "--timeout", "170"), 0);
    CHECK_EQ(VERB(&value, "cam", "show", "dock"), 0);
    CHECK_STR(json_str(json_get(value, "state")), "ended");
    CHECK_EQ(number(value, "frames_offered"), frames);
    CHECK_EQ(number(value, "frames_stored"), frames);
    CHECK_EQ(number(value, "frames_gap"), 0);
    CHECK(number(value, "epoch") >= epochs); /* an ended camera is not taken again */
    json_free(value);
}

/* Left in the middle of its file, first by `down` and then by the death of everybody, a camera goes on by itself when the
 * cluster is started again: it ends with every frame once, and answers as if nothing had been. */
TEST(an_unfinished_camera_goes_on_after_down_and_after_a_reboot)
{
    enum { FRAMES = 1200 };
    struct process up;
    char *peaceful, *resumed;

    set_up(FRAMES / 30);
    start_cluster(&up, "first");
    add("dock", "30");
    check_whole(FRAMES, 1);
    peaceful = ask("dock");
    CHECK_EQ(VERB(NULL, "cam", "rm", "dock"), 0);

    add("dock", "30");
    CHECK_EQ(VERB(NULL, "cam", "wait", "dock", "--frames", "20"), 0);
    CHECK_EQ(VERB(NULL, "down"), 0);
    CHECK_EQ(process_wait(&up, VERB_MS), 4);
    start_cluster(&up, "second");
    CHECK_HAS(process_log(&up), "1 camera found again");
    CHECK_EQ(VERB(NULL, "cam", "wait", "dock", "--frames", "400"), 0);
    kill_all(&up);
    start_cluster(&up, "third");
    CHECK_HAS(process_log(&up), "1 camera found again");
    check_whole(FRAMES, 3);
    resumed = ask("dock");
    CHECK_STR(resumed, peaceful);
    free(peaceful);
    free(resumed);
    CHECK_EQ(process_stop(&up, SIGTERM, VERB_MS), 0);
}

TEST_MAIN()
