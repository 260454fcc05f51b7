/* What an encoder believes of a capture child: every field of every kind, what may follow what, and that no bytes
 * at all are accepted that break those rules. */
#include <stdlib.h>

#include "encoder/capture_wire.h"
#include "support/test.h"

static const struct capture_job job = {
    .source = "rtsp://u:p@h/s",
    .live = true,
    .sample_fps = 0.5,
    .origin_ns = 1700000000000000000,
    .from_seq = 10,
    .slots = 3,
    .slot_bytes = 1 << 20,
    .open_timeout_ms = 5000,
    .stall_timeout_ms = 6000,
};
static const struct capture_limits open_limits = { UINT64_MAX, INT64_MAX };

static struct capture_session session_of(bool live, bool opened)
{
    struct capture_job of = job;
    struct capture_session session;

    of.live = live;
    capture_session_init(&session, &of);
    session.opened = opened;
    return session;
}

static bool say(struct capture_session *session, const struct capture_message *message, struct status *st)
{
    uint8_t packet[CAPTURE_MESSAGE_BYTES];
    size_t len = capture_message_write(message, packet);
    struct capture_message heard;

    return capture_session_accept(session, (struct bytes){ packet, len }, &open_limits, &heard, st);
}

TEST(messages_come_back_as_they_were_sent)
{
    const struct capture_message sent = { .kind = CAPTURE_GAP,
                                          .seq = 1ull << 40,
                                          .to_seq = (1ull << 40) + 7,
                                          .pts_ns = -5,
                                          .to_pts_ns = INT64_MAX,
                                          .text = "caf\xc3\xa9 is closed" };
    uint8_t packet[CAPTURE_MESSAGE_BYTES];
    struct capture_message heard;
    struct status st = { 0 };
    size_t len = capture_message_write(&sent, packet);

    CHECK_EQ(len, CAPTURE_HEAD_BYTES + 15);
    CHECK_OK(capture_message_read((struct bytes){ packet, len }, &heard, &st), st);
    CHECK_EQ(heard.kind, CAPTURE_GAP);
    CHECK_EQ(heard.seq, sent.seq);
    CHECK_EQ(heard.to_seq, sent.to_seq);
    CHECK_EQ(heard.pts_ns, -5);
    CHECK_EQ(heard.to_pts_ns, INT64_MAX);
    CHECK_STR(heard.text, sent.text);
}

TEST(text_that_is_not_utf8_is_cut_before_it)
{
    struct capture_message message = { .kind = CAPTURE_FAILED,
                                       .code = STATUS_INVALID,
                                       .text = "ok \xff rest" };
    uint8_t packet[CAPTURE_MESSAGE_BYTES];

    CHECK_EQ(capture_message_write(&message, packet), CAPTURE_HEAD_BYTES + 3);
}

TEST(jobs_come_back_as_they_were_given)
{
    struct capture_job heard;
    struct status st = { 0 };
    char *text = capture_job_write(&job);

    CHECK_OK(capture_job_read((struct bytes){ (uint8_t *)text, strlen(text) }, &heard, &st), st);
    CHECK_STR(heard.source, job.source);
    CHECK(heard.live && heard.sample_fps == 0.5 && heard.origin_ns == job.origin_ns);
    CHECK(heard.from_seq == 10 && heard.slots == 3 && heard.slot_bytes == job.slot_bytes);
    CHECK(heard.open_timeout_ms == 5000 && heard.stall_timeout_ms == 6000);
    free(text);
}

TEST(jobs_out_of_range_are_refused)
{
    struct capture_job bad[7];
    struct capture_job heard;
    struct status st = { 0 };

    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        bad[i] = job;
    bad[0].sample_fps = 0;
    bad[1].sample_fps = 61;
    bad[2].slots = 0;
    bad[3].slots = CAPTURE_SLOTS_MAX + 1;
    bad[4].slot_bytes = 1ull << 40;
    bad[5].stall_timeout_ms = 0;
    bad[6].origin_ns = INT64_MAX;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char *text = capture_job_write(&bad[i]);

        CHECK(!capture_job_read((struct bytes){ (uint8_t *)text, strlen(text) }, &heard, &st));
        CHECK_EQ(st.code, STATUS_INVALID);
        free(text);
    }
    CHECK(!capture_job_read((struct bytes){ (const uint8_t *)"{}", 2 }, &heard, &st));
    CHECK_HAS(st.text, "'source' is missing");
}

/* One wrong thing at a time, in a session that is open, stands at 10 and has slot 1 held. */
TEST(a_child_that_breaks_a_rule_is_found_out)
{
    static const struct capture_message frame = {
        .kind = CAPTURE_FRAME, .seq = 10, .pts_ns = 100, .width = 64, .height = 48
    };
    static const struct {
        struct capture_message message;
        const char *why;
    } rows[] = {
        { { .kind = CAPTURE_FRAME, .seq = 11, .width = 8, .height = 8, .pts_ns = 100 },
          "where 10 comes next" },
        { { .kind = CAPTURE_FRAME, .seq = 9, .width = 8, .height = 8, .pts_ns = 100 },
          "where 10 comes next" },
        { { .kind = CAPTURE_FRAME, .seq = 10, .slot = 1, .width = 8, .height = 8, .pts_ns = 100 },
          "not free" },
        { { .kind = CAPTURE_FRAME, .seq = 10, .slot = 3, .width = 8, .height = 8, .pts_ns = 100 },
          "not free" },
        { { .kind = CAPTURE_FRAME, .seq = 10, .slot = 4000000000, .width = 8, .height = 8 }, "not free" },
        { { .kind = CAPTURE_FRAME, .seq = 10, .width = 0, .height = 8, .pts_ns = 100 }, "no slot can hold" },
        { { .kind = CAPTURE_FRAME, .seq = 10, .width = 1024, .height = 1024, .pts_ns = 100 },
          "no slot can hold" },
        { { .kind = CAPTURE_FRAME, .seq = 10, .width = 9000, .height = 8, .pts_ns = 100 },
          "no slot can hold" }, /* it could, but nothing that decodes here gives it */
        { { .kind = CAPTURE_FRAME, .seq = 10, .width = 1u << 31, .height = 1u << 31 }, "no slot can hold" },
        { { .kind = CAPTURE_FRAME, .seq = 10, .width = 8, .height = 8, .pts_ns = 99 }, "goes back" },
        { { .kind = CAPTURE_FRAME, .seq = 10, .to_seq = 1, .width = 8, .height = 8 }, "does not have" },
        { { .kind = CAPTURE_FRAME, .seq = 10, .width = 8, .height = 8, .text = "x" }, "does not have" },
        { { .kind = CAPTURE_GAP, .seq = 10, .to_seq = 10 }, "where 10 comes next" },
        { { .kind = CAPTURE_GAP, .seq = 12, .to_seq = 14 }, "where 10 comes next" },
        { { .kind = CAPTURE_GAP, .seq = 10, .to_seq = 14, .pts_ns = 5, .to_pts_ns = 4 }, "goes back" },
        { { .kind = CAPTURE_END, .seq = 10 }, "an end" },
        { { .kind = CAPTURE_FAILED }, "says it is none" },
        { { .kind = CAPTURE_FAILED, .code = 99 }, "does not have" },
        { { .kind = CAPTURE_RELEASE, .slot = 1 }, "only the encoder sends" },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct capture_session session = session_of(true, true);
        struct status st = { 0 };

        session.held = 2;
        session.any_pts = true;
        session.last_pts_ns = 99;
        CHECK(!say(&session, &rows[i].message, &st));
        CHECK_HAS(st.text, rows[i].why);
        session.over = false;
        CHECK_OK(say(&session, &frame, &st), st); /* the right one is still taken */
        CHECK_EQ(session.next_seq, 11);
        CHECK(!say(&session, &frame, &st));
    }
}

TEST(order_and_kind_of_source_are_held_to)
{
    struct capture_message frame = { .kind = CAPTURE_FRAME, .seq = 10, .pts_ns = 1, .width = 8, .height = 8 };
    struct capture_message opened = { .kind = CAPTURE_OPENED, .seq = 100, .text = "h264" };
    struct capture_message gap = { .kind = CAPTURE_GAP, .seq = 10, .to_seq = 12 };
    struct capture_message trouble = { .kind = CAPTURE_TROUBLE, .code = STATUS_UNAVAILABLE, .text = "lost" };
    struct capture_message end = { .kind = CAPTURE_END, .seq = 11 };
    struct capture_session session = session_of(false, false);
    struct status st = { 0 };

    CHECK(!say(&session, &frame, &st));
    CHECK_HAS(st.text, "before its source was opened");
    CHECK(!say(&session, &gap, &st));
    CHECK(!say(&session, &trouble, &st));
    CHECK_OK(say(&session, &opened, &st), st);
    CHECK(!say(&session, &opened, &st));
    CHECK_OK(say(&session, &frame, &st), st);
    CHECK_OK(say(&session, &end, &st), st);
    CHECK(!say(&session, &end, &st));
    CHECK_HAS(st.text, "after the end");
    session = session_of(true, false);
    CHECK_OK(say(&session, &gap, &st), st); /* never reached, and the time passes */
    CHECK_OK(say(&session, &trouble, &st), st);
    CHECK_OK(say(&session, &opened, &st), st);
    CHECK_OK(say(&session, &opened, &st), st);
}

/* A live child cannot claim what lies ahead: one such gap would use up the stream's numbers for ever. */
TEST(the_future_is_refused)
{
    const struct capture_limits limits = { .seq_limit = 100, .pts_limit_ns = 1000 };
    const struct capture_message rows[] = {
        { .kind = CAPTURE_GAP, .seq = 10, .to_seq = 101 },
        { .kind = CAPTURE_GAP, .seq = 10, .to_seq = UINT64_MAX },
        { .kind = CAPTURE_GAP, .seq = 10, .to_seq = 11, .to_pts_ns = 1001 },
        { .kind = CAPTURE_FRAME, .seq = 10, .width = 8, .height = 8, .pts_ns = 1001 },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct capture_session session = session_of(true, true);
        uint8_t packet[CAPTURE_MESSAGE_BYTES];
        struct capture_message heard;

        size_t len = capture_message_write(&rows[i], packet);
        CHECK(!capture_session_accept(&session, (struct bytes){ packet, len }, &limits, &heard, NULL));
        CHECK_EQ(session.next_seq, 10);
    }
}

TEST(packets_cut_short_or_too_long_are_refused)
{
    const struct capture_message message = { .kind = CAPTURE_TROUBLE,
                                             .code = STATUS_UNAVAILABLE,
                                             .text = "lost" };
    uint8_t packet[CAPTURE_MESSAGE_BYTES + 1] = { 0 };
    struct capture_message heard;
    size_t len = capture_message_write(&message, packet);

    for (size_t cut = 0; cut <= sizeof packet; cut++)
        CHECK_EQ(capture_message_read((struct bytes){ packet, cut }, &heard, NULL), cut == len);
}

/* Real messages with bits flipped and bytes replaced, a million of them: whatever is accepted keeps the session's
 * own facts true. */
TEST(no_bytes_break_a_session)
{
    static const enum capture_kind kinds[] = { CAPTURE_OPENED,  CAPTURE_FRAME, CAPTURE_GAP,
                                               CAPTURE_TROUBLE, CAPTURE_END,   CAPTURE_FAILED };
    struct capture_session session = session_of(true, false);
    uint64_t state = 88172645463325252ull;
    uint32_t accepted = 0;

    for (uint32_t round = 0; round < 1000000; round++) {
        struct capture_message m = { .kind = kinds[round % ARRAY_LEN(kinds)] }, heard;
        uint8_t packet[CAPTURE_MESSAGE_BYTES];
        struct capture_session before = session;
        size_t len;

        m.seq = m.kind == CAPTURE_FRAME || m.kind == CAPTURE_GAP ? session.next_seq : 0;
        m.to_seq = m.kind == CAPTURE_GAP ? session.next_seq + 3 : 0;
        m.pts_ns = m.kind == CAPTURE_FRAME ? session.last_pts_ns + 1 : 0;
        m.width = m.height = m.kind == CAPTURE_FRAME ? 64 : 0;
        len = capture_message_write(&m, packet);
        for (int flips = (int)(state % 4); flips > 0; flips--) {
            state ^= state << 13, state ^= state >> 7, state ^= state << 17;
            packet[state % len] = state & 1 << 20 ? (uint8_t)(state >> 32)
                                                  : packet[state % len] ^ (uint8_t)(1 << (state >> 40) % 8);
        }
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        if (!capture_session_accept(&session, (struct bytes){ packet, len }, &open_limits, &heard, NULL)) {
            session = before; /* the encoder would end this child; go on as another */
            continue;
        }
        accepted++;
        CHECK(session.next_seq >= before.next_seq);
        CHECK((session.held & ~7u) == 0 && strlen(heard.text) <= CAPTURE_TEXT_BYTES);
        if (heard.kind == CAPTURE_FRAME) {
            CHECK((uint64_t)heard.width * heard.height * 3 <= job.slot_bytes);
            CHECK_EQ(session.next_seq, before.next_seq + 1);
            capture_session_release(&session, heard.slot);
        }
        if (session.over || session.next_seq > 1ull << 60)
            session = session_of(true, true);
    }
    CHECK(accepted > 10000);
}

TEST_MAIN()
