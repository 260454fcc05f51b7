/* interrupt.h - Ctrl-C and SIGTERM as a call on a thread of their own, so that a blocking call can be cancelled.
 *
 * Owner:  the verb; one at a time. Start before threads that must not take the signals (gRPC's) exist.
 * Thread: `arrived` runs on the watcher's thread. */
#ifndef REELKV_CLI_INTERRUPT_H
#define REELKV_CLI_INTERRUPT_H

#include <stdbool.h>

/* Until others handle the signals: they end the process at once, and it says so as cli_fail() does. For where nothing has
 * been begun that is to be undone. */
void interrupt_ends(bool as_json);

struct interrupt;

/* From here on the signals do not end the process. */
struct interrupt *interrupt_create(void);

/* Whom to call; NULL: nobody. When the signal has come already, `arrived` is called at once. */
void interrupt_watch(struct interrupt *interrupt, void (*arrived)(void *user), void *user);
bool interrupt_has_come(struct interrupt *interrupt);
void interrupt_destroy(struct interrupt *interrupt); /* NULL is fine */

#endif
