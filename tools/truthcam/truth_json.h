/* truth_json.h - the truth as a file (docs/truthcam.md has the schema). Same world, same bytes. */
#ifndef TRUTHCAM_TRUTH_JSON_H
#define TRUTHCAM_TRUTH_JSON_H

#include "base/json.h"
#include "questions.h"

struct json *truth_json(const struct world *world, const struct question *questions, uint32_t count);

#endif
