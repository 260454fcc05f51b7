/* Runs a target on every file of its corpus, in the order of their names, and tells how many there were.
 *   fuzz_NAME_replay FOLDER          fails when the folder has no file
 *   fuzz_NAME_replay --seed FOLDER   writes the target's seeds there */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "fuzz.h"

enum { INPUT_BYTES_MAX = 1 << 20 };

static const char *folder;

static void write_seed(const char *name, const void *data, size_t len)
{
    char path[4096];
    struct status st;

    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (!file_write_through(path, data, len, &st)) {
        fprintf(stderr, "%s\n", st.text);
        exit(EXIT_FAILURE);
    }
}

/* A copy of exactly this length: what is read behind it, the sanitizer sees. */
static void replay(const struct file_text *text)
{
    uint8_t *copy = malloc(text->len + (text->len == 0));

    REQUIRE(copy != NULL);
    memcpy(copy, text->data, text->len);
    LLVMFuzzerTestOneInput(copy, text->len);
    free(copy);
}

static bool replay_all(struct status *st)
{
    struct file_names names;
    bool ok = file_list_on(&file_system, folder, &names, st);

    for (uint32_t i = 0; ok && i < names.count; i++) {
        struct file_text text;
        char path[4096];

        snprintf(path, sizeof path, "%s/%s", folder, names.list[i]);
        ok = file_read_all(path, INPUT_BYTES_MAX, &text, st);
        if (!ok)
            break;
        printf("%s\n", names.list[i]);
        replay(&text);
        free(text.data);
    }
    if (ok && names.count == 0)
        ok = status_fail(st, STATUS_NOT_FOUND, "%s has no file", folder);
    file_names_free(&names);
    return ok;
}

int main(int argc, char **argv)
{
    bool seeds = argc == 3 && strcmp(argv[1], "--seed") == 0;
    struct status st;

    if (argc != 2 && !seeds)
        return fprintf(stderr, "usage: %s [--seed] FOLDER\n", argv[0]), 2;
    folder = argv[argc - 1];
    setvbuf(stdout, NULL, _IOLBF, 0); /* a crash comes behind the name of its file */
    if (seeds)
        fuzz_seeds(write_seed);
    else if (!replay_all(&st))
        return fprintf(stderr, "%s\n", st.text), EXIT_FAILURE;
    return EXIT_SUCCESS;
}
