/* The public face of a real qa to somebody else's client: stock_client.py (Debian's python3-grpcio) lists services,
 * checks health, asks, reads the stream of the answer and cancels one. It shares no code with lib/rpc. */
#include "clip_cluster.h"
#include "redis/directory_view.h"

TEST(a_stock_client_asks_a_real_qa)
{
    struct clip_cluster clip = { 0 };
    struct process client;

    clip_cluster_open(&clip, "tiny-a");
    test_pause_ms(2 * DIRECTORY_HEARTBEAT_MS); /* until qa has read of the camera */
    if (process_run(&client, "client",
                    PROCESS_ARGS("/usr/bin/python3", REELKV_SOURCE_DIR "/tests/cluster/stock_client.py",
                                 clip.qa->address, "clip"),
                    180000) != 0)
        test_fail(__FILE__, __LINE__, "the client says: %s", process_log(&client));
    clip_cluster_close(&clip);
}

TEST_MAIN()
