/* For any processor. */
#define KV_SKETCH_MAKE kv_sketch_make_portable
#include "kv/kv_sketch_maker.h"
