#include "support/video.h"

#include <stdlib.h>
#include <string.h>

#include "support/process.h"
#include "support/test.h"

enum { VIDEO_WORDS_MAX = 96, VIDEO_WORD_BYTES = 512 };

/* argv from words separated by spaces, '%' replaced by the test's folder. */
struct words {
    char text[VIDEO_WORDS_MAX][VIDEO_WORD_BYTES];
    const char *argv[VIDEO_WORDS_MAX + 1];
    uint32_t count;
};

static void words_add(struct words *words, const char *arguments)
{
    while (*arguments != '\0') {
        size_t len = strcspn(arguments, " ");
        const char *mark = memchr(arguments, '%', len);
        char *out = words->text[words->count];

        if (len > 0) {
            CHECK(words->count < VIDEO_WORDS_MAX);
            if (mark == NULL)
                snprintf(out, VIDEO_WORD_BYTES, "%.*s", (int)len, arguments);
            else
                snprintf(out, VIDEO_WORD_BYTES, "%.*s%s%.*s", (int)(mark - arguments), arguments,
                         test_folder(), (int)(len - (size_t)(mark - arguments) - 1), mark + 1);
            words->argv[words->count++] = out;
            words->argv[words->count] = NULL;
        }
        arguments += len + (arguments[len] == ' ');
    }
}

void video_ffmpeg(const char *arguments)
{
    static struct words words;
    struct process ffmpeg;

    words.count = 0;
    words_add(&words, "ffmpeg -nostdin -y -hide_banner -loglevel error");
    words_add(&words, arguments);
    if (process_run(&ffmpeg, "ffmpeg", words.argv, 30000) != 0)
        test_fail(__FILE__, __LINE__, "ffmpeg %s: %s", arguments, process_log(&ffmpeg));
}

/* A picture in YUV 4:2:0: [height, width], then two planes of a quarter that say "no colour". */
static void draw(uint8_t *picture, uint32_t width, uint32_t height, uint32_t number)
{
    size_t pixels = (size_t)width * height;

    for (size_t i = 0; i < pixels; i++) {
        uint32_t bit = (uint32_t)(i % width) * VIDEO_BITS / width;

        picture[i] = number >> bit & 1 ? 235 : 16;
    }
    memset(picture + pixels, 128, pixels / 2);
}

const char *video_make_numbered(const struct video_numbered *video)
{
    static char path[VIDEO_PATH_BYTES];
    char raw_path[VIDEO_PATH_BYTES], arguments[1024];
    size_t bytes = (size_t)video->width * video->height * 3 / 2;
    uint8_t *picture = malloc(bytes);
    FILE *raw;

    CHECK(video->width % 2 == 0 && video->height % 2 == 0 && picture != NULL);
    snprintf(raw_path, sizeof raw_path, "%s/numbered.yuv", test_folder());
    raw = fopen(raw_path, "wb");
    CHECK(raw != NULL);
    for (uint32_t i = 0; i < video->count; i++) {
        draw(picture, video->width, video->height, video->first + i);
        CHECK(fwrite(picture, 1, bytes, raw) == bytes);
    }
    CHECK(fclose(raw) == 0);
    free(picture);
    snprintf(
        arguments, sizeof arguments,
        "-f rawvideo -pix_fmt yuv420p -video_size %ux%u -framerate %s -i %%/numbered.yuv -c:v libx264 -preset "
        "ultrafast -crf 20 -g 25 %s %%/%s",
        video->width, video->height, video->rate, video->more, video->name);
    video_ffmpeg(arguments);
    remove(raw_path);
    snprintf(path, sizeof path, "%s/%s", test_folder(), video->name);
    return path;
}

uint32_t video_number(const uint8_t *rgb, uint32_t width, uint32_t height)
{
    uint32_t number = 0;

    for (uint32_t bit = 0; bit < VIDEO_BITS; bit++) {
        uint32_t x = (2 * bit + 1) * width / (2 * VIDEO_BITS);

        if (rgb[((size_t)(height / 2) * width + x) * 3] > 127)
            number |= 1u << bit;
    }
    return number;
}

uint32_t video_probe(const char *path, double *times, uint32_t limit)
{
    const char *argv[] = { "ffprobe",
                           "-v",
                           "error",
                           "-select_streams",
                           "v:0",
                           "-show_entries",
                           "frame=best_effort_timestamp_time",
                           "-of",
                           "csv=p=0",
                           path,
                           NULL };
    struct process ffprobe;
    uint32_t count = 0;

    CHECK_EQ(process_run(&ffprobe, "ffprobe", argv, 30000), 0);
    for (const char *at = process_log(&ffprobe); *at != '\0'; at += strcspn(at, "\n") + 1) {
        if (strchr("0123456789-", *at) == NULL)
            continue;
        if (count < limit)
            times[count] = strtod(at, NULL);
        count++;
        if (strchr(at, '\n') == NULL)
            break;
    }
    return count;
}
