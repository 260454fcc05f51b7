/* ask_result.h - what one question brought, collected while it streams, and how it is shown.
 *
 * Owner:  the verb; ask_result_deinit() frees what it collected. Thread: main thread.
 * Bounds: what qa sends: LIMIT_ANSWER_TOKENS of text, LIMIT_TOP_BLOCKS a layer. */
#ifndef REELKV_CLI_ASK_RESULT_H
#define REELKV_CLI_ASK_RESULT_H

#include "base/json.h"
#include "base/status.h"
#include "reelkv/v1/qa.pb-c.h"

struct ask_result {
    const char *const *cameras; /* of the request, in its order; borrowed */
    size_t camera_count;
    const char *thumbnails; /* folder for the evidence's pictures; NULL: none */
    bool prints_text;       /* the answer goes to stdout as it comes */

    struct json *answer_parts; /* array of texts */
    struct json *evidence, *layers, *notes, *usage, *timings;
    bool has_evidence, has_end;
};

void ask_result_init(struct ask_result *result);
void ask_result_deinit(struct ask_result *result);

/* Takes one message of the stream. INTERNAL for one that names cameras nobody asked about; thumbnails that cannot be
 * written fail with their path. */
bool ask_result_take(struct ask_result *result, const Reelkv__V1__AskReply *reply, struct status *st);

/* After the end: the table of the evidence and what it cost; or everything as one object. */
void ask_result_print(const struct ask_result *result);
void ask_result_print_json(struct ask_result *result);

#endif
