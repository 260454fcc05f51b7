/* store_kill - the real reelkv-kvstore, killed with SIGKILL at random moments while it is written, read, started and
 * stopped; an oracle that outlives it (kill_oracle.h) says what it may answer then.
 *
 *   store_kill [--seed SEED] [--cycles COUNT] [--state FILE]
 *
 * A seed is a story on a fresh data folder, of KILLS_A_STORY cycles: start, compare everything with the oracle, work
 * (kill_load.h), kill. Stories of even seeds have disk enough, so that nothing may be evicted; those of odd ones have not.
 * Seeds follow each other until COUNT cycles are done. With --state that many are done in all, over several runs: the file
 * keeps the next seed and what happened, and a run goes on where the last one ended.
 *
 * What a seed does is fixed, what of it the kill cuts off is not: a failure may need its seed several times to come again.
 * Exit code: 0 nothing lost and nothing wrong; 1 else, with a sentence. */
#include <stdarg.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "kill_load.h"

enum { KILLS_A_STORY = 50, SAMPLE = 40, NEWEST = 60, BEGIN_MS = 20000 };

static uint64_t seed, cycle;
static char folder[256];

/* In place of those of support/test.c: a story that fails ends the program. */
_Noreturn void test_fail(const char *file, int line, const char *format, ...)
{
    va_list args;

    flockfile(stdout);
    printf("seed %llu cycle %llu: %s:%d: ", (unsigned long long)seed, (unsigned long long)cycle, file, line);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
    fflush(stdout);
    if (getenv("REELKV_KEEP") == NULL && folder[0] != '\0')
        file_remove_tree(folder, NULL);
    _exit(EXIT_FAILURE); /* the store goes with its parent */
}

const char *test_folder(void)
{
    const char *base = getenv("TMPDIR");

    if (folder[0] == '\0') {
        snprintf(folder, sizeof folder, "%s/reelkv-kill-XXXXXX", base != NULL ? base : "/tmp");
        REQUIRE(mkdtemp(folder) != NULL);
    }
    return folder;
}

struct story {
    struct sim_random random;
    struct server server;
    struct kill_stream streams[KILL_STREAMS];
    struct kill_load load;
    bool is_tight; /* old segments must go */
};

/* --- the process --- */

static void start(struct story *story)
{
    struct server *server = &story->server;
    const char *argv[] = { "reelkv-kvstore",
                           "--name=kv-a",
                           "--redis=127.0.0.1:1",
                           "--ram-budget-bytes=8M",
                           "--segment-bytes=1M",
                           story->is_tight ? "--disk-budget-bytes=12M" : "--disk-budget-bytes=4G",
                           sim_chance(&story->random, 50) ? "--commit-ms=2" : "--commit-ms=20",
                           "--reading-threads=4",
                           "--path",
                           server->path,
                           "--listen",
                           server->address,
                           NULL };

    unlink(server->process.log_path);
    process_start(&server->process, "kv-a", argv);
}

/* True: in order. */
static bool expect_end(struct story *story, int signal)
{
    int code = process_wait(&story->server.process, 60000);

    if (code != 0 && code != 128 + signal)
        test_fail(__FILE__, __LINE__, "the store ended with %d: %s", code,
                  process_log(&story->server.process));
    return code == 0;
}

static bool kill_now(struct story *story)
{
    kill(story->server.process.pid, SIGKILL);
    kill_counts.kills++;
    cycle++;
    return expect_end(story, SIGKILL);
}

static void sleep_up_to(struct story *story, uint32_t ms)
{
    usleep(sim_pick(&story->random, 1000 * ms));
}

/* While it loads, cuts, seals and removes what the last life left; and again. */
static void kill_while_starting(struct story *story)
{
    while (sim_chance(&story->random, 15)) {
        start(story);
        sleep_up_to(story, 40);
        kill_counts.kills_at_start++;
        kill_now(story);
    }
}

static void start_and_wait(struct story *story)
{
    struct server *server = &story->server;
    struct status st;

    start(story);
    if (!process_wait_text(&server->process, "\"ready\":true", BEGIN_MS))
        test_fail(__FILE__, __LINE__, "the store does not start: %s", process_log(&server->process));
    CHECK_OK(rpc_sync_create(&server->client, server->address, NULL, &st), st);
}

/* --- what is there --- */

struct found {
    bool is_there;
    uint64_t next_seq, durable_seq, stored, gaps, evicted, damaged, epoch;
};

static void look_up(struct story *story, const struct kill_stream *stream, struct found *found)
{
    Reelkv__V1__GetStreamRequest request = REELKV__V1__GET_STREAM_REQUEST__INIT;
    Reelkv__V1__StreamId id = client_id(stream->name);
    const Reelkv__V1__StreamStatus *status;
    struct reply reply;

    request.id = &id;
    client_call(&story->server, &reply, &api_get_stream, &request.base);
    CHECK(reply.ok || reply.st.code == STATUS_NOT_FOUND);
    status = reply.body;
    *found = (struct found){ .is_there = reply.ok };
    if (reply.ok)
        *found = (struct found){ true,
                                 status->next_seq,
                                 status->durable_seq,
                                 status->stored_frames,
                                 status->gap_frames,
                                 status->evicted_frames,
                                 status->damaged_frames,
                                 status->epoch };
    client_done(&reply);
}

/* The call that would have said so may have been cut. */
static void settle_whether_it_is_there(struct kill_stream *stream, const struct found *found)
{
    if (stream->is_there && !found->is_there && !stream->is_removing)
        test_fail(__FILE__, __LINE__, "LOST: stream %s, acked and not removed", stream->name);
    if (!stream->is_there && found->is_there && !stream->is_making)
        test_fail(__FILE__, __LINE__, "WRONG: stream %s is there, though its removal was acked",
                  stream->name);
    if (!found->is_there)
        kill_stream_is_gone(stream);
    stream->is_there = found->is_there;
    stream->is_making = stream->is_removing = false;
}

static void check_numbers(const struct story *story, const struct kill_stream *stream,
                          const struct found *found)
{
    if (found->next_seq < stream->durable)
        test_fail(__FILE__, __LINE__, "LOST: %s ends before %llu; acked durable below %llu", stream->name,
                  (unsigned long long)found->next_seq, (unsigned long long)stream->durable);
    if (found->next_seq > stream->offered)
        test_fail(__FILE__, __LINE__, "WRONG: %s ends before %llu; offered below %llu", stream->name,
                  (unsigned long long)found->next_seq, (unsigned long long)stream->offered);
    CHECK_EQ(found->durable_seq, found->next_seq);
    CHECK_EQ(found->damaged, 0);
    CHECK_EQ(found->stored + found->gaps, found->next_seq);
    CHECK(found->epoch >= stream->epoch);
    if (!story->is_tight) {
        CHECK_EQ(found->stored, kill_frames_below(stream, found->next_seq));
        CHECK_EQ(found->evicted, 0);
    }
}

/* Some anywhere, the newest, and those that are not there. */
static void check_frames(struct story *story, struct kill_stream *stream, uint64_t next_seq)
{
    uint64_t seqs[KILL_FETCH_MAX];
    uint32_t count = 0;
    struct status st;

    for (uint32_t i = 0; i < SAMPLE && next_seq > 0; i++)
        seqs[count++] = sim_next(&story->random) % next_seq;
    for (uint64_t seq = next_seq < NEWEST ? 0 : next_seq - NEWEST; seq < next_seq + 3; seq++)
        seqs[count++] = seq;
    CHECK_OK(kill_fetch(&story->server, stream, seqs, count, sim_pick(&story->random, client_geometry.layers),
                        NULL, &st),
             st);
}

static void check_all_frames(struct story *story, struct kill_stream *stream, uint64_t next_seq)
{
    struct status st;

    for (uint32_t layer = 0; layer < client_geometry.layers; layer++)
        for (uint64_t from = 0; from < next_seq; from += KILL_FETCH_MAX) {
            uint64_t seqs[KILL_FETCH_MAX];
            uint32_t count = 0;

            for (; count < KILL_FETCH_MAX && from + count < next_seq; count++)
                seqs[count] = from + count;
            CHECK_OK(kill_fetch(&story->server, stream, seqs, count, layer, NULL, &st), st);
        }
}

static void check_stream(struct story *story, struct kill_stream *stream, bool all)
{
    struct found found;
    struct status st;
    uint64_t end;

    look_up(story, stream, &found);
    settle_whether_it_is_there(stream, &found);
    if (!stream->is_there)
        return;
    check_numbers(story, stream, &found);
    kill_counts.resent += stream->offered - found.next_seq;
    stream->offered = stream->stored = stream->durable = found.next_seq;
    CHECK_OK(kill_timeline(&story->server, stream, &end, &st), st);
    CHECK_EQ(end, found.next_seq);
    check_frames(story, stream, found.next_seq);
    if (all)
        check_all_frames(story, stream, found.next_seq);
}

static void check_all(struct story *story, bool all)
{
    for (uint32_t i = 0; i < KILL_STREAMS; i++)
        check_stream(story, &story->streams[i], all);
}

/* --- the story --- */

static void end_life(struct story *story)
{
    uint32_t dice = sim_pick(&story->random, 100);
    bool in_order;

    story->load.is_over = true;
    if (dice < 20) { /* it fences its writers, writes, seals; and is cut short, or not */
        kill(story->server.process.pid, SIGTERM);
        if (dice < 15)
            sleep_up_to(story, 30);
        kill_counts.kills_at_end++;
    }
    in_order = dice < 15 || dice >= 20 ? kill_now(story) : expect_end(story, SIGTERM);
    kill_load_join(&story->load);
    for (uint32_t i = 0; in_order && i < KILL_STREAMS; i++) /* then what it had it has */
        if (story->streams[i].stored > story->streams[i].durable)
            story->streams[i].durable = story->streams[i].stored;
    rpc_sync_destroy(story->server.client);
    story->server.client = NULL;
}

static void run_story(uint64_t cycles)
{
    static struct story story;
    uint64_t end = cycle + (cycles < KILLS_A_STORY ? cycles : KILLS_A_STORY);

    story = (struct story){ .random = { .state = seed }, .is_tight = seed % 2 == 1 };
    snprintf(story.server.path, sizeof story.server.path, "%s/data", test_folder());
    snprintf(story.server.address, sizeof story.server.address, "unix:%s/kv-a.sock", test_folder());
    story.load.server = &story.server;
    story.load.streams = story.streams;
    kill_budget(story.is_tight ? 12 << 20 : 0);
    for (uint32_t i = 0; i < KILL_STREAMS; i++)
        kill_stream_init(&story.streams[i], seed, i);
    kill_load_init(&story.load);
    while (cycle < end) {
        kill_while_starting(&story);
        start_and_wait(&story);
        check_all(&story, false);
        kill_load_start(&story.load, sim_next(&story.random));
        sleep_up_to(&story, 8u << sim_pick(&story.random, 5));
        end_life(&story);
    }
    start_and_wait(&story);
    check_all(&story, true);
    rpc_sync_destroy(story.server.client);
    CHECK_EQ(process_stop(&story.server.process, SIGTERM, 60000), 0);
    kill_load_deinit(&story.load);
    file_remove_tree(folder, NULL);
    folder[0] = '\0';
}

/* --- many of them --- */

static _Atomic uint64_t *const kept[] = { &kill_counts.kills,        &kill_counts.kills_at_start,
                                          &kill_counts.kills_at_end, &kill_counts.frames,
                                          &kill_counts.gaps,         &kill_counts.resent,
                                          &kill_counts.removed,      &kill_counts.compared,
                                          &kill_counts.evicted };

static void read_state(const char *path)
{
    struct file_text text;
    struct status st;
    char *at;

    if (access(path, F_OK) != 0)
        return;
    CHECK_OK(file_read_all(path, 4096, &text, &st), st);
    at = text.data;
    seed = strtoull(at, &at, 10);
    for (size_t i = 0; i < ARRAY_LEN(kept); i++)
        *kept[i] = strtoull(at, &at, 10);
    cycle = kill_counts.kills;
    free(text.data);
}

static void write_state(const char *path)
{
    struct status st;
    char text[512];
    int len = snprintf(text, sizeof text, "%llu", (unsigned long long)seed);

    for (size_t i = 0; i < ARRAY_LEN(kept); i++)
        len += snprintf(text + len, sizeof text - (size_t)len, " %llu", (unsigned long long)*kept[i]);
    CHECK_OK(file_write_durable(path, text, (size_t)len, &st), st);
}

static void print_counts(void)
{
    printf(
        "%llu kills (%llu while starting, %llu behind a SIGTERM), %llu frames and %llu numbers of gaps written, "
        "%llu numbers sent again, %llu streams removed, %llu answers compared, %llu of them evicted: 0 lost, "
        "0 wrong\n",
        (unsigned long long)kill_counts.kills, (unsigned long long)kill_counts.kills_at_start,
        (unsigned long long)kill_counts.kills_at_end, (unsigned long long)kill_counts.frames,
        (unsigned long long)kill_counts.gaps, (unsigned long long)kill_counts.resent,
        (unsigned long long)kill_counts.removed, (unsigned long long)kill_counts.compared,
        (unsigned long long)kill_counts.evicted);
}

int main(int argc, char **argv)
{
    uint64_t cycles = KILLS_A_STORY, started_ns = clock_mono_ns();
    const char *state = NULL;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
            seed = strtoull(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--cycles") == 0 && i + 1 < argc)
            cycles = strtoull(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--state") == 0 && i + 1 < argc)
            state = argv[++i];
        else
            return fprintf(stderr, "%s: unknown argument %s; see the top of the source\n", argv[0], argv[i]),
                   2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (state != NULL)
        read_state(state);
    for (; cycle < cycles; seed++) {
        run_story(cycles - cycle);
        if (state != NULL) {
            seed++;
            write_state(state);
            seed--;
            print_counts();
        }
    }
    print_counts();
    printf("%llu s\n", (unsigned long long)(clock_mono_ns() - started_ns) / 1000000000);
    return EXIT_SUCCESS;
}
