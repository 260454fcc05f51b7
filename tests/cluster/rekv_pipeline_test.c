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
    struct clip_cluster clip;
    const struct json *runs;
    struct rpc_sync *qa;

    clip_cluster_open(&clip, checkpoint);
    CHECK_EQ(cluster_service_stop(clip.store, SIGKILL), 128 + SIGKILL); /* nothing is left in its memory */
    cluster_service_start(&clip.cluster, "kvstore", 0, NULL);
    cluster_wait_joined(&clip.cluster);
    test_pause_ms(2 * DIRECTORY_HEARTBEAT_MS); /* until qa has read of the store's new process */

    qa = connect_to(clip.qa);
    runs = json_get(clip.fixture.manifest, "runs");
    for (size_t i = 0; i < json_len(runs); i++)
        check_run(qa, json_at(runs, i));
    rpc_sync_destroy(qa);
    clip_cluster_close(&clip);
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
