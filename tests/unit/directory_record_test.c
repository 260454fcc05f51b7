/* What the directory says is read back as written, and nothing else is believed: Redis' content is untrusted.
 */
#include "redis/directory_record.h"

#include "support/test.h"

static struct bytes of(const char *text)
{
    return (struct bytes){ (const uint8_t *)text, strlen(text) };
}

TEST(worker_record_survives_its_text_form)
{
    struct worker_record in = { .kind = WORKER_QA,
                                .pid = 7,
                                .started_ms = 5,
                                .seen_ms = 6,
                                .streams = 2,
                                .capacity = 4,
                                .has_model = true,
                                .fingerprint = { 1, 0xab },
                                .draining = true };
    struct worker_record out;
    struct status st = { 0 };
    char text[DIRECTORY_RECORD_BYTES];

    snprintf(in.name, sizeof in.name, "qa-0");
    snprintf(in.address, sizeof in.address, "unix:/run/qa.sock");
    worker_record_write(&in, text);
    CHECK_OK(worker_record_read(WORKER_QA, of("qa-0"), of(text), &out, &st), st);
    CHECK_STR(out.name, "qa-0");
    CHECK_STR(out.address, in.address);
    CHECK_EQ(out.capacity, 4);
    CHECK(out.draining && out.has_model);
    CHECK_MEM(out.fingerprint, in.fingerprint, sizeof in.fingerprint);
}

TEST(stream_record_survives_its_text_form)
{
    struct stream_record in = { .phase = STREAM_ENDED, .seen_ms = 9 }, out;
    struct status st = { 0 };
    char text[DIRECTORY_RECORD_BYTES];

    snprintf(in.store, sizeof in.store, "kvstore-1");
    stream_record_write(&in, text);
    CHECK_OK(stream_record_read(of("default/dock-2"), of(text), &out, &st), st);
    CHECK_STR(out.ns, "default");
    CHECK_STR(out.name, "dock-2");
    CHECK_STR(out.store, "kvstore-1");
    CHECK_EQ(out.phase, STREAM_ENDED);
}

TEST(records_that_lie_are_refused_with_the_field)
{
    static const char good[] = "{\"store\":\"s\",\"phase\":1,\"seen_ms\":1}";
    static const struct {
        const char *key, *text, *words;
    } bad[] = {
        { "default-dock", good, "no '/'" },
        { "default/../x", good, "stream name" },
        { "/dock", good, "namespace name" },
        { "default/dock", "{\"store\":\"s\",\"phase\":9,\"seen_ms\":1}", "phase 9" },
        { "default/dock", "{\"store\":\"S/../\",\"phase\":1,\"seen_ms\":1}", "store name" },
        { "default/dock", "{\"phase\":1,\"seen_ms\":1}", "'store' is missing" },
        { "default/dock", "[]", "'store' is missing" },
        { "default/dock", "{\"store\":", "malformed JSON" },
    };
    struct stream_record out;
    struct worker_record worker;
    struct status st = { 0 };
    char long_text[DIRECTORY_RECORD_BYTES + 1];

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        CHECK(!stream_record_read(of(bad[i].key), of(bad[i].text), &out, &st));
        CHECK_HAS(st.text, bad[i].words);
    }
    memset(long_text, ' ', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = '\0';
    CHECK(!worker_record_read(WORKER_QA, of("qa"), of(long_text), &worker, &st));
    CHECK_HAS(st.text, "1024 bytes");
}

/* Taking one of four workers away moves only the keys it had. */
TEST(rendezvous_moves_only_what_a_lost_worker_had)
{
    const char *const names[] = { "a", "b", "c", "d" };
    uint32_t share[4] = { 0 };

    for (int i = 0; i < 4000; i++) {
        char key[32];
        uint32_t all, without_d;

        snprintf(key, sizeof key, "default/cam-%d", i);
        all = rendezvous_pick(key, names, 4);
        without_d = rendezvous_pick(key, names, 3);
        share[all]++;
        CHECK(all == 3 || all == without_d);
    }
    for (int i = 0; i < 4; i++)
        CHECK(share[i] > 800 && share[i] < 1200);
}

TEST_MAIN()
