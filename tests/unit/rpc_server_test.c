#include "rpc/server.h"

#include <fcntl.h>
#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "loop/child.h"
#include "reelkv/v1/kvstore.pb-c.h"
#include "rpc/api.h"
#include "support/process.h"
#include "support/rpc_calls.h"
#include "support/test.h"

static struct loop *loop;
static struct rpc *rpc;

static void begin(void)
{
    struct status st = { 0 };

    CHECK_OK(loop_create(&loop, &st), st);
    CHECK_OK(rpc_create(&rpc, loop, &st), st);
}

static void end(void)
{
    rpc_destroy(rpc);
    loop_destroy(loop);
}

static bool serve_on(const char *address, struct rpc_server **server_p, struct status *st)
{
    const char *addresses[] = { address };
    struct rpc_server_options options = { .addresses = addresses, .address_count = 1 };

    return rpc_server_create(server_p, rpc, &options, st);
}

/* gRPC's default (SO_REUSEPORT) lets two servers share a port and splits the calls between them. */
TEST(a_second_server_on_the_same_port_is_refused_with_the_reason)
{
    struct rpc_server *first = NULL, *second = NULL;
    struct status st = { 0 };

    begin();
    CHECK_OK(serve_on("127.0.0.1:0", &first, &st), st);
    CHECK(!serve_on(rpc_server_address(first, 0), &second, &st));
    CHECK_EQ(st.code, STATUS_UNAVAILABLE);
    CHECK_HAS(st.text, rpc_server_address(first, 0));
    CHECK_HAS(st.text, "Address already in use");
    CHECK(second == NULL);
    rpc_server_destroy(first);
    end();
}

TEST(port_zero_gives_the_kernels_port_back)
{
    static const char *const addresses[] = { "127.0.0.1:0", "[::1]:0" };
    struct rpc_server_options options = { .addresses = addresses, .address_count = 2 };
    struct rpc_server *server = NULL;
    struct status st = { 0 };

    begin();
    if (!rpc_server_create(&server, rpc, &options, &st)) {
        options.address_count = 1; /* a machine without IPv6 */
        CHECK_OK(rpc_server_create(&server, rpc, &options, &st), st);
    }
    CHECK(strtoul(strrchr(rpc_server_address(server, 0), ':') + 1, NULL, 10) > 1023);
    rpc_server_destroy(server);
    end();
}

/* gRPC would remove the running server's socket and take its place. */
TEST(a_unix_socket_in_use_is_not_stolen)
{
    struct rpc_server *thief = NULL;
    struct rpc_server_options options = { .address_count = 1 };
    const char *addresses[1];
    struct fixture fixture;
    char address[300], lock[320];
    struct status st = { 0 };

    snprintf(address, sizeof address, "unix:%s/kv.sock", test_folder());
    snprintf(lock, sizeof lock, "%s.lock", address + 5);
    addresses[0] = address;
    options.addresses = addresses;
    fixture_start(&fixture, &options);
    begin();
    CHECK(!serve_on(address, &thief, &st));
    CHECK_EQ(st.code, STATUS_UNAVAILABLE);
    CHECK_HAS(st.text, "is served by another process");
    CHECK_OK(calls_info_at(address, &st), st); /* the first one still answers */
    fixture_stop(&fixture);
    CHECK(access(lock, F_OK) != 0); /* nothing is left behind */
    CHECK(access(address + 5, F_OK) != 0);
    CHECK_OK(serve_on(address, &thief, &st), st); /* and the path is free */
    rpc_server_destroy(thief);
    end();
}

/* Whatever a data folder is called. To a client of gRPC the address is a URI, in which some of these mean something. */
TEST(a_socket_may_lie_in_any_folder)
{
    static const char *const names[] = { "a b", "a#b",         "a?b=c", "a%41",
                                         "a%",  "caf\xc3\xa9", "a:b@c", "[]{}|^\\\"<>&" };

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char folder[300], address[320];
        const char *addresses[] = { address };
        const struct rpc_server_options options = { .addresses = addresses, .address_count = 1 };
        struct fixture fixture;
        struct status st = { 0 };

        snprintf(folder, sizeof folder, "%s/%s", test_folder(), names[i]);
        CHECK(mkdir(folder, 0700) == 0);
        snprintf(address, sizeof address, "unix:%s/rpc.sock", folder);
        fixture_start(&fixture, &options);
        CHECK_OK(calls_info_at(address, &st), st);
        fixture_stop(&fixture);
    }
}

/* After a kill -9 both the socket and the lock file lie there; nobody holds the lock. */
TEST(what_a_killed_server_left_behind_does_not_hinder_the_next)
{
    struct sockaddr_un name = { .sun_family = AF_UNIX };
    struct rpc_server *server = NULL;
    char address[300], lock[320];
    struct status st = { 0 };
    int dead = socket(AF_UNIX, SOCK_STREAM, 0), file;

    snprintf(address, sizeof address, "unix:%s/kv.sock", test_folder());
    snprintf(lock, sizeof lock, "%s.lock", address + 5);
    REQUIRE(strlen(address + 5) < sizeof name.sun_path);
    memcpy(name.sun_path, address + 5, strlen(address + 5));
    REQUIRE(bind(dead, (struct sockaddr *)&name, sizeof name) == 0);
    close(dead);
    file = open(lock, O_CREAT | O_WRONLY, 0600);
    REQUIRE(file >= 0);
    close(file);
    begin();
    CHECK_OK(serve_on(address, &server, &st), st);
    rpc_server_destroy(server);
    end();
}

TEST(a_folder_that_is_not_there_is_said)
{
    struct rpc_server *server = NULL;
    char address[300];
    struct status st = { 0 };

    snprintf(address, sizeof address, "unix:%s/no/kv.sock", test_folder());
    begin();
    CHECK(!serve_on(address, &server, &st));
    CHECK_HAS(st.text, "no/kv.sock.lock: No such file or directory");
    CHECK(!serve_on("localhost", &server, &st));
    CHECK_EQ(st.code, STATUS_INVALID);
    end();
}

static struct fixture fixture;

static enum status_code call_with(const struct rpc_method *method, const ProtobufCMessage *request,
                                  struct status *st)
{
    const struct rpc_message *reply = NULL;
    struct rpc_sync_stream *stream = NULL;
    struct rpc_sync *client = NULL;

    st->code = STATUS_OK;
    CHECK_OK(rpc_sync_create(&client, fixture_address(&fixture), NULL, st), *st);
    rpc_sync_unary(&stream, client, method, &patient, request, &reply, st);
    rpc_sync_stream_destroy(stream);
    rpc_sync_destroy(client);
    return st->code;
}

/* With plain gRPC C such a call waits for its deadline. */
TEST(unknown_methods_are_unimplemented_at_once)
{
    Reelkv__V1__GetServerInfoRequest request = REELKV__V1__GET_SERVER_INFO_REQUEST__INIT;
    struct rpc_method unknown = api_get_server_info;
    struct status st = { 0 };

    fixture_start(&fixture, NULL);
    unknown.path = "/reelkv.v1.KvStore/NoSuchThing";
    CHECK_EQ(call_with(&unknown, &request.base, &st), STATUS_UNIMPLEMENTED);
    CHECK_HAS(st.text, "there is no method /reelkv.v1.KvStore/NoSuchThing here");
    unknown.path = "/a.service.of.others/GetServerInfo";
    CHECK_EQ(call_with(&unknown, &request.base, &st), STATUS_UNIMPLEMENTED);
    fixture_stop(&fixture);
}

/* The client believes in another request type; what arrives is no ScoreRequest. */
TEST(a_malformed_request_is_invalid_and_never_reaches_the_handler)
{
    Reelkv__V1__RetrieveLayerEnd wrong = REELKV__V1__RETRIEVE_LAYER_END__INIT;
    struct rpc_method method = api_score;
    struct status st = { 0 };

    fixture_start(&fixture, NULL);
    wrong.layer = 7;
    method.request = wrong.base.descriptor;
    CHECK_EQ(call_with(&method, &wrong.base, &st), STATUS_INVALID);
    CHECK_HAS(st.text, "not a well-formed reelkv.v1.ScoreRequest");
    CHECK_EQ(atomic_load(&fixture.opened), 0);
    fixture_stop(&fixture);
}

TEST(a_malformed_message_in_a_stream_ends_it_as_invalid)
{
    Reelkv__V1__TimelineRequest wrong = REELKV__V1__TIMELINE_REQUEST__INIT;
    struct rpc_method method = api_append;
    struct rpc_sync_stream *stream = NULL;
    const struct rpc_message *message;
    struct rpc_sync *client = NULL;
    struct status st = { 0 };

    fixture_start(&fixture, NULL);
    CHECK_OK(rpc_sync_create(&client, fixture_address(&fixture), NULL, &st), st);
    wrong.page_size = 3; /* field 3 of an AppendRequest is a message */
    method.request = wrong.base.descriptor;
    CHECK_OK(rpc_sync_open(&stream, client, &method, &patient, &st), st);
    CHECK_OK(rpc_sync_write(stream, &wrong.base, NULL, &st), st);
    CHECK(!rpc_sync_read(stream, &message, &st));
    CHECK_EQ(st.code, STATUS_INVALID);
    rpc_sync_stream_destroy(stream);
    rpc_sync_destroy(client);
    CHECK(fixture_wait(&fixture.ended, 1));
    CHECK_EQ(atomic_load(&fixture.messages), 0);
    fixture_stop(&fixture);
}

TEST(a_unary_call_without_its_request_is_invalid)
{
    const struct rpc_message *message;
    struct rpc_sync_stream *stream = NULL;
    struct rpc_sync *client = NULL;
    struct status st = { 0 };

    fixture_start(&fixture, NULL);
    CHECK_OK(rpc_sync_create(&client, fixture_address(&fixture), NULL, &st), st);
    CHECK_OK(rpc_sync_open(&stream, client, &api_score, &patient, &st), st);
    CHECK_OK(rpc_sync_half_close(stream, &st), st);
    CHECK(!rpc_sync_read(stream, &message, &st));
    CHECK_EQ(st.code, STATUS_INVALID);
    CHECK_HAS(st.text, "called without a request");
    rpc_sync_stream_destroy(stream);
    rpc_sync_destroy(client);
    CHECK_EQ(atomic_load(&fixture.opened), 0);
    fixture_stop(&fixture);
}

/* Whatever a peer puts into x-request-id: only a printable one of bounded length is taken over. */
TEST(a_call_without_a_usable_request_id_gets_a_new_one)
{
    static const char *const ids[] = {
        NULL, "has a space", "0123456789012345678901234567890123456789012345678901234567890123456789"
    };
    Reelkv__V1__GetServerInfoRequest request = REELKV__V1__GET_SERVER_INFO_REQUEST__INIT;
    struct rpc_sync *client = NULL;
    struct status st = { 0 };
    char last[32] = "";

    fixture_start(&fixture, NULL);
    CHECK_OK(rpc_sync_create(&client, fixture_address(&fixture), NULL, &st), st);
    for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
        struct rpc_stream_options options = { .timeout_ms = 30000, .request_id = ids[i] };
        const struct rpc_message *reply = NULL;
        struct rpc_sync_stream *stream = NULL;
        const char *id;

        CHECK_OK(rpc_sync_unary(&stream, client, &api_get_server_info, &options, &request.base, &reply, &st),
                 st);
        id = ((const Reelkv__V1__ServerInfo *)reply->body)->name;
        CHECK_EQ(strlen(id), 16);
        CHECK(strcmp(id, last) != 0);
        snprintf(last, sizeof last, "%s", id);
        rpc_sync_stream_destroy(stream);
    }
    rpc_sync_destroy(client);
    fixture_stop(&fixture);
}

static bool blocks_sigterm(const char *task)
{
    char path[300], line[256];
    unsigned long long blocked = 0;
    FILE *file;

    snprintf(path, sizeof path, "/proc/self/task/%s/status", task);
    file = fopen(path, "r");
    if (file == NULL)
        return true; /* ended meanwhile */
    while (fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "SigBlk: %llx", &blocked) == 1)
            break;
    fclose(file);
    return (blocked & (1ull << (SIGTERM - 1))) != 0;
}

static unsigned threads_open_to_signals(unsigned *threads_p)
{
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *entry;
    unsigned open_ones = 0;
    char self[32];

    REQUIRE(tasks != NULL);
    snprintf(self, sizeof self, "%d", getpid());
    *threads_p = 0;
    while ((entry = readdir(tasks)) != NULL) {
        if (entry->d_name[0] == '.' || strcmp(entry->d_name, self) == 0)
            continue;
        ++*threads_p;
        open_ones += !blocks_sigterm(entry->d_name);
    }
    closedir(tasks);
    return open_ones;
}

/* A signal taken by one of gRPC's threads would interrupt its system calls; only this thread may take one. (A joined
 * thread of the test before can be seen for a moment yet.) */
TEST(only_the_loops_thread_takes_signals)
{
    struct rpc_server *server = NULL;
    struct status st = { 0 };
    unsigned threads, open_ones;

    begin();
    CHECK_OK(serve_on("127.0.0.1:0", &server, &st), st);
    CHECK(!calls_info_at("127.0.0.1:1", &st)); /* a client has threads, too */
    for (int i = 0; (open_ones = threads_open_to_signals(&threads)) > 0 && i < 1000; i++)
        test_pause_ms(2);
    CHECK_EQ(open_ones, 0);
    CHECK(threads > 0);
    rpc_server_destroy(server);
    end();
}

static int programs_ended, programs_failed;

static void program_ended(struct loop_child *child, int exit_code, int signal, void *user)
{
    programs_ended++;
    programs_failed += exit_code != 0 || signal != 0;
}

/* A fork without exec would leave the child with gRPC's locks and without its threads; loop_child's do exec at once. */
TEST(programs_can_be_started_while_calls_go_on)
{
    char *argv[] = { (char *)"true", NULL };
    struct loop_child_options options = { .path = "true", .argv = argv, .ended = program_ended };
    struct status st = { 0 };

    fixture_start(&fixture, NULL);
    begin();
    programs_ended = programs_failed = 0;
    for (int i = 0; i < 20; i++) {
        struct loop_child *child = NULL;

        CHECK_OK(loop_child_spawn(&child, loop, &options, &st), st);
        CHECK_OK(calls_info_at(fixture_address(&fixture), &st), st);
        while (programs_ended <= i)
            loop_run_once(loop);
        loop_child_destroy(child);
    }
    CHECK_EQ(programs_failed, 0);
    end();
    fixture_stop(&fixture);
}

enum { STORM_THREADS = 4, STORM_CALLS = 150 };

static void *storm(void *arg)
{
    unsigned scramble = (unsigned)(uintptr_t)arg;
    struct rpc_sync *client = NULL;

    if (!rpc_sync_create(&client, fixture_address(&fixture), NULL, NULL))
        return (void *)"no client";
    for (int i = 0; i < STORM_CALLS; i++) {
        static const struct rpc_method *const methods[] = { &api_score, &api_append, &api_load_window,
                                                            &api_fetch };
        const struct rpc_method *method = methods[i % 4];
        struct rpc_stream_options options = { .timeout_ms = 1 + (scramble >> 8) % 12 };
        struct rpc_sync_stream *stream = NULL;
        ProtobufCMessage *request = calloc(1, method->request->sizeof_message);

        scramble = scramble * 1103515245u + 12345u;
        if (request == NULL)
            return (void *)"no memory";
        method->request->message_init(request);
        if (method == &api_load_window)
            ((Reelkv__V1__LoadWindowRequest *)request)->tokens = 64;
        if (rpc_sync_open(&stream, client, method, &options, NULL))
            rpc_sync_write(stream, request, NULL, NULL);
        if ((scramble >> 16) % 3 == 0)
            rpc_sync_cancel(stream);
        else if ((scramble >> 16) % 3 == 1)
            rpc_sync_finish(stream, NULL);
        rpc_sync_stream_destroy(stream);
        free(request);
    }
    rpc_sync_destroy(client);
    return NULL;
}

/* 600 calls of four shapes with deadlines of a few milliseconds, cancelled or abandoned at random: every call that a
 * handler saw ends exactly once, and every payload lent comes back. */
TEST(every_call_that_opened_ends_exactly_once_whatever_happens_to_it)
{
    pthread_t threads[STORM_THREADS];

    fixture_start(&fixture, NULL);
    for (uintptr_t i = 0; i < STORM_THREADS; i++)
        REQUIRE(pthread_create(&threads[i], NULL, storm, (void *)(i * 7919 + 1)) == 0);
    for (int i = 0; i < STORM_THREADS; i++) {
        void *wrong = NULL;

        pthread_join(threads[i], &wrong);
        CHECK(wrong == NULL);
    }
    CHECK(atomic_load(&fixture.opened) > 0);
    CHECK(fixture_wait(&fixture.ended, atomic_load(&fixture.opened)));
    fixture_stop(&fixture);
    CHECK_EQ(atomic_load(&fixture.ended), atomic_load(&fixture.opened));
    CHECK_EQ(atomic_load(&fixture.releases), atomic_load(&fixture.writes));
}

TEST_MAIN()
