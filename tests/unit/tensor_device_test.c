#include <pthread.h>
#include <stdlib.h>

#include "base/number.h"
#include "support/tensor_rig.h"

TEST(buffers_are_reached_by_copies_inside_their_bounds)
{
    RIG_EACH(rig)
    {
        struct tensor_buffer *buffer = NULL, *wrapped = NULL;
        char text[] = "0123456789", got[11] = { 0 };
        struct status st = { 0 };

        CHECK_OK(rig.ops->buffer_create(&buffer, rig.device, 10, &st), st);
        CHECK_OK(rig.ops->write(rig.queue, buffer, 0, text, 10, &st), st);
        CHECK_OK(rig.ops->write(rig.queue, buffer, 3, "abc", 3, &st), st);
        CHECK_OK(rig.ops->read(rig.queue, got, buffer, 0, 10, &st), st);
        CHECK_STR(got, "012abc6789");
        CHECK(!rig.ops->read(rig.queue, got, buffer, 8, 3, &st));
        CHECK_EQ(st.code, STATUS_INVALID);
        CHECK(!rig.ops->read(rig.queue, got, buffer, SIZE_MAX, 2, &st));
        CHECK(
            !(rig.ops->write(rig.queue, buffer, 10, text, 1, &st) && rig.ops->queue_finish(rig.queue, &st)));
        CHECK_OK(rig.ops->buffer_wrap(&wrapped, rig.device, text, 10, &st), st);
        CHECK_OK(rig.ops->read(rig.queue, got, wrapped, 4, 6, &st), st);
        CHECK_MEM(got, "456789", 6);
        CHECK(!rig.ops->write(rig.queue, wrapped, 0, text, 1, &st));
        CHECK_HAS(st.text, "read-only");
        rig.ops->buffer_destroy(buffer);
        rig.ops->buffer_destroy(wrapped);
        rig.ops->buffer_destroy(NULL);
    }
}

/* Nothing may be written through a view of wrapped memory. */
TEST(operations_do_not_write_wrapped_memory)
{
    RIG_EACH(rig)
    {
        static const float numbers[4] = { 1, 2, 3, 4 };
        struct tensor_buffer *wrapped = NULL;
        struct tensor a = rig_random(&rig, TENSOR_F32, 1, 4, 1), out;
        struct status st = { 0 };

        CHECK_OK(rig.ops->buffer_wrap(&wrapped, rig.device, numbers, sizeof numbers, &st), st);
        out = tensor_at(wrapped, 0, TENSOR_F32, 1, 4);
        if (rig.ops == &tensor_ops_cpu) { /* the stand-in's is a copy, which nobody can tell apart */
            CHECK(!rig.ops->add(rig.queue, out, a, a, &st));
            CHECK_HAS(st.text, "wrapped host memory");
        }
        CHECK_OK(rig.ops->add(rig.queue, a, a, out, &st), st);
        CHECK_OK(rig.ops->queue_finish(rig.queue, &st), st);
        rig.ops->buffer_destroy(wrapped);
    }
}

TEST(device_refuses_an_unknown_instruction_set)
{
    struct tensor_device *device = NULL;
    struct status st = { 0 };

    CHECK(!tensor_ops_cpu.device_open(&device, &(struct tensor_options){ 1, "avx1024" }, &st));
    CHECK_HAS(st.text, "instruction set \"avx1024\" is not one of");
    CHECK(device == NULL);
}

/* The environment can only lower what the option allows. */
TEST(device_takes_the_lower_of_option_and_environment)
{
    struct tensor_device *device = NULL;
    struct status st = { 0 };

    setenv("REELKV_TENSOR_ISA", "portable", 1);
    CHECK_OK(tensor_ops_cpu.device_open(&device, &(struct tensor_options){ 1, "avx2" }, &st), st);
    CHECK_STR(tensor_ops_cpu.numerics(device), "cpu portable");
    tensor_ops_cpu.device_close(device);
    setenv("REELKV_TENSOR_ISA", "avx512bf16", 1);
    CHECK_OK(tensor_ops_cpu.device_open(&device, &(struct tensor_options){ 1, "portable" }, &st), st);
    CHECK_STR(tensor_ops_cpu.numerics(device), "cpu portable");
    tensor_ops_cpu.device_close(device);
    unsetenv("REELKV_TENSOR_ISA");
}

/* Every f16 and bf16 survives the way to f32 and back; rounding is to the nearest, ties to even. */
TEST(numbers_convert_exactly_and_round_to_even)
{
    for (uint32_t bits = 0; bits < 65536; bits++) {
        float half = number_f32_of_f16((uint16_t)bits), brain = number_f32_of_bf16((uint16_t)bits);

        if (!isnan(half))
            CHECK_EQ(number_f16_of_f32(half), bits);
        else
            CHECK(isnan(number_f32_of_f16(number_f16_of_f32(half))));
        if (!isnan(brain))
            CHECK_EQ(number_bf16_of_f32(brain), bits);
        else
            CHECK(isnan(number_f32_of_bf16(number_bf16_of_f32(brain))));
    }
    CHECK_NEAR(number_f32_of_f16(0x3555), 0.333251953125, 0);
    CHECK_NEAR(number_f32_of_f16(0x0001), 0x1p-24, 0);
    CHECK_EQ(number_f16_of_f32(65504.0f), 0x7bff);
    CHECK_EQ(number_f16_of_f32(65519.9f), 0x7bff);
    CHECK_EQ(number_f16_of_f32(65520.0f), 0x7c00);
    CHECK_EQ(number_f16_of_f32(0x1p-25f), 0x0000); /* halfway between 0 and the smallest: to even */
    CHECK_EQ(number_f16_of_f32(0x1.8p-24f), 0x0002);
    CHECK_EQ(number_f16_of_f32(0x1.002p0f), 0x3c00);
    CHECK_EQ(number_f16_of_f32(0x1.006p0f), 0x3c02);
    CHECK_EQ(number_bf16_of_f32(0x1.01p0f), 0x3f80);
    CHECK_EQ(number_bf16_of_f32(0x1.03p0f), 0x3f82);
    CHECK_EQ(number_bf16_of_f32(3.4e38f), 0x7f80); /* past the largest bf16 */
}

enum { SUBMITTERS = 4, ROUNDS = 60 };

struct submitter {
    const struct rig *rig;
    uint64_t seed;
    bool ok;
};

/* One thread's work on a queue of its own: a sum it can check. */
static void *submit(void *argument)
{
    struct submitter *me = argument;
    const struct tensor_ops *ops = me->rig->ops;
    enum { ROWS = 300, COLS = 64 };
    float *a = malloc(ROWS * COLS * sizeof *a), *got = malloc(ROWS * COLS * sizeof *got);
    struct tensor_queue *queue = NULL;
    struct tensor_buffer *buffer = NULL;
    struct tensor view;

    rig_numbers(a, ROWS * COLS, me->seed);
    me->ok = ops->queue_create(&queue, me->rig->device, NULL) &&
             ops->buffer_create(&buffer, me->rig->device, ROWS * COLS * sizeof *a, NULL) &&
             ops->write(queue, buffer, 0, a, ROWS * COLS * sizeof *a, NULL);
    view = tensor_at(buffer, 0, TENSOR_F32, ROWS, COLS);
    for (int round = 0; round < ROUNDS && me->ok; round++)
        me->ok = ops->add(queue, view, view, view, NULL);
    me->ok = me->ok && ops->read(queue, got, buffer, 0, ROWS * COLS * sizeof *a, NULL);
    for (size_t i = 0; i < ROWS * COLS && me->ok; i++)
        me->ok = got[i] == ldexpf(a[i], ROUNDS);
    ops->queue_destroy(queue);
    ops->buffer_destroy(buffer);
    free(a);
    free(got);
    return NULL;
}

/* Several threads submit at once; each gets its own results. */
TEST(threads_share_a_device_in_turns)
{
    RIG_EACH(rig)
    {
        struct submitter submitters[SUBMITTERS];
        pthread_t threads[SUBMITTERS];

        for (uint64_t i = 0; i < SUBMITTERS; i++) {
            submitters[i] = (struct submitter){ .rig = &rig, .seed = i };
            CHECK_EQ(pthread_create(&threads[i], NULL, submit, &submitters[i]), 0);
        }
        for (int i = 0; i < SUBMITTERS; i++)
            pthread_join(threads[i], NULL);
        for (int i = 0; i < SUBMITTERS; i++)
            CHECK(submitters[i].ok);
    }
}

TEST_MAIN()
