/* other_settings.h - the way back to the settings that frames were stored with: the model, dtype and window of their
 * fingerprint, as far as the data folder remembers them.
 *
 * Thread: main thread, blocks on the disk. */
#ifndef REELKV_CLI_OTHER_SETTINGS_H
#define REELKV_CLI_OTHER_SETTINGS_H

#include <stddef.h>

/* What follows "until ...": the commands, or that nobody knows which; `data` "": the cluster runs elsewhere. */
void other_settings_way_back(const char *data, const char *fingerprint, char *out, size_t out_bytes);

#endif
