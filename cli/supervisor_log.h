/* supervisor_log.h - the log files of a data folder: <data>/log/NAME.log, and NAME.log.1 for what came before.
 *
 * Processes write to their file directly (append), so that nothing is lost with the supervisor. A file that has
 * grown past the bound is copied to .1 and emptied in place; a line written between the two is the price.
 *
 * Thread: any, blocks on the disk. Bounds: SUPERVISOR_LOG_BYTES a file, looked at every few seconds. */
#ifndef REELKV_CLI_SUPERVISOR_LOG_H
#define REELKV_CLI_SUPERVISOR_LOG_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

enum { SUPERVISOR_LOG_BYTES = 8 << 20 };

/* Opens for appending, CLOEXEC. */
bool supervisor_log_open(const char *data, const char *name, int *fd_p, struct status *st);

/* Moves the content to .1 when there are more than limit_bytes of it. */
void supervisor_log_rotate(const char *data, const char *name, size_t limit_bytes);

/* The last line that is not empty, for a sentence about why a process ended; "" when there is none. */
void supervisor_log_last_line(const char *data, const char *name, char *out, size_t out_bytes);

#endif
