/* The real process under writers that write as fast as they can: what everything under its data folder takes on the disk,
 * by the file system's own count of blocks, never passes --disk-budget-bytes, whatever ends the process in the middle.
 *
 * The count is exact: the process is stopped while it is taken, at moments of no choice of its own, while it starts and
 * ends too. */
#include <ftw.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "kvstore_client.h"

enum { WRITERS = 3, LIVES = 6, LIFE_MS = 1200, PATIENCE = 50, BUDGET_MB = 24, BURST = 8, PAUSE_US = 2000 };

static const uint64_t budget_bytes = (uint64_t)BUDGET_MB << 20;
static struct server server;
static struct status st;
static atomic_bool is_over;

/* --- counting --- */

static uint64_t walked_bytes;

static int add_file(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    walked_bytes += (uint64_t)info->st_blocks * 512;
    return 0;
}

/* Of the folder while nobody changes it. False: the process has ended. */
static bool count_stopped(uint64_t *bytes_p)
{
    pid_t pid = server.process.pid;
    siginfo_t info = { 0 };

    kill(pid, SIGSTOP);
    if (waitid(P_PID, (id_t)pid, &info, WSTOPPED | WEXITED | WNOWAIT) != 0 || info.si_code != CLD_STOPPED)
        return false;
    waitid(P_PID, (id_t)pid, &info, WSTOPPED);
    walked_bytes = 0;
    nftw(server.path, add_file, 16, FTW_PHYS);
    *bytes_p = walked_bytes;
    kill(pid, SIGCONT);
    return true;
}

struct peak {
    uint64_t bytes, counts;
};

static bool count(struct peak *peak)
{
    uint64_t bytes;

    if (!count_stopped(&bytes))
        return false;
    if (bytes > budget_bytes)
        test_fail(__FILE__, __LINE__, "%llu bytes are on the disk, %llu is the budget",
                  (unsigned long long)bytes, (unsigned long long)budget_bytes);
    peak->bytes = bytes > peak->bytes ? bytes : peak->bytes;
    peak->counts++;
    usleep(PAUSE_US);
    return true;
}

/* For so long, or until the process ends. False: it has ended. */
static bool watch(struct peak *peak, uint32_t ms)
{
    uint64_t until_ns = clock_mono_ns() + ms * 1000000ull;
    bool is_there = true;

    while (is_there && clock_mono_ns() < until_ns)
        is_there = count(peak);
    return is_there;
}

/* While it cuts and seals what the last life left. */
static void start_watched(struct peak *peak, const char *const *options)
{
    server_begin(&server, "kv-a", options);
    while (!process_wait_text(&server.process, "\"ready\":true", 0) && count(peak))
        ;
    server_await(&server);
}

/* --- writing --- */

struct hand {
    struct writer writer;
    struct kv_pool *pool;
    char name[16];
    uint64_t frames;
    pthread_t thread;
};

static bool write_burst(struct writer *writer)
{
    for (uint32_t i = 0; i < BURST; i++)
        if (!writer_block(writer, false, 0))
            return false;
    while (writer->stored_seq < writer->next_seq)
        if (!writer_read(writer))
            return false;
    return true;
}

static void *write_on(void *arg)
{
    struct hand *hand = arg;
    struct writer *writer = &hand->writer;
    uint64_t first = writer->next_seq;
    bool ok = writer_begin(writer) && writer_block(writer, true, 0);

    while (ok)
        ok = write_burst(writer);
    if (!is_over)
        printf("  %s stopped: %s\n", hand->name, writer->st.text);
    hand->frames += writer->stored_seq > first ? writer->stored_seq - first : 0;
    rpc_sync_stream_destroy(writer->call);
    return NULL;
}

static void start_writers(struct hand *hands)
{
    char path[PATH_MAX];

    snprintf(path, sizeof path, "%s/shm.sock", server.path);
    for (uint32_t i = 0; i < WRITERS; i++) {
        struct hand *hand = &hands[i];

        hand->writer.pool = hand->pool;
        CHECK_OK(kv_shm_peer_create(&hand->writer.peer, path, hand->pool, 5000, &st), st);
        CHECK_OK(writer_open(&hand->writer, &server, hand->name), hand->writer.st);
        CHECK_EQ(pthread_create(&hand->thread, NULL, write_on, hand), 0);
    }
}

static void join_writers(struct hand *hands)
{
    for (uint32_t i = 0; i < WRITERS; i++) {
        pthread_join(hands[i].thread, NULL);
        kv_shm_peer_destroy(hands[i].writer.peer);
    }
}

/* --- the claim --- */

/* Written in all, and what of it is there. */
static uint64_t evicted_frames(const char *name)
{
    Reelkv__V1__GetStreamRequest request = REELKV__V1__GET_STREAM_REQUEST__INIT;
    Reelkv__V1__StreamId id = client_id(name);
    struct reply reply;
    uint64_t frames;

    request.id = &id;
    client_call(&server, &reply, &api_get_stream, &request.base);
    CHECK_OK(reply.ok, reply.st);
    frames = ((const Reelkv__V1__StreamStatus *)reply.body)->evicted_frames;
    client_done(&reply);
    return frames;
}

static void end_life(struct peak *peak, int signal)
{
    is_over = true;
    kill(server.process.pid, signal);
    watch(peak, signal == SIGTERM ? 30000 : 0);
    CHECK_EQ(process_wait(&server.process, 30000), signal == SIGTERM ? 0 : 128 + SIGKILL);
}

static uint64_t rewritten_segments(void)
{
    Reelkv__V1__GetServerInfoRequest request = REELKV__V1__GET_SERVER_INFO_REQUEST__INIT;
    struct reply reply;
    uint64_t segments;

    client_call(&server, &reply, &api_get_server_info, &request.base);
    CHECK_OK(reply.ok, reply.st);
    segments = ((const Reelkv__V1__ServerInfo *)reply.body)->rewritten_segments;
    client_done(&reply);
    return segments;
}

static uint64_t all_evicted(const struct hand *hands)
{
    uint64_t frames = 0;

    for (uint32_t i = 0; i < WRITERS; i++)
        frames += evicted_frames(hands[i].name);
    return frames;
}

/* LIFE_MS, and on a busy machine until the budget was in reach. */
static void watch_life(const struct hand *hands, struct peak *peak)
{
    CHECK(watch(peak, LIFE_MS));
    for (uint32_t i = 0; i < PATIENCE && (peak->bytes <= budget_bytes * 3 / 4 || all_evicted(hands) == 0);
         i++)
        CHECK(watch(peak, LIFE_MS));
}

/* Returns how many segments were rewritten. */
static uint64_t press(const char *const *options)
{
    static struct hand hands[WRITERS];
    struct peak peak = { 0 };
    uint64_t frames = 0, evicted, rewritten = 0;

    for (uint32_t i = 0; i < WRITERS; i++) {
        hands[i] = (struct hand){ 0 };
        snprintf(hands[i].name, sizeof hands[i].name, "cam-%u", i);
        CHECK_OK(kv_pool_create(&hands[i].pool, "writer", 1 << 20, &st), st);
    }
    server_start(&server, "kv-a", options);
    for (uint32_t i = 0; i < WRITERS; i++)
        client_create(&server, hands[i].name);
    for (uint32_t life = 0; life < LIVES; life++) {
        is_over = false;
        start_writers(hands);
        watch_life(hands, &peak);
        rewritten += rewritten_segments();
        end_life(&peak, life % 2 == 0 ? SIGKILL : SIGTERM);
        join_writers(hands);
        rpc_sync_destroy(server.client);
        start_watched(&peak, options);
    }
    for (uint32_t i = 0; i < WRITERS; i++) {
        frames += hands[i].frames;
        kv_pool_destroy(hands[i].pool);
    }
    evicted = all_evicted(hands);
    server_stop(&server);
    printf("  %llu frames, %llu of them evicted, %llu segments rewritten; %llu counts, at most %llu bytes of "
           "%llu\n",
           (unsigned long long)frames, (unsigned long long)evicted, (unsigned long long)rewritten,
           (unsigned long long)peak.counts, (unsigned long long)peak.bytes, (unsigned long long)budget_bytes);
    CHECK(evicted > 0);
    CHECK(peak.bytes > budget_bytes * 3 / 4); /* it was in reach */
    return rewritten;
}

TEST(kvstore_never_takes_more_disk_than_its_budget)
{
    static const char *const options[] = { "--disk-budget-bytes=24M", "--ram-budget-bytes=32M",
                                           "--segment-bytes=4M", "--commit-ms=5", NULL };

    CHECK_EQ(press(options), 0);
}

/* While segments are rewritten old and new file are both there; the writers are faster than that by far. */
TEST(kvstore_never_takes_more_disk_than_its_budget_while_frames_age)
{
    static const char *const options[] = { "--disk-budget-bytes=24M",
                                           "--ram-budget-bytes=32M",
                                           "--segment-bytes=1M",
                                           "--commit-ms=5",
                                           "--ageing=default=full:1s,thin/2:2s,8bit:1h",
                                           NULL };

    CHECK(press(options) > 0);
}

TEST_MAIN()
