/* signals.h - signals are the loop's: a thread started between these two takes none, nor do those that it starts.
 *
 * Thread: any; each for itself. */
#ifndef REELKV_LOOP_SIGNALS_H
#define REELKV_LOOP_SIGNALS_H

#include <signal.h>

static inline void loop_signals_block(sigset_t *before)
{
    sigset_t all;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, before);
}

static inline void loop_signals_restore(const sigset_t *before)
{
    pthread_sigmask(SIG_SETMASK, before, NULL);
}

#endif
