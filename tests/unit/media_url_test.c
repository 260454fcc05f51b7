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

/* Each was kept, and what FFmpeg said of it later was that this is not a video. */
TEST(addresses_that_name_no_place_are_refused)
{
    static const struct {
        const char *source, *says;
    } rows[] = {
        { "http://h:99999/x", "port must be a number from 1 to 65535" },
        { "http://h:0/x", "port must be" },
        { "rtsp://h:/x", "port must be" },
        { "rtsp://h:554a", "port must be" },
        { "http://[::1/x", "closing bracket" },
        { "http://[::1]8/x", "port must be" },
        { "http://fe80::1/x", "in brackets" },
        { "rtsp://:554/", "names no host" },
        { "rtsp://user:word@/x", "names no host" },
        { "rtsps://", "names no host" },
        { "rtsp://user:geheim#x@h/x", "# %23" },
    };
    static const char *const good[] = {
        "http://[::1]:8080/x", "rtsp://user:a@b@h:554/x?y=z@w", "udp://@:5000",
        "rtp://:5000",         "srt://:9000?mode=listener",     "http://h?x=1:2",
        "rtsp://h/a@b:c"
    };
    struct status st = { 0 };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        CHECK(!media_url_check(rows[i].source, &st));
        CHECK_EQ(st.code, STATUS_INVALID);
        CHECK_HAS(st.text, rows[i].says);
        CHECK(strstr(st.text, "geheim") == NULL);
    }
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        CHECK_OK(media_url_check(good[i], &st), st);
}

/* A scheme is the same in any case; FFmpeg knows only the lower one. */
TEST(a_scheme_may_be_written_in_any_case)
{
    char url[] = "RTsp://Host/Path", path[] = "/A:B";
    struct status st = { 0 };

    CHECK_OK(media_url_check(url, &st), st);
    CHECK(media_url_is_live(url));
    media_url_lower_scheme(url);
    CHECK_STR(url, "rtsp://Host/Path");
    media_url_lower_scheme(path);
    CHECK_STR(path, "/A:B");
}

TEST_MAIN()
