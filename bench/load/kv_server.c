#include "kv_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "kv_figures.h"
#include "reelkv/v1/catalog.pb-c.h"
#include "rpc/api.h"

enum { CALL_MS = 120000, START_TRIES = 600, START_PAUSE_US = 100000, SHM_MS = 10000 };

static const uint8_t print_bytes[16] = "kv load bench v1";

static int free_port(void)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) != 0 ||
        getsockname(fd, (struct sockaddr *)&at, &len) != 0)
        kv_die("no free port: %m");
    close(fd);
    return ntohs(at.sin_port);
}

static void run_store(const struct kv_server *server, const struct kv_server_limits *limits)
{
    char path[PATH_MAX + 16], listen[96], ram[64], disk[64], log[PATH_MAX + 16];
    int fd;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    snprintf(path, sizeof path, "--path=%s/data", server->folder);
    snprintf(listen, sizeof listen, "--listen=%s", server->address);
    snprintf(ram, sizeof ram, "--ram-budget-bytes=%llu", (unsigned long long)limits->ram_bytes);
    snprintf(disk, sizeof disk, "--disk-budget-bytes=%llu", (unsigned long long)limits->disk_bytes);
    snprintf(log, sizeof log, "%s/store.log", server->folder);
    fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0)
        _exit(126);
    execl(server->program, "reelkv-kvstore", "--name=bench", "--redis=127.0.0.1:1", path, listen, ram, disk,
          (char *)NULL);
    _exit(127);
}

static bool call(struct rpc_sync *client, const struct rpc_method *method, const ProtobufCMessage *request,
                 void (*take)(const ProtobufCMessage *reply, void *arg), void *arg, struct status *st)
{
    const struct rpc_stream_options options = { .timeout_ms = CALL_MS };
    struct rpc_sync_stream *stream = NULL;
    const struct rpc_message *reply;
    bool ok = rpc_sync_unary(&stream, client, method, &options, request, &reply, st);

    if (ok && take != NULL)
        take(reply->body, arg);
    rpc_sync_stream_destroy(stream);
    return ok;
}

static void take_info(const ProtobufCMessage *reply, void *arg)
{
    *(Reelkv__V1__ServerInfo *)arg = *(const Reelkv__V1__ServerInfo *)reply;
}

void kv_server_info(struct kv_server *server, Reelkv__V1__ServerInfo *info)
{
    Reelkv__V1__GetServerInfoRequest request = REELKV__V1__GET_SERVER_INFO_REQUEST__INIT;
    struct status st = { 0 };

    if (!call(server->client, &api_get_server_info, &request.base, take_info, info, &st))
        kv_die("%s", st.text);
    info->name = info->version = info->shm_socket = NULL;
}

static bool is_up(struct kv_server *server)
{
    Reelkv__V1__GetServerInfoRequest request = REELKV__V1__GET_SERVER_INFO_REQUEST__INIT;
    Reelkv__V1__ServerInfo info;
    struct status st = { 0 };

    if (waitpid(server->pid, NULL, WNOHANG) == server->pid)
        kv_die("the store ended at once; see %s/store.log", server->folder);
    return call(server->client, &api_get_server_info, &request.base, take_info, &info, &st);
}

void kv_server_start(struct kv_server *server, const struct kv_server_limits *limits)
{
    struct status st = { 0 };
    char data[PATH_MAX + 8];
    int tries = 0;

    snprintf(data, sizeof data, "%s/data", server->folder);
    if (!file_make_folders(data, &st))
        kv_die("%s", st.text);
    snprintf(server->address, sizeof server->address, "127.0.0.1:%d", free_port());
    snprintf(server->socket, sizeof server->socket, "%.4000s/data/shm.sock", server->folder);
    server->pid = fork();
    if (server->pid < 0)
        kv_die("fork: %m");
    if (server->pid == 0)
        run_store(server, limits);
    server->client = kv_server_connect(server);
    while (!is_up(server)) {
        if (++tries == START_TRIES)
            kv_die("the store does not answer; see %s/store.log", server->folder);
        usleep(START_PAUSE_US);
    }
}

void kv_server_wait_quiet(const struct kv_server *server)
{
    enum { PAUSE_US = 500000, TRIES = 120 };
    double before = kv_cpu_of(server->pid), busy = 1;

    for (int i = 0; i < TRIES && busy > 0.01; i++) {
        usleep(PAUSE_US);
        busy = -before;
        before = kv_cpu_of(server->pid);
        busy += before;
    }
}

void kv_server_stop(struct kv_server *server)
{
    int how = 0;

    rpc_sync_destroy(server->client);
    server->client = NULL;
    kill(server->pid, SIGTERM);
    while (waitpid(server->pid, &how, 0) < 0 && errno == EINTR)
        ;
    if (!WIFEXITED(how) || WEXITSTATUS(how) != 0)
        kv_die("the store ended badly; see %s/store.log", server->folder);
}

static bool is_named(const char *task, const char *name)
{
    char path[200], comm[32] = "";
    FILE *file;

    if (name == NULL)
        return true;
    snprintf(path, sizeof path, "%s/comm", task);
    file = fopen(path, "r");
    if (file == NULL)
        return false;
    if (fscanf(file, "%31s", comm) != 1)
        comm[0] = '\0';
    fclose(file);
    return strcmp(comm, name) == 0;
}

static double task_ns(const char *task)
{
    unsigned long long ran = 0;
    char path[200];
    FILE *file;

    snprintf(path, sizeof path, "%s/schedstat", task);
    file = fopen(path, "r");
    if (file == NULL)
        return 0; /* the thread has ended */
    if (fscanf(file, "%llu", &ran) != 1)
        ran = 0;
    fclose(file);
    return (double)ran;
}

/* The threads' own count, in nanoseconds; that of the process has ticks of ten milliseconds. */
double kv_cpu_of_threads(pid_t process, const char *name)
{
    struct file_names tasks = { 0 };
    char folder[64], path[160];
    struct status st = { 0 };
    double ns = 0;

    snprintf(folder, sizeof folder, "/proc/%d/task", (int)process);
    if (!file_list_on(&file_system, folder, &tasks, &st))
        kv_die("%s", st.text);
    for (uint32_t i = 0; i < tasks.count; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, tasks.list[i]);
        if (is_named(path, name))
            ns += task_ns(path);
    }
    file_names_free(&tasks);
    return ns * 1e-9;
}

double kv_cpu_of(pid_t process)
{
    return kv_cpu_of_threads(process, NULL);
}

double kv_own_cpu(void)
{
    struct timespec used;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (double)used.tv_sec + (double)used.tv_nsec * 1e-9;
}

struct rpc_sync *kv_server_connect(const struct kv_server *server)
{
    struct rpc_sync *client;
    struct status st = { 0 };

    if (!rpc_sync_create(&client, server->address, NULL, &st))
        kv_die("%s", st.text);
    return client;
}

struct kv_shm_peer *kv_server_share(const struct kv_server *server, const struct kv_pool *own)
{
    struct kv_shm_peer *peer;
    struct status st = { 0 };

    if (!kv_shm_peer_create(&peer, server->socket, own, SHM_MS, &st))
        kv_die("%s", st.text);
    return peer;
}

/* --- streams --- */

static Reelkv__V1__StreamId id_of(const char *name)
{
    Reelkv__V1__StreamId id = REELKV__V1__STREAM_ID__INIT;

    id.namespace_ = (char *)"default";
    id.name = (char *)(uintptr_t)name;
    return id;
}

void kv_stream_create(struct kv_server *server, const char *name)
{
    Reelkv__V1__CreateStreamRequest request = REELKV__V1__CREATE_STREAM_REQUEST__INIT;
    Reelkv__V1__StreamDefinition definition = REELKV__V1__STREAM_DEFINITION__INIT;
    Reelkv__V1__StreamId id = id_of(name);
    struct status st = { 0 };

    definition.id = &id;
    definition.source = (char *)"rtsp://cam.example/1";
    definition.kind = REELKV__V1__SOURCE_KIND__SOURCE_KIND_LIVE;
    definition.sample_fps = 0.5;
    request.definition = &definition;
    if (!call(server->client, &api_create_stream, &request.base, NULL, NULL, &st))
        kv_die("%s", st.text);
}

static void take_epoch(const ProtobufCMessage *reply, void *arg)
{
    *(uint64_t *)arg = ((const Reelkv__V1__OpenStreamReply *)reply)->epoch;
}

uint64_t kv_stream_open(struct rpc_sync *client, const char *name, const struct kv_geometry *geometry)
{
    Reelkv__V1__OpenStreamRequest request = REELKV__V1__OPEN_STREAM_REQUEST__INIT;
    Reelkv__V1__Geometry shape = REELKV__V1__GEOMETRY__INIT;
    Reelkv__V1__StreamId id = id_of(name);
    struct status st = { 0 };
    uint64_t epoch = 0;

    shape.layers = geometry->layers;
    shape.kv_heads = geometry->kv_heads;
    shape.head_dim = geometry->head_dim;
    shape.dtype = (Reelkv__V1__Dtype)geometry->dtype;
    request.id = &id;
    request.fingerprint = (ProtobufCBinaryData){ sizeof print_bytes, (uint8_t *)(uintptr_t)print_bytes };
    request.geometry = &shape;
    request.writer = (char *)"kv";
    if (!call(client, &api_open_stream, &request.base, take_epoch, &epoch, &st))
        kv_die("%s", st.text);
    return epoch;
}

int64_t kv_frame_pts(uint64_t seq)
{
    return 1700000000000000000ll + (int64_t)seq * 2000000000ll;
}

void kv_view_fill(struct kv_view *view, const char *name, uint64_t frames)
{
    reelkv__v1__view__init(&view->view);
    reelkv__v1__time_range__init(&view->range);
    view->id = id_of(name);
    view->list[0] = &view->id;
    view->view.streams = view->list;
    view->view.n_streams = 1;
    view->view.fingerprint = (ProtobufCBinaryData){ sizeof print_bytes, (uint8_t *)(uintptr_t)print_bytes };
    view->view.range = &view->range;
    view->range.to_ns = frames == 0 ? 0 : kv_frame_pts(frames);
}
