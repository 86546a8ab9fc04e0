/*
 * OpenSSL's digests and XXH3, each behind the few calls that we need.
 *
 * The algorithms are fetched from their provider once for the process: a fetch by name at every
 * start of a digest costs more than the digest of a small body. Once a digest is made OpenSSL has
 * nothing left to fail at; were it to, the process ends: a wrong digest must never be stored.
 * sha256() is called where nothing may fail (a record was read, an event is being chained), so it
 * uses OpenSSL's older functions, which work on the stack and have no way to fail.
 *
 * XXH3: Debian's libxxhash exports the *_dispatch functions on x86, which choose SSE2, AVX2 or
 * AVX-512 when first called. Elsewhere the plain functions use what the target always has (NEON).
 */
#define OPENSSL_SUPPRESS_DEPRECATED    /* SHA256_Init and its like: the only ones that do not      \
                                          allocate */
#include "base/hash.h"

#include <assert.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdatomic.h>
#include <stdlib.h>
#if defined(__x86_64__)
#include <xxh_x86dispatch.h>
#else
#include <xxhash.h>
#endif

struct digest {
    EVP_MD_CTX *context;
    const EVP_MD *algorithm;
};

static EVP_MD *_Atomic algorithms[2]; /* by enum digest_kind; NULL until fetched */

/* NULL where the provider refuses it, or memory is short: then it is asked again next time. */
static const EVP_MD *algorithm(enum digest_kind kind)
{
    EVP_MD *found = atomic_load(&algorithms[kind]), *none = NULL;

    if (found)
        return found;
    found = EVP_MD_fetch(NULL, kind == DIGEST_SHA256 ? "SHA256" : "MD5", NULL);
    if (found && !atomic_compare_exchange_strong(&algorithms[kind], &none, found)) {
        EVP_MD_free(found); /* another thread was faster */
        found = none;
    }
    return found;
}

int digest_create(struct digest **out, enum digest_kind kind)
{
    *out = NULL;

    const EVP_MD *wanted = algorithm(kind);
    if (!wanted)
        return ERR_UNSUPPORTED;
    struct digest *digest = malloc(sizeof *digest);
    if (!digest)
        return ERR_NO_MEMORY;
    *digest = (struct digest){.context = EVP_MD_CTX_new(), .algorithm = wanted};
    /* The first start allocates; later ones of the same context do not. */
    if (!digest->context || EVP_DigestInit_ex2(digest->context, wanted, NULL) != 1) {
        digest_destroy(&digest);
        return ERR_NO_MEMORY;
    }
    *out = digest;
    return 0;
}

void digest_destroy(struct digest **digest)
{
    if (!*digest)
        return;
    EVP_MD_CTX_free((*digest)->context);
    free(*digest);
    *digest = NULL;
}

void digest_reset(struct digest *digest)
{
    if (EVP_DigestInit_ex2(digest->context, digest->algorithm, NULL) != 1)
        abort();
}

void digest_update(struct digest *digest, const void *data, size_t len)
{
    if (len > 0 && EVP_DigestUpdate(digest->context, data, len) != 1)
        abort();
}

void digest_final(struct digest *digest, uint8_t *out)
{
    unsigned len;

    if (EVP_DigestFinal_ex(digest->context, out, &len) != 1)
        abort();
    assert(len == SHA256_BYTES || len == MD5_BYTES);
}

void sha256(const void *data, size_t len, uint8_t out[SHA256_BYTES])
{
    SHA256_CTX context;

    if (SHA256_Init(&context) != 1 || SHA256_Update(&context, data, len) != 1 ||
        SHA256_Final(out, &context) != 1)
        abort();
}

uint64_t xxh64(const void *data, size_t len, uint64_t seed)
{
    return seed ? XXH3_64bits_withSeed(data, len, seed) : XXH3_64bits(data, len);
}

struct hash128 xxh128(const void *data, size_t len, uint64_t seed)
{
    XXH128_hash_t hash = seed ? XXH3_128bits_withSeed(data, len, seed) : XXH3_128bits(data, len);

    return (struct hash128){.low = hash.low64, .high = hash.high64};
}

int xxh_begin(struct xxh_stream *stream, uint64_t seed)
{
    XXH3_state_t *state = XXH3_createState();

    stream->state = state;
    if (!state)
        return ERR_NO_MEMORY;
    XXH_errorcode rc = XXH3_64bits_reset_withSeed(state, seed);
    assert(rc == XXH_OK);
    (void)rc;
    return 0;
}

void xxh_add(struct xxh_stream *stream, const void *data, size_t len)
{
    assert(stream->state);
    if (len > 0 && XXH3_64bits_update(stream->state, data, len) != XXH_OK)
        abort();
}

uint64_t xxh_end(struct xxh_stream *stream)
{
    assert(stream->state);
    uint64_t hash = XXH3_64bits_digest(stream->state);

    (void)XXH3_freeState(stream->state);
    stream->state = NULL;
    return hash;
}
