#include "stage.h"

#include <signal.h>
#include <stdlib.h>

#include "base/clock.h"
#include "support/video.h"

enum { WAIT_MS = 120000 };

static const char *const kinds[STAGE_PARTS] = { "kvstore", "analyzer", "encoder", "qa" };

void stage_start(struct stage *stage, enum stage_part part)
{
    static const char *const analyzer[] = { "--pool-bytes", "16M", "--credits", "4", NULL };
    const char *const *flags = stage->flags[part];

    if (flags == NULL && part == STAGE_ANALYZER)
        flags = analyzer;
    stage->parts[part] = cluster_service_start(&stage->cluster, kinds[part], 0, flags);
    if (part == STAGE_KVSTORE &&
        stage->store != NULL) { /* the old connection may not know yet that it is dead */
        rpc_sync_destroy(stage->store);
        stage->store = connect_to(stage->parts[STAGE_KVSTORE]);
    }
}

void stage_kill(struct stage *stage, enum stage_part part)
{
    CHECK_EQ(cluster_service_stop(stage->parts[part], SIGKILL), 128 + SIGKILL);
}

void stage_open(struct stage *stage)
{
    uint32_t n_local = stage->n_local == 0 ? STAGE_N_LOCAL : stage->n_local;

    stage->model = parity_model(&(struct parity_options){
        .checkpoint = "tiny-a", .dtype = TENSOR_F32, .n_local = n_local, .batch_frames = 1, .threads = 1 });
    if (stage->without_redis)
        cluster_init(&stage->cluster, STAGE_MODEL, "f32", n_local);
    else
        cluster_start(&stage->cluster, STAGE_MODEL, "f32", n_local);
    for (enum stage_part part = 0; part < STAGE_PARTS; part++)
        stage_start(stage, part);
    if (!stage->without_redis)
        cluster_wait_joined(&stage->cluster);
    stage->store = connect_to(stage->parts[STAGE_KVSTORE]);
    stage->qa = connect_to(stage->parts[STAGE_QA]);
}

void stage_close(struct stage *stage)
{
    rpc_sync_destroy(stage->store);
    rpc_sync_destroy(stage->qa);
    model_close(stage->model);
    cluster_stop(&stage->cluster);
}

void stage_wait_told(const struct stage *stage, enum stage_part part, const char *words)
{
    const struct process *process = &stage->parts[part]->process;

    if (!process_wait_text(process, words, WAIT_MS))
        test_fail(__FILE__, __LINE__, "%s does not say \"%s\": %s", process->name, words,
                  process_log(process));
}

struct rpc_sync_stream *stage_ask_open(struct stage *stage, const struct question *question)
{
    Reelkv__V1__AskRequest request = REELKV__V1__ASK_REQUEST__INIT;
    Reelkv__V1__TimeRange range = REELKV__V1__TIME_RANGE__INIT;
    Reelkv__V1__Count top_r = REELKV__V1__COUNT__INIT, tokens = REELKV__V1__COUNT__INIT;
    char *streams[] = { (char *)(uintptr_t)question->camera };

    range.from_ns = question->from_ns;
    range.to_ns = question->to_ns;
    top_r.value = question->top_r;
    tokens.value = question->max_tokens;
    request.namespace_ = (char *)(uintptr_t)(question->ns != NULL ? question->ns : "default");
    request.streams = streams;
    request.n_streams = question->camera != NULL;
    request.question = (char *)(uintptr_t)question->words;
    request.range = &range;
    request.top_r = question->top_r > 0 ? &top_r : NULL;
    request.max_tokens = question->max_tokens > 0 ? &tokens : NULL;
    request.layer_lists = true;
    return ask_open(stage->qa, &request);
}

void stage_ask(struct stage *stage, const struct question *question, struct asked *asked)
{
    uint64_t end_ns = clock_mono_ns() + WAIT_MS * 1000000ull;
    struct status st = { 0 };

    while (!ask_read(stage_ask_open(stage, question), asked, &st)) {
        if (clock_mono_ns() > end_ns)
            test_fail(__FILE__, __LINE__, "no answer about %s: %s", question->camera, st.text);
        test_pause_ms(50);
    }
    CHECK(asked->chosen_count[0] > 0);
}

uint32_t *stage_crcs(struct stage *stage, const char *name, uint64_t frames)
{
    return block_crcs(stage->store, name, model_geometry(stage->model), frames, NULL);
}

uint32_t *stage_undisturbed(struct stage *stage, const char *name, const char *film, uint64_t frames)
{
    add_camera(stage->store, name, film);
    wait_ended(stage->store, name, frames);
    return stage_crcs(stage, name, frames);
}

void stage_check_crcs(struct stage *stage, const char *name, const uint32_t *crcs, uint64_t frames)
{
    uint32_t *got = stage_crcs(stage, name, frames);

    CHECK_MEM(got, crcs, frames * model_geometry(stage->model)->layers * sizeof *crcs);
    free(got);
}

const char *stage_film(uint32_t frames)
{
    return video_make_numbered(&(struct video_numbered){
        .name = "film.mkv", .rate = "2", .count = frames, .width = 96, .height = 64, .more = "-c:v ffv1" });
}
