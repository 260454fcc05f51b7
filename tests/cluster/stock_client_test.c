/* The public face of a real qa to somebody else's client: stock_client.py (Debian's python3-grpcio) lists services,
 * checks health, asks, reads the stream of the answer and cancels one. It shares no code with lib/rpc. */
#include "clip_cluster.h"
#include "redis/directory_view.h"

TEST(a_stock_client_asks_a_real_qa)
{
    struct fixture fixture = fixture_open("stream-tiny-a");
    uint32_t frames = fixture_u32(fixture.manifest, "frames");
    struct cluster_service *store, *qa;
    struct process client;
    struct rpc_sync *store_client;
    struct cluster cluster;
    char video[320];

    snprintf(video, sizeof video, "%s/clip.mkv", test_folder());
    write_clip(video, 0, frames);
    cluster_start(&cluster, REELKV_SOURCE_DIR "/tests/data/parity/tiny-a", "f32",
                  fixture_u32(fixture.manifest, "n_local"));
    store = cluster_service_start(&cluster, "kvstore", 0, NULL);
    cluster_service_start(&cluster, "analyzer", 0, PROCESS_ARGS("--pool-bytes", "64M"));
    cluster_service_start(&cluster, "encoder", 0, NULL);
    qa = cluster_service_start(&cluster, "qa", 0, NULL);
    cluster_wait_joined(&cluster);
    store_client = connect_to(store);
    add_camera(store_client, "clip", video);
    wait_ended(store_client, "clip", frames);
    rpc_sync_destroy(store_client);
    test_pause_ms(2 * DIRECTORY_HEARTBEAT_MS); /* until qa has read of the camera */
    if (process_run(&client, "client",
                    PROCESS_ARGS("/usr/bin/python3", REELKV_SOURCE_DIR "/tests/cluster/stock_client.py",
                                 qa->address, "clip"),
                    180000) != 0)
        test_fail(__FILE__, __LINE__, "the client says: %s", process_log(&client));
    cluster_stop(&cluster);
    fixture_close(&fixture);
}

TEST_MAIN()
