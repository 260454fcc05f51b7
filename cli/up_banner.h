/* up_banner.h - what `up` says when everything is there: addresses, model, speed, budgets and what they buy.
 *
 * Thread: main thread. */
#ifndef REELKV_CLI_UP_BANNER_H
#define REELKV_CLI_UP_BANNER_H

#include "camera.h"
#include "cluster_file.h"
#include "model_facts.h"

struct up_banner {
    const char *data;
    const struct cluster_file *file;
    const struct model_facts *facts;
    const struct camera_list *cameras; /* the folder had already, in all namespaces */
};

void up_banner_print(const struct up_banner *banner, bool as_json);

#endif
