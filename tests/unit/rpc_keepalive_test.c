#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "reelkv/v1/kvstore.pb-c.h"
#include "rpc/api.h"
#include "rpc/sync.h"
#include "support/process.h"
#include "support/rpc_fixture.h"
#include "support/test.h"

static const struct rpc_stream_options forever = { .timeout_ms = RPC_NO_TIMEOUT };

/* A relay between client and server that can be frozen: then bytes neither pass nor are refused, as with a pulled
 * cable. */
struct relay {
    pthread_t thread;
    int listener;
    int ends[2]; /* client's, server's; -1: none yet */
    unsigned short server_port;
    char address[64];
    atomic_bool frozen, stop;
    atomic_uint connections;
};

static int tcp(unsigned short port, bool listening)
{
    struct sockaddr_in name = { .sin_family = AF_INET, .sin_port = htons(port) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(fd >= 0);
    if (listening)
        REQUIRE(bind(fd, (struct sockaddr *)&name, sizeof name) == 0 && listen(fd, 8) == 0);
    else
        REQUIRE(connect(fd, (struct sockaddr *)&name, sizeof name) == 0);
    return fd;
}

/* False: one end has closed. */
static bool pass(int from, int to)
{
    char data[16384];
    ssize_t got = recv(from, data, sizeof data, MSG_DONTWAIT);

    return got < 0 || (got > 0 && send(to, data, (size_t)got, MSG_NOSIGNAL) == got);
}

static void relay_close(struct relay *relay)
{
    for (int i = 0; i < 2; i++)
        if (relay->ends[i] >= 0)
            close(relay->ends[i]);
    relay->ends[0] = relay->ends[1] = -1;
}

static void *relay_run(void *arg)
{
    struct relay *relay = arg;

    while (!relay->stop) {
        struct pollfd fds[3] = { { relay->listener, POLLIN, 0 },
                                 { relay->ends[0], POLLIN, 0 },
                                 { relay->ends[1], POLLIN, 0 } };

        if (relay->frozen) {
            test_pause_ms(5);
            continue;
        }
        poll(fds, 3, 20);
        if ((fds[0].revents & POLLIN) != 0 && relay->ends[0] < 0) {
            relay->ends[0] = accept(relay->listener, NULL, NULL);
            relay->ends[1] = tcp(relay->server_port, false);
            atomic_fetch_add(&relay->connections, 1);
        } else if ((fds[1].revents != 0 && !pass(relay->ends[0], relay->ends[1])) ||
                   (fds[2].revents != 0 && !pass(relay->ends[1], relay->ends[0]))) {
            relay_close(relay);
        }
    }
    return NULL;
}

static void relay_start(struct relay *relay, const char *server_address)
{
    struct sockaddr_in name;
    socklen_t len = sizeof name;

    memset(relay, 0, sizeof *relay);
    relay->ends[0] = relay->ends[1] = -1;
    relay->server_port = (unsigned short)strtoul(strrchr(server_address, ':') + 1, NULL, 10);
    relay->listener = tcp(0, true);
    REQUIRE(getsockname(relay->listener, (struct sockaddr *)&name, &len) == 0);
    snprintf(relay->address, sizeof relay->address, "127.0.0.1:%d", ntohs(name.sin_port));
    REQUIRE(pthread_create(&relay->thread, NULL, relay_run, relay) == 0);
}

static void relay_stop(struct relay *relay)
{
    relay->stop = true;
    pthread_join(relay->thread, NULL);
    relay_close(relay);
    close(relay->listener);
}

static struct fixture fixture;
static struct relay relay;
static struct rpc_sync *client;

static struct rpc_sync_stream *begin(const struct rpc_server_options *server,
                                     const struct rpc_channel_options *channel)
{
    Reelkv__V1__ScoreRequest request = REELKV__V1__SCORE_REQUEST__INIT;
    struct rpc_sync_stream *held = NULL;
    struct status st = { 0 };

    fixture_start(&fixture, server);
    relay_start(&relay, fixture_address(&fixture));
    CHECK_OK(rpc_sync_create(&client, relay.address, channel, &st), st);
    CHECK_OK(rpc_sync_open(&held, client, &api_score, &forever, &st), st);
    CHECK_OK(rpc_sync_write(held, &request.base, NULL, &st), st);
    CHECK(fixture_wait(&fixture.opened, 1));
    return held;
}

static void end(struct rpc_sync_stream *held)
{
    rpc_sync_stream_destroy(held);
    rpc_sync_destroy(client);
    relay_stop(&relay);
    fixture_stop(&fixture);
}

/* A default gRPC server closes such a connection after three pings ("too_many_pings"). Ten pings with a silent call
 * open, and as many without any call: the connection is the same one afterwards. */
TEST(frequent_pings_do_not_cost_the_connection)
{
    struct rpc_channel_options options = { .keepalive_ms = 250, .keepalive_timeout_ms = 10000 };
    struct rpc_sync_stream *held = begin(NULL, &options);
    const struct rpc_message *reply = NULL;
    struct status st = { 0 };

    test_pause_ms(2500);
    fixture_release_held(&fixture);
    CHECK_OK(rpc_sync_read(held, &reply, &st), st);
    CHECK(reply != NULL);
    rpc_sync_stream_destroy(held);
    test_pause_ms(2500);
    Reelkv__V1__GetServerInfoRequest request = REELKV__V1__GET_SERVER_INFO_REQUEST__INIT;
    CHECK_OK(rpc_sync_unary(&held, client, &api_get_server_info, &forever, &request.base, &reply, &st), st);
    CHECK_EQ(atomic_load(&relay.connections), 1);
    end(held);
}

static void freeze_until_the_client_notices(struct rpc_sync_stream *held)
{
    const struct rpc_message *reply = NULL;
    struct status st = { 0 };

    relay.frozen = true;
    CHECK(!rpc_sync_read(held, &reply, &st));
    CHECK_EQ(st.code, STATUS_UNAVAILABLE);
    CHECK_HAS(st.text, relay.address);
}

/* Without keepalive the client would wait for ever: the call has no deadline and nobody closes anything. */
TEST(a_client_notices_a_peer_that_went_silent)
{
    struct rpc_channel_options options = { .keepalive_ms = 250, .keepalive_timeout_ms = 250 };
    struct rpc_sync_stream *held = begin(NULL, &options);

    freeze_until_the_client_notices(held);
    end(held);
}

TEST(a_server_notices_a_client_that_went_silent)
{
    struct rpc_server_options server = { .keepalive_ms = 250, .keepalive_timeout_ms = 250 };
    struct rpc_channel_options options = { .keepalive_ms = 600000 };
    struct rpc_sync_stream *held = begin(&server, &options);

    relay.frozen = true;
    CHECK(fixture_wait(&fixture.ended, 1));
    CHECK_EQ(atomic_load(&fixture.cancelled), 1);
    end(held);
}

/* gRPC's own default is to send no pings at all. With nothing set, the client notices first (5 s and 3 s); the server
 * hears nothing of its going, because the cable is still out, and notices by itself (10 s and 5 s). */
TEST(by_default_both_ends_notice_a_peer_that_went_silent)
{
    struct rpc_sync_stream *held = begin(NULL, NULL);

    freeze_until_the_client_notices(held);
    CHECK(fixture_wait(&fixture.ended, 1) || fixture_wait(&fixture.ended, 1));
    CHECK_EQ(atomic_load(&fixture.cancelled), 1);
    end(held);
}

TEST_MAIN()
