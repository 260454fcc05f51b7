/* What GetServerInfo says of memory. */
#define FIXTURE_HEAD_DIM 128 /* keys that have sketches */
#include "kvstore_patchwork.h"

enum { FRAMES = 30 };

static struct calls calls;

static const Reelkv__V1__ServerInfo *ask_info(void)
{
    Reelkv__V1__GetServerInfoRequest request = REELKV__V1__GET_SERVER_INFO_REQUEST__INIT;

    CALLS_OK(&calls, get_server_info, &request);
    return (const Reelkv__V1__ServerInfo *)said.replies[0];
}

static void score_layer(float *query, uint32_t dims)
{
    Reelkv__V1__ScoreRequest request = REELKV__V1__SCORE_REQUEST__INIT;

    request.view = &calls_view;
    request.selection = &calls_selection;
    request.query = (ProtobufCBinaryData){ dims * sizeof *query, (uint8_t *)query };
    CALLS_OK(&calls, score, &request);
    CHECK_EQ(((const Reelkv__V1__ScoreReply *)said.replies[0])->scored, FRAMES);
}

/* They were part of the memory in use, and nobody could tell how much. */
TEST(server_info_tells_what_sketches_take)
{
    static float query[2 * FIXTURE_HEAD_DIM];
    const struct index_memory *memory;
    const Reelkv__V1__ServerInfo *info;
    struct fixture_writer writer;
    struct stream *stream;
    uint64_t before;

    calls_start(&calls);
    calls_messages();
    memory = &calls.fixture.store->index_memory;
    stream = fixture_write(&calls.fixture, "cam-1", &writer, FRAMES);
    fixture_wait_durable(&calls.fixture, stream);
    stream_detach(stream, &writer.base);
    fixture_wait_sealed(&calls.fixture, stream); /* its last chunk gets no more frames */
    info = ask_info();
    CHECK_EQ(info->sketch_bytes, 0);
    before = info->ram_used_bytes;
    score_layer(query, ARRAY_LEN(query));
    FIXTURE_TURN_UNTIL(&calls.fixture, memory->sketch_bytes > 0 && !calls.fixture.store->sketches.is_running);
    info = ask_info();
    CHECK_EQ(info->sketch_bytes, memory->sketch_bytes);
    CHECK(info->ram_used_bytes >= before + info->sketch_bytes);
    calls_close_store(&calls);
}

TEST_MAIN()
