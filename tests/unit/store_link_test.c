/* A link to a store whose process the test plays: a served GetServerInfo, and the shared-memory socket by hand, which
 * answers when it is told to. */
#include "store/store_link.h"

#include <limits.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "kv/kv_shm.h"
#include "reelkv/v1/kvstore.pb-c.h"
#include "rpc/api.h"
#include "support/served.h"
#include "support/test.h"

enum { SESSION = 7, POOL_BYTES = 1 << 20 };

static char socket_path[PATH_MAX]; /* "": the store shares nothing */
static atomic_uint asked;          /* GetServerInfo */

static void get_server_info(struct rpc_call *call, void *state)
{
    Reelkv__V1__ServerInfo info = REELKV__V1__SERVER_INFO__INIT;

    atomic_fetch_add(&asked, 1);
    info.shm_socket = socket_path;
    rpc_call_reply(call, &info.base, NULL);
}

static const struct rpc_handler handlers[] = { { &api_get_server_info, get_server_info } };
static const struct rpc_service service = { "reelkv.v1.KvStore", handlers, ARRAY_LEN(handlers), NULL };

static struct served served;
static struct loop *loop;
static struct store_links links;
static struct store_link *link_;
static struct kv_pool *arena;
static int listener = -1, session = -1;
static struct loop_poll *door; /* NULL: whoever knocks gets no answer */

struct asker {
    uint32_t told;
    uint64_t pool;
};

static void ready(void *user, uint64_t pool)
{
    struct asker *asker = user;

    asker->told++;
    asker->pool = pool;
}

static void begin(const char *socket)
{
    struct work_pool_options options = { .name = "links", .threads = 1, .queue_max = 1 };
    struct worker_record worker = { .kind = WORKER_KVSTORE, .name = "store-0" };
    struct directory_view view = { .workers = &worker, .worker_count = 1 };
    struct status st = { 0 };

    atomic_store(&asked, 0);
    snprintf(socket_path, sizeof socket_path, "%s", socket);
    served = (struct served){ .services = &service, .service_count = 1 };
    served_start(&served);
    snprintf(worker.address, sizeof worker.address, "%s", served_address(&served));
    links = (struct store_links){ 0 };
    CHECK_OK(loop_create(&loop, &st) && rpc_create(&links.rpc, loop, &st), st);
    CHECK_OK(work_pool_create(&links.pool, loop, &options, &st), st);
    link_ = store_link_get(&links, &view, "store-0", &st);
    CHECK_OK(link_ != NULL, st);
}

static void end(void)
{
    store_link_unref(link_);
    CHECK(links.first == NULL);
    work_pool_destroy(links.pool);
    rpc_destroy(links.rpc);
    loop_poll_destroy(door);
    door = NULL;
    loop_destroy(loop);
    served_stop(&served);
    kv_pool_destroy(arena);
    arena = NULL;
    if (listener >= 0)
        close(listener);
    if (session >= 0)
        close(session);
    listener = session = -1;
}

/* ---------------------------------------------------------------------------------------- the store's door */

static void knocked(struct loop_poll *poll, unsigned events, void *user)
{
    const struct kv_shm_welcome welcome = { .session = SESSION, .arena_pool = 1 };
    struct status st = { 0 };
    int fd = accept(listener, NULL, NULL), pool_fd = -1;

    if (fd < 0)
        return;
    if (kv_shm_read_hello(fd, &pool_fd, &st) && kv_shm_send_welcome(fd, &welcome, kv_pool_fd(arena), &st))
        session = fd;
    else
        close(fd); /* one that has left again */
}

static const char *door_path(void)
{
    static char path[PATH_MAX];

    snprintf(path, sizeof path, "%s/shm.sock", test_folder());
    return path;
}

static void door_build(void)
{
    struct status st = { 0 };

    CHECK_OK(kv_pool_create(&arena, "arena", POOL_BYTES, &st), st);
    listener = kv_shm_listen(door_path(), &st);
    CHECK_OK(listener >= 0, st);
}

static void door_answer(void)
{
    struct status st = { 0 };

    CHECK_OK(loop_poll_create(&door, loop, listener, knocked, NULL, &st), st);
    loop_poll_want(door, LOOP_READABLE);
}

/* ------------------------------------------------------------------------------------------- turning */

static void tick(struct loop_timer *timer)
{
}

static void turn_until(const uint32_t *counter, uint32_t want)
{
    uint64_t end_ns = clock_mono_ns() + 30000000000ull;
    struct loop_timer timer = { 0 };

    while (*counter < want && clock_mono_ns() < end_ns) {
        loop_timer_start(loop, &timer, 10, tick);
        loop_run_once(loop);
    }
    loop_timer_stop(&timer);
    CHECK_EQ(*counter, want);
}

static void share(struct asker *asker)
{
    uint32_t told = asker->told;

    store_link_share(link_, ready, asker);
    CHECK_EQ(asker->told, told);
    turn_until(&asker->told, told + 1);
}

/* ------------------------------------------------------------------------------------------- the claims */

struct bystander {
    struct letter letter;
    uint32_t opened;
};

static void bystander_opened(struct letter *letter)
{
    container_of(letter, struct bystander, letter)->opened++;
}

/* Of a store that is known, A asks and leaves before its answer is out of the loop's box, and B asks: the answer that
 * lies there is B's. Posted a second time it would take along what lies behind it. */
TEST(who_asks_after_one_that_left_is_told_and_no_letter_is_lost)
{
    struct asker first = { 0 }, a = { 0 }, b = { 0 };
    struct bystander bystander = { .letter.open = bystander_opened };

    begin("");
    share(&first);
    store_link_share(link_, ready, &a);
    loop_post(loop, &bystander.letter);
    store_link_forget(link_, &a);
    store_link_share(link_, ready, &b);
    turn_until(&b.told, 1);
    turn_until(&bystander.opened, 1);
    CHECK_EQ(a.told, 0);
    share(&a);
    CHECK_EQ(b.told, 1);
    end();
}

TEST(all_who_ask_together_are_told_of_one_handshake)
{
    struct asker askers[3] = { 0 };

    door_build();
    begin(door_path());
    door_answer();
    for (size_t i = 0; i < ARRAY_LEN(askers); i++)
        store_link_share(link_, ready, &askers[i]);
    store_link_forget(link_, &askers[1]);
    turn_until(&askers[0].told, 1);
    turn_until(&askers[2].told, 1);
    CHECK_EQ(askers[1].told, 0);
    CHECK_EQ(atomic_load(&asked), 1);
    CHECK(store_link_peer(link_) != NULL);
    CHECK_EQ(kv_shm_peer_session(store_link_peer(link_)), SESSION);
    end();
}

static atomic_bool reading;

/* A question's thread: it looks at the link for every block. */
static void *read_peer(void *arg)
{
    while (atomic_load(&reading)) {
        const struct kv_shm_peer *peer = store_link_peer(link_);

        if (peer != NULL)
            REQUIRE(kv_shm_peer_session(peer) == SESSION);
    }
    return NULL;
}

/* The store does not answer within the handshake's time: what is asked for now travels inline, and the next share tries
 * again, while the first one's thread reads on. */
TEST(a_store_that_was_too_slow_is_asked_again)
{
    struct asker asker = { 0 };
    pthread_t thread;

    door_build();
    begin(door_path());
    share(&asker);
    CHECK_EQ(asker.pool, 0);
    CHECK(store_link_peer(link_) == NULL);
    atomic_store(&reading, true);
    CHECK_EQ(pthread_create(&thread, NULL, read_peer, NULL), 0);
    door_answer();
    share(&asker);
    atomic_store(&reading, false);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(atomic_load(&asked), 2);
    CHECK(store_link_peer(link_) != NULL);
    end();
}

static sem_t may_go_on;

static void hold(struct work *work)
{
    sem_wait(&may_go_on);
}

static uint32_t held_done;

static void hold_done(struct work *work)
{
    held_done++;
}

TEST(a_handshake_that_found_no_thread_is_tried_again)
{
    struct work works[2] = { { hold, hold_done, NULL }, { hold, hold_done, NULL } };
    struct asker asker = { 0 };

    door_build();
    begin(door_path());
    door_answer();
    CHECK_EQ(sem_init(&may_go_on, 0, 0), 0);
    held_done = 0;
    CHECK(work_pool_submit(links.pool, &works[0]));
    while (work_pool_waiting(links.pool) > 0) /* the thread has taken the first */
        usleep(1000);
    CHECK(work_pool_submit(links.pool, &works[1]));
    share(&asker);
    CHECK(store_link_peer(link_) == NULL);
    sem_post(&may_go_on);
    sem_post(&may_go_on);
    turn_until(&held_done, 2);
    share(&asker);
    CHECK(store_link_peer(link_) != NULL);
    sem_destroy(&may_go_on);
    end();
}

/* There is no such socket here: the store is on another host and will stay there. */
TEST(a_store_on_another_host_is_asked_once)
{
    struct asker asker = { 0 };

    begin("/nowhere/shm.sock");
    share(&asker);
    share(&asker);
    CHECK_EQ(asker.pool, 0);
    CHECK_EQ(atomic_load(&asked), 1);
    end();
}

TEST_MAIN()
