#include "support/served.h"

#include "support/test.h"

static void *serve(void *arg)
{
    static const char *const any_port[] = { "127.0.0.1:0" };
    struct served *served = arg;
    struct rpc_server_options options = { .addresses = any_port,
                                          .address_count = 1,
                                          .services = served->services,
                                          .service_count = served->service_count };
    bool ok = loop_create(&served->loop, &served->failure) &&
              rpc_create(&served->rpc, served->loop, &served->failure) &&
              rpc_server_create(&served->server, served->rpc, &options, &served->failure);

    if (ok && served->started != NULL)
        served->started(served);
    pthread_barrier_wait(&served->ready);
    if (ok)
        loop_run(served->loop);
    if (ok && served->ending != NULL)
        served->ending(served);
    rpc_server_destroy(served->server);
    rpc_destroy(served->rpc);
    loop_destroy(served->loop);
    return NULL;
}

void served_start(struct served *served)
{
    pthread_barrier_init(&served->ready, NULL, 2);
    REQUIRE(pthread_create(&served->thread, NULL, serve, served) == 0);
    pthread_barrier_wait(&served->ready);
    CHECK_OK(served->failure.code == STATUS_OK, served->failure);
}

static void stop_now(struct letter *letter)
{
    loop_stop(container_of(letter, struct served, stop)->loop);
}

void served_stop(struct served *served)
{
    served->stop.open = stop_now;
    loop_post(served->loop, &served->stop);
    pthread_join(served->thread, NULL);
    pthread_barrier_destroy(&served->ready);
}

const char *served_address(const struct served *served)
{
    return rpc_server_address(served->server, 0);
}
