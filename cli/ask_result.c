#include "ask_result.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/require.h"
#include "cli_output.h"

enum { PATH_BYTES = 4096, SHOWN_FRAMES = 8 };

void ask_result_init(struct ask_result *result)
{
    memset(result, 0, sizeof *result);
    result->answer_parts = json_make_array();
    result->evidence = json_make_array();
    result->notes = json_make_array();
    result->layers = json_make_array();
    result->usage = json_make_object();
    result->timings = json_make_object();
}

void ask_result_deinit(struct ask_result *result)
{
    json_free(result->answer_parts);
    json_free(result->evidence);
    json_free(result->notes);
    json_free(result->layers);
    json_free(result->usage);
    json_free(result->timings);
    memset(result, 0, sizeof *result);
}

static void print_safe(const char *text)
{
    char *copy = strdup(text);

    REQUIRE(copy != NULL);
    fputs(cli_make_safe(copy), stdout);
    fflush(stdout);
    free(copy);
}

static bool write_thumbnail(const struct ask_result *result, const char *camera,
                            const Reelkv__V1__EvidenceFrame *frame, char path[PATH_BYTES], struct status *st)
{
    if (snprintf(path, PATH_BYTES, "%s/%s-%06llu.jpg", result->thumbnails, camera,
                 (unsigned long long)frame->seq) >= PATH_BYTES)
        return status_fail(st, STATUS_INVALID, "the path of the thumbnails is too long");
    return file_write_through(path, frame->thumbnail.data, frame->thumbnail.len, st) ||
           status_wrap(st, "thumbnail");
}

static const char *camera_of(const struct ask_result *result, uint32_t index)
{
    return index < result->camera_count ? result->cameras[index] : NULL;
}

static bool take_frame(struct ask_result *result, const Reelkv__V1__EvidenceFrame *frame, struct status *st)
{
    const char *camera = camera_of(result, frame->stream);
    struct json *row;
    char path[PATH_BYTES] = "";

    if (camera == NULL)
        return status_fail(st, STATUS_INTERNAL, "qa names a camera nobody asked about");
    if (result->thumbnails != NULL && frame->thumbnail.len > 0 &&
        !write_thumbnail(result, camera, frame, path, st))
        return false;
    row = json_make_object();
    json_set_str(row, "cam", camera);
    json_set_u64(row, "seq", frame->seq);
    json_set_str(row, "pts", cli_rfc3339(frame->pts_ns));
    json_set_i64(row, "pts_ns", frame->pts_ns);
    json_set_u64(row, "layers", frame->layers);
    json_set_f64(row, "mean_rank", frame->mean_rank);
    json_set_f64(row, "score", frame->score);
    json_set_str(row, "thumbnail", path[0] != '\0' ? path : NULL);
    json_append(result->evidence, row);
    return true;
}

static bool take_layer(struct ask_result *result, const Reelkv__V1__LayerChoice *choice, struct status *st)
{
    struct json *layer = json_make_object(), *hits = json_make_array();
    bool ok = true;

    for (size_t i = 0; i < choice->n_hits; i++) {
        const Reelkv__V1__Hit *hit = choice->hits[i];
        const char *camera = hit->frame != NULL ? camera_of(result, hit->frame->stream) : NULL;
        struct json *row = json_make_object();

        ok = ok && camera != NULL;
        json_set_str(row, "cam", camera);
        json_set_u64(row, "seq", hit->frame != NULL ? hit->frame->seq : 0);
        json_set_str(row, "pts", cli_rfc3339(hit->pts_ns));
        json_set_i64(row, "pts_ns", hit->pts_ns);
        json_set_f64(row, "score", hit->score);
        json_set_u64(row, "tokens", hit->tokens);
        json_set_bool(row, "recent", hit->recent);
        json_append(hits, row);
    }
    json_set_u64(layer, "layer", choice->layer);
    json_set(layer, "hits", hits);
    json_append(result->layers, layer);
    return ok || status_fail(st, STATUS_INTERNAL, "qa names a camera nobody asked about");
}

static bool take_evidence(struct ask_result *result, const Reelkv__V1__Evidence *evidence, struct status *st)
{
    result->has_evidence = true;
    for (size_t i = 0; i < evidence->n_frames; i++)
        if (!take_frame(result, evidence->frames[i], st))
            return false;
    for (size_t i = 0; i < evidence->n_layers; i++)
        if (!take_layer(result, evidence->layers[i], st))
            return false;
    for (size_t i = 0; i < evidence->n_notes; i++)
        json_append_str(result->notes, evidence->notes[i]);
    json_set_u64(result->usage, "frames_in_view", evidence->frames_in_view);
    json_set_u64(result->usage, "frames_evicted", evidence->evicted_frames);
    json_set_u64(result->usage, "frames_gap", evidence->gap_frames);
    json_set_u64(result->usage, "frames_damaged", evidence->damaged_frames);
    return true;
}

static const char *stop_words(Reelkv__V1__StopReason stop)
{
    switch (stop) {
    case REELKV__V1__STOP_REASON__STOP_REASON_EOS:
        return "end";
    case REELKV__V1__STOP_REASON__STOP_REASON_LENGTH:
        return "length";
    default:
        return "unknown";
    }
}

static void take_end(struct ask_result *result, const Reelkv__V1__AnswerEnd *end)
{
    struct json *ids = json_make_array();

    for (size_t i = 0; i < end->n_answer_ids; i++)
        json_append_u64(ids, end->answer_ids[i]);
    json_set_u64(result->usage, "question_tokens", end->question_tokens);
    json_set_u64(result->usage, "context_tokens", end->context_tokens);
    json_set_u64(result->usage, "answer_tokens", end->answer_tokens);
    json_set(result->usage, "answer_ids", ids);
    json_set_str(result->usage, "stop", stop_words(end->stop));
    json_set_u64(result->usage, "fetched_bytes", end->fetched_bytes);
    json_set_f64(result->timings, "retrieve_ms", end->retrieve_ms);
    json_set_f64(result->timings, "prefill_ms", end->prefill_ms);
    json_set_f64(result->timings, "decode_ms", end->decode_ms);
    json_set_f64(result->timings, "total_ms", end->total_ms);
    result->has_end = true;
}

bool ask_result_take(struct ask_result *result, const Reelkv__V1__AskReply *reply, struct status *st)
{
    switch (reply->item_case) {
    case REELKV__V1__ASK_REPLY__ITEM_EVIDENCE:
        return take_evidence(result, reply->evidence, st);
    case REELKV__V1__ASK_REPLY__ITEM_ANSWER:
        json_append_str(result->answer_parts, reply->answer->text);
        if (result->prints_text)
            print_safe(reply->answer->text);
        return true;
    case REELKV__V1__ASK_REPLY__ITEM_END:
        take_end(result, reply->end);
        return true;
    default:
        return true; /* a newer qa says something this program does not know */
    }
}

static const char *text_of(const struct json *object, const char *key)
{
    const char *text = json_str(json_get(object, key));

    return text != NULL ? text : "";
}

void ask_result_print(const struct ask_result *result)
{
    static const char *const titles[] = { "CAMERA",     "TIME",   ">FRAME", ">LAYERS",
                                          ">MEAN RANK", ">SCORE", "PICTURE" };
    size_t columns = ARRAY_LEN(titles) - (result->thumbnails == NULL), count = json_len(result->evidence);
    struct cli_table *table;

    printf("\n");
    if (count > 0) {
        table = cli_table_create(titles, columns);
        for (size_t i = 0; i < count && i < SHOWN_FRAMES; i++) {
            const struct json *row = json_at(result->evidence, i);

            cli_table_cell(table, "%s", text_of(row, "cam"));
            cli_table_cell(table, "%s", cli_time((int64_t)json_number(json_get(row, "pts_ns"))));
            cli_table_cell(table, "%.0f", json_number(json_get(row, "seq")));
            cli_table_cell(table, "%.0f", json_number(json_get(row, "layers")));
            cli_table_cell(table, "%.1f", json_number(json_get(row, "mean_rank")));
            cli_table_cell(table, "%.4g", json_number(json_get(row, "score")));
            if (result->thumbnails != NULL)
                cli_table_cell(table, "%s", text_of(row, "thumbnail"));
        }
        printf("\nIt rests on these frames:\n");
        cli_table_print(table);
        if (count > SHOWN_FRAMES)
            printf("and %zu more (--json shows all)\n", count - SHOWN_FRAMES);
    }
    for (size_t i = 0; i < json_len(result->notes); i++) {
        printf("Note: ");
        print_safe(json_str(json_at(result->notes, i)));
        printf("\n");
    }
    if (result->has_end)
        printf("%.0f frames in view; %.0f ms: retrieve %.0f, prefill %.0f, decode %.0f (%.0f tokens)\n",
               json_number(json_get(result->usage, "frames_in_view")),
               json_number(json_get(result->timings, "total_ms")),
               json_number(json_get(result->timings, "retrieve_ms")),
               json_number(json_get(result->timings, "prefill_ms")),
               json_number(json_get(result->timings, "decode_ms")),
               json_number(json_get(result->usage, "answer_tokens")));
}

static char *whole_answer(const struct ask_result *result)
{
    size_t bytes = 1;
    char *text, *end;

    for (size_t i = 0; i < json_len(result->answer_parts); i++)
        bytes += strlen(json_str(json_at(result->answer_parts, i)));
    text = malloc(bytes);
    REQUIRE(text != NULL);
    end = text;
    for (size_t i = 0; i < json_len(result->answer_parts); i++)
        end = stpcpy(end, json_str(json_at(result->answer_parts, i)));
    *end = '\0';
    return text;
}

/* Moves a member of the result into the object. */
static void move(struct json *object, const char *key, struct json **member)
{
    json_set(object, key, *member);
    *member = NULL;
}

void ask_result_print_json(struct ask_result *result)
{
    struct json *value = json_make_object();
    char *answer = whole_answer(result);

    json_set_str(value, "answer", answer);
    free(answer);
    move(value, "evidence", &result->evidence);
    move(value, "usage", &result->usage);
    move(value, "timings", &result->timings);
    move(value, "notes", &result->notes);
    move(value, "layers", &result->layers);
    cli_print_json(value);
}
