#include "support/cluster.h"

#include <signal.h>
#include <stdlib.h>

#include "base/clock.h"
#include "redis/directory_view.h"
#include "support/test.h"

enum { READY_MS = 60000, STOP_MS = 30000, JOIN_MS = 20000 };

void cluster_init(struct cluster *cluster, const char *model, const char *dtype, uint32_t n_local)
{
    memset(cluster, 0, sizeof *cluster);
    cluster->model = model;
    cluster->dtype = dtype;
    cluster->n_local = n_local;
}

void cluster_start(struct cluster *cluster, const char *model, const char *dtype, uint32_t n_local)
{
    cluster_init(cluster, model, dtype, n_local);
    redis_start(&cluster->redis);
}

static struct cluster_service *find_or_add(struct cluster *cluster, const char *kind, uint32_t index)
{
    struct cluster_service *service;
    char name[32];

    snprintf(name, sizeof name, "%s-%u", kind, index);
    for (uint32_t i = 0; i < cluster->count; i++)
        if (strcmp(cluster->services[i].name, name) == 0)
            return &cluster->services[i];
    REQUIRE(cluster->count < CLUSTER_SERVICES_MAX);
    service = &cluster->services[cluster->count++];
    snprintf(service->name, sizeof service->name, "%s", name);
    snprintf(service->address, sizeof service->address, "unix:%s/%s.sock", test_folder(), name);
    return service;
}

struct cluster_service *cluster_service_start(struct cluster *cluster, const char *kind, uint32_t index,
                                              const char *const *extra)
{
    struct cluster_service *service = find_or_add(cluster, kind, index);
    char program[64], n_local[16], data[320];
    const char *argv[CLUSTER_FLAGS_MAX + 16];
    size_t n = 0;

    snprintf(program, sizeof program, "reelkv-%s", kind);
    snprintf(n_local, sizeof n_local, "%u", cluster->n_local);
    snprintf(data, sizeof data, "%s/%s", test_folder(), service->name);
    argv[n++] = program;
    argv[n++] = "--name";
    argv[n++] = service->name;
    argv[n++] = "--listen";
    argv[n++] = service->address;
    argv[n++] = "--redis";
    argv[n++] = redis_address();
    if (strcmp(kind, "kvstore") == 0) {
        argv[n++] = "--path";
        argv[n++] = data;
        argv[n++] = "--ram-budget-bytes";
        argv[n++] = "64M";
        argv[n++] = "--disk-budget-bytes";
        argv[n++] = "512M";
    } else {
        argv[n++] = "--model";
        argv[n++] = cluster->model;
        argv[n++] = "--dtype";
        argv[n++] = cluster->dtype;
        argv[n++] = "--n-local";
        argv[n++] = n_local;
    }
    argv[n] = NULL;
    process_args_change(argv, ARRAY_LEN(argv), extra);
    remove(service->process.log_path); /* the old log's ready line must not count */
    process_start(&service->process, service->name, argv);
    if (!process_wait_text(&service->process, "{\"ready\":true", READY_MS))
        test_fail(__FILE__, __LINE__, "%s did not start: %s", service->name, process_log(&service->process));
    return service;
}

int cluster_service_stop(struct cluster_service *service, int signal)
{
    return process_stop(&service->process, signal, STOP_MS);
}

void cluster_stop(struct cluster *cluster)
{
    for (uint32_t i = cluster->count; i-- > 0;)
        if (cluster->services[i].process.pid != 0)
            CHECK_EQ(cluster_service_stop(&cluster->services[i], SIGTERM), 0);
    CHECK_EQ(process_stop(&cluster->redis, SIGTERM, 5000), 0);
}

void cluster_wait_joined(const struct cluster *cluster)
{
    uint64_t end_ns = clock_mono_ns() + JOIN_MS * 1000000ull;
    struct directory_view view = { 0 };
    struct status st = { 0 };

    while (view.worker_count < cluster->count && clock_mono_ns() < end_ns) {
        test_pause_ms(50);
        CHECK_OK(directory_read_once(redis_address(), 5000, &view, &st), st);
    }
    directory_view_deinit(&view);
    if (clock_mono_ns() >= end_ns)
        test_fail(__FILE__, __LINE__, "not every service joined the directory");
}
