/*
 * The bytes of a log segment: pure encoding and checking, no I/O. docs/JOURNAL.md draws them.
 *
 *   segment = header (4096 bytes) | batch | padding to 512 | batch | …
 *   batch   = header (64 bytes) | record | record | …            starts on a multiple of 512
 *   record  = header (80 bytes) | block checksums | event | pad to 8 | body | pad to 8
 *
 * All integers are little-endian. A record's checksum covers its header, block checksums and event
 * (a second one its header alone); a batch's covers its header and the checksums of its records, so
 * one rotten record does not take its neighbours with it. Both are seeded with the segment's random
 * salt, so that nothing of another segment or store is ever taken for ours. Bodies are covered by
 * the block checksums alone.
 *
 * LSN: a position in the log, counted in bytes over all segments: segment base + offset in the
 * file.
 */
#ifndef STORAGE_SEGMENT_H
#define STORAGE_SEGMENT_H

#include "base/err.h"
#include "base/id.h"
#include "base/limits.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t lsn_t;

/* No position is at or above: sums of positions and lengths never wrap. */
#define LSN_LIMIT (UINT64_C(1) << 62)

#define SEGMENT_HEADER_BYTES 4096
#define BATCH_ALIGN          512
#define BATCH_HEADER_BYTES   64
#define RECORD_HEADER_BYTES  80

#define FORMAT_VERSION 1

/* Feature bits of a file, as ext4 uses the words: an unknown compat bit is ignored, an unknown
 * ro_compat bit allows reading only, an unknown incompat bit refuses the file (ERR_FORMAT). */
struct file_features {
    uint32_t compat, ro_compat, incompat;
};

struct segment_header {
    struct file_features features;
    struct id128 store; /* the store's UUID */
    uint32_t volume;    /* this segment's number, from 1; never reused */
    uint32_t disk;
    uint64_t salt;
    lsn_t base; /* LSN of the file's byte 0 */
};

void segment_header_encode(uint8_t out[SEGMENT_HEADER_BYTES], const struct segment_header *header);
/* ERR_CORRUPT: no magic or a wrong checksum; ERR_FORMAT: unknown version or incompat bit. */
int segment_header_decode(struct segment_header *out,
                          const uint8_t in[SEGMENT_HEADER_BYTES]) MUST_CHECK;

struct batch_header {
    uint32_t records;
    lsn_t lsn;             /* its own */
    uint64_t length_bytes; /* header included, without the padding up to the next batch */
    uint64_t previous;     /* checksum of the batch before it in this segment; 0 for the first */
    lsn_t synced_through;  /* everything below was durable when this was written */
    uint64_t hlc;
    uint64_t checksum;
};

/* CHECKS: the checksums of the batch's records in order; sets header->checksum. */
void batch_header_encode(uint8_t out[BATCH_HEADER_BYTES], struct batch_header *header,
                         uint64_t salt, const uint64_t *checks);
/* Decode without CHECKS: magic, LSN and plausibility (length and count in their limits) only.
 * ERR_CORRUPT otherwise. */
int batch_header_decode(struct batch_header *out, const uint8_t in[BATCH_HEADER_BYTES],
                        lsn_t expected_lsn) MUST_CHECK;
/* The checksum of the header bytes IN with the records' checksums. */
uint64_t batch_checksum(const uint8_t in[BATCH_HEADER_BYTES], uint64_t salt, const uint64_t *checks,
                        uint32_t count);

enum record_type {
    RECORD_EVENT = 1, /* one event, ours or a peer's, with or without a body */
    RECORD_MOVE = 2,  /* what cleaning took from `from`: the event verbatim, the body if it lives */
    RECORD_SNAPSHOT = 3, /* one chunk of a snapshot; the "event" is the chunk */
    RECORD_MERGE = 4,    /* rows received by merge; the "event" is their encoding */
    RECORD_VECTOR = 5,   /* a vector adopted after a merge */
    RECORD_BODY = 6,     /* a body this node stored again without a new fact about it */
};

enum record_flags {
    RECORD_HAS_BODY = 1, /* a body follows inline (may be empty) */
    RECORD_LARGE = 2,    /* the body is in large file number `file` */
};

struct record_header {
    uint8_t type, flags;
    uint16_t blocks; /* block checksums that follow: of the inline body */
    uint32_t event_bytes;
    uint32_t body_bytes; /* inline */
    struct id128 id;     /* the object; zero where there is none */
    uint64_t file;       /* RECORD_LARGE: the file's number */
    uint64_t size;       /* of the body, inline or large */
    uint64_t trailer;    /* RECORD_LARGE: checksum of the file's trailer */
    lsn_t from;          /* RECORD_MOVE: where it was first written, however often it moved */
    uint64_t check;
};

/* Bytes of a whole record, a multiple of 8. */
uint64_t record_bytes(const struct record_header *header);

/* Encode header, SUMS (header->blocks of them) and EVENT, padded to 8, at OUT, which has room for
 * record_bytes less the body and its padding; sets header->check. The body follows there.
 * LSN: the record's own. */
void record_encode(uint8_t *out, struct record_header *header, uint64_t salt, lsn_t lsn,
                   const uint64_t *sums, const void *event);

/* A decoded record: pointers into the buffer it was decoded from. */
struct record_view {
    struct record_header header;
    lsn_t lsn;
    const uint8_t *sums; /* header.blocks × 8 bytes */
    const uint8_t *event;
    const uint8_t *body; /* NULL without an inline body, or where IN held only the first part */
};

/* Header only: lengths in their limits. ERR_CORRUPT otherwise. */
int record_header_decode(struct record_header *out,
                         const uint8_t in[RECORD_HEADER_BYTES]) MUST_CHECK;
/* Whether a header's own checksum is right, so that its lengths can be trusted even where the event
 * is rotten. SALT, LSN: as given to record_encode. */
bool record_header_check(const uint8_t in[RECORD_HEADER_BYTES], uint64_t salt, lsn_t lsn);
/* Decode and check header, sums and event from IN (LEN bytes; the body may be cut off: then body is
 * NULL). ERR_CORRUPT where anything is wrong. Does not verify the body. */
int record_decode(struct record_view *out, const uint8_t *in, size_t len, uint64_t salt,
                  lsn_t lsn) MUST_CHECK;
/* Verify every block of the inline body. */
int record_verify_body(const struct record_view *view) MUST_CHECK;

/* The checksum of block number INDEX (LEN <= BLOCK_BYTES) of a body. */
uint64_t block_checksum(const void *data, size_t len, uint64_t index);
static inline uint64_t block_count(uint64_t size)
{
    return size / BLOCK_BYTES + (size % BLOCK_BYTES != 0);
}

#endif
