/* How soon a store with many sealed segments takes appends after a restart, and what it keeps in memory for what it has: the
 * real process on a folder of sparse files (many_segments.h). Times are printed, memory is bounded.
 *
 * 40 streams of 57 segments; with REELKV_SCALE_STREAMS=1000 it starts on 57,000 segments too (`make bench`). Each file has
 * three or four pieces on the disk: where that is mounted with `discard`, removing them takes 3 ms a piece, which is
 * ten minutes; TMPDIR=/dev/shm has none of it, nor a disk. */
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "integration/kvstore_client.h"
#include "many_segments.h"

enum {
    STREAMS = 40,
    SEGMENTS = 57,
    FRAMES = 32,
    FEW_FRAMES = 16, /* those of one chunk of the index */
    KEYS_MS_MAX = 60000,
    /* What is allowed; services/kvstore/README.md has what was measured. */
    STREAM_BYTES_MAX =
        56 << 10, /* with what 16 loading threads keep, who wait for folders beside each other */
    SEGMENT_BYTES_MAX = 8 << 10, /* besides its frames, with what the loading threads keep: up to 4 KB each */
    FRAME_BYTES_MAX = 384,       /* of four layers, its keys apart */
};

static struct server server;

/* Anonymous pages: the arena is left out, it is shared. */
static uint64_t anonymous_bytes(void)
{
    char path[64], line[256];
    unsigned long long kib = 0;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/status", (int)server.process.pid);
    file = fopen(path, "re");
    CHECK(file != NULL);
    while (kib == 0 && fgets(line, sizeof line, file) != NULL)
        sscanf(line, "RssAnon: %llu", &kib);
    fclose(file);
    CHECK(kib > 0);
    return kib << 10;
}

/* Of the thread that owns the store's state, while nobody asks for anything. */
static double idle_ms_a_second(void)
{
    enum { SECONDS = 3 };
    unsigned long long ran_ns[2] = { 0 };
    char path[64];

    snprintf(path, sizeof path, "/proc/%d/schedstat", (int)server.process.pid);
    for (unsigned i = 0; i < 2; i++) {
        FILE *file = fopen(path, "re");

        CHECK(file != NULL);
        CHECK_EQ(fscanf(file, "%llu", &ran_ns[i]), 1);
        fclose(file);
        if (i == 0)
            sleep(SECONDS);
    }
    return (double)(ran_ns[1] - ran_ns[0]) / SECONDS / 1e6;
}

static double seconds(uint64_t from_ns, uint64_t to_ns)
{
    return (double)(to_ns - from_ns) / 1e9;
}

static void make(uint32_t streams, uint32_t segments, uint32_t frames)
{
    struct many_segments shape = { .streams = streams,
                                   .segments = segments,
                                   .frames = frames,
                                   .tokens = CLIENT_TOKENS,
                                   .geometry = client_geometry };
    char root[300];

    memcpy(shape.fingerprint, client_print, sizeof shape.fingerprint);
    snprintf(root, sizeof root, "%s/kv-a", test_folder());
    file_remove_tree(root, NULL);
    many_segments_make(&shape, root);
}

/* The first stream goes on where its last segment ends. */
static void append_one(uint64_t next_seq)
{
    struct writer writer = { .pool = NULL };

    CHECK_OK(writer_open(&writer, &server, "cam-00000"), writer.st);
    CHECK_EQ(writer.next_seq, next_seq);
    CHECK_OK(writer_begin(&writer), writer.st);
    CHECK_OK(writer_block(&writer, true, 0), writer.st);
    CHECK_OK(writer_frames(&writer, 1), writer.st);
    CHECK_OK(writer_finish(&writer), writer.st);
}

/* Anonymous bytes of a store that has read all its keys. */
static uint64_t start_on(uint32_t streams, uint32_t segments, uint32_t frames)
{
    const char *const options[] = { streams > STREAMS ? "--ram-budget-bytes=4G" : "--ram-budget-bytes=512M",
                                    "--disk-budget-bytes=64G", "--segment-bytes=1M",
                                    "--ageing=default=full:36500d", NULL };
    uint64_t started_ns, ready_ns, stored_ns, bytes;

    make(streams, segments, frames);
    started_ns = clock_mono_ns();
    server_start(&server, "kv-a", options);
    ready_ns = clock_mono_ns();
    if (streams > 0)
        append_one(segments * frames);
    stored_ns = clock_mono_ns();
    if (segments > 0 && !process_wait_text(&server.process, "keys_read", KEYS_MS_MAX))
        test_fail(__FILE__, __LINE__, "keys are not read: %s", process_log(&server.process));
    bytes = anonymous_bytes();
    printf(
        "  %u streams, %u segments, %u frames: ready after %.2f s, a frame durable after %.2f s, keys there "
        "after %.2f s, %.1f MB\n",
        streams, streams * segments, streams * segments * frames, seconds(started_ns, ready_ns),
        seconds(started_ns, stored_ns), seconds(started_ns, clock_mono_ns()), (double)bytes / 1e6);
    if (streams > STREAMS)
        printf("  idle: %.2f ms of the loop's processor a second, ageing looked for\n", idle_ms_a_second());
    server_stop(&server);
    return bytes;
}

static uint64_t share(uint64_t bytes, uint64_t without, uint64_t count)
{
    return bytes > without ? (bytes - without) / count : 0;
}

TEST(kvstore_starts_on_many_segments_and_keeps_little_of_each)
{
    const char *asked = getenv("REELKV_SCALE_STREAMS");
    uint64_t segments = STREAMS * SEGMENTS, keys = kv_keys_bytes(&client_geometry);
    uint64_t none = start_on(0, 0, 0), idle = start_on(STREAMS, 0, 0),
             few = start_on(STREAMS, SEGMENTS, FEW_FRAMES);
    uint64_t many = start_on(STREAMS, SEGMENTS, FRAMES);
    uint64_t frame = share(many, few, segments * (FRAMES - FEW_FRAMES));
    uint64_t stream = share(idle, none, STREAMS), segment = share(few, idle, segments) - FEW_FRAMES * frame;

    CHECK(frame >= keys); /* they are in memory */
    printf("  %llu bytes a stream, %llu a segment, %llu a frame besides %llu of keys\n",
           (unsigned long long)stream, (unsigned long long)segment, (unsigned long long)(frame - keys),
           (unsigned long long)keys);
    CHECK(stream <= STREAM_BYTES_MAX);
    CHECK(segment <= SEGMENT_BYTES_MAX);
    CHECK(frame - keys <= FRAME_BYTES_MAX);
    if (asked != NULL)
        start_on((uint32_t)strtoul(asked, NULL, 10), SEGMENTS, FEW_FRAMES);
}

TEST_MAIN()
