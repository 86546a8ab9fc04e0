/*
 * Digests and checksums. SHA-256 and MD5 are OpenSSL's, the block checksum is XXH3 with run-time
 * dispatch to the widest vector unit.
 */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

#define SHA256_BYTES 32
#define MD5_BYTES    16

enum digest_kind { DIGEST_SHA256, DIGEST_MD5 };

/* A digest in progress. NULL-safe destroy; one thread at a time. */
struct digest;
int digest_create(struct digest **out, enum digest_kind kind) MUST_CHECK;
void digest_destroy(struct digest **digest);
/* Begin anew, whatever happened before. */
void digest_reset(struct digest *digest);
void digest_update(struct digest *digest, const void *data, size_t len);
/* OUT has room for the kind's bytes. The digest must be reset before its next use. */
void digest_final(struct digest *digest, uint8_t *out);

/* SHA-256 of one buffer; allocates nothing, never fails. */
void sha256(const void *data, size_t len, uint8_t out[SHA256_BYTES]);

/* XXH3-64 of one buffer; SEED tells apart what must not be mistaken for each other. */
uint64_t xxh64(const void *data, size_t len, uint64_t seed);

/* XXH3-128 of one buffer, as two 64-bit halves {low, high}. */
struct hash128 {
    uint64_t low, high;
};
struct hash128 xxh128(const void *data, size_t len, uint64_t seed);

/* XXH3-64 over several pieces, as if they were one buffer. Lives on the caller's stack. */
struct xxh_stream {
    void *state; /* XXH3_state_t; allocated by begin, freed by end */
};
int xxh_begin(struct xxh_stream *stream, uint64_t seed) MUST_CHECK;
void xxh_add(struct xxh_stream *stream, const void *data, size_t len);
uint64_t xxh_end(struct xxh_stream *stream);

#endif
