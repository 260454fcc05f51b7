/* cli_hint.h - commands that a sentence tells to run.
 *
 * Pasted, they must reach what the verb that tells of them has looked at: --data, --redis and --namespace come along
 * where the command takes them, and would have another value without them.
 *
 * Thread: main thread only. */
#ifndef REELKV_CLI_HINT_H
#define REELKV_CLI_HINT_H

#include "base/options.h"

/* From here on commands carry what these options say. Both are borrowed until the next call; NULL: nothing is carried. */
void cli_hint_carry(const struct option_table *table, const void *options);

/* "cam rm %s" -> "reelkv cam rm yard --namespace other". What a shell would not take for one word is the caller's to
 * quote (cli_quote()). Static storage for the last four; a longer one than two paths is cut. */
const char *cli_hint(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
