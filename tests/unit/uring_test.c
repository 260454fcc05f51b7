/* The ring against real files and pipes; and as a container's kernel refuses it. */
#include "uring/uring.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/no_uring.h"
#include "support/test.h"

enum { FILE_BYTES = 1 << 20, PIECE = 4096 };

struct asked {
    struct uring_read read;
    uint8_t bytes[PIECE];
    int done, *left;
};

static struct loop *loop;
static struct uring *ring;

static void asked_done(struct uring_read *read)
{
    struct asked *asked = container_of(read, struct asked, read);

    asked->done++;
    if (asked->left != NULL && --*asked->left == 0)
        loop_stop(loop);
}

static void ring_of(uint32_t depth, uint32_t waiting_max)
{
    const struct uring_options options = { .depth = depth, .waiting_max = waiting_max };
    struct status st = { 0 };

    CHECK_OK(loop_create(&loop, &st), st);
    if (!uring_create(&ring, loop, &options, &st)) {
        loop_destroy(loop);
        CHECK(st.code == STATUS_DENIED || st.code == STATUS_UNIMPLEMENTED);
        test_skip(st.text);
    }
}

static void ring_ends(void)
{
    uring_destroy(ring);
    loop_destroy(loop);
}

static uint8_t byte_at(uint64_t at)
{
    return (uint8_t)(at * 2654435761u >> 13);
}

/* Past the page cache where the file system can, as the store reads. */
static int file_of(uint64_t bytes)
{
    char path[4096];
    uint8_t *content = malloc(bytes);
    int fd;

    CHECK(content != NULL);
    for (uint64_t i = 0; i < bytes; i++)
        content[i] = byte_at(i);
    snprintf(path, sizeof path, "%s/file", test_folder());
    fd = open(path, O_RDWR | O_CREAT, 0600);
    CHECK(fd >= 0 && write(fd, content, bytes) == (ssize_t)bytes && fsync(fd) == 0);
    free(content);
    close(fd);
    fd = open(path, O_RDONLY | O_DIRECT);
    return fd >= 0 ? fd : open(path, O_RDONLY);
}

static struct asked *asked_of(uint32_t count, int fd, int *left)
{
    struct asked *asked = NULL;

    CHECK(posix_memalign((void **)&asked, PIECE, count * sizeof *asked) == 0);
    memset(asked, 0, count * sizeof *asked);
    for (uint32_t i = 0; i < count; i++) {
        asked[i].left = left;
        asked[i].read = (struct uring_read){ .fd = fd, .bytes = PIECE, .done = asked_done };
    }
    return asked;
}

static bool is_right(const uint8_t *bytes, uint64_t offset, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        if (bytes[i] != byte_at(offset + i))
            return false;
    return true;
}

TEST(many_reads_come_through_a_ring_of_few)
{
    enum { READS = 200 };
    int left = READS, fd;
    struct asked *asked;
    uint8_t *pages;

    ring_of(8, READS);
    fd = file_of(FILE_BYTES);
    asked = asked_of(READS, fd, &left);
    CHECK(posix_memalign((void **)&pages, PIECE, READS * PIECE) == 0);
    for (uint32_t i = 0; i < READS; i++) {
        asked[i].read.offset = (i * 37 % (FILE_BYTES / PIECE)) * (uint64_t)PIECE;
        asked[i].read.to = pages + i * PIECE;
        CHECK(uring_read(ring, &asked[i].read));
    }
    loop_run(loop);
    for (uint32_t i = 0; i < READS; i++) {
        CHECK_EQ(asked[i].done, 1);
        CHECK_EQ(asked[i].read.error, 0);
        CHECK_EQ(asked[i].read.came, PIECE);
        CHECK(is_right(pages + i * PIECE, asked[i].read.offset, PIECE));
    }
    free(pages);
    free(asked);
    close(fd);
    ring_ends();
}

TEST(a_read_over_the_end_of_a_file_brings_what_is_there)
{
    enum { TAIL = 1000 };
    int left = 2, fd;
    struct asked *asked;
    uint8_t *pages;

    ring_of(4, 4);
    fd = file_of(PIECE + TAIL);
    asked = asked_of(2, fd, &left);
    CHECK(posix_memalign((void **)&pages, PIECE, 4 * PIECE) == 0);
    asked[0].read.to = pages;
    asked[0].read.bytes = 2 * PIECE;
    asked[1].read.to = pages + 2 * PIECE;
    asked[1].read.offset = 4 * PIECE;
    CHECK(uring_read(ring, &asked[0].read) && uring_read(ring, &asked[1].read));
    loop_run(loop);
    CHECK_EQ(asked[0].read.error, 0);
    CHECK_EQ(asked[0].read.came, PIECE + TAIL);
    CHECK(is_right(pages, 0, PIECE + TAIL));
    CHECK_EQ(asked[1].read.error, 0);
    CHECK_EQ(asked[1].read.came, 0);
    free(pages);
    free(asked);
    close(fd);
    ring_ends();
}

/* A pipe gives what lies in it: less than was asked for, twice. */
TEST(a_read_that_is_cut_short_goes_on)
{
    int left = 1, ends[2];
    struct asked *asked;

    ring_of(2, 2);
    CHECK(pipe(ends) == 0);
    asked = asked_of(1, ends[0], &left);
    asked->read.to = asked->bytes;
    asked->read.bytes = 8;
    CHECK(write(ends[1], "one", 3) == 3);
    CHECK(uring_read(ring, &asked->read));
    while (asked->read.came < 3)
        loop_run_once(loop);
    CHECK_EQ(asked->done, 0);
    CHECK(write(ends[1], "more.", 5) == 5);
    loop_run(loop);
    CHECK_EQ(asked->read.came, 8);
    CHECK(memcmp(asked->bytes, "onemore.", 8) == 0);
    free(asked);
    close(ends[0]);
    close(ends[1]);
    ring_ends();
}

/* One that is wrong does not take those around it along. */
TEST(a_read_of_no_file_fails_alone)
{
    enum { READS = 5 };
    int left = READS, fd;
    struct asked *asked;
    uint8_t *pages;

    ring_of(8, 8);
    fd = file_of(FILE_BYTES);
    asked = asked_of(READS, fd, &left);
    CHECK(posix_memalign((void **)&pages, PIECE, READS * PIECE) == 0);
    asked[2].read.fd = 1 << 20;
    for (uint32_t i = 0; i < READS; i++) {
        asked[i].read.to = pages + i * PIECE;
        CHECK(uring_read(ring, &asked[i].read));
    }
    loop_run(loop);
    for (uint32_t i = 0; i < READS; i++) {
        CHECK_EQ(asked[i].read.error, i == 2 ? EBADF : 0);
        CHECK_EQ(asked[i].read.came, i == 2 ? 0 : PIECE);
    }
    free(pages);
    free(asked);
    close(fd);
    ring_ends();
}

TEST(a_full_ring_says_no_and_takes_more_when_some_have_come)
{
    int left = 3, ends[2];
    struct asked *asked;

    ring_of(1, 2);
    CHECK(pipe(ends) == 0);
    asked = asked_of(4, ends[0], &left);
    for (uint32_t i = 0; i < 4; i++) {
        asked[i].read.to = asked[i].bytes;
        asked[i].read.bytes = 1;
    }
    CHECK(uring_read(ring, &asked[0].read) && uring_read(ring, &asked[1].read));
    CHECK(!uring_read(ring, &asked[2].read));
    CHECK(write(ends[1], "a", 1) == 1);
    while (asked[0].done == 0)
        loop_run_once(loop);
    CHECK(uring_read(ring, &asked[2].read));
    CHECK(write(ends[1], "bc", 2) == 2);
    loop_run(loop);
    CHECK_EQ(asked[1].bytes[0], 'b');
    CHECK_EQ(asked[2].bytes[0], 'c');
    CHECK_EQ(asked[3].done, 0);
    free(asked);
    close(ends[0]);
    close(ends[1]);
    ring_ends();
}

/* The second one's bytes are there, and wait for the first one's. */
TEST(a_ring_has_so_many_bytes_under_way_and_one_read_always)
{
    const struct uring_options options = { .depth = 8, .waiting_max = 8, .bytes_max = 6 };
    int left = 2, first[2], second[2];
    struct asked *asked;
    struct status st = { 0 };

    ring_of(8, 8);
    uring_destroy(ring);
    CHECK_OK(uring_create(&ring, loop, &options, &st), st);
    CHECK(pipe(first) == 0 && pipe(second) == 0);
    asked = asked_of(3, first[0], &left);
    for (uint32_t i = 0; i < 3; i++) {
        asked[i].read.to = asked[i].bytes;
        asked[i].read.bytes = i == 0 ? 8 : 4; /* the first is more than there may be */
    }
    asked[1].read.fd = second[0];
    CHECK(write(second[1], "four", 4) == 4 && write(first[1], "eigh", 4) == 4);
    CHECK(uring_read(ring, &asked[0].read) && uring_read(ring, &asked[1].read));
    while (asked[0].read.came < 4)
        loop_run_once(loop);
    CHECK_EQ(asked[1].done, 0);
    CHECK(write(first[1], "t...", 4) == 4);
    loop_run(loop);
    CHECK_EQ(asked[0].done + asked[1].done, 2);
    CHECK(memcmp(asked[0].bytes, "eight...", 8) == 0 && memcmp(asked[1].bytes, "four", 4) == 0);
    free(asked);
    for (int end = 0; end < 2; end++) {
        close(first[end]);
        close(second[end]);
    }
    ring_ends();
}

/* Under way, waiting, and not even sent. */
TEST(a_ring_that_ends_answers_everybody)
{
    enum { READS = 20 };
    int ends[2], fd;
    struct asked *asked;
    uint8_t *pages;

    ring_of(4, READS);
    fd = file_of(FILE_BYTES);
    CHECK(pipe(ends) == 0);
    asked = asked_of(READS, fd, NULL);
    CHECK(posix_memalign((void **)&pages, PIECE, READS * PIECE) == 0);
    asked[0].read.fd = ends[0];
    asked[0].read.bytes = 2;
    for (uint32_t i = 0; i < READS; i++) {
        asked[i].read.to = pages + i * PIECE;
        CHECK(uring_read(ring, &asked[i].read));
        while (i == 1 && asked[1].done == 0)
            loop_run_once(loop);
    }
    CHECK_EQ(asked[0].done, 0);
    CHECK(write(ends[1], "ab", 2) == 2);
    uring_destroy(ring);
    for (uint32_t i = 0; i < READS; i++) {
        CHECK_EQ(asked[i].done, 1);
        CHECK_EQ(asked[i].read.error, 0);
        CHECK_EQ(asked[i].read.came, i == 0 ? 2 : PIECE);
    }
    free(pages);
    free(asked);
    close(fd);
    close(ends[0]);
    close(ends[1]);
    loop_destroy(loop);
}

/* In a child, where the filter stays. Its exit code is the answer's, plus one. */
static int answer_where_refused(unsigned call, int error)
{
    int how = 0;
    pid_t child = fork();

    CHECK(child >= 0);
    if (child == 0) {
        const struct uring_options options = { .depth = 8, .waiting_max = 8 };
        struct status st = { 0 };

        if (!refuse_call(call, error) || !loop_create(&loop, &st))
            _exit(100);
        if (uring_create(&ring, loop, &options, &st))
            _exit(101);
        loop_destroy(loop);
        _exit(1 + (int)st.code);
    }
    CHECK(waitpid(child, &how, 0) == child && WIFEXITED(how));
    return WEXITSTATUS(how) - 1;
}

TEST(where_it_is_refused_the_ring_says_so)
{
    ring_of(1, 1); /* or the machine itself refuses it */
    ring_ends();
    CHECK_EQ(answer_where_refused(__NR_io_uring_setup, EPERM), STATUS_DENIED);
    CHECK_EQ(answer_where_refused(__NR_io_uring_setup, ENOSYS), STATUS_UNIMPLEMENTED);
    CHECK_EQ(answer_where_refused(__NR_io_uring_enter, EPERM), STATUS_DENIED);
    CHECK_EQ(answer_where_refused(__NR_io_uring_register, EPERM), STATUS_UNIMPLEMENTED);
}

TEST_MAIN()
