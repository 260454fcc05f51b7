/* capture_run.h - what a capture child does with its job.
 *
 * Both return when the work is done or *link->stop was set. A file ends with END or FAILED. A live source is never
 * done: when it is lost the child says so, waits (0.5 s, doubling to 10 s, from the start again after a picture)
 * and connects anew; the slots of its grid that pass meanwhile are gaps, told at once, after a second, then ever more
 * rarely until it is once a minute. */
#ifndef REELKV_ENCODER_CAPTURE_RUN_H
#define REELKV_ENCODER_CAPTURE_RUN_H

#include "encoder/capture/capture_link.h"

void capture_run_file(struct capture_link *link, const struct capture_job *job);
void capture_run_live(struct capture_link *link, const struct capture_job *job);

#endif
