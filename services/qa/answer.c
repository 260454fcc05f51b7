/* answer.c - the work of one question, on its own thread. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/name.h"
#include "base/require.h"
#include "question_internal.h"

enum { REPLY_LIMIT_BYTES = 12 << 20 };

static struct reply *reply_create(struct question *question)
{
    struct reply *reply = calloc(1, sizeof *reply);

    if (reply == NULL) {
        status_fail(&question->failure, STATUS_EXHAUSTED, "no memory for a reply");
        return NULL;
    }
    reply->question = question;
    reply->memory.limit_bytes = REPLY_LIMIT_BYTES;
    reply->message = (Reelkv__V1__AskReply)REELKV__V1__ASK_REPLY__INIT;
    return reply;
}

static bool out_of_room(struct question *question, struct reply *reply)
{
    reply_free(reply);
    return status_fail(&question->failure, STATUS_EXHAUSTED, "the evidence is larger than a message");
}

/* ------------------------------------------------------------------------------------------ evidence */

struct notes {
    char text[NOTES_MAX][NOTE_BYTES];
    uint32_t count;
};

static void note(struct notes *notes, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void note(struct notes *notes, const char *format, ...)
{
    va_list args;

    if (notes->count == NOTES_MAX)
        return;
    va_start(args, format);
    vsnprintf(notes->text[notes->count++], NOTE_BYTES, format, args);
    va_end(args);
}

static uint64_t damaged_blocks(const struct question *question)
{
    return retriever_totals(question->retriever)->missing[REELKV__V1__FRAME_RESULT__FRAME_RESULT_QUARANTINED];
}

/* What the answer could not know. */
static void take_notes(const struct question *question, struct notes *notes)
{
    static const struct {
        uint32_t result;
        const char *words;
    } results[] = {
        { REELKV__V1__FRAME_RESULT__FRAME_RESULT_EVICTED, "had just been evicted" },
        { REELKV__V1__FRAME_RESULT__FRAME_RESULT_GAP, "were never stored (gaps)" },
        { REELKV__V1__FRAME_RESULT__FRAME_RESULT_QUARANTINED, "are damaged on disk" },
        { REELKV__V1__FRAME_RESULT__FRAME_RESULT_UNAVAILABLE, "could not be reached" },
        { REELKV__V1__FRAME_RESULT__FRAME_RESULT_DEADLINE, "were not ready in time" },
        { REELKV__V1__FRAME_RESULT__FRAME_RESULT_NOT_FOUND, "are not in their streams" },
    };
    const struct retriever_totals *totals = retriever_totals(question->retriever);
    uint32_t unseen = model_question_unseen_blocks(question->model_question);

    if (question->view.evicted_frames > 0)
        note(notes, "%llu frames of this time are gone: for the disk budget, with age, or forgotten",
             (unsigned long long)question->view.evicted_frames);
    if (question->view.gap_frames > 0)
        note(notes, "%llu frames of this time were never seen (gaps)",
             (unsigned long long)question->view.gap_frames);
    if (question->view.damaged_frames > 0)
        note(notes, "%llu frames of this time are damaged on disk and cannot be read",
             (unsigned long long)question->view.damaged_frames);
    for (size_t i = 0; i < ARRAY_LEN(results); i++)
        if (totals->missing[results[i].result] > 0)
            note(notes, "%llu chosen blocks %s and were left out",
                 (unsigned long long)totals->missing[results[i].result], results[i].words);
    if (totals->derived > 0)
        note(notes, "%llu chosen blocks were read from copies in fewer bits (they have aged)",
             (unsigned long long)totals->derived);
    if (unseen > 0)
        note(
            notes,
            "the model looks back %u tokens (n_local) and saw nothing of the oldest %u frames of a layer; %s",
            model_geometry(question->qa->model)->n_local, unseen,
            question->retrieve.external ? "name fewer frames" : "ask with a smaller top_r or recent_window");
}

static bool fill_frames(struct reply *reply, Reelkv__V1__Evidence *evidence,
                        const struct evidence_frame *frames, uint32_t count,
                        const struct retriever_thumbnail *thumbnails)
{
    evidence->frames = arena_alloc(&reply->memory, (count + 1) * sizeof *evidence->frames);
    for (uint32_t i = 0; evidence->frames != NULL && i < count; i++) {
        Reelkv__V1__EvidenceFrame *frame = arena_alloc(&reply->memory, sizeof *frame);

        if (frame == NULL)
            return false;
        *frame = (Reelkv__V1__EvidenceFrame)REELKV__V1__EVIDENCE_FRAME__INIT;
        frame->stream = frames[i].hit.stream;
        frame->seq = frames[i].hit.seq;
        frame->pts_ns = frames[i].hit.pts_ns;
        frame->layers = frames[i].layers;
        frame->mean_rank = frames[i].mean_rank;
        frame->score = frames[i].mean_score;
        if (i < EVIDENCE_THUMBNAILS_MAX && thumbnails[i].len > 0) {
            frame->thumbnail.data = arena_alloc(&reply->memory, thumbnails[i].len);
            if (frame->thumbnail.data == NULL)
                return false;
            frame->thumbnail.len = thumbnails[i].len;
            memcpy(frame->thumbnail.data, thumbnails[i].data, thumbnails[i].len);
        }
        evidence->frames[evidence->n_frames++] = frame;
    }
    return evidence->frames != NULL;
}

static bool fill_hit(struct reply *reply, const struct kv_hit *from, Reelkv__V1__Hit **hit_p)
{
    Reelkv__V1__Hit *hit = arena_alloc(&reply->memory, sizeof *hit);
    Reelkv__V1__FrameRef *ref = arena_alloc(&reply->memory, sizeof *ref);

    if (hit == NULL || ref == NULL)
        return false;
    *hit = (Reelkv__V1__Hit)REELKV__V1__HIT__INIT;
    *ref = (Reelkv__V1__FrameRef)REELKV__V1__FRAME_REF__INIT;
    ref->stream = from->stream;
    ref->seq = from->seq;
    hit->frame = ref;
    hit->pts_ns = from->pts_ns;
    hit->score = from->score;
    hit->tokens = from->tokens;
    hit->recent = from->recent;
    *hit_p = hit;
    return true;
}

static bool fill_layers(struct reply *reply, Reelkv__V1__Evidence *message, const struct evidence *evidence,
                        uint32_t layers)
{
    message->layers = arena_alloc(&reply->memory, (layers + 1) * sizeof *message->layers);
    if (message->layers == NULL)
        return false;
    for (uint32_t i = 0; i < evidence->count;) {
        Reelkv__V1__LayerChoice *choice = arena_alloc(&reply->memory, sizeof *choice);
        uint32_t layer = evidence->choices[i].layer, end = i;

        while (end < evidence->count && evidence->choices[end].layer == layer)
            end++;
        if (choice == NULL)
            return false;
        *choice = (Reelkv__V1__LayerChoice)REELKV__V1__LAYER_CHOICE__INIT;
        choice->layer = layer;
        choice->hits = arena_alloc(&reply->memory, (end - i) * sizeof *choice->hits);
        if (choice->hits == NULL)
            return false;
        for (; i < end; i++)
            if (!fill_hit(reply, &evidence->choices[i].hit, &choice->hits[choice->n_hits++]))
                return false;
        message->layers[message->n_layers++] = choice;
    }
    return true;
}

static bool fill_notes(struct reply *reply, Reelkv__V1__Evidence *evidence, const struct notes *notes)
{
    evidence->notes = arena_alloc(&reply->memory, (notes->count + 1) * sizeof *evidence->notes);
    for (uint32_t i = 0; evidence->notes != NULL && i < notes->count; i++) {
        char *text = arena_strndup(&reply->memory, notes->text[i], NOTE_BYTES);

        if (text == NULL)
            return false;
        evidence->notes[evidence->n_notes++] = text;
    }
    return evidence->notes != NULL;
}

static bool send_ranked(struct question *question, const struct evidence_frame *frames, uint32_t count,
                        const struct retriever_thumbnail *thumbnails)
{
    struct reply *reply = reply_create(question);
    Reelkv__V1__Evidence *evidence;
    struct notes notes = { .count = 0 };

    if (reply == NULL)
        return false;
    evidence = arena_alloc(&reply->memory, sizeof *evidence);
    if (evidence == NULL)
        return out_of_room(question, reply);
    *evidence = (Reelkv__V1__Evidence)REELKV__V1__EVIDENCE__INIT;
    evidence->frames_in_view = question->view.frames;
    evidence->evicted_frames = question->view.evicted_frames;
    evidence->gap_frames = question->view.gap_frames;
    evidence->damaged_frames = question->view.damaged_frames;
    take_notes(question, &notes);
    if (!fill_frames(reply, evidence, frames, count, thumbnails) || !fill_notes(reply, evidence, &notes) ||
        (question->ask->layer_lists &&
         !fill_layers(reply, evidence, &question->evidence, question->retrieve.geometry.layers)))
        return out_of_room(question, reply);
    reply->message.item_case = REELKV__V1__ASK_REPLY__ITEM_EVIDENCE;
    reply->message.evidence = evidence;
    question_post(reply);
    return true;
}

static bool send_evidence(struct question *question)
{
    struct retriever_thumbnail thumbnails[EVIDENCE_THUMBNAILS_MAX] = { 0 };
    struct kv_hit pictured[EVIDENCE_THUMBNAILS_MAX];
    struct evidence_frame *frames;
    uint32_t count, pictures = 0;
    struct status st = { 0 };
    bool ok;

    if (!evidence_rank(&question->evidence, &frames, &count, &question->failure))
        return false;
    for (; question->ask->thumbnails && pictures < count && pictures < EVIDENCE_THUMBNAILS_MAX; pictures++)
        pictured[pictures] = frames[pictures].hit;
    if (!retriever_thumbnails(question->retriever, pictured, pictures, thumbnails, &st) &&
        st.code != STATUS_CANCELLED)
        log_warn(&question->log, "thumbnails_missing", "%s", st.text); /* an answer without pictures is one */
    ok = send_ranked(question, frames, count, thumbnails);
    for (uint32_t i = 0; i < EVIDENCE_THUMBNAILS_MAX; i++)
        free(thumbnails[i].data);
    free(frames);
    return ok;
}

/* -------------------------------------------------------------------------------------------- passes */

static bool retrieve_layer(void *arg, uint32_t layer, const float *folded,
                           const struct model_chosen **chosen_p, size_t *count_p, struct status *st)
{
    struct question *question = arg;
    const struct kv_hit *hits;
    uint32_t count;

    if (!retriever_layer(question->retriever, layer, folded, chosen_p, count_p, st))
        return false;
    hits = retriever_hits(question->retriever, &count);
    return evidence_add(&question->evidence, layer, hits, count, st);
}

static bool needs_frames(const struct question *question)
{
    return !question->retrieve.external || question->retrieve.frame_count > 0;
}

static bool open_view(struct question *question)
{
    struct status *st = &question->failure;
    uint64_t damaged;

    if (!retriever_open(&question->retriever, &question->retrieve, &question->view, st))
        return false;
    damaged = question->view.damaged_frames + damaged_blocks(question);
    if (question->view.frames == 0 && needs_frames(question) && damaged > 0)
        return status_fail(st, STATUS_DATA_LOSS,
                           "what is stored for that time is damaged on disk, all of it (%llu frames)",
                           (unsigned long long)damaged);
    if (question->view.frames == 0 && needs_frames(question))
        return status_fail(st, STATUS_OUT_OF_RANGE, "nothing is stored for that time%s",
                           question->view.evicted_frames > 0
                               ? " any more (it went for the disk budget, with age, or was forgotten)"
                               : "");
    return true;
}

/* The damage of what was chosen may have been found only now; the next question does not see those frames any more. */
static bool check_evidence(struct question *question)
{
    if (question->evidence.count > 0 || !needs_frames(question) || damaged_blocks(question) == 0)
        return true;
    return status_fail(
        &question->failure, STATUS_DATA_LOSS,
        "every frame that was chosen is damaged on disk; asked again, the question goes to others");
}

static bool pass_one(struct question *question)
{
    uint32_t *ids = calloc(LIMIT_QUESTION_BYTES, sizeof *ids);
    struct token_ids question_ids = { ids, LIMIT_QUESTION_BYTES, 0 };
    struct model_question_options options = {
        .retriever = { .arg = question, .retrieve = retrieve_layer },
        .full_attention = question->retrieve.selection.kind == KV_SELECT_ALL,
        .context_tokens_max = question->qa->options->context_tokens,
        .answer_tokens_max = question->max_tokens,
        .cancel = &question->calls.cancelled,
    };
    const char *words = question->ask->question;
    struct status *st = &question->failure;
    bool ok = ids != NULL || status_fail(st, STATUS_EXHAUSTED, "no memory for the question");

    ok = ok && model_question_create(&question->model_question, question->qa->model, &options, st) &&
         model_question_ids(question->qa->model, words, strlen(words), &question_ids, st) &&
         model_question_retrieve(question->model_question, ids, question_ids.count, st);
    question->question_tokens = (uint32_t)question_ids.count;
    free(ids);
    return ok;
}

static bool pass_two(struct question *question, uint32_t *id_p)
{
    enum { PROMPT_IDS_MAX = 2 * LIMIT_QUESTION_BYTES };
    uint32_t *ids = calloc(PROMPT_IDS_MAX, sizeof *ids);
    struct token_ids prompt = { ids, PROMPT_IDS_MAX, 0 };
    const char *words = question->ask->question;
    struct status *st = &question->failure;
    bool ok = ids != NULL || status_fail(st, STATUS_EXHAUSTED, "no memory for the prompt");

    ok = ok && model_prompt_ids(question->qa->model, words, strlen(words), &prompt, st) &&
         model_question_prompt(question->model_question, ids, prompt.count, id_p, st);
    free(ids);
    return ok;
}

static bool send_text(struct question *question, const char *text, size_t len)
{
    struct reply *reply;
    Reelkv__V1__AnswerText *answer;

    if (len == 0)
        return true;
    reply = reply_create(question);
    if (reply == NULL)
        return false;
    answer = arena_alloc(&reply->memory, sizeof *answer);
    if (answer == NULL)
        return out_of_room(question, reply);
    *answer = (Reelkv__V1__AnswerText)REELKV__V1__ANSWER_TEXT__INIT;
    answer->text = arena_strndup(&reply->memory, text, len);
    if (answer->text == NULL)
        return out_of_room(question, reply);
    reply->message.item_case = REELKV__V1__ASK_REPLY__ITEM_ANSWER;
    reply->message.answer = answer;
    question_post(reply);
    return true;
}

/* Greedy decoding from the first token on; *stop_p says why it ended. */
static bool decode(struct question *question, uint32_t id, Reelkv__V1__StopReason *stop_p)
{
    const struct tokenizer *tokenizer = model_tokenizer(question->qa->model);
    struct token_decoder decoder = { .held_count = 0 };
    char text[TOKEN_DECODER_OUT_BYTES];

    *stop_p = REELKV__V1__STOP_REASON__STOP_REASON_LENGTH;
    for (;;) {
        if (atomic_load(&question->calls.cancelled))
            return status_fail(&question->failure, STATUS_CANCELLED, "the question was cancelled");
        if (model_is_end(question->qa->model, id)) {
            *stop_p = REELKV__V1__STOP_REASON__STOP_REASON_EOS;
            break;
        }
        question->answer_ids[question->answer_tokens++] = id;
        if (!send_text(question, text, token_decoder_push(&decoder, tokenizer, id, text)))
            return false;
        if (question->answer_tokens == question->max_tokens)
            break;
        if (!model_question_next(question->model_question, &id, &question->failure))
            return false;
    }
    return send_text(question, text, token_decoder_end(&decoder, text));
}

static bool send_end(struct question *question, Reelkv__V1__StopReason stop)
{
    const struct retriever_totals *totals = retriever_totals(question->retriever);
    struct reply *reply = reply_create(question);
    Reelkv__V1__AnswerEnd *end;

    if (reply == NULL)
        return false;
    end = arena_alloc(&reply->memory, sizeof *end);
    if (end == NULL)
        return out_of_room(question, reply);
    *end = (Reelkv__V1__AnswerEnd)REELKV__V1__ANSWER_END__INIT;
    end->answer_ids = arena_alloc(&reply->memory, (question->answer_tokens + 1) * sizeof *end->answer_ids);
    if (end->answer_ids == NULL)
        return out_of_room(question, reply);
    memcpy(end->answer_ids, question->answer_ids, question->answer_tokens * sizeof *end->answer_ids);
    end->n_answer_ids = question->answer_tokens;
    end->stop = stop;
    end->question_tokens = question->question_tokens;
    end->context_tokens = model_question_context_tokens(question->model_question);
    end->answer_tokens = question->answer_tokens;
    end->retrieve_ms = (double)totals->took_ns / 1e6;
    end->prefill_ms = (double)(question->pass1_ns + question->prompt_ns - totals->took_ns) / 1e6;
    end->decode_ms = (double)question->decode_ns / 1e6;
    end->total_ms = (double)(clock_mono_ns() - question->started_ns) / 1e6;
    end->fetched_bytes = totals->fetched_bytes;
    reply->message.item_case = REELKV__V1__ASK_REPLY__ITEM_END;
    reply->message.end = end;
    question_post(reply);
    return true;
}

static bool answer_in_order(struct question *question)
{
    Reelkv__V1__StopReason stop;
    uint64_t mark_ns;
    uint32_t id;

    question->started_ns = mark_ns = clock_mono_ns();
    if (!open_view(question) || !pass_one(question) || !check_evidence(question))
        return false;
    question->pass1_ns = clock_mono_ns() - mark_ns;
    retriever_let_go(question->retriever);
    if (!send_evidence(question))
        return false;
    mark_ns = clock_mono_ns();
    if (!pass_two(question, &id))
        return false;
    question->prompt_ns = clock_mono_ns() - mark_ns;
    mark_ns = clock_mono_ns();
    if (!decode(question, id, &stop))
        return false;
    question->decode_ns = clock_mono_ns() - mark_ns;
    return send_end(question, stop);
}

/* Nothing of ours to look into: who asked has gone, or asked about what is not there. */
static bool is_the_askers(enum status_code code)
{
    return code == STATUS_CANCELLED || code == STATUS_NOT_FOUND || code == STATUS_OUT_OF_RANGE;
}

bool question_answer(struct question *question)
{
    bool ok;

    question->answer_ids = calloc(question->max_tokens, sizeof *question->answer_ids);
    ok = question->answer_ids != NULL
             ? answer_in_order(question)
             : status_fail(&question->failure, STATUS_EXHAUSTED, "no memory for the answer");
    if (!ok && !is_the_askers(question->failure.code))
        log_warn(&question->log, "question_failed", "%s", question->failure.text);
    model_question_destroy(question->model_question);
    retriever_close(question->retriever);
    evidence_deinit(&question->evidence);
    free(question->answer_ids);
    return ok;
}
