/* Sharing memory with a peer, or a system, that does not play by the rules: each call that fails says so and leaves no
 * descriptor behind; of what a peer says, all that does not fit is refused. */
#include "kv/kv_shm.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/file.h"
#include "support/test.h"

enum { POOL_BYTES = 64 << 10, HELLO_BYTES = 24, WELCOME_BYTES = 296 };
#define HELLO_MAGIC   0x4f4c4c4548564b52ull
#define WELCOME_MAGIC 0x4f434c4557564b52ull

static struct status st;

/* --- calls that fail, or are interrupted, when their turn comes (CMakeLists.txt) --- */

#define CALLS(X)                                                                                 \
    X(int, memfd_create, (const char *name, unsigned flags), (name, flags))                      \
    X(int, fallocate, (int fd, int mode, off_t offset, off_t len), (fd, mode, offset, len))      \
    X(int, socket, (int domain, int type, int protocol), (domain, type, protocol))               \
    X(int, setsockopt, (int fd, int level, int name, const void *value, socklen_t len),          \
      (fd, level, name, value, len))                                                             \
    X(int, fchmod, (int fd, mode_t mode), (fd, mode))                                            \
    X(int, chmod, (const char *path, mode_t mode), (path, mode))                                 \
    X(int, bind, (int fd, const struct sockaddr *address, socklen_t len), (fd, address, len))    \
    X(int, listen, (int fd, int backlog), (fd, backlog))                                         \
    X(int, unlink, (const char *path), (path))                                                   \
    X(ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags), (fd, message, flags)) \
    X(ssize_t, recvmsg, (int fd, struct msghdr *message, int flags), (fd, message, flags))

static struct {
    const char *name;
    uint32_t left; /* calls of this name until one fails; 0: none does */
    int error;
} fault;

static bool fails(const char *name)
{
    if (fault.left == 0 || strcmp(name, fault.name) != 0 || --fault.left > 0)
        return false;
    errno = fault.error;
    return true;
}

#define WRAP(type, name, takes, gives) \
    type __real_##name takes;          \
    type __wrap_##name takes;          \
    type __wrap_##name takes           \
    {                                  \
        if (fails(#name))              \
            return -1;                 \
        return __real_##name gives;    \
    }
CALLS(WRAP)

void *__real_mmap(void *at, size_t len, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t len, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t len, int protection, int flags, int fd, off_t offset)
{
    return fails("mmap") ? MAP_FAILED : __real_mmap(at, len, protection, flags, fd, offset);
}

void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes)
{
    return fails("malloc") ? NULL : __real_malloc(bytes);
}

void *__real_calloc(size_t count, size_t each);
void *__wrap_calloc(size_t count, size_t each);
void *__wrap_calloc(size_t count, size_t each)
{
    return fails("calloc") ? NULL : __real_calloc(count, each);
}

static void let_fail(const char *name, uint32_t nth, int error)
{
    fault.name = name;
    fault.error = error;
    fault.left = nth;
}

static uint32_t open_descriptors(void)
{
    struct file_names names;
    uint32_t count;

    CHECK_OK(file_list_on(&file_system, "/proc/self/fd", &names, &st), st);
    count = names.count;
    file_names_free(&names);
    return count;
}

static const char *socket_path(void)
{
    static char path[512];

    snprintf(path, sizeof path, "%s/shm.sock", test_folder());
    return path;
}

/* --- pools --- */

TEST(pool_that_the_system_does_not_give)
{
    static const struct {
        const char *call;
        uint32_t nth;
        enum status_code code;
    } ways[] = { { "calloc", 1, STATUS_EXHAUSTED },
                 { "memfd_create", 1, STATUS_EXHAUSTED },
                 { "fallocate", 1, STATUS_EXHAUSTED },
                 { "mmap", 1, STATUS_EXHAUSTED },
                 { "mmap", 2, STATUS_EXHAUSTED } };
    uint32_t before = open_descriptors();
    struct kv_pool_reader *reader;
    struct kv_pool *pool;

    for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
        let_fail(ways[i].call, ways[i].nth, ENOMEM);
        CHECK(!kv_pool_create(&pool, "pool", POOL_BYTES, &st));
        CHECK_EQ(fault.left, 0);
        CHECK_EQ(st.code, ways[i].code);
        CHECK_EQ(open_descriptors(), before);
    }
    CHECK_OK(kv_pool_create(&pool, "pool", POOL_BYTES, &st), st);
    let_fail("mmap", 1, ENOMEM);
    CHECK(!kv_pool_reader_create(&reader, kv_pool_fd(pool), POOL_BYTES, &st));
    CHECK_EQ(st.code, STATUS_EXHAUSTED);
    let_fail("malloc", 1, ENOMEM);
    CHECK(!kv_pool_reader_create(&reader, kv_pool_fd(pool), POOL_BYTES, &st));
    CHECK_EQ(st.code, STATUS_EXHAUSTED);
    CHECK_OK(kv_pool_reader_create(&reader, kv_pool_fd(pool), POOL_BYTES, &st), st);
    kv_pool_reader_destroy(reader);
    kv_pool_destroy(pool);
}

/* Each field of its header tells something that the others do not. */
TEST(pool_whose_header_does_not_fit_is_refused)
{
    static const uint64_t fields[] = { 0, 8, 16, 24, 32 };
    struct kv_pool_reader *reader;
    struct kv_pool *pool;

    CHECK_OK(kv_pool_create(&pool, "pool", POOL_BYTES, &st), st);
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        uint8_t *field = kv_pool_base(pool) + fields[i];
        const uint64_t was = get_u64(field), others[] = { 0, 1, was * 8, was + 4095, 1ull << 63, UINT64_MAX };

        for (size_t n = 0; n < ARRAY_LEN(others); n++) {
            put_u64(field, others[n]);
            CHECK(!kv_pool_reader_create(&reader, kv_pool_fd(pool), POOL_BYTES, &st));
            CHECK_EQ(st.code, STATUS_INVALID);
        }
        put_u64(field, was);
    }
    CHECK_OK(kv_pool_reader_create(&reader, kv_pool_fd(pool), POOL_BYTES, &st), st);
    kv_pool_reader_destroy(reader);
    kv_pool_destroy(pool);
}

/* --- where the socket is --- */

TEST(shm_socket_paths)
{
    char path[PATH_MAX + 200], folder[600];
    struct kv_shm_peer *peer;
    int fd;

    CHECK_EQ(kv_shm_listen("", &st), -1);
    CHECK_EQ(st.code, STATUS_INVALID);
    memset(path, 'a', sizeof path);
    path[sizeof path - 1] = '\0';
    CHECK_EQ(kv_shm_listen(path, &st), -1); /* no folder */
    CHECK_EQ(st.code, STATUS_INVALID);
    path[0] = path[sizeof path - 10] = '/';
    CHECK_EQ(kv_shm_listen(path, &st), -1);
    CHECK_EQ(st.code, STATUS_INVALID);
    snprintf(path, sizeof path, "%s/%0200d", test_folder(), 1); /* a last part that no address holds */
    CHECK_EQ(kv_shm_listen(path, &st), -1);
    CHECK_EQ(st.code, STATUS_INVALID);
    snprintf(folder, sizeof folder, "%s/%0120d", test_folder(), 1);
    snprintf(path, sizeof path, "%s/shm.sock", folder);
    CHECK_EQ(kv_shm_listen(path, &st), -1); /* a folder that is not there */
    CHECK_EQ(st.code, STATUS_NOT_FOUND);
    CHECK(!kv_shm_peer_create(&peer, path, NULL, 100, &st));
    CHECK_EQ(st.code, STATUS_NOT_FOUND);
    CHECK_OK(file_make_folders(folder, &st), st);
    fd = kv_shm_listen(path, &st);
    CHECK_OK(fd >= 0, st);
    CHECK_EQ(kv_shm_listen(path, &st), -1);
    CHECK_EQ(st.code, STATUS_EXISTS);
    close(fd);
}

/* Every call on the way fails once; then the socket that a killed store has left is taken over. */
TEST(shm_listens_or_says_why_not)
{
    static const struct {
        const char *call;
        uint32_t nth;
    } ways[] = { { "socket", 1 }, { "socket", 2 }, { "fchmod", 1 },
                 { "bind", 1 },   { "chmod", 1 },  { "listen", 1 } };
    uint32_t before = open_descriptors();
    int fd;

    for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
        let_fail(ways[i].call, ways[i].nth, EMFILE);
        CHECK_EQ(kv_shm_listen(socket_path(), &st), -1);
        CHECK_EQ(fault.left, 0);
        CHECK(st.code == STATUS_EXHAUSTED || st.code == STATUS_UNAVAILABLE);
        CHECK_EQ(open_descriptors(), before);
    }
    close(kv_shm_listen(socket_path(), &st));
    let_fail("unlink", 1, EPERM);
    CHECK_EQ(kv_shm_listen(socket_path(), &st), -1);
    CHECK_HAS(st.text, "remove stale socket");
    fd = kv_shm_listen(socket_path(), &st);
    CHECK_OK(fd >= 0, st);
    close(fd);
}

/* --- what a store hears --- */

static void pair_of_sockets(int pair[2])
{
    CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
}

/* Two descriptors at once, as an honest peer never sends. */
static void send_with_descriptors(int fd, const uint8_t *bytes, size_t len, uint32_t count)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(2 * sizeof(int))];
    } control = { 0 };
    int passed[2] = { fd, fd };
    struct iovec piece = { (void *)(uintptr_t)bytes, len };
    struct msghdr message = { .msg_iov = &piece, .msg_iovlen = 1 };

    if (count > 0) {
        message.msg_control = control.room;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
        control.header = (struct cmsghdr){ .cmsg_level = SOL_SOCKET,
                                           .cmsg_type = SCM_RIGHTS,
                                           .cmsg_len = CMSG_LEN(count * sizeof(int)) };
        memcpy(CMSG_DATA(&control.header), passed, count * sizeof(int));
    }
    CHECK_EQ(sendmsg(fd, &message, 0), (ssize_t)len);
}

TEST(shm_hello_that_does_not_fit_is_refused)
{
    static const struct {
        uint64_t magic;
        uint32_t version, has_pool, descriptors;
        size_t len;
        bool is_good;
    } hellos[] = {
        { HELLO_MAGIC, 1, 0, 0, HELLO_BYTES, true },      { HELLO_MAGIC, 1, 1, 1, HELLO_BYTES, true },
        { HELLO_MAGIC, 1, 1, 2, HELLO_BYTES, true },      { HELLO_MAGIC + 1, 1, 0, 0, HELLO_BYTES, false },
        { HELLO_MAGIC, 2, 0, 0, HELLO_BYTES, false },     { HELLO_MAGIC, 1, 1, 0, HELLO_BYTES, false },
        { HELLO_MAGIC, 1, 0, 1, HELLO_BYTES, false },     { HELLO_MAGIC, 1, 2, 1, HELLO_BYTES, false },
        { HELLO_MAGIC, 1, 0, 0, HELLO_BYTES - 1, false }, { HELLO_MAGIC, 1, 0, 0, HELLO_BYTES + 1, false },
    };
    uint32_t before = open_descriptors();

    for (size_t i = 0; i < ARRAY_LEN(hellos); i++) {
        uint8_t bytes[HELLO_BYTES + 1] = { 0 };
        int pair[2], pool_fd = -1;

        pair_of_sockets(pair);
        put_u64(bytes, hellos[i].magic);
        put_u32(bytes + 8, hellos[i].version);
        put_u32(bytes + 12, hellos[i].has_pool);
        send_with_descriptors(pair[0], bytes, hellos[i].len, hellos[i].descriptors);
        let_fail("recvmsg", 1, EINTR);
        CHECK_EQ(kv_shm_read_hello(pair[1], &pool_fd, &st), hellos[i].is_good);
        CHECK(hellos[i].is_good || st.code == STATUS_INVALID);
        CHECK_EQ(pool_fd >= 0, hellos[i].is_good && hellos[i].descriptors > 0);
        if (pool_fd >= 0)
            close(pool_fd);
        CHECK(!kv_shm_read_hello(pair[1], &pool_fd, &st)); /* nothing more comes */
        CHECK_EQ(st.code, STATUS_UNAVAILABLE);
        close(pair[0]);
        close(pair[1]);
        CHECK_EQ(open_descriptors(), before);
    }
}

/* --- what a peer hears --- */

struct answer {
    int listener;
    size_t len;
    uint64_t magic;
    uint32_t version, code, descriptors;
    uint8_t last;
};

static void *answer_one(void *arg)
{
    const struct answer *answer = arg;
    uint8_t bytes[WELCOME_BYTES] = { 0 };
    int fd, pool_fd;
    struct status own;

    while ((fd = accept4(answer->listener, NULL, NULL, SOCK_CLOEXEC)) < 0)
        usleep(1000);
    while (!kv_shm_read_hello(fd, &pool_fd, &own))
        usleep(1000);
    put_u64(bytes, answer->magic);
    put_u32(bytes + 8, answer->version);
    put_u32(bytes + 12, answer->code);
    memcpy(bytes + 40, "no more", 7);
    bytes[WELCOME_BYTES - 1] = answer->last;
    if (answer->len > 0)
        send_with_descriptors(fd, bytes, answer->len, answer->descriptors);
    close(fd);
    return NULL;
}

TEST(shm_welcome_that_does_not_fit_is_refused)
{
    static const struct {
        struct answer answer;
        enum status_code code;
        const char *words;
    } ways[] = {
        { { 0, 0, 0, 0, 0, 0, 0 }, STATUS_UNAVAILABLE, "without a welcome" },
        { { 0, 40, WELCOME_MAGIC, 1, 0, 0, 0 }, STATUS_INVALID, "is not understood (40 bytes)" },
        { { 0, WELCOME_BYTES, 7, 1, 0, 0, 0 }, STATUS_INVALID, "is not understood" },
        { { 0, WELCOME_BYTES, WELCOME_MAGIC, 2, 0, 0, 0 }, STATUS_INVALID, "is not understood" },
        { { 0, WELCOME_BYTES, WELCOME_MAGIC, 1, 0, 0, 'x' }, STATUS_INVALID, "is not understood" },
        { { 0, WELCOME_BYTES, WELCOME_MAGIC, 1, 0, 0, 0 }, STATUS_INVALID, "came without its arena" },
        { { 0, WELCOME_BYTES, WELCOME_MAGIC, 1, 0, 1, 0 }, STATUS_INVALID, "not a memory file" },
        { { 0, WELCOME_BYTES, WELCOME_MAGIC, 1, STATUS_EXHAUSTED, 0, 0 },
          STATUS_EXHAUSTED,
          "kvstore shares no memory: no more" },
    };
    struct kv_shm_peer *peer;
    int fd = kv_shm_listen(socket_path(), &st);
    uint32_t before = open_descriptors();

    CHECK_OK(fd >= 0, st);
    for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
        struct answer answer = ways[i].answer;
        pthread_t thread;

        answer.listener = fd;
        CHECK_EQ(pthread_create(&thread, NULL, answer_one, &answer), 0);
        CHECK(!kv_shm_peer_create(&peer, socket_path(), NULL, 5000, &st));
        pthread_join(thread, NULL);
        CHECK_EQ(st.code, ways[i].code);
        CHECK_HAS(st.text, ways[i].words);
        CHECK_EQ(open_descriptors(), before);
    }
    close(fd);
}

TEST(shm_peer_that_cannot_connect_says_why)
{
    static const struct {
        const char *call;
        uint32_t nth;
        enum status_code code;
    } ways[] = { { "calloc", 1, STATUS_EXHAUSTED },
                 { "socket", 1, STATUS_EXHAUSTED },
                 { "setsockopt", 1, STATUS_INTERNAL },
                 { "setsockopt", 2, STATUS_INTERNAL },
                 { "sendmsg", 1, STATUS_UNAVAILABLE } };
    struct kv_shm_peer *peer;
    int fd = kv_shm_listen(socket_path(), &st);
    uint32_t before = open_descriptors();

    CHECK_OK(fd >= 0, st);
    for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
        let_fail(ways[i].call, ways[i].nth, ENOMEM);
        CHECK(!kv_shm_peer_create(&peer, socket_path(), NULL, 100, &st));
        CHECK_EQ(fault.left, 0);
        CHECK_EQ(st.code, ways[i].code);
        CHECK_EQ(open_descriptors(), before);
    }
    let_fail("sendmsg", 1, EINTR); /* and sent again: then nobody answers */
    CHECK(!kv_shm_peer_create(&peer, socket_path(), NULL, 50, &st));
    CHECK_HAS(st.text, "no welcome from kvstore");
    close(fd);
    CHECK(!kv_shm_peer_create(&peer, socket_path(), NULL, 100, &st)); /* a socket that nobody listens on */
    CHECK_EQ(st.code, STATUS_UNAVAILABLE);
}

TEST_MAIN()
