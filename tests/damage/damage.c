/* Damages the files of a store in every way that a disk may, and asks for all that is in them through the store's RPCs.
 *
 *   damage [--seed N] [--samples N] [--part live|start|small]
 *
 * A sample is one damage to one file. In `live` rounds the store has the files open: most of all frames are damaged at once,
 * one of the calls is asked for every frame, and each must be served as it was written, or, exactly when bytes that this call
 * reads were changed, be said to be quarantined, counted, and left out of what is scored. In `start` rounds the store is
 * closed; files are damaged, footers, superblocks and growing files of a killed store included; the store is opened and asked:
 * it must say in its log which files do not fit, keep what is sound, and give no number twice. So do `small` rounds with the
 * cameras' small files.
 * Then the files are put back. A failure names seed and round. */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "damage_ask.h"
#include "damage_files.h"
#include "damage_small.h"
#include "damage_start.h"

/* Of the samples one in so many is seen by a start, and of these one in so many is of a small file. */
enum { START_SHARE = 10, SMALL_SHARE = 5 };

/* Who sees a sample: the askers, then these. */
enum { SEEN_AT_START = ASKER_COUNT, SEEN_SMALL, SEEN_COUNT };

static struct {
    uint64_t seed, round;
    const char *part;
} now;

_Noreturn void damage_fail(const char *format, ...)
{
    va_list args;

    printf("seed %llu, %s round %llu: ", (unsigned long long)now.seed, now.part,
           (unsigned long long)now.round);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
    fflush(stdout);
    _exit(EXIT_FAILURE);
}

/* --- frames on the disk --- */

struct frame_place {
    struct damage_file *file;
    const struct damage_record *record;
    uint32_t stream, at; /* the at-th frame of the stream */
    bool is_used;
    enum damage_kind kind;
};

struct live {
    struct frame_place places[DAMAGE_STREAMS * DAMAGE_FRAMES_MAX];
    uint32_t count;
};

static void find_places(struct live *live, struct damage_files *files)
{
    uint32_t frames[DAMAGE_STREAMS] = { 0 };

    live->count = 0;
    for (uint32_t i = 0; i < files->count; i++)
        for (uint32_t n = 0; n < files->list[i].record_count; n++) {
            struct damage_file *file = &files->list[i];

            if (file->records[n].header.type == KV_RECORD_FRAME)
                live->places[live->count++] = (struct frame_place){ .file = file,
                                                                    .record = &file->records[n],
                                                                    .stream = file->stream,
                                                                    .at = frames[file->stream]++ };
        }
}

/* What a call reads of a record: at most two ranges of it. */
struct ranges {
    uint64_t from[2], to[2];
};

static struct ranges read_by(enum asker asker, const struct damage_record *record)
{
    const struct kv_layout *layout = &record->layout;
    uint64_t at = record->offset, slices = at + layout->slices, end = at + layout->record_bytes;
    struct ranges ranges = { { slices, at }, { end, at } };

    if (asker == ASK_WINDOW)
        return (struct ranges){ { at, at }, { end, at } };
    if (asker == ASK_FETCH && record->header.thumbnail_bytes > 0)
        ranges.to[1] = at + layout->embedding;
    return ranges;
}

static bool is_changed(enum asker asker, const struct frame_place *place)
{
    struct ranges ranges = read_by(asker, place->record);

    return files_differ(place->file, ranges.from[0], ranges.to[0]) ||
           (ranges.from[1] < ranges.to[1] && files_differ(place->file, ranges.from[1], ranges.to[1]));
}

/* --- live rounds --- */

struct tally {
    uint64_t samples[KIND_COUNT][SEEN_COUNT];
    uint64_t rounds[3], frames_served, harmless;
};

static void shuffle(struct live *live, struct sim_random *random)
{
    for (uint32_t i = live->count; i > 1; i--) {
        uint32_t at = sim_pick(random, i);
        struct frame_place place = live->places[at];

        live->places[at] = live->places[i - 1];
        live->places[i - 1] = place;
    }
}

static enum damage_kind pick_kind(struct sim_random *random)
{
    return sim_chance(random, 1) ? KIND_TRUNCATED : (enum damage_kind)sim_pick(random, KIND_TRUNCATED);
}

static void damage_frame(struct live *live, uint32_t index, enum asker asker, struct sim_random *random)
{
    struct frame_place *place = &live->places[index], *other = &live->places[sim_pick(random, live->count)];
    struct ranges ranges = read_by(asker, place->record);
    uint32_t part = ranges.from[1] < ranges.to[1] && sim_chance(random, 40);
    const struct damage_place at = { place->file, ranges.from[part], ranges.to[part] };
    const struct damage_place from = { other->file, other->record->offset,
                                       other->record->offset + other->record->layout.record_bytes };
    enum damage_kind kind = pick_kind(random);

    if (place->is_used || (kind == KIND_SWAPPED && (other->is_used || other == place)))
        return;
    place->is_used = files_damage(kind, &at, &from, random);
    place->kind = kind;
    if (kind == KIND_SWAPPED && place->is_used) {
        other->is_used = true;
        other->kind = KIND_COUNT;
    }
}

static void judge_live(const struct live *live, enum asker asker, const struct asked *asked,
                       struct tally *tally)
{
    for (uint32_t i = 0; i < live->count; i++) {
        const struct frame_place *place = &live->places[i];
        enum said said = asked->said[place->stream][place->at];
        bool changed = is_changed(asker, place);

        if (changed ? said != SAID_QUARANTINED
                    : said != SAID_RIGHT && (asker != ASK_WINDOW || said != SAID_NOTHING))
            damage_fail("%s of frame %u of stream %u, record at %llu of %s, %s (%s): answered %d",
                        asker_words[asker], place->at, place->stream,
                        (unsigned long long)place->record->offset, place->file->path,
                        changed ? "damaged" : "not damaged",
                        place->is_used && place->kind < KIND_COUNT ? damage_kind_words[place->kind]
                                                                   : "by none",
                        said);
        tally->frames_served += said == SAID_RIGHT;
        if (place->is_used && place->kind < KIND_COUNT && changed)
            tally->samples[place->kind][asker]++;
    }
}

struct counted {
    uint64_t frames;
};

static void count_quarantined(struct host *host, void *arg)
{
    ((struct counted *)arg)->frames = host->kvstore.store->quarantined_frames;
}

/* What was found is counted, and told alike by the calls that read no block. */
static void check_others(struct host *host, struct client *client, const struct live *live,
                         const struct asked *asked, uint32_t stream)
{
    enum said said[DAMAGE_FRAMES_MAX] = { SAID_NOTHING };
    struct counted counted;
    uint64_t found = 0;

    for (uint32_t i = 0; i < live->count; i++)
        found += asked->said[live->places[i].stream][live->places[i].at] == SAID_QUARANTINED;
    host_do(host, count_quarantined, &counted);
    if (counted.frames != found)
        damage_fail("%llu frames are counted as quarantined, %llu were found",
                    (unsigned long long)counted.frames, (unsigned long long)found);
    client_timeline(client, stream, said);
    for (uint32_t i = 0; i < live->count; i++) {
        const struct frame_place *place = &live->places[i];

        if (place->stream == stream &&
            (said[place->at] == SAID_QUARANTINED) != (asked->said[stream][place->at] == SAID_QUARANTINED))
            damage_fail("Timeline: frame %u of stream %u: %d", place->at, stream, said[place->at]);
    }
    client_score(client, stream, said);
}

static void live_round(struct host *host, struct client *client, struct damage_files *files,
                       struct live *live, struct sim_random *random, struct tally *tally)
{
    enum asker asker = (enum asker)(tally->rounds[0]++ % ASKER_COUNT);
    struct asked asked;

    for (uint32_t i = 0; i < live->count; i++)
        live->places[i].is_used = false;
    shuffle(live, random);
    for (uint32_t i = 0; i < live->count * 3 / 4; i++)
        damage_frame(live, i, asker, random);
    files_write_damage(files);
    client_ask(client, asker, &asked);
    judge_live(live, asker, &asked, tally);
    check_others(host, client, live, &asked, sim_pick(random, DAMAGE_STREAMS));
    files_restore(files);
    host_do(host, host_forget, NULL);
}

/* --- the program --- */

static uint64_t total_of(const struct tally *tally, uint32_t from, uint32_t end)
{
    uint64_t total = 0;

    for (uint32_t kind = 0; kind < KIND_COUNT; kind++)
        for (uint32_t i = from; i < end; i++)
            total += tally->samples[kind][i];
    return total;
}

static void print(const struct tally *tally, double seconds)
{
    printf("%-32s %10s %10s %10s %10s %10s\n", "found, of as many sampled", "Fetch", "Retrieve", "LoadWindow",
           "at start", "small");
    for (uint32_t kind = 0; kind < KIND_COUNT; kind++) {
        printf("%-32s", damage_kind_words[kind]);
        for (uint32_t i = 0; i < SEEN_COUNT; i++)
            printf(" %10llu", (unsigned long long)tally->samples[kind][i]);
        printf("\n");
    }
    printf(
        "%llu damages, all found, in %llu rounds and %llu starts; %llu frames served right beside them; %llu damages to "
        "what carries nothing did no harm; %.0f s\n",
        (unsigned long long)total_of(tally, 0, SEEN_COUNT), (unsigned long long)tally->rounds[0],
        (unsigned long long)(tally->rounds[1] + tally->rounds[2]), (unsigned long long)tally->frames_served,
        (unsigned long long)tally->harmless, seconds);
}

struct run {
    uint64_t samples;
    bool live, start, small;
    char root[512];
    int log;
};

/* The older store's files are what stands in a file that is written again, or was not. */
static void write_stores(struct host *host, const char *root, struct damage_files *older,
                         struct damage_files *files)
{
    struct status st;
    uint32_t age = 0;

    host_do(host, host_open, NULL);
    host_do(host, host_write, &age);
    files_read(older, root, NULL);
    host_do(host, host_close, NULL);
    if (!file_remove_tree(root, &st))
        damage_fail("%s", st.text);
    age = 1;
    host_do(host, host_open, NULL);
    host_do(host, host_write, &age);
    files_read(files, root, older);
}

static void small_rounds(const struct run *run, struct host *host, struct sim_random *random,
                         uint64_t samples, struct tally *tally)
{
    static struct small_files files;

    small_files_read(&files, run->root);
    now.part = "small";
    for (now.round = 0; total_of(tally, SEEN_SMALL, SEEN_COUNT) < samples; now.round++) {
        struct small_round round = { .host = host, .files = &files, .log = run->log, .random = random };

        small_round(&round);
        for (uint32_t kind = 0; kind < KIND_COUNT; kind++)
            tally->samples[kind][SEEN_SMALL] += round.samples[kind];
        tally->rounds[2]++;
    }
    small_files_free(&files);
}

static void run_all(const struct run *run, struct tally *tally)
{
    static struct damage_files older, files;
    static struct host host;
    static struct live live;
    uint64_t live_samples = run->start ? run->samples - run->samples / START_SHARE : run->samples;
    uint64_t small_samples = !run->small  ? 0
                             : run->start ? run->samples / START_SHARE / SMALL_SHARE
                                          : run->samples;
    struct sim_random random = { now.seed };
    struct client *client;

    host_start(&host, run->root);
    write_stores(&host, run->root, &older, &files);
    client = client_create(&host);
    host_do(&host, host_forget, NULL);
    find_places(&live, &files);
    now.part = "live";
    for (now.round = 0; run->live && total_of(tally, 0, ASKER_COUNT) < live_samples; now.round++) {
        live_round(&host, client, &files, &live, &random, tally);
        if (ftruncate(run->log, 0) != 0)
            damage_fail("the log cannot be emptied");
    }
    host_do(&host, host_close, NULL);
    small_rounds(run, &host, &random, small_samples, tally);
    files_put(&files, false);
    now.part = "start";
    for (now.round = 0; run->start && total_of(tally, 0, SEEN_COUNT) < run->samples; now.round++) {
        struct start_round round = {
            .host = &host, .client = client, .files = &files, .log = run->log, .random = &random
        };

        start_round(&round, &tally->harmless);
        for (uint32_t kind = 0; kind < KIND_COUNT; kind++)
            tally->samples[kind][SEEN_AT_START] += round.samples[kind];
        tally->rounds[1]++;
        tally->frames_served += round.frames_served;
    }
    client_destroy(client);
    host_stop(&host);
    files_free(&files);
    files_free(&older);
}

static bool read_arguments(struct run *run, int argc, char **argv)
{
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 == argc)
            return false;
        if (strcmp(argv[i], "--seed") == 0)
            now.seed = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--samples") == 0)
            run->samples = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--part") == 0)
            run->live = strcmp(argv[i + 1], "live") == 0, run->start = strcmp(argv[i + 1], "start") == 0,
            run->small = strcmp(argv[i + 1], "small") == 0;
        else
            return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    struct run run = { .samples = 20000, .live = true, .start = true, .small = true };
    static struct tally tally;
    const char *base = getenv("TMPDIR");
    uint64_t from = clock_mono_ns();
    char folder[256], path[512];

    if (!read_arguments(&run, argc, argv))
        return fprintf(stderr, "usage: %s [--seed N] [--samples N] [--part live|start|small]\n", argv[0]), 2;
    snprintf(folder, sizeof folder, "%s/reelkv-damage-XXXXXX", base != NULL ? base : "/tmp");
    if (mkdtemp(folder) == NULL)
        return perror("a folder for the store"), EXIT_FAILURE;
    snprintf(run.root, sizeof run.root, "%s/data", folder);
    snprintf(path, sizeof path, "%s/log", folder);
    run.log = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (run.log < 0 || dup2(run.log, STDERR_FILENO) < 0)
        return perror("a file for the log"), EXIT_FAILURE;
    printf("seed %llu, %llu samples; stderr goes to %s, which stays after a failure\n",
           (unsigned long long)now.seed, (unsigned long long)run.samples, path);
    fflush(stdout);
    log_init("kvstore", LOG_INFO);
    run_all(&run, &tally);
    file_remove_tree(folder, NULL);
    print(&tally, (double)(clock_mono_ns() - from) / 1e9);
    return EXIT_SUCCESS;
}
