/* kv_format.h - blocks as they are written: segment files and the records in them. This is candidate 1 of the
 * format: it is called v1 only when every retrieval method has used it. docs/kv-format.md tells it at length.
 *
 * Everything is little endian; offsets are from the start of the part; what is not named is zero, and a
 * reader of damaged bytes finds out, because every byte lies under a CRC32C or must be zero.
 *
 * A segment is a file of 4 KiB pages:  SUPER, records, then (when sealed) FOOTER; while it grows, its last page is MARK.
 *   <root>/v1/<namespace>/<stream>/<epoch>/<first seq>-<salt>.open, and .seg once it is sealed.
 *
 * SUPER, one page
 *    0  u64  magic "RKVSUPER"         40  16 B  fingerprint          80  i64  created, ns UTC
 *    8  u16  major, u16 minor         56  u64   epoch                88  u64  first seq
 *   12  u32  bytes of this page       64  u32   layers               96  64 B namespace, NUL-padded
 *   16  u64  incompat flags           68  u32   kv_heads            160  64 B stream, NUL-padded
 *   24  u64  compat flags             72  u32   head_dim           4092  u32  CRC32C of what is before
 *   32  u64  salt, random             76  u32   dtype             224  u64  salt of the file that this one
 *                                                                          replaces (incompat flag 1)
 *                                                                232  u32  aged: of the frames one in so many was
 *                                                                          kept (0: all), u16 bits of slices
 *                                                                          (0: as they came), u16 1: keys only
 *
 * RECORD, at a multiple of 4 KiB:  header, note, thumbnail, embedding, keys, slices; each part at a multiple
 * of 64 from the record's start, zeros between. Of the slices each layer's K is at a multiple of 64 and its V
 * follows at once. Header:
 *    0  u32  magic "RKVR"             48  u64  token index of the    96  u32  note bytes
 *    4  u16  type                              first token          100  u32  thumbnail bytes
 *    6  u16  event (EVENT)            56  u32  tokens               104  u32  embedding bytes
 *    8  u64  salt                     60  u32  header bytes         108  u32  layers with slices
 *   16  u64  seq                      64  u64  record bytes         112  u64  keys bytes
 *   24  u64  end seq, exclusive       72  u64  epoch                120  u32  CRC32C note
 *   32  i64  pts, ns UTC              80  u64  supersedes (version) 124  u32  CRC32C thumbnail
 *   40  i64  end pts                  88  u64  key id (encryption)  128  u32  CRC32C embedding
 *                                                                   132  u32  CRC32C keys
 *  136  u32  chain: the header CRC of the record before (of the first: SUPER's)
 *  256  per slice (layer 0 K, layer 0 V, layer 1 K, ...), 16 bytes each:
 *       u32 tokens, u16 encoding (bits of a code, kv_quant.h; 0: the geometry's dtype), u16 group (numbers a scale
 *       is for; 0: none), u32 bytes, u32 CRC32C.  All slices of a record have one encoding
 *  header bytes - 4  u32  CRC32C of the header before it
 * Header bytes is the whole number of pages that holds this: one page up to 119 layers.
 * The CRCs of the parts are seeded (kv_crc.h) with salt, seq and the part's number.
 *
 * FOOTER, from the end of the last record: TABLE (one entry a record), NOTES (the notes of all records in
 * order), SUMS (of all FRAME records in the table's order the CRC32C of each slice, as in their headers; zeros of
 * one without slices),
 * COLUMNS (for each layer the keys of all FRAME records; columns at multiples of 64), each at a multiple of
 * 4 KiB; then TRAILER, the file's last page. The CRC of a part covers the zeros up to the next one.
 *
 * Entry, 96 bytes
 *    0  u64  offset of the record     40  i64  end pts              72  u32  header CRC
 *    8  u64  record bytes             48  u64  token index          76  u32  note bytes
 *   16  u64  seq                      56  u32  tokens               80  u32  thumbnail bytes
 *   24  u64  end seq                  60  u16  type                 84  u32  embedding bytes
 *   32  i64  pts                      62  u16  event                88  u16  encoding, u16 group of its slices
 *                                     64  u32  flags, 4 zero bytes       4 zero bytes
 * Flags: 1 damaged; 2 a FRAME without slices
 *
 * TRAILER
 *    0  u64  magic "RKVTRAIL"         40  u64  table offset         80  u64  column stride
 *    8  u16  major, u16 minor         48  u64  notes offset         88  u32  CRC32C of the table
 *   12  u32  records                  56  u64  notes bytes          92  u32  CRC32C of the notes
 *   16  u64  salt                     64  u64  columns offset       96  u32  chain: last header CRC
 *   24  u32  frames                   72  u64  file bytes          100  u32  SUPER's CRC
 *   28  u32  layers                  128  per layer u32: CRC32C    104  u64  sums offset
 *   32  u64  end seq                      of its column            112  u32  CRC32C of the sums
 *                                   4092  u32  CRC32C of what is before
 *
 * MARK (since 0.2), written over after each sync of records, and itself synced only with the next ones
 *    0  u64  magic "RKVMARK "          8  u64  salt                  16  u64  synced: up to this offset of the file
 *                                                                  4092  u32  CRC32C of what is before
 *
 * Since 0.3: a FRAME may have slices of encoding 8 or 4, or none (layers 0: its keys, note, thumbnail and embedding
 * are left); TOMBSTONE records; `replaces`.
 *
 * A reader refuses another major or a later minor and an unknown incompat flag by name, ignores unknown compat
 * flags, and takes a record only when magic, salt, epoch and CRCs fit.
 *
 * Thread: any. Fails: DATA_LOSS for bytes that do not fit, UNIMPLEMENTED for what this version cannot read.
 */
#ifndef REELKV_KV_KV_FORMAT_H
#define REELKV_KV_KV_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kv/kv_quant.h"

enum {
    KV_PAGE_BYTES = 4096,
    KV_PART_ALIGN = 64,
    KV_FORMAT_MAJOR = 0, /* 0: a candidate */
    KV_FORMAT_MINOR = 3,
    KV_FORMAT_MINOR_MARK = 2, /* the first whose growing files have a MARK */
    KV_INCOMPAT_REPLACES = 1,
    KV_FINGERPRINT_BYTES = 16,
    KV_NOTE_BYTES_MAX = 4096,
    KV_EMBEDDING_BYTES_MAX = 1 << 16,
    KV_SLICES_MAX = 2 * LIMIT_LAYERS,
    KV_HEADER_BYTES_MAX = 2 * KV_PAGE_BYTES,
    KV_ENTRY_BYTES = 96,
};

_Static_assert(256 + KV_SLICES_MAX * 16 + 4 <= KV_HEADER_BYTES_MAX, "the slice table must fit the header");

/* What has been done to the frames of a file since they came; tells whether more is due. The records say it themselves. */
struct kv_aged {
    uint32_t thin; /* one in so many was kept, by seq % thin; 0 or 1: all */
    uint16_t bits; /* 8, 4: slices have so many, where that could be */
    bool keys_only;
};

struct kv_super {
    uint64_t compat;
    uint64_t salt;
    uint8_t fingerprint[KV_FINGERPRINT_BYTES];
    uint64_t epoch;
    struct kv_geometry geometry;
    int64_t created_ns;
    uint64_t first_seq;
    char ns[LIMIT_NAME_BYTES + 1];
    char stream[LIMIT_NAME_BYTES + 1];
    uint64_t replaces; /* the salt of the file that this one was rewritten from; 0: none */
    struct kv_aged aged;
    uint16_t minor; /* as read; this version's when written */
    uint32_t crc;   /* as read or written */
};

/* Fills the page; sets super->minor and crc. */
void kv_super_put(struct kv_super *super, uint8_t page[KV_PAGE_BYTES]);
bool kv_super_get(struct kv_super *super, const uint8_t page[KV_PAGE_BYTES], struct status *st);

/* What the name of a segment file says: "<first seq>-<salt>.open" or ".seg". False: it is none's. */
struct kv_file_name {
    uint64_t first_seq, salt;
    bool is_open;
};
bool kv_file_name_get(struct kv_file_name *file, const char *name);

/* The number of an epoch's folder. */
bool kv_epoch_name_get(uint64_t *epoch, const char *name);

void kv_mark_put(uint64_t salt, uint64_t synced, uint8_t page[KV_PAGE_BYTES]);
/* False: it is none, or of another file. */
bool kv_mark_get(uint64_t salt, uint64_t *synced_p, const uint8_t page[KV_PAGE_BYTES]);

enum kv_record_type {
    KV_RECORD_INIT = 1,      /* the system prompt's block; a copy opens every segment of an epoch */
    KV_RECORD_FRAME = 2,     /* one block */
    KV_RECORD_GAP = 3,       /* seq .. end seq were offered and never stored; the note says why */
    KV_RECORD_EVENT = 4,     /* something happened before seq; see enum kv_event, the note says more */
    KV_RECORD_DERIVED = 5,   /* a reduced copy of seq .. end seq. Has its number; not read by candidate 1 */
    KV_RECORD_TOMBSTONE = 6, /* seq .. end seq were here and are not any more; `event` says why */
};

enum kv_event { KV_EVENT_END = 1 }; /* the source ended; the note: the trouble, or nothing */

/* Of a TOMBSTONE. */
enum kv_tombstone {
    KV_TOMBSTONE_THINNED = 1,   /* frames; its times are those of the first and the last of them */
    KV_TOMBSTONE_FORGOTTEN = 2, /* whatever it was; times likewise */
    KV_TOMBSTONE_DAMAGED =
        3, /* did not fit when the segment was rewritten; times of what stands before and behind */
};

/* Numbers that seed the CRCs of what is no slice. */
enum kv_part {
    KV_PART_KEYS = 0x10000,
    KV_PART_THUMBNAIL = 0x10001,
    KV_PART_NOTE = 0x10002,
    KV_PART_EMBEDDING = 0x10003,
};

const char *kv_tombstone_text(uint16_t kind); /* "thinned" */

struct kv_slice {
    uint32_t tokens;
    struct kv_encoding encoding;
    uint32_t bytes;
    uint32_t crc; /* plain: seeded only as written */
};

/* A header in the open. CRCs here are plain; they are seeded when written and unseeded when read. */
struct kv_record {
    enum kv_record_type type;
    uint16_t event;
    uint64_t seq, end_seq;
    int64_t pts_ns, end_pts_ns;
    uint64_t token_index;
    uint32_t tokens;
    uint64_t epoch;
    uint64_t supersedes;
    uint64_t key_id;
    uint32_t note_bytes, thumbnail_bytes, embedding_bytes;
    uint64_t keys_bytes;
    uint32_t layers; /* with slices: 0 for a FRAME without them, GAP, EVENT and TOMBSTONE */
    uint32_t note_crc, thumbnail_crc, embedding_crc, keys_crc;
    uint32_t chain; /* header CRC of the record before */
    struct kv_slice slices[KV_SLICES_MAX];
};

bool kv_record_type_is_read(enum kv_record_type type); /* by this version */

/* A FRAME or INIT record of the geometry's own dtype with `tokens` in every slice; the rest zero. */
void kv_record_init_block(struct kv_record *record, enum kv_record_type type,
                          const struct kv_geometry *geometry, uint32_t tokens);

/* A FRAME's slices get this encoding, which fits; or go. */
void kv_record_encode(struct kv_record *record, const struct kv_geometry *geometry,
                      struct kv_encoding encoding);
void kv_record_drop_slices(struct kv_record *record);
/* That of all its slices; of the dtype, when it has none. */
struct kv_encoding kv_record_encoding(const struct kv_record *record);

/* Where the parts lie, from the record's start. */
struct kv_layout {
    uint32_t header_bytes;
    uint64_t note, thumbnail, embedding, keys, slices;
    uint64_t record_bytes; /* a multiple of KV_PAGE_BYTES */
};
void kv_record_layout(const struct kv_record *record, struct kv_layout *layout);

/* The run of payload bytes that starts at `offset` and is contiguous in the record's image too: where in the
 * image, and how long. The offset lies within the payload. */
struct kv_run {
    uint64_t image;
    uint64_t bytes;
};
struct kv_run kv_record_run(const struct kv_record *record, uint64_t offset);

/* Copies payload bytes [offset, offset + len) (kv_geometry.h) to where they belong in the record's image. The range lies
 * within the payload. */
void kv_record_scatter(const struct kv_record *record, uint64_t offset, const void *from, size_t len,
                       uint8_t *image);

/* Zeroes what lies between the parts of the image, computes the parts' CRCs into the record, and returns the
 * plain CRC of the payload. One pass. */
uint32_t kv_record_checksum(struct kv_record *record, uint8_t *image);

/* Both at once, for a whole payload that lies in one piece: its bytes are copied into the image and checked as they are.
 * One pass. */
uint32_t kv_record_take(struct kv_record *record, const void *payload, uint8_t *image);

/* The same for a payload that comes in pieces, in order: begun, each added as it comes, and ended when all of it has come;
 * more than all may not. The caller's memory, nobody else's. Any thread, one at a time. */
struct kv_record_intake {
    uint32_t part;        /* that comes: the keys, then the slices */
    uint64_t at, left;    /* its next byte, in the image; what is to come of it */
    uint32_t crc;         /* of what has come of it */
    uint32_t payload_crc; /* of all before it */
};
void kv_record_intake_begin(const struct kv_record *record, struct kv_record_intake *intake);
void kv_record_intake_add(struct kv_record *record, struct kv_record_intake *intake, const void *from,
                          size_t len, uint8_t *image);
uint32_t kv_record_intake_end(struct kv_record *record, struct kv_record_intake *intake, uint8_t *image);

/* Writes the header into the image; returns its CRC, the next record's chain. */
uint32_t kv_record_put(const struct kv_record *record, const struct kv_super *super, uint8_t *image);

/* What a header needs, from its first page: KV_PAGE_BYTES or KV_HEADER_BYTES_MAX; 0 when it is none. */
uint32_t kv_record_header_bytes(const uint8_t page[KV_PAGE_BYTES]);

/* Reads and checks a header of kv_record_header_bytes(); the geometry of `super` must fit too. */
bool kv_record_get(struct kv_record *record, uint32_t *header_crc_p, const struct kv_super *super,
                   const uint8_t *header, struct status *st);

/* What a header tells though its segment's SUPER is lost: by its own checksum and the salt, which the file's name has too. */
struct kv_record_end {
    enum kv_record_type type;
    uint64_t seq, token_index; /* exclusive */
    uint64_t record_bytes;     /* a multiple of KV_PAGE_BYTES */
};
bool kv_record_get_end(struct kv_record_end *end, uint64_t salt, const uint8_t *header, struct status *st);

/* The parts of a record in their order: note, thumbnail, embedding, keys, then each slice. Starts zeroed; false: there is
 * none behind it. Zeros follow a part, up to the next one or the record's end. */
struct kv_record_part {
    const char *what;
    int slice;                     /* 2 * layer + (V ? 1 : 0); -1: it is none */
    uint64_t at, bytes, zeros_end; /* from the record's start */
    uint32_t crc;                  /* plain */
    uint32_t next;
};
bool kv_record_next_part(const struct kv_record *record, struct kv_record_part *part);

/* Checks every part of a whole image against the record's CRCs, and that the rest is zero. */
bool kv_record_verify(const struct kv_record *record, const uint8_t *image, struct status *st);

/* The CRC of a slice as it is written (in the header, and in SUMS), and the plain one from it. */
uint32_t kv_slice_crc_written(const struct kv_super *super, uint64_t seq, uint32_t slice, uint32_t crc,
                              uint64_t bytes);
uint32_t kv_slice_crc_plain(const struct kv_super *super, uint64_t seq, uint32_t slice, uint32_t written,
                            uint64_t bytes);

/* Length and plain CRC of a block's payload, from what the header says. */
uint64_t kv_record_payload_bytes(const struct kv_record *record);
uint32_t kv_record_payload_crc(const struct kv_record *record);

#endif
