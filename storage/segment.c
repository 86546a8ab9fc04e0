/*
 * Encoding and checking of segments, batches and records. The layouts:
 *
 *   segment header (4096)         batch header (64)             record header (80)
 *    0  magic "objseg\r\n"         0  magic                      0  check: bytes 8 … end of event
 *    8  version             u32    4  records            u32     8  head check: bytes 16 … 80
 *   12  compat              u32    8  lsn                u64    16  type, flags       u8, u8
 *   16  ro_compat           u32   16  length_bytes       u64    18  blocks            u16
 *   20  incompat            u32   24  previous           u64    20  event_bytes       u32
 *   24  store                16   32  synced_through     u64    24  body_bytes        u32
 *   40  volume              u32   40  hlc                u64    28  zero              u32
 *   44  disk                u32   48  zero               u64    32  id                 16
 *   48  salt                u64   56  checksum           u64    48  file              u64
 *   56  base                u64                                 56  size              u64
 *   64  zero                                                    64  trailer           u64
 * 4088  checksum            u64                                 72  from              u64
 *
 * A record has two checks. The one over its header alone makes its lengths trustworthy when its
 * event is rotten, and makes it cheap to look for records inside damage: one short hash at each
 * multiple of 8, which nobody who does not know the salt can forge from inside a body. Both are
 * seeded with the salt and the record's own LSN. The batch's checksum is seeded with the salt and
 * covers the records' checks; its own LSN is among what it covers.
 *
 * Decoders take any bytes: they answer ERR_CORRUPT, never assert, and check every length against
 * base/limits.h and the buffer before using it.
 */
#include "storage/segment.h"

#include "base/bytes.h"
#include "base/hash.h"

#include <assert.h>

#define BATCH_MAGIC   UINT32_C(0x48435442) /* "BTCH" */
#define CHECKSUM_AT   (SEGMENT_HEADER_BYTES - 8)
#define CHECKS_A_STEP 128

static const uint8_t segment_magic[8] = "objseg\r\n";

/* The feature bits that this build knows; none were needed so far. */
#define KNOWN_INCOMPAT 0u

static uint64_t align8(uint64_t n)
{
    return (n + 7) & ~UINT64_C(7);
}

void segment_header_encode(uint8_t out[SEGMENT_HEADER_BYTES], const struct segment_header *header)
{
    assert(header->base < LSN_LIMIT && header->base % BATCH_ALIGN == 0);
    assert(header->volume > 0);

    memset(out, 0, SEGMENT_HEADER_BYTES);
    memcpy(out, segment_magic, sizeof segment_magic);
    put_u32(out + 8, FORMAT_VERSION);
    put_u32(out + 12, header->features.compat);
    put_u32(out + 16, header->features.ro_compat);
    put_u32(out + 20, header->features.incompat);
    memcpy(out + 24, header->store.bytes, sizeof header->store.bytes);
    put_u32(out + 40, header->volume);
    put_u32(out + 44, header->disk);
    put_u64(out + 48, header->salt);
    put_u64(out + 56, header->base);
    put_u64(out + CHECKSUM_AT, xxh64(out, CHECKSUM_AT, 0));
}

int segment_header_decode(struct segment_header *out, const uint8_t in[SEGMENT_HEADER_BYTES])
{
    /* The checksum stands at the same place in every version, so a flipped bit in the version is
     * told apart from a file of the future. */
    if (memcmp(in, segment_magic, sizeof segment_magic) != 0 ||
        get_u64(in + CHECKSUM_AT) != xxh64(in, CHECKSUM_AT, 0))
        return ERR_CORRUPT;
    *out = (struct segment_header){
        .features = {.compat = get_u32(in + 12),
                     .ro_compat = get_u32(in + 16),
                     .incompat = get_u32(in + 20)},
        .volume = get_u32(in + 40),
        .disk = get_u32(in + 44),
        .salt = get_u64(in + 48),
        .base = get_u64(in + 56),
    };
    memcpy(out->store.bytes, in + 24, sizeof out->store.bytes);
    if (get_u32(in + 8) != FORMAT_VERSION || (out->features.incompat & ~KNOWN_INCOMPAT) != 0)
        return ERR_FORMAT;
    if (out->base >= LSN_LIMIT || out->base % BATCH_ALIGN != 0 || out->volume == 0)
        return ERR_CORRUPT;
    return 0;
}

uint64_t batch_checksum(const uint8_t in[BATCH_HEADER_BYTES], uint64_t salt, const uint64_t *checks,
                        uint32_t count)
{
    uint8_t step[8 * CHECKS_A_STEP];
    uint64_t sum = xxh64(in, BATCH_HEADER_BYTES - 8, salt);

    assert(count <= LIMIT_BATCH_RECORDS);
    for (uint32_t done = 0; done < count;) {
        uint32_t n = count - done < CHECKS_A_STEP ? count - done : CHECKS_A_STEP;

        for (uint32_t i = 0; i < n; i++)
            put_u64(step + 8 * i, checks[done + i]);
        sum = xxh64(step, 8 * (size_t)n, sum ^ salt);
        done += n;
    }
    return sum;
}

void batch_header_encode(uint8_t out[BATCH_HEADER_BYTES], struct batch_header *header,
                         uint64_t salt, const uint64_t *checks)
{
    assert(header->records <= LIMIT_BATCH_RECORDS && header->length_bytes <= LIMIT_BATCH_BYTES);
    assert(header->lsn % BATCH_ALIGN == 0 && header->synced_through <= header->lsn);

    put_u32(out, BATCH_MAGIC);
    put_u32(out + 4, header->records);
    put_u64(out + 8, header->lsn);
    put_u64(out + 16, header->length_bytes);
    put_u64(out + 24, header->previous);
    put_u64(out + 32, header->synced_through);
    put_u64(out + 40, header->hlc);
    put_u64(out + 48, 0);
    header->checksum = batch_checksum(out, salt, checks, header->records);
    put_u64(out + 56, header->checksum);
}

int batch_header_decode(struct batch_header *out, const uint8_t in[BATCH_HEADER_BYTES],
                        lsn_t expected_lsn)
{
    if (get_u32(in) != BATCH_MAGIC || get_u64(in + 8) != expected_lsn)
        return ERR_CORRUPT;
    *out = (struct batch_header){
        .records = get_u32(in + 4),
        .lsn = expected_lsn,
        .length_bytes = get_u64(in + 16),
        .previous = get_u64(in + 24),
        .synced_through = get_u64(in + 32),
        .hlc = get_u64(in + 40),
        .checksum = get_u64(in + 56),
    };
    if (out->records > LIMIT_BATCH_RECORDS || out->length_bytes > LIMIT_BATCH_BYTES ||
        out->length_bytes % 8 != 0 ||
        out->length_bytes < BATCH_HEADER_BYTES + (uint64_t)out->records * RECORD_HEADER_BYTES ||
        out->synced_through > out->lsn)
        return ERR_CORRUPT;
    return 0;
}

/* Header, block checksums and event, padded: all that stands before the body. */
static uint64_t meta_bytes(const struct record_header *header)
{
    return align8(RECORD_HEADER_BYTES + 8 * (uint64_t)header->blocks + header->event_bytes);
}

uint64_t record_bytes(const struct record_header *header)
{
    return meta_bytes(header) + align8(header->body_bytes);
}

static uint64_t record_seed(uint64_t salt, lsn_t lsn)
{
    return salt ^ (lsn * UINT64_C(0x9e3779b97f4a7c15));
}

void record_encode(uint8_t *out, struct record_header *header, uint64_t salt, lsn_t lsn,
                   const uint64_t *sums, const void *event)
{
    uint64_t seed = record_seed(salt, lsn), all = meta_bytes(header);
    uint64_t used = RECORD_HEADER_BYTES + 8 * (uint64_t)header->blocks + header->event_bytes;

    assert(header->event_bytes <= LIMIT_EVENT_BYTES);
    assert(header->body_bytes <= LIMIT_INLINE_BODY_BYTES);
    assert(header->blocks == block_count(header->body_bytes));

    out[16] = header->type;
    out[17] = header->flags;
    put_u16(out + 18, header->blocks);
    put_u32(out + 20, header->event_bytes);
    put_u32(out + 24, header->body_bytes);
    put_u32(out + 28, 0);
    memcpy(out + 32, header->id.bytes, sizeof header->id.bytes);
    put_u64(out + 48, header->file);
    put_u64(out + 56, header->size);
    put_u64(out + 64, header->trailer);
    put_u64(out + 72, header->from);
    for (uint16_t i = 0; i < header->blocks; i++)
        put_u64(out + RECORD_HEADER_BYTES + 8 * i, sums[i]);
    if (header->event_bytes > 0)
        memcpy(out + RECORD_HEADER_BYTES + 8 * header->blocks, event, header->event_bytes);
    memset(out + used, 0, all - used);

    put_u64(out + 8, xxh64(out + 16, RECORD_HEADER_BYTES - 16, seed));
    header->check = xxh64(out + 8, all - 8, seed);
    put_u64(out, header->check);
}

int record_header_decode(struct record_header *out, const uint8_t in[RECORD_HEADER_BYTES])
{
    *out = (struct record_header){
        .type = in[16],
        .flags = in[17],
        .blocks = get_u16(in + 18),
        .event_bytes = get_u32(in + 20),
        .body_bytes = get_u32(in + 24),
        .file = get_u64(in + 48),
        .size = get_u64(in + 56),
        .trailer = get_u64(in + 64),
        .from = get_u64(in + 72),
        .check = get_u64(in),
    };
    memcpy(out->id.bytes, in + 32, sizeof out->id.bytes);
    if (out->type < RECORD_EVENT || out->type > RECORD_BODY ||
        (out->flags & ~(RECORD_HAS_BODY | RECORD_LARGE)) != 0 ||
        out->flags == (RECORD_HAS_BODY | RECORD_LARGE))
        return ERR_CORRUPT;
    if (out->event_bytes > LIMIT_EVENT_BYTES || out->body_bytes > LIMIT_INLINE_BODY_BYTES ||
        out->blocks != block_count(out->body_bytes) ||
        (out->body_bytes > 0 && !(out->flags & RECORD_HAS_BODY)))
        return ERR_CORRUPT;
    return 0;
}

bool record_header_check(const uint8_t in[RECORD_HEADER_BYTES], uint64_t salt, lsn_t lsn)
{
    return get_u64(in + 8) == xxh64(in + 16, RECORD_HEADER_BYTES - 16, record_seed(salt, lsn));
}

int record_decode(struct record_view *out, const uint8_t *in, size_t len, uint64_t salt, lsn_t lsn)
{
    if (len < RECORD_HEADER_BYTES)
        return ERR_CORRUPT;
    int rc = record_header_decode(&out->header, in);
    if (rc)
        return rc;

    const struct record_header *header = &out->header;
    uint64_t meta = meta_bytes(header);
    if (meta > len || header->check != xxh64(in + 8, meta - 8, record_seed(salt, lsn)))
        return ERR_CORRUPT;
    out->lsn = lsn;
    out->sums = in + RECORD_HEADER_BYTES;
    out->event = out->sums + 8 * (size_t)header->blocks;
    out->body = NULL;
    if ((header->flags & RECORD_HAS_BODY) && meta + header->body_bytes <= len)
        out->body = in + meta;
    return 0;
}

int record_verify_body(const struct record_view *view)
{
    const struct record_header *header = &view->header;

    if (!(header->flags & RECORD_HAS_BODY))
        return 0;
    assert(view->body);
    for (uint64_t i = 0, at = 0; i < header->blocks; i++, at += BLOCK_BYTES) {
        uint64_t left = header->body_bytes - at;
        uint64_t len = left < BLOCK_BYTES ? left : BLOCK_BYTES;

        if (block_checksum(view->body + at, len, i) != get_u64(view->sums + 8 * i))
            return ERR_CORRUPT;
    }
    return 0;
}

uint64_t block_checksum(const void *data, size_t len, uint64_t index)
{
    assert(len <= BLOCK_BYTES);
    return xxh64(data, len, index);
}
