/* Pictures of many streams through a vision tower that is made up here. */
#include <stdatomic.h>
#include <stdlib.h>

#include "encoder/batch.h"
#include "support/test.h"

enum { TOKENS = 2, HIDDEN = 3, ITEMS = 4, BAD_WIDTH = 13, SIDE = 16 };

static uint32_t most_together;

/* The linker turns every malloc() of this program into __wrap_malloc(). */
static atomic_bool thumbnails_are_refused;

void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes)
{
    static _Thread_local size_t bytes_before;
    bool is_thumbnail = bytes_before == TOKENS * HIDDEN * sizeof(float); /* it comes behind the embeddings */

    bytes_before = bytes;
    return is_thumbnail && thumbnails_are_refused ? NULL : __real_malloc(bytes);
}

static bool encode(void *arg, const struct model_picture *pictures, uint32_t count, float *out,
                   struct status *st)
{
    most_together = count > most_together ? count : most_together;
    for (uint32_t i = 0; i < count; i++) {
        if (pictures[i].width == BAD_WIDTH)
            return status_fail(st, STATUS_INVALID, "a picture of %u pixels", BAD_WIDTH);
        for (uint32_t k = 0; k < TOKENS * HIDDEN; k++)
            out[i * TOKENS * HIDDEN + k] = (float)pictures[i].width;
    }
    return true;
}

static bool compress(void *arg, float *embeddings, uint32_t *tokens_p, struct status *st)
{
    return true;
}

struct picture {
    struct batch_item item;
    struct status failure;
    uint32_t *left;
};

static void done(struct batch_item *item, const struct status *failure)
{
    struct picture *picture = container_of(item, struct picture, item);

    if (failure != NULL)
        picture->failure = *failure;
    --*picture->left;
}

/* The first picture starts a batch of its own; the others wait for it and go together, a bad one among them. */
TEST(a_picture_that_cannot_be_encoded_fails_alone)
{
    static const uint8_t rgb[SIDE * SIDE * 3];
    const struct vision vision = {
        .frame_tokens = TOKENS, .hidden = HIDDEN, .encode = encode, .compress = compress
    };
    struct picture pictures[ITEMS];
    struct batch *batch = NULL;
    struct loop *loop = NULL;
    uint32_t left = ITEMS;
    struct status st = { 0 };

    memset(pictures, 0, sizeof pictures);
    CHECK_OK(loop_create(&loop, &st), st);
    CHECK_OK(batch_create(&batch, loop, &vision, 8, &st), st);
    for (uint32_t i = 0; i < ITEMS; i++) {
        pictures[i].left = &left;
        pictures[i].item.done = done;
        pictures[i].item.picture = (struct model_picture){ rgb, SIDE, i == 2 ? BAD_WIDTH : i + 1 };
        batch_offer(batch, &pictures[i].item);
    }
    while (left > 0)
        loop_run_once(loop);
    CHECK_EQ(most_together, ITEMS - 1);
    CHECK_EQ(batch_totals(batch).frames, ITEMS - 1);
    for (uint32_t i = 0; i < ITEMS; i++) {
        CHECK_EQ(pictures[i].failure.code, i == 2 ? STATUS_INVALID : STATUS_OK);
        CHECK((pictures[i].item.embeddings == NULL) == (i == 2));
        if (i != 2)
            CHECK_EQ(pictures[i].item.embeddings[TOKENS * HIDDEN - 1], i + 1);
        free(pictures[i].item.embeddings);
        free(pictures[i].item.thumbnail);
    }
    batch_destroy(batch);
    loop_destroy(loop);
}

/* A frame that is encoded again after memory was short lost its first embeddings for good. */
TEST(a_picture_that_fails_for_memory_holds_nothing_and_may_come_again)
{
    static const uint8_t rgb[SIDE * SIDE * 3];
    const struct vision vision = {
        .frame_tokens = TOKENS, .hidden = HIDDEN, .encode = encode, .compress = compress
    };
    uint32_t left = 1;
    struct picture picture = { .left = &left };
    struct batch *batch = NULL;
    struct loop *loop = NULL;
    struct status st = { 0 };

    CHECK_OK(loop_create(&loop, &st), st);
    CHECK_OK(batch_create(&batch, loop, &vision, 8, &st), st);
    picture.item.done = done;
    picture.item.picture = (struct model_picture){ rgb, SIDE, SIDE };
    thumbnails_are_refused = true;
    batch_offer(batch, &picture.item);
    while (left > 0)
        loop_run_once(loop);
    CHECK_EQ(picture.failure.code, STATUS_EXHAUSTED);
    CHECK(picture.item.embeddings == NULL && picture.item.thumbnail == NULL);
    thumbnails_are_refused = false;
    left = 1;
    batch_offer(batch, &picture.item);
    while (left > 0)
        loop_run_once(loop);
    CHECK(picture.item.embeddings != NULL && picture.item.thumbnail != NULL);
    free(picture.item.embeddings);
    free(picture.item.thumbnail);
    batch_destroy(batch);
    loop_destroy(loop);
}

TEST_MAIN()
