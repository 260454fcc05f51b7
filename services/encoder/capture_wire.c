#include "encoder/capture_wire.h"

#include <stdio.h>
#include <string.h>

#include "base/name.h"
#include "base/require.h"
#include "media/media_source.h"

static const uint32_t magic = 0x31434b52; /* "RKC1" */
enum { WIRE_VERSION = 1 };

/* Which fields a kind uses. */
enum { SLOT = 1, SEQ = 2, TO_SEQ = 4, PTS = 8, TO_PTS = 16, SIZE = 32, CODE = 64, TEXT = 128 };
static const unsigned used_fields[] = {
    [CAPTURE_OPENED] = SEQ | SIZE | TEXT,
    [CAPTURE_FRAME] = SLOT | SEQ | PTS | SIZE,
    [CAPTURE_GAP] = SEQ | TO_SEQ | PTS | TO_PTS | TEXT,
    [CAPTURE_TROUBLE] = CODE | TEXT,
    [CAPTURE_END] = SEQ | TEXT,
    [CAPTURE_FAILED] = CODE | TEXT,
    [CAPTURE_RELEASE] = SLOT,
};

/* Length of the text's longest start that is UTF-8 and fits. */
static size_t clean_len(const char *text)
{
    size_t len = strnlen(text, CAPTURE_TEXT_BYTES);

    while (len > 0 && !utf8_is_valid(text, len))
        len--;
    return len;
}

size_t capture_message_write(const struct capture_message *message, uint8_t out[CAPTURE_MESSAGE_BYTES])
{
    size_t len = clean_len(message->text);

    put_u32(out, magic);
    put_u16(out + 4, WIRE_VERSION);
    put_u16(out + 6, (uint16_t)message->kind);
    put_u32(out + 8, (uint32_t)(CAPTURE_HEAD_BYTES + len));
    put_u32(out + 12, message->slot);
    put_u64(out + 16, message->seq);
    put_u64(out + 24, message->to_seq);
    put_u64(out + 32, (uint64_t)message->pts_ns);
    put_u64(out + 40, (uint64_t)message->to_pts_ns);
    put_u32(out + 48, message->width);
    put_u32(out + 52, message->height);
    put_u32(out + 56, (uint32_t)message->code);
    put_u32(out + 60, 0);
    memcpy(out + CAPTURE_HEAD_BYTES, message->text, len);
    return CAPTURE_HEAD_BYTES + len;
}

static bool unused_are_zero(const struct capture_message *m, size_t text_len)
{
    unsigned used = used_fields[m->kind];

    return ((used & SLOT) || m->slot == 0) && ((used & SEQ) || m->seq == 0) &&
           ((used & TO_SEQ) || m->to_seq == 0) && ((used & PTS) || m->pts_ns == 0) &&
           ((used & TO_PTS) || m->to_pts_ns == 0) && ((used & SIZE) || (m->width == 0 && m->height == 0)) &&
           ((used & CODE) || m->code == 0) && ((used & TEXT) || text_len == 0);
}

bool capture_message_read(struct bytes packet, struct capture_message *message, struct status *st)
{
    const uint8_t *in = packet.data;
    const char *text = (const char *)in + CAPTURE_HEAD_BYTES;
    size_t text_len = packet.len - CAPTURE_HEAD_BYTES;

    if (packet.len < CAPTURE_HEAD_BYTES || packet.len > CAPTURE_MESSAGE_BYTES)
        return status_fail(st, STATUS_INVALID, "a packet of %zu bytes", packet.len);
    if (get_u32(in) != magic || get_u16(in + 4) != WIRE_VERSION)
        return status_fail(st, STATUS_INVALID, "a packet of another protocol or version (%08x, %u)",
                           get_u32(in), get_u16(in + 4));
    if (get_u32(in + 8) != packet.len || get_u32(in + 60) != 0)
        return status_fail(st, STATUS_INVALID, "a packet of %zu bytes that says %u", packet.len,
                           get_u32(in + 8));
    if (get_u16(in + 6) < CAPTURE_OPENED || get_u16(in + 6) > CAPTURE_RELEASE)
        return status_fail(st, STATUS_INVALID, "a packet of unknown kind %u", get_u16(in + 6));
    message->kind = (enum capture_kind)get_u16(in + 6);
    message->slot = get_u32(in + 12);
    message->seq = get_u64(in + 16);
    message->to_seq = get_u64(in + 24);
    message->pts_ns = (int64_t)get_u64(in + 32);
    message->to_pts_ns = (int64_t)get_u64(in + 40);
    message->width = get_u32(in + 48);
    message->height = get_u32(in + 52);
    message->code = (enum status_code)get_u32(in + 56);
    if (!unused_are_zero(message, text_len) || get_u32(in + 56) > STATUS_UNAUTHENTICATED)
        return status_fail(st, STATUS_INVALID, "a packet of kind %d with fields it does not have",
                           message->kind);
    if (!utf8_is_valid(text, text_len))
        return status_fail(st, STATUS_INVALID, "a packet of kind %d with text that is not UTF-8",
                           message->kind);
    memcpy(message->text, text, text_len);
    message->text[text_len] = '\0';
    return true;
}

void capture_session_init(struct capture_session *session, const struct capture_job *job)
{
    REQUIRE(job->slots >= 1 && job->slots <= CAPTURE_SLOTS_MAX);
    *session = (struct capture_session){
        .slots = job->slots,
        .slot_bytes = job->slot_bytes,
        .live = job->live,
        .next_seq = job->from_seq,
    };
}

void capture_session_release(struct capture_session *session, uint32_t slot)
{
    REQUIRE(slot < session->slots && (session->held >> slot & 1) != 0);
    session->held &= ~(1u << slot);
}

static bool accept_frame(struct capture_session *session, const struct capture_message *m,
                         const struct capture_limits *limits, struct status *st)
{
    if (m->slot >= session->slots || (session->held >> m->slot & 1) != 0)
        return status_fail(st, STATUS_INVALID, "a frame in slot %u, which is not free", m->slot);
    if (m->width == 0 || m->height == 0 || m->width > MEDIA_SIDE_MAX || m->height > MEDIA_SIDE_MAX ||
        (uint64_t)m->width * m->height * 3 > session->slot_bytes)
        return status_fail(st, STATUS_INVALID, "a frame of %u x %u, which no slot can hold", m->width,
                           m->height);
    if (m->seq != session->next_seq || m->seq >= limits->seq_limit)
        return status_fail(st, STATUS_INVALID, "frame %llu where %llu comes next", (unsigned long long)m->seq,
                           (unsigned long long)session->next_seq);
    if ((session->any_pts && m->pts_ns <= session->last_pts_ns) || m->pts_ns > limits->pts_limit_ns)
        return status_fail(st, STATUS_INVALID, "frame %llu at a time that goes back or has not come",
                           (unsigned long long)m->seq);
    session->held |= 1u << m->slot;
    session->next_seq = m->seq + 1;
    session->any_pts = true;
    session->last_pts_ns = m->pts_ns;
    return true;
}

static bool accept_gap(struct capture_session *session, const struct capture_message *m,
                       const struct capture_limits *limits, struct status *st)
{
    if (!session->live)
        return status_fail(st, STATUS_INVALID, "a gap in a file");
    if (m->seq != session->next_seq || m->to_seq <= m->seq || m->to_seq > limits->seq_limit)
        return status_fail(st, STATUS_INVALID, "a gap from %llu to %llu where %llu comes next",
                           (unsigned long long)m->seq, (unsigned long long)m->to_seq,
                           (unsigned long long)session->next_seq);
    if (m->to_pts_ns < m->pts_ns || m->to_pts_ns > limits->pts_limit_ns)
        return status_fail(st, STATUS_INVALID, "a gap at a time that goes back or has not come");
    session->next_seq = m->to_seq;
    return true;
}

bool capture_session_accept(struct capture_session *session, struct bytes packet,
                            const struct capture_limits *limits, struct capture_message *m, struct status *st)
{
    if (!capture_message_read(packet, m, st))
        return false;
    if (session->over)
        return status_fail(st, STATUS_INVALID, "a packet after the end");
    switch (m->kind) {
    case CAPTURE_OPENED:
        if (session->opened && !session->live)
            return status_fail(st, STATUS_INVALID, "a file that opens twice");
        session->opened = true;
        return true;
    case CAPTURE_FRAME:
        if (!session->opened)
            return status_fail(st, STATUS_INVALID, "a frame before its source was opened");
        return accept_frame(session, m, limits, st);
    case CAPTURE_GAP:
        return accept_gap(session, m, limits, st);
    case CAPTURE_TROUBLE:
        return session->live || status_fail(st, STATUS_INVALID, "trouble that goes on, in a file");
    case CAPTURE_END:
        session->over = true;
        if (session->live || !session->opened || m->seq > session->next_seq)
            return status_fail(st, STATUS_INVALID, "an end after %llu frames where %llu were sent",
                               (unsigned long long)m->seq, (unsigned long long)session->next_seq);
        return true;
    case CAPTURE_FAILED:
        session->over = true;
        return m->code != STATUS_OK || status_fail(st, STATUS_INVALID, "a failure that says it is none");
    case CAPTURE_RELEASE:
        break;
    }
    return status_fail(st, STATUS_INVALID, "a packet that only the encoder sends");
}
