/* The connection to a Redis over TCP: a real one, one that is found by its host's name, and ones that hang in every way. */
#include "redis/redis_client.h"

#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "loop/lookup.h"
#include "support/process.h"
#include "support/test.h"

enum { CROWD = 8 };

static struct loop *loop;
static struct redis_client *client;
static unsigned connects, losses, replies, answers;
static char why[256];

static void connected(void *user)
{
    connects++;
}

static void lost(const char *reason, void *user)
{
    losses++;
    snprintf(why, sizeof why, "%s", reason);
}

static void replied(const redisReply *reply, void *user)
{
    replies++;
    answers += reply != NULL && reply->type == REDIS_REPLY_STATUS && strcmp(reply->str, "PONG") == 0;
}

static void begin(const char *host, uint16_t port)
{
    const struct redis_client_events events = { connected, lost, NULL };
    char address[128];
    struct status st = { 0 };

    connects = losses = replies = answers = 0;
    snprintf(address, sizeof address, "%s:%u", host, port);
    CHECK_OK(loop_create(&loop, &st), st);
    CHECK_OK(redis_client_create(&client, loop, address, &events, &st), st);
}

static void end(void)
{
    redis_client_destroy(client);
    loop_destroy(loop);
}

static void tick(struct loop_timer *timer)
{
}

static void turn_until(const unsigned *counter, unsigned want)
{
    uint64_t end_ns = clock_mono_ns() + 30000000000ull;
    struct loop_timer timer = { 0 };

    while (*counter < want && clock_mono_ns() < end_ns) {
        loop_timer_start(loop, &timer, 20, tick);
        loop_run_once(loop);
    }
    loop_timer_stop(&timer);
    CHECK(*counter >= want);
}

static bool ping(void)
{
    return redis_client_send(client, replied, NULL, 1, (const char *[]){ "PING" });
}

/* A socket of 127.0.0.1; returns it, and the port that the kernel chose. */
static int listen_on_any(int backlog, uint16_t *port_p)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
    socklen_t len = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&at, len) == 0);
    CHECK(backlog < 0 || listen(fd, backlog) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&at, &len) == 0);
    *port_p = ntohs(at.sin_port);
    return fd;
}

/* redis-server takes no port of the kernel's choice: it gets one that was free a moment ago. */
static uint16_t start_redis(struct process *redis, uint16_t port)
{
    static unsigned starts;
    char name[32], text[8];

    if (port == 0)
        close(listen_on_any(-1, &port));
    snprintf(name, sizeof name, "redis-%u", starts++);
    snprintf(text, sizeof text, "%u", port);
    process_start(redis, name,
                  PROCESS_ARGS("redis-server", "--bind", "127.0.0.1", "--port", text, "--save", "",
                               "--appendonly", "no", "--dir", test_folder()));
    if (!process_wait_text(redis, "eady to accept connections", 20000))
        test_fail(__FILE__, __LINE__, "redis-server did not start: %s", process_log(redis));
    return port;
}

TEST(a_redis_is_found_by_its_hosts_name_and_again_after_a_restart)
{
    struct process redis;
    uint16_t port = start_redis(&redis, 0);

    begin("localhost", port);
    turn_until(&connects, 1);
    CHECK(ping());
    turn_until(&answers, 1);
    CHECK_EQ(process_stop(&redis, SIGTERM, 10000), 0);
    turn_until(&losses, 2); /* of the connection, and of one try to make it again */
    CHECK(!ping());
    CHECK_HAS(why, "refused");
    start_redis(&redis, port);
    turn_until(&connects, 2);
    CHECK(ping());
    turn_until(&answers, 2);
    end();
    CHECK_EQ(process_stop(&redis, SIGTERM, 10000), 0);
}

TEST(a_redis_that_does_not_answer_is_said_to)
{
    uint16_t port;
    int listener = listen_on_any(CROWD, &port);

    begin("127.0.0.1", port);
    turn_until(&connects, 1);
    CHECK(ping());
    CHECK(ping());
    turn_until(&losses, 1);
    CHECK_EQ(replies, 2);
    CHECK_EQ(answers, 0);
    CHECK_HAS(why, "did not answer within 3000 ms");
    turn_until(&connects, 2);
    end();
    close(listener);
}

/* A port whose queue of connections is full and stays so: what a host that is gone, or a lost packet filter's rule, looks
 * like. */
static uint16_t crowd_in(int sockets[CROWD + 1])
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
    uint16_t port;

    sockets[CROWD] = listen_on_any(0, &port);
    at.sin_port = htons(port);
    for (int i = 0; i < CROWD; i++) {
        sockets[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        CHECK(sockets[i] >= 0);
        connect(sockets[i], (struct sockaddr *)&at, sizeof at); /* some in the queue, the others before it */
    }
    return port;
}

static void crowd_out(const int sockets[CROWD + 1])
{
    for (int i = 0; i <= CROWD; i++)
        close(sockets[i]);
}

TEST(a_redis_that_takes_no_connection_is_given_up_and_tried_again)
{
    int sockets[CROWD + 1];

    begin("127.0.0.1", crowd_in(sockets));
    turn_until(&losses, 2);
    CHECK_EQ(connects, 0);
    CHECK_HAS(why, "took no connection within 3000 ms");
    end();
    crowd_out(sockets);
}

/* A resolver that takes two thirds of the time there is, the first time it is asked. */
static struct {
    bool is_wanted;
    struct loop_timer answer, late;
    void (*done)(const char *address, const struct status *why, void *user);
    void *user;
    unsigned losses_in_time, late_count;
} slow;

static void answer_lookup(struct loop_timer *timer)
{
    slow.done("127.0.0.1", NULL, slow.user);
}

static void note_late(struct loop_timer *timer)
{
    slow.losses_in_time = losses;
    slow.late_count++;
}

bool __real_loop_lookup_start(struct loop_lookup **lookup_p, struct loop *on, const char *host,
                              void (*done)(const char *address, const struct status *why, void *user),
                              void *user, struct status *st);
bool __wrap_loop_lookup_start(struct loop_lookup **lookup_p, struct loop *on, const char *host,
                              void (*done)(const char *address, const struct status *why, void *user),
                              void *user, struct status *st);

bool __wrap_loop_lookup_start(struct loop_lookup **lookup_p, struct loop *on, const char *host,
                              void (*done)(const char *address, const struct status *why, void *user),
                              void *user, struct status *st)
{
    if (!slow.is_wanted)
        return __real_loop_lookup_start(lookup_p, on, host, done, user, st);
    slow.is_wanted = false;
    slow.done = done;
    slow.user = user;
    loop_timer_start(on, &slow.answer, REDIS_REPLY_MS * 2 / 3, answer_lookup);
    loop_timer_start(on, &slow.late, REDIS_REPLY_MS * 4 / 3, note_late);
    *lookup_p = (struct loop_lookup *)&slow; /* only compared, until it is done */
    return true;
}

/* Timers of one loop tell which came first. */
TEST(looking_up_and_connecting_share_one_deadline)
{
    int sockets[CROWD + 1];
    uint16_t port = crowd_in(sockets);

    slow.is_wanted = true;
    begin("localhost", port);
    turn_until(&slow.late_count, 1);
    CHECK(slow.losses_in_time > 0);
    end();
    crowd_out(sockets);
}

TEST(a_host_that_has_no_address_is_named)
{
    begin("no-such-host.invalid", 6379);
    turn_until(&losses, 2);
    CHECK_HAS(why, "no-such-host.invalid");
    end();
}

/* HELLO 3 would change the protocol to one that hiredis 0.14 cannot read: nothing is sent but what the caller says. */
TEST(a_connection_begins_with_the_callers_words)
{
    static const char wanted[] = "*1\r\n$4\r\nPING\r\n";
    char heard[sizeof wanted] = "";
    uint16_t port;
    int listener = listen_on_any(CROWD, &port), peer;
    size_t len = 0;

    begin("127.0.0.1", port);
    turn_until(&connects, 1);
    CHECK(ping());
    peer = accept(listener, NULL, NULL);
    CHECK(peer >= 0);
    for (int turns = 0; len < sizeof wanted - 1 && turns < 1000; turns++) {
        ssize_t got;

        loop_run_once(loop);
        got = recv(peer, heard + len, sizeof wanted - 1 - len, MSG_DONTWAIT);
        len += got > 0 ? (size_t)got : 0;
    }
    CHECK_STR(heard, wanted);
    end();
    close(peer);
    close(listener);
}

/* Sent all the same, HELLO 3 is answered in that protocol: it costs the connection, which is made again, not the client. */
TEST(a_reply_that_cannot_be_read_loses_the_connection_once)
{
    struct process redis;
    uint16_t port = start_redis(&redis, 0);

    begin("127.0.0.1", port);
    turn_until(&connects, 1);
    CHECK(redis_client_send(client, replied, NULL, 2, (const char *[]){ "HELLO", "3" }));
    turn_until(&losses, 1);
    CHECK_HAS(why, "Protocol error");
    CHECK_EQ(replies, 1);
    turn_until(&connects, 2);
    CHECK(ping());
    turn_until(&answers, 1);
    CHECK_EQ(losses, 1);
    end();
    CHECK_EQ(process_stop(&redis, SIGTERM, 10000), 0);
}

TEST_MAIN()
