#include "kv_limits.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/require.h"
#include "kv_server.h"

enum { THREADS_MAX = 64, DISK_ALIGN = 4096 };

/* --- threads --- */

struct start {
    pthread_t thread;
    unsigned number;
    void (*run)(unsigned number, void *arg);
    void *arg;
};

static void *start_main(void *arg)
{
    struct start *start = arg;

    start->run(start->number, start->arg);
    return NULL;
}

double kv_threads(unsigned count, void (*run)(unsigned number, void *arg), void *arg)
{
    struct start starts[THREADS_MAX];
    uint64_t began = clock_mono_ns();

    if (count > THREADS_MAX)
        kv_die("%u threads; at most %d", count, THREADS_MAX);
    for (unsigned i = 0; i < count; i++) {
        starts[i] = (struct start){ .number = i, .run = run, .arg = arg };
        if (pthread_create(&starts[i].thread, NULL, start_main, &starts[i]) != 0)
            kv_die("no more threads");
    }
    for (unsigned i = 0; i < count; i++)
        pthread_join(starts[i].thread, NULL);
    return (double)(clock_mono_ns() - began) * 1e-9;
}

static struct kv_limit limit_of(double bytes, double seconds, double cpu)
{
    return (struct kv_limit){ .rate = bytes / seconds, .cpu = cpu / bytes * 1e9 };
}

/* --- memory --- */

struct memory_test {
    const uint8_t *from;
    size_t bytes, piece, room;
    unsigned threads;
    uint8_t *to[THREADS_MAX];
    volatile uint64_t sink;
};

static void copy_share(unsigned number, void *arg)
{
    struct memory_test *test = arg;
    size_t pieces = test->bytes / test->piece, first = pieces * number / test->threads,
           end = pieces * (number + 1) / test->threads, slots = test->room / test->piece;

    for (size_t i = first; i < end; i++)
        memcpy(test->to[number] + i % slots * test->piece, test->from + i * test->piece, test->piece);
}

struct kv_limit kv_limit_copy(const uint8_t *from, size_t bytes, size_t piece, size_t room, unsigned threads)
{
    struct memory_test test = {
        .from = from, .bytes = bytes, .piece = piece, .room = room, .threads = threads
    };
    double seconds, cpu;

    for (unsigned i = 0; i < threads; i++) {
        test.to[i] = aligned_alloc(DISK_ALIGN, room);
        if (test.to[i] == NULL)
            kv_die("no memory for %zu bytes", room);
        memset(test.to[i], 1, room);
    }
    cpu = -kv_own_cpu();
    seconds = kv_threads(threads, copy_share, &test);
    cpu += kv_own_cpu();
    for (unsigned i = 0; i < threads; i++)
        free(test.to[i]);
    return limit_of((double)(bytes / piece * piece), seconds, cpu);
}

/* As wide as this processor adds. */
#if defined(__x86_64__)
#define WIDE __attribute__((target_clones("arch=x86-64-v4", "avx2", "default"), optimize("O3")))
#else
#define WIDE
#endif

/* Four runs beside each other, which a processor reads faster than one, and eight sums, so that the loop waits for memory and
 * not for itself. */
WIDE static void read_all(unsigned number, void *arg)
{
    enum { RUNS = 4, LINE_BYTES = 64 };
    struct memory_test *test = arg;
    size_t run_bytes = test->bytes / RUNS / LINE_BYTES * LINE_BYTES;
    uint64_t sums[LINE_BYTES / sizeof(uint64_t)] = { 0 };

    for (size_t at = 0; at < run_bytes; at += LINE_BYTES)
        for (unsigned run = 0; run < RUNS; run++)
            for (unsigned i = 0; i < ARRAY_LEN(sums); i++)
                sums[i] += ((const uint64_t *)(const void *)(test->from + run * run_bytes + at))[i];
    for (unsigned i = 0; i < ARRAY_LEN(sums); i++)
        test->sink += sums[i];
}

struct kv_limit kv_limit_read(const uint8_t *from, size_t bytes)
{
    struct memory_test test = { .from = from, .bytes = bytes };
    double cpu = -kv_own_cpu();

    kv_threads(1, read_all, &test);
    cpu += kv_own_cpu();
    return limit_of((double)bytes, cpu, cpu);
}

/* --- the disk --- */

struct disk_test {
    int fd;
    size_t bytes, piece;
    unsigned threads;
    uint64_t seed;
};

static uint8_t *buffer_of(size_t bytes, unsigned number)
{
    uint8_t *buffer = aligned_alloc(DISK_ALIGN, bytes);

    if (buffer == NULL)
        kv_die("no memory for %zu bytes", bytes);
    for (size_t i = 0; i < bytes; i++)
        buffer[i] = (uint8_t)((i + number) * 2654435761u >> 13);
    return buffer;
}

static void write_share(unsigned number, void *arg)
{
    const struct disk_test *test = arg;
    uint8_t *buffer = buffer_of(test->piece, number);

    for (size_t i = number; i < test->bytes / test->piece; i += test->threads)
        if (pwrite(test->fd, buffer, test->piece, (off_t)(i * test->piece)) != (ssize_t)test->piece)
            kv_die("write of the disk's limit: %m");
    free(buffer);
}

static int open_file(const char *folder, const char *name, size_t bytes)
{
    char path[4096];
    int fd;

    snprintf(path, sizeof path, "%s/%s", folder, name);
    fd = open(path, O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);
    if (fd < 0)
        kv_die("open %s past the page cache: %m", path);
    if (posix_fallocate(fd, 0, (off_t)bytes) != 0)
        kv_die("reserve %zu bytes of %s", bytes, path);
    return fd;
}

static void remove_file(const char *folder, const char *name)
{
    char path[4096];

    snprintf(path, sizeof path, "%s/%s", folder, name);
    unlink(path);
}

struct kv_limit kv_limit_disk_write(const char *folder, size_t bytes, size_t piece, unsigned threads)
{
    struct disk_test test = { .bytes = bytes, .piece = piece, .threads = threads };
    uint64_t began;
    double cpu;

    test.fd = open_file(folder, "limit.write", bytes);
    began = clock_mono_ns();
    cpu = -kv_own_cpu();
    kv_threads(threads, write_share, &test);
    if (fdatasync(test.fd) != 0)
        kv_die("sync of the disk's limit: %m");
    began = clock_mono_ns() - began;
    cpu += kv_own_cpu();
    close(test.fd);
    remove_file(folder, "limit.write");
    return limit_of((double)(bytes / piece * piece), (double)began * 1e-9, cpu);
}

static void read_share(unsigned number, void *arg)
{
    const struct disk_test *test = arg;
    uint8_t *buffer = buffer_of(test->piece, number);
    uint64_t mix = test->seed + number * 0x9e3779b97f4a7c15ull;

    for (size_t i = number; i < test->bytes / test->piece; i += test->threads) {
        size_t pages = (test->bytes - test->piece) / DISK_ALIGN;

        mix = mix * 6364136223846793005ull + 1442695040888963407ull;
        if (pread(test->fd, buffer, test->piece, (off_t)((mix >> 20) % pages * DISK_ALIGN)) !=
            (ssize_t)test->piece)
            kv_die("read of the disk's limit: %m");
    }
    free(buffer);
}

struct kv_limit kv_limit_disk_read(const char *folder, size_t bytes, size_t piece, unsigned threads)
{
    static bool is_there;
    struct disk_test test = { .bytes = bytes, .piece = 1 << 20, .threads = 4, .seed = clock_mono_ns() };
    double seconds, cpu;

    test.fd = open_file(folder, "limit.read", bytes);
    if (!is_there)
        kv_threads(test.threads, write_share,
                   &test); /* what was never written reads as zeros, without the disk */
    is_there = true;
    test.piece = piece;
    test.threads = threads;
    cpu = -kv_own_cpu();
    seconds = kv_threads(threads, read_share, &test);
    cpu += kv_own_cpu();
    close(test.fd);
    return limit_of((double)(bytes / piece * piece), seconds, cpu);
}
