/* Two encoders, two analyzers, two kvstores, two qas, four cameras: everybody finds everybody, every camera is read once
 * and stored whole, and a question over cameras of both stores is answered as if one store had all. */
#include <signal.h>

#include "clip_cluster.h"
#include "redis/directory_view.h"

enum { PAIR = 2, CAMERAS = 4 };

static const char *const names[CAMERAS] = { "east", "west", "north", "south" };

static void check_cameras_run(struct rpc_sync *qa, const struct fixture *fixture, const struct json *run)
{
    const struct json *order = json_get(fixture->manifest, "order"), *chosen = json_get(run, "chosen");
    char *streams[] = { (char *)"east", (char *)"west" };
    static struct asked asked;

    ask(qa, streams, 2, run, &asked);
    for (size_t layer = 0; layer < json_len(chosen); layer++) {
        uint32_t want[64];
        size_t count = fixture_ids(json_at(chosen, layer), want, 64);

        CHECK_EQ(asked.chosen_count[layer], count);
        for (size_t i = 0; i < count; i++) {
            const struct json *entry = json_at(order, want[i]); /* [stream, frame of that stream] */

            CHECK_EQ(asked.streams[layer][i], json_number(json_at(entry, 0)));
            CHECK_EQ(asked.chosen[layer][i], json_number(json_at(entry, 1)));
        }
    }
    check_ids(&asked, run);
}

TEST(two_of_everything_and_a_question_over_both_stores)
{
    struct fixture fixture = fixture_open("cameras-tiny-d");
    struct rpc_sync *stores[PAIR], *qas[PAIR];
    struct cluster_service *store[PAIR], *qa[PAIR];
    struct cluster cluster;
    uint32_t range[PAIR][2];
    char video[PAIR][320];

    for (uint32_t i = 0; i < PAIR; i++) {
        fixture_ids(json_at(json_get(fixture.manifest, "cameras"), i), range[i], 2);
        snprintf(video[i], sizeof video[i], "%s/clip-%u.mkv", test_folder(), i);
        write_clip(video[i], range[i][0], range[i][1]);
    }
    cluster_start(&cluster, REELKV_SOURCE_DIR "/tests/data/parity/tiny-d", "f32",
                  fixture_u32(fixture.manifest, "n_local"));
    for (uint32_t i = 0; i < PAIR; i++) {
        store[i] = cluster_service_start(&cluster, "kvstore", i, NULL);
        cluster_service_start(&cluster, "analyzer", i, PROCESS_ARGS("--pool-bytes", "16M"));
        cluster_service_start(&cluster, "encoder", i, NULL);
        qa[i] = cluster_service_start(&cluster, "qa", i, NULL);
    }
    cluster_wait_joined(&cluster);
    for (uint32_t i = 0; i < PAIR; i++) {
        stores[i] = connect_to(store[i]);
        qas[i] = connect_to(qa[i]);
    }
    for (uint32_t i = 0; i < CAMERAS; i++) /* cameras of both stores, two of each video */
        add_camera(stores[i % PAIR], names[i], video[i % PAIR]);
    for (uint32_t i = 0; i < CAMERAS; i++)
        wait_ended(stores[i % PAIR], names[i], range[i % PAIR][1] - range[i % PAIR][0]);
    test_pause_ms(2 * DIRECTORY_HEARTBEAT_MS); /* until both qas have read of all cameras */

    for (uint32_t i = 0; i < PAIR; i++)
        for (size_t r = 0; r < json_len(json_get(fixture.manifest, "runs")); r++)
            check_cameras_run(qas[i], &fixture, json_at(json_get(fixture.manifest, "runs"), r));
    for (uint32_t i = 0; i < PAIR; i++) {
        rpc_sync_destroy(stores[i]);
        rpc_sync_destroy(qas[i]);
    }
    cluster_stop(&cluster);
    fixture_close(&fixture);
}

TEST_MAIN()
