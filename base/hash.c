/*
 * OpenSSL's digests and XXH3, each behind the few calls that we need.
 *
 * The algorithms are fetched from their provider once for the process: a fetch by name at every
 * start of a digest costs more than the digest of a small body. sha256() keeps one context for each
 * thread. After a successful fetch OpenSSL has nothing left to fail at here but memory, which ends
 * the process: a wrong digest must never be stored.
 *
 * XXH3: Debian's libxxhash exports the *_dispatch functions on x86, which choose SSE2, AVX2 or
 * AVX-512 when first called. Elsewhere the plain functions use what the target always has (NEON).
 */
#include "base/hash.h"

#include <assert.h>
#include <openssl/evp.h>
#include <pthread.h>
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

static pthread_once_t fetched = PTHREAD_ONCE_INIT;
static EVP_MD *algorithms[2]; /* by enum digest_kind; NULL where the provider refuses it */
static pthread_key_t context_key;
static __thread EVP_MD_CTX *thread_context;

static void free_context(void *context)
{
    EVP_MD_CTX_free(context);
}

static void fetch(void)
{
    algorithms[DIGEST_SHA256] = EVP_MD_fetch(NULL, "SHA256", NULL);
    algorithms[DIGEST_MD5] = EVP_MD_fetch(NULL, "MD5", NULL);
    if (pthread_key_create(&context_key, free_context) != 0)
        abort();
}

static const EVP_MD *algorithm(enum digest_kind kind)
{
    (void)pthread_once(&fetched, fetch);
    return algorithms[kind];
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
    if (!digest->context) {
        free(digest);
        return ERR_NO_MEMORY;
    }
    digest_reset(digest);
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
    const EVP_MD *wanted = algorithm(DIGEST_SHA256);

    if (!thread_context) {
        thread_context = EVP_MD_CTX_new();
        /* The key frees it at the thread's end. */
        if (!thread_context || pthread_setspecific(context_key, thread_context) != 0)
            abort();
    }
    if (!wanted || EVP_DigestInit_ex2(thread_context, wanted, NULL) != 1 ||
        (len > 0 && EVP_DigestUpdate(thread_context, data, len) != 1) ||
        EVP_DigestFinal_ex(thread_context, out, NULL) != 1)
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
