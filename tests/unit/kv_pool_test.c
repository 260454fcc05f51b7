/* Shared memory: what a reader can do, what it finds out, and what is refused at the handshake. */
#include "kv/kv_shm.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "kv/kv_crc.h"
#include "support/test.h"

enum { POOL_BYTES = 1 << 20, LENGTH = 10000 };

static struct status st;

struct pair {
    struct kv_pool *pool;
    struct kv_pool_reader *reader;
    struct kv_place place;
    uint32_t crc;
};

static void make_pair(struct pair *pair)
{
    uint8_t *data;

    CHECK_OK(kv_pool_create(&pair->pool, "test", POOL_BYTES, &st), st);
    CHECK_OK(kv_pool_reader_create(&pair->reader, kv_pool_fd(pair->pool), POOL_BYTES, &st), st);
    pair->place = (struct kv_place){ .offset = kv_pool_data_offset(pair->pool) + 8192,
                                     .length = LENGTH,
                                     .generation = 7 };
    data = kv_pool_base(pair->pool) + pair->place.offset;
    for (unsigned i = 0; i < LENGTH; i++)
        data[i] = (uint8_t)(i * 3);
    pair->crc = kv_crc(0, data, LENGTH);
    kv_pool_publish(pair->pool, pair->place.offset, 12288, 7);
}

static void drop_pair(struct pair *pair)
{
    kv_pool_reader_destroy(pair->reader);
    kv_pool_destroy(pair->pool);
}

TEST(pool_reader_copies_what_was_published)
{
    struct pair pair;
    uint8_t got[LENGTH];

    make_pair(&pair);
    CHECK_OK(kv_pool_reader_copy(pair.reader, &pair.place, pair.crc, got, &st), st);
    CHECK_MEM(got, kv_pool_base(pair.pool) + pair.place.offset, LENGTH);
    CHECK(kv_pool_reader_is_current(pair.reader, &pair.place));
    drop_pair(&pair);
}

TEST(pool_reader_finds_out_that_the_bytes_have_gone)
{
    struct pair pair;
    uint8_t got[LENGTH];

    make_pair(&pair);
    kv_pool_retire(pair.pool, pair.place.offset, 12288);
    CHECK(!kv_pool_reader_copy(pair.reader, &pair.place, pair.crc, got, &st));
    CHECK_EQ(st.code, STATUS_ABORTED);
    kv_pool_publish(pair.pool, pair.place.offset, 12288, 8);
    CHECK(!kv_pool_reader_copy(pair.reader, &pair.place, pair.crc, got, &st));
    CHECK_EQ(st.code, STATUS_ABORTED);
    drop_pair(&pair);
}

TEST(pool_reader_finds_changed_bytes)
{
    struct pair pair;
    uint8_t got[LENGTH];

    make_pair(&pair);
    kv_pool_base(pair.pool)[pair.place.offset + 77] ^= 4;
    CHECK(!kv_pool_reader_copy(pair.reader, &pair.place, pair.crc, got, &st));
    CHECK_EQ(st.code, STATUS_DATA_LOSS);
    drop_pair(&pair);
}

/* Offsets and lengths that lie outside, touch the header or the table, or wrap around. */
TEST(pool_reader_refuses_places_outside)
{
    struct pair pair;
    uint64_t data;
    uint8_t byte;

    make_pair(&pair);
    data = kv_pool_data_offset(pair.pool);
    {
        const struct kv_place bad[] = { { 0, 8, 7 },
                                        { data - 1, 1, 7 },
                                        { POOL_BYTES, 1, 7 },
                                        { POOL_BYTES - 1, 2, 7 },
                                        { data, UINT64_MAX, 7 },
                                        { UINT64_MAX, 2, 7 },
                                        { data + 1, UINT64_MAX - data, 7 },
                                        { data, 0, 7 } };

        for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
            CHECK(!kv_pool_reader_copy(pair.reader, &bad[i], 0, &byte, &st));
            CHECK_EQ(st.code, STATUS_INVALID);
        }
    }
    drop_pair(&pair);
}

/* Nobody who has the descriptor can write through it, change its size or punch holes. */
TEST(pool_is_read_only_to_others)
{
    struct pair pair;
    int fd;

    make_pair(&pair);
    fd = kv_pool_fd(pair.pool);
    CHECK(mmap(NULL, POOL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
    CHECK(pwrite(fd, "x", 1, 8192) < 0);
    CHECK(ftruncate(fd, 4096) != 0);
    CHECK(ftruncate(fd, 2 * POOL_BYTES) != 0);
    CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, POOL_BYTES) != 0);
    drop_pair(&pair);
}

/* Descriptors that are no sealed, filled pool are told apart by their sentence. */
TEST(pool_refuses_what_is_no_sealed_pool)
{
    struct kv_pool_reader *reader;
    struct kv_pool *pool;
    int fd = memfd_create("bad", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);

    CHECK(fd >= 0 && null_fd >= 0);
    CHECK(!kv_pool_reader_create(&reader, null_fd, POOL_BYTES, &st));
    CHECK_EQ(ftruncate(fd, POOL_BYTES), 0);
    CHECK(!kv_pool_reader_create(&reader, fd, POOL_BYTES, &st));
    CHECK_HAS(st.text, "seals");
    CHECK_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
    CHECK(!kv_pool_reader_create(&reader, fd, POOL_BYTES, &st));
    CHECK_HAS(st.text, "seals");
    CHECK_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SEAL), 0);
    CHECK(!kv_pool_reader_create(&reader, fd, POOL_BYTES, &st));
    CHECK_HAS(st.text, "filled");
    CHECK_OK(kv_pool_create(&pool, "good", POOL_BYTES, &st), st);
    CHECK(!kv_pool_reader_create(&reader, kv_pool_fd(pool), POOL_BYTES - 1, &st));
    CHECK_HAS(st.text, "are taken");
    put_u64(kv_pool_base(pool) + 16, 3000);
    CHECK(!kv_pool_reader_create(&reader, kv_pool_fd(pool), POOL_BYTES, &st));
    CHECK_HAS(st.text, "granule");
    put_u64(kv_pool_base(pool) + 16, 65536);
    CHECK(!kv_pool_reader_create(&reader, kv_pool_fd(pool), POOL_BYTES, &st));
    CHECK_HAS(st.text, "header");
    put_u64(kv_pool_base(pool), 0);
    CHECK(!kv_pool_reader_create(&reader, kv_pool_fd(pool), POOL_BYTES, &st));
    CHECK_HAS(st.text, "magic");
    kv_pool_destroy(pool);
    close(fd);
    close(null_fd);
}

TEST(pool_too_small_is_refused)
{
    struct kv_pool *pool;

    CHECK(!kv_pool_create(&pool, "tiny", 4096, &st));
    CHECK(!kv_pool_create(&pool, "tiny", 0, &st));
    CHECK_OK(kv_pool_create(&pool, "small", 3 * 4096, &st), st);
    kv_pool_destroy(pool);
}

/* --- the handshake --- */

static char socket_path[512];
static struct kv_pool *arena;
static struct kv_pool_reader *writers_pool;

/* A store for one peer: accepts, reads its hello, answers. */
static void *serve_one(void *arg)
{
    int listener = *(int *)arg, fd = -1, pool_fd = -1;
    const struct kv_shm_welcome welcome = { .session = 11, .pool = 22, .arena_pool = 33 };
    struct status own;

    while ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) < 0)
        usleep(1000);
    if (!kv_shm_read_hello(fd, &pool_fd, &own)) {
        kv_shm_send_refusal(fd, &own);
    } else if (pool_fd < 0) {
        kv_shm_send_welcome(fd, &welcome, kv_pool_fd(arena), &own);
    } else if (kv_pool_reader_create(&writers_pool, pool_fd, POOL_BYTES, &own)) {
        kv_shm_send_welcome(fd, &welcome, kv_pool_fd(arena), &own);
        close(pool_fd);
    } else {
        kv_shm_send_refusal(fd, &own);
        close(pool_fd);
    }
    /* until the peer closes */
    while (recv(fd, &own, 1, 0) > 0)
        ;
    close(fd);
    return NULL;
}

static void start_store(int *listener_p, pthread_t *thread_p)
{
    snprintf(socket_path, sizeof socket_path, "%s/shm.sock", test_folder());
    CHECK_OK(kv_pool_create(&arena, "arena", POOL_BYTES, &st), st);
    *listener_p = kv_shm_listen(socket_path, &st);
    CHECK_OK(*listener_p >= 0, st);
    CHECK_EQ(pthread_create(thread_p, NULL, serve_one, listener_p), 0);
}

static void stop_store(int listener, pthread_t thread)
{
    pthread_join(thread, NULL);
    close(listener);
    kv_pool_destroy(arena);
}

TEST(shm_reader_gets_the_arena_and_a_writer_hands_its_pool)
{
    struct kv_shm_peer *peer;
    struct kv_pool *own;
    struct kv_place place;
    pthread_t thread;
    int listener;
    uint8_t got[5];

    start_store(&listener, &thread);
    CHECK_OK(kv_pool_create(&own, "writer", POOL_BYTES, &st), st);
    place = (struct kv_place){ kv_pool_data_offset(arena), 5, 9 };
    memcpy(kv_pool_base(arena) + place.offset, "block", 5);
    kv_pool_publish(arena, place.offset, 4096, 9);

    CHECK_OK(kv_shm_peer_create(&peer, socket_path, own, 5000, &st), st);
    CHECK_EQ(kv_shm_peer_session(peer), 11);
    CHECK_EQ(kv_shm_peer_pool(peer), 22);
    CHECK_EQ(kv_shm_peer_arena_pool(peer), 33);
    CHECK(kv_shm_peer_is_alive(peer));
    CHECK_OK(kv_pool_reader_copy(kv_shm_peer_arena(peer), &place, kv_crc(0, "block", 5), got, &st), st);
    CHECK_MEM(got, "block", 5);

    memcpy(kv_pool_base(own) + kv_pool_data_offset(own), "hello", 5);
    place.offset = kv_pool_data_offset(own);
    CHECK_MEM(kv_pool_reader_at(writers_pool, &place), "hello", 5);
    kv_shm_peer_destroy(peer);
    kv_pool_reader_destroy(writers_pool);
    kv_pool_destroy(own);
    stop_store(listener, thread);
}

TEST(shm_store_says_why_it_refuses)
{
    struct kv_shm_peer *peer;
    struct kv_pool *own;
    pthread_t thread;
    int listener;

    start_store(&listener, &thread);
    CHECK_OK(kv_pool_create(&own, "too large", 2 * POOL_BYTES, &st), st);
    CHECK(!kv_shm_peer_create(&peer, socket_path, own, 5000, &st));
    CHECK_HAS(st.text, "are taken");
    kv_pool_destroy(own);
    stop_store(listener, thread);
}

/* Bytes that are no hello are answered with a refusal, never a crash. */
TEST(shm_store_refuses_what_is_no_hello)
{
    int pair[2], pool_fd;

    CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    CHECK_EQ(send(pair[0], "GET / HTTP/1.1\r\n\r\n", 18, 0), 18);
    CHECK(!kv_shm_read_hello(pair[1], &pool_fd, &st));
    CHECK_EQ(st.code, STATUS_INVALID);
    close(pair[0]);
    CHECK(!kv_shm_read_hello(pair[1], &pool_fd, &st));
    close(pair[1]);
}

/* No socket there: the store is on another host. A socket and no answer may be better the next time. */
TEST(shm_without_a_store_is_not_found_and_with_a_silent_one_unavailable)
{
    struct kv_shm_peer *peer;
    int fd;

    snprintf(socket_path, sizeof socket_path, "%s/none.sock", test_folder());
    CHECK(!kv_shm_peer_create(&peer, socket_path, NULL, 100, &st));
    CHECK_EQ(st.code, STATUS_NOT_FOUND);
    CHECK_HAS(st.text, "none.sock");
    /* A store that accepts and says nothing costs the timeout, not more. */
    fd = kv_shm_listen(socket_path, &st);
    CHECK(fd >= 0);
    CHECK(!kv_shm_peer_create(&peer, socket_path, NULL, 50, &st));
    CHECK_EQ(st.code, STATUS_UNAVAILABLE);
    CHECK_EQ(kv_shm_listen(socket_path, &st), -1);
    CHECK_EQ(st.code, STATUS_EXISTS);
    close(fd);
    /* The file stays behind, as after a kill; the next store takes its place. */
    fd = kv_shm_listen(socket_path, &st);
    CHECK_OK(fd >= 0, st);
    close(fd);
}

TEST_MAIN()
