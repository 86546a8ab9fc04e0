/*
 * Right checksums for wrong bytes: what a fuzzer has changed in a segment would otherwise be
 * refused at the first look. The formulas are those of docs/JOURNAL.md, stated once more.
 */
#ifndef TESTS_FUZZ_REPAIR_H
#define TESTS_FUZZ_REPAIR_H

#include "base/bytes.h"
#include "base/hash.h"
#include "storage/segment.h"
#include "tests/fuzz/fuzz.h"

enum repair {
    REPAIR_CHECKS = 1, /* of records and batches */
    REPAIR_SUMS = 2,   /* of bodies */
    REPAIR_LENGTH = 4, /* the batch's length and count say what is there */
    REPAIR_CHAIN = 8,  /* the batch names the one before it */
    REPAIR_LSN = 16,   /* the batch bears its own LSN */
};

static inline size_t pad8(size_t n)
{
    return (n + 7) / 8 * 8;
}

/* Repair the record that IN (LEFT bytes) begins with. Its length, 0 where it is none. */
static inline size_t repair_record(uint8_t *in, size_t left, uint64_t salt, lsn_t lsn, unsigned how)
{
    struct record_header header;
    uint64_t seed = salt ^ lsn * UINT64_C(0x9e3779b97f4a7c15);

    if (left < RECORD_HEADER_BYTES || record_header_decode(&header, in) ||
        record_bytes(&header) > left)
        return 0;
    size_t meta = pad8(RECORD_HEADER_BYTES + (size_t)8 * header.blocks + header.event_bytes);
    for (size_t i = 0; i < header.blocks && how & REPAIR_SUMS; i++) {
        size_t at = i * BLOCK_BYTES, len = header.body_bytes - at;

        put_u64(in + RECORD_HEADER_BYTES + 8 * i,
                xxh64(in + meta + at, len < BLOCK_BYTES ? len : BLOCK_BYTES, i));
    }
    put_u64(in + 8, xxh64(in + 16, RECORD_HEADER_BYTES - 16, seed));
    put_u64(in, xxh64(in + 8, meta - 8, seed));
    return record_bytes(&header);
}

/* Repair the batch that IN (LEFT bytes) begins with; its length, 0 where it is none. *PREVIOUS: the
 * checksum of the batch before it, then its own. */
static inline size_t repair_batch(uint8_t *in, size_t left, uint64_t salt, lsn_t lsn, unsigned how,
                                  uint64_t *previous)
{
    static uint64_t checks[LIMIT_BATCH_RECORDS];
    size_t at = BATCH_HEADER_BYTES;
    uint32_t n = 0;

    if (left < BATCH_HEADER_BYTES || memcmp(in, "BTCH", 4) != 0)
        return 0;
    uint32_t claimed = get_u32(in + 4);
    while (n < claimed && n < LIMIT_BATCH_RECORDS) {
        size_t len = repair_record(in + at, left - at, salt, lsn + at, how);

        if (len == 0)
            break;
        checks[n++] = get_u64(in + at);
        at += len;
    }
    if (how & REPAIR_LENGTH) {
        put_u32(in + 4, n);
        put_u64(in + 16, at);
    }
    if (how & REPAIR_LSN)
        put_u64(in + 8, lsn);
    if (how & REPAIR_CHAIN)
        put_u64(in + 24, *previous);
    *previous = batch_checksum(in, salt, checks, n);
    put_u64(in + 56, *previous);
    return at;
}

#endif
