/* ReKV's fixtures, computed through the four processes: lossless video -> encoder -> analyzer -> kvstore -> qa, the
 * store killed and started again in between so that every block comes from disk. The blocks every layer chooses and the
 * answers must be those of the reference implementation (docs/fixtures.md). */
#include <signal.h>

#include "clip_cluster.h"
#include "redis/directory_view.h"

static void check_run(struct rpc_sync *qa, const struct json *run)
{
    const struct json *chosen = json_get(run, "chosen");
    char *streams[] = { (char *)"clip" };
    static struct asked asked;

    ask(qa, streams, 1, run, &asked);
    for (size_t layer = 0; layer < json_len(chosen); layer++) {
        uint32_t want[64];
        size_t count = fixture_ids(json_at(chosen, layer), want, 64);

        CHECK_EQ(asked.chosen_count[layer], count);
        for (size_t i = 0; i < count; i++)
            CHECK_EQ(asked.chosen[layer][i], want[i]);
    }
    /* The service lets `all` see its whole context; the fixture's window ends after n_local tokens. */
    if (strcmp(json_str(json_get(run, "selector")), "all") != 0)
        check_ids(&asked, run);
}

static void check_stream(const char *checkpoint)
{
    struct fixture fixture;
    struct cluster_service *store, *qa;
    struct rpc_sync *store_client, *qa_client;
    struct cluster cluster;
    char model[512], video[320], name[64];

    snprintf(name, sizeof name, "stream-%s", checkpoint);
    fixture = fixture_open(name);
    snprintf(model, sizeof model, "%s/tests/data/parity/%s", REELKV_SOURCE_DIR, checkpoint);
    snprintf(video, sizeof video, "%s/clip.mkv", test_folder());
    write_clip(video, 0, fixture_u32(fixture.manifest, "frames"));
    cluster_start(&cluster, model, "f32", fixture_u32(fixture.manifest, "n_local"));
    store = cluster_service_start(&cluster, "kvstore", 0, NULL);
    cluster_service_start(&cluster, "analyzer", 0, PROCESS_ARGS("--pool-bytes", "64M"));
    cluster_service_start(&cluster, "encoder", 0, NULL);
    qa = cluster_service_start(&cluster, "qa", 0, NULL);
    cluster_wait_joined(&cluster);

    store_client = connect_to(store);
    add_camera(store_client, "clip", video);
    wait_ended(store_client, "clip", fixture_u32(fixture.manifest, "frames"));
    rpc_sync_destroy(store_client);
    CHECK_EQ(cluster_service_stop(store, SIGKILL), 128 + SIGKILL); /* nothing is left in its memory */
    cluster_service_start(&cluster, "kvstore", 0, NULL);
    cluster_wait_joined(&cluster);
    test_pause_ms(2 * DIRECTORY_HEARTBEAT_MS); /* until qa has read of the store's new process */

    qa_client = connect_to(qa);
    for (size_t i = 0; i < json_len(json_get(fixture.manifest, "runs")); i++)
        check_run(qa_client, json_at(json_get(fixture.manifest, "runs"), i));
    rpc_sync_destroy(qa_client);
    cluster_stop(&cluster);
    fixture_close(&fixture);
}

TEST(four_processes_answer_as_the_reference_f32_on_disk)
{
    check_stream("tiny-a");
}

TEST(four_processes_answer_as_the_reference_with_grouped_heads_and_196_tokens)
{
    check_stream("tiny-b");
}

TEST(four_processes_answer_as_the_reference_f16_on_disk)
{
    check_stream("tiny-c");
}

TEST(four_processes_answer_as_the_reference_sharded)
{
    check_stream("tiny-d");
}

TEST_MAIN()
