/* What was exported answers elsewhere as it did here: the same words, the same evidence, the same frames in every layer. */
#include "stage.h"
#include "support/process.h"

enum { FRAMES = 40, VERB_MS = 120000 };

static void run(const char *const *argv)
{
    static unsigned count;
    struct process verb = { 0 };
    char name[32];

    snprintf(name, sizeof name, "verb-%u", count++);
    if (process_run(&verb, name, argv, VERB_MS) != 0)
        test_fail(__FILE__, __LINE__, "%s %s: %s", argv[1], argv[2], process_log(&verb));
}

static void check_same(const struct asked *left, const struct asked *right, uint32_t layers)
{
    CHECK(left->id_count > 0 && left->evidence_count > 0);
    CHECK_EQ(left->id_count, right->id_count);
    CHECK_MEM(left->ids, right->ids, left->id_count * sizeof left->ids[0]);
    CHECK_EQ(left->evidence_count, right->evidence_count);
    for (size_t i = 0; i < left->evidence_count; i++) {
        CHECK_EQ(left->evidence[i].seq, right->evidence[i].seq);
        CHECK_EQ(left->evidence[i].pts_ns, right->evidence[i].pts_ns);
    }
    for (uint32_t layer = 0; layer < layers; layer++) {
        CHECK_EQ(left->chosen_count[layer], right->chosen_count[layer]);
        CHECK_MEM(left->chosen[layer], right->chosen[layer],
                  left->chosen_count[layer] * sizeof left->chosen[layer][0]);
    }
}

/* Asked of another tenant under another name; also with a range, and after the store was killed. */
TEST(the_same_question_has_the_same_answer_elsewhere)
{
    static const struct {
        const char *words;
        int64_t from_ns, to_ns; /* after the film's start; 0: all */
    } questions[] = { { "what is there?", 0, 0 }, { "what moves, and where?", 4000000000, 15000000000 } };
    static struct asked here[ARRAY_LEN(questions)], there;
    const int64_t start_ns = 1767225600000000000;
    char path[400], redis[400];
    struct stage stage = { 0 };

    stage_open(&stage);
    add_camera(stage.store, "dock", stage_film(FRAMES));
    wait_ended(stage.store, "dock", FRAMES);
    snprintf(path, sizeof path, "%s/dock.kvexport", test_folder());
    snprintf(redis, sizeof redis, "%s", redis_address());
    run(PROCESS_ARGS("reelkv", "mem", "export", "dock", "--output", path, "--redis", redis));
    run(PROCESS_ARGS("reelkv", "mem", "import", path, "--as", "copy", "--namespace", "elsewhere", "--redis",
                     redis));
    for (unsigned round = 0; round < 2; round++) {
        for (size_t i = 0; i < ARRAY_LEN(questions); i++) {
            struct question question = {
                .camera = "dock", .words = questions[i].words, .top_r = 3, .max_tokens = 8
            };

            if (questions[i].to_ns > 0) {
                question.from_ns = start_ns + questions[i].from_ns;
                question.to_ns = start_ns + questions[i].to_ns;
            }
            if (round == 0)
                stage_ask(&stage, &question, &here[i]);
            question.ns = "elsewhere";
            question.camera = "copy";
            stage_ask(&stage, &question, &there);
            check_same(&here[i], &there, model_geometry(stage.model)->layers);
        }
        if (round == 0) {
            stage_kill(&stage, STAGE_KVSTORE);
            stage_start(&stage, STAGE_KVSTORE);
        }
    }
    stage_close(&stage);
}

TEST_MAIN()
