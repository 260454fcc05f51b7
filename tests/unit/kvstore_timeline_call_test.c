/* A timeline tells of each number once what became of it, in order, whatever page or range is asked for. */
#include "kvstore_patchwork.h"

static struct calls calls;

struct span {
    uint64_t from_seq, to_seq;
    Reelkv__V1__FrameResult result;
    const char *reason;
};

#define RESULT(name) REELKV__V1__FRAME_RESULT__FRAME_RESULT_##name

static const struct span patchwork[] = {
    { 0, 6, RESULT(DERIVED), "8 bit" },
    { 6, 12, RESULT(DERIVED), "4 bit" },
    { 12, 18, RESULT(EVICTED), "keys and thumbnail are left" },
    { 18, 19, RESULT(OK), "" },
    { 19, 20, RESULT(EVICTED), "thinned" },
    { 20, 21, RESULT(OK), "" },
    { 21, 22, RESULT(EVICTED), "thinned" },
    { 22, 23, RESULT(OK), "" },
    { 23, 24, RESULT(EVICTED), "thinned" },
    { 24, 25, RESULT(OK), "" },
    { 25, 28, RESULT(EVICTED), "forgotten" },
    { 28, 36, RESULT(OK), "" },
    { 36, 38, RESULT(GAP), "away" },
    { 38, 44, RESULT(QUARANTINED), "" },
    { 44, 50, RESULT(OK), "" },
};

static const Reelkv__V1__TimelineReply *ask(const Reelkv__V1__TimelineRequest *request)
{
    CALLS_OK(&calls, timeline, request);
    CHECK_EQ(said.count, 1);
    return (const Reelkv__V1__TimelineReply *)said.replies[0];
}

static void check_span(const Reelkv__V1__TimelineSpan *got, const struct span *want)
{
    CHECK_EQ(got->from_seq, want->from_seq);
    CHECK_EQ(got->to_seq, want->to_seq);
    CHECK_EQ(got->result, want->result);
    CHECK_STR(got->reason, want->reason);
    CHECK(got->from_pts_ns <= got->to_pts_ns);
}

TEST(timeline_tells_what_became_of_each_number)
{
    Reelkv__V1__TimelineRequest request = REELKV__V1__TIMELINE_REQUEST__INIT;
    const Reelkv__V1__TimelineReply *reply;

    calls_start(&calls);
    calls_messages();
    patch_make(&calls);
    request.id = &calls_id;
    for (unsigned i = 0; i < 2; i++) {
        request.page_size = i == 0 ? 0 : UINT32_MAX; /* 1,000; 10,000 */
        reply = ask(&request);
        CHECK_EQ(reply->n_spans, ARRAY_LEN(patchwork));
        CHECK_EQ(reply->next_seq, 0);
        for (size_t n = 0; n < ARRAY_LEN(patchwork); n++)
            check_span(reply->spans[n], &patchwork[n]);
    }
    request.page_size = 1;
    for (size_t n = 0; n < ARRAY_LEN(patchwork); n++) { /* page by page it is the same */
        reply = ask(&request);
        CHECK_EQ(reply->n_spans, 1);
        check_span(reply->spans[0], &patchwork[n]);
        CHECK_EQ(reply->next_seq, n + 1 < ARRAY_LEN(patchwork) ? patchwork[n].to_seq : 0);
        request.after_seq = reply->next_seq;
    }
    calls_close_store(&calls);
}

TEST(timeline_of_a_range_has_what_overlaps_it)
{
    Reelkv__V1__TimelineRequest request = REELKV__V1__TIMELINE_REQUEST__INIT;
    const Reelkv__V1__TimelineReply *reply;

    calls_start(&calls);
    calls_messages();
    patch_make(&calls);
    request.id = &calls_id;
    request.range = &calls_range;
    calls_range.from_ns = fixture_pts(26);
    reply = ask(&request); /* to the end */
    CHECK_EQ(reply->n_spans, 5);
    CHECK_EQ(reply->spans[0]->from_seq, 25); /* one span, of which a part is in it */
    calls_range.from_ns = fixture_pts(12) + 1;
    calls_range.to_ns = fixture_pts(18);
    reply = ask(&request);
    CHECK_EQ(reply->n_spans, 1);
    CHECK_EQ(reply->spans[0]->from_seq, 13);
    CHECK_EQ(reply->spans[0]->to_seq, 18);
    calls_range.to_ns = calls_range.from_ns + 1;
    CHECK_EQ(ask(&request)->n_spans, 0);
    calls_close_store(&calls);
}

/* One is quarantined when its bytes were found wrong, and stays so in the next answer. */
TEST(timeline_tells_a_block_that_was_found_damaged)
{
    Reelkv__V1__TimelineRequest request = REELKV__V1__TIMELINE_REQUEST__INIT;
    const Reelkv__V1__TimelineReply *reply;
    struct file_text file;
    struct stream *stream;
    char path[PATH_MAX + 8];

    calls_start(&calls);
    calls_messages();
    stream = fixture_define(&calls.fixture, "cam-1");
    patch_write(&calls.fixture, stream, true);
    stream = patch_restart(&calls);
    snprintf(path, sizeof path, "%s.seg", stream->segments[0]->base);
    CHECK_OK(file_read_all(path, 64 << 20, &file, &calls.fixture.st), calls.fixture.st);
    file.data[stream_find(stream, 2)->offset + 6000] ^= 1;
    CHECK_OK(file_write_durable(path, file.data, file.len, &calls.fixture.st), calls.fixture.st);
    free(file.data);
    for (uint32_t layer = 0; layer < fixture_geometry.layers; layer++)
        fixture_read_layer(&calls.fixture, stream, 2, layer);
    request.id = &calls_id;
    reply = ask(&request);
    CHECK(reply->n_spans >= 4);
    CHECK_EQ(reply->spans[reply->n_spans - 1]->result, RESULT(GAP));
    CHECK_STR(reply->spans[reply->n_spans - 1]->reason, "away");
    for (size_t n = 0; n < reply->n_spans; n++)
        CHECK_EQ(reply->spans[n]->result == RESULT(QUARANTINED), reply->spans[n]->from_seq == 2);
    calls_close_store(&calls);
}

TEST_MAIN()
