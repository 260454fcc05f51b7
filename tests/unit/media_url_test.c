/* Which addresses are taken, and for what: a live source's losses are gaps, a file's loss is its end. */
#include "media/media_url.h"
#include "support/test.h"

/* tls:// was read, and taken for a file: its first loss ended the camera. */
TEST(every_kind_of_url_is_a_file_or_live)
{
    static const struct {
        const char *source;
        bool is_live;
    } rows[] = {
        { "rtsp://h/x", true },
        { "rtsps://h/x", true },
        { "rtmp://h/x", true },
        { "rtmps://h/x", true },
        { "http://h/x.mp4", false },
        { "https://h/x.mp4", false },
        { "udp://:5000", true },
        { "tcp://h:5000", true },
        { "tls://h:5000", true },
        { "rtp://h:5000", true },
        { "srt://h:5000", true },
        { "https://h/x.m3u8", true },
        { "https://h/x.m3u8?token=1", true },
        { "https://h/x.m3u8.mp4", false },
        { "/videos/x.mp4", false },
        { "/videos/x.m3u8", false },
    };
    struct status st = { 0 };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        CHECK_OK(media_url_check(rows[i].source, &st), st);
        CHECK_EQ(media_url_is_live(rows[i].source), rows[i].is_live);
    }
#define COUNT(scheme, live) +1
    CHECK_EQ(ARRAY_LEN(rows), (MEDIA_URL_SCHEMES(COUNT)) + 5);
#undef COUNT
}

TEST(other_kinds_are_refused_and_nothing_of_them_is_said)
{
    struct status st = { 0 };

    CHECK(!media_url_check("gopher://user:geheim@h/x", &st));
    CHECK_EQ(st.code, STATUS_INVALID);
    CHECK_HAS(st.text, "tcp://, tls://, rtp://");
    CHECK(strstr(st.text, "geheim") == NULL);
}

TEST_MAIN()
