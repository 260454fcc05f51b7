/* cli_stage.h - the stand-in of a cluster (cli_double_cluster.c) on a Redis of the test's own, and verbs run against it. */
#ifndef REELKV_TEST_CLI_STAGE_H
#define REELKV_TEST_CLI_STAGE_H

#include "base/json.h"
#include "support/process.h"

enum { VERB_MS = 60000 };

extern struct process cluster, redis;
extern char video[512]; /* the path of a file that can be added as a camera */

void set_up(void);
void tear_down(void);

/* RUN(&verb, "cam", "ls") runs that verb to its end and returns its exit code. */
int run_words(struct process *verb, const char *const *words);
#define RUN(verb, ...) run_words(verb, (const char *const[]){ __VA_ARGS__, NULL })

/* The JSON that a verb printed; the caller's. */
struct json *printed(const struct process *verb);

/* Until the verb takes the signal as a message instead of its death. */
void wait_until_blocked(const struct process *process, int number);

#endif
