/* Goal: digests are those of the standards, pieces give the same as the whole, and threads do not
 * disturb each other. */
#include "base/hash.h"

#include "base/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 65536

static void assert_hex(const uint8_t *bytes, size_t len, const char *expected)
{
    char text[2 * SHA256_BYTES + 1];

    hex_encode(text, bytes, len);
    assert_string_equal(text, expected);
}

/* FIPS 180-2, appendix B, and RFC 1321, appendix A.5. */
static void digests_are_those_of_the_standards(void **state)
{
    uint8_t out[SHA256_BYTES];
    struct digest *digest;

    (void)state;
    sha256("abc", 3, out);
    assert_hex(out, 32, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    sha256(NULL, 0, out);
    assert_hex(out, 32, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");

    assert_int_equal(digest_create(&digest, DIGEST_MD5), 0);
    digest_update(digest, "message ", 8);
    digest_update(digest, NULL, 0);
    digest_update(digest, "digest", 6);
    digest_final(digest, out);
    assert_hex(out, MD5_BYTES, "f96b697d7cb7938d525a2f31aaf161d0");
    digest_destroy(&digest);
    assert_null(digest);
    digest_destroy(&digest);
}

static void a_digest_begins_anew_after_a_reset(void **state)
{
    uint8_t streamed[SHA256_BYTES], whole[SHA256_BYTES];
    struct digest *digest;

    (void)state;
    assert_int_equal(digest_create(&digest, DIGEST_SHA256), 0);
    digest_update(digest, "rubbish", 7);
    digest_reset(digest); /* in the middle */
    digest_update(digest, "ab", 2);
    digest_update(digest, "c", 1);
    digest_final(digest, streamed);
    sha256("abc", 3, whole);
    assert_memory_equal(streamed, whole, SHA256_BYTES);
    digest_reset(digest); /* and after the end */
    digest_update(digest, "abc", 3);
    digest_final(digest, streamed);
    assert_memory_equal(streamed, whole, SHA256_BYTES);
    digest_destroy(&digest);
}

/* The published values of XXH3, so that a file written here is read by any other build. */
static void xxh3_is_the_published_function(void **state)
{
    (void)state;
    assert_true(xxh64("", 0, 0) == UINT64_C(0x2d06800538d394c2));
    assert_true(xxh64("abc", 3, 0) == UINT64_C(0x78af5f94892f3950));
    struct hash128 empty = xxh128("", 0, 0);
    assert_true(empty.low == UINT64_C(0x6001c324468d497f));
    assert_true(empty.high == UINT64_C(0x99aa06d3014798d8));
}

static void pieces_hash_as_the_whole_does(void **state)
{
    uint8_t *data = malloc(BLOCK + 1);
    const size_t steps[] = {1, 7, 64, 1000, 4096, BLOCK + 1};

    (void)state;
    assert_non_null(data);
    for (size_t i = 0; i <= BLOCK; i++)
        data[i] = (uint8_t)(i * 31 + i / 251);
    for (uint64_t seed = 0; seed < 3; seed++) {
        uint64_t whole = xxh64(data, BLOCK + 1, seed);

        for (size_t s = 0; s < sizeof steps / sizeof *steps; s++) {
            struct xxh_stream stream;

            assert_int_equal(xxh_begin(&stream, seed), 0);
            xxh_add(&stream, NULL, 0);
            for (size_t at = 0; at <= BLOCK; at += steps[s]) {
                size_t left = BLOCK + 1 - at;

                xxh_add(&stream, data + at, left < steps[s] ? left : steps[s]);
            }
            assert_true(xxh_end(&stream) == whole);
        }
    }
    free(data);
}

static void seed_length_and_every_bit_matter(void **state)
{
    uint8_t data[300] = {0};

    (void)state;
    for (size_t len = 0; len < sizeof data; len++) {
        assert_true(xxh64(data, len, 0) != xxh64(data, len, 1));
        assert_true(xxh64(data, len, 0) != xxh64(data, len + 1 < 300 ? len + 1 : 0, 0));
        struct hash128 a = xxh128(data, len, 0), b = xxh128(data, len, 1);
        assert_true(a.low != b.low && a.high != b.high);
    }
    uint64_t before = xxh64(data, sizeof data, 0);
    for (size_t bit = 0; bit < 8 * sizeof data; bit++) {
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_true(xxh64(data, sizeof data, 0) != before);
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

static void *hash_many(void *arg)
{
    uint8_t data[100], out[SHA256_BYTES], first[SHA256_BYTES];
    int bad = 0;

    memset(data, *(char *)arg, sizeof data);
    sha256(data, sizeof data, first);
    for (int i = 0; i < 2000; i++) {
        sha256(data, sizeof data, out);
        bad += memcmp(out, first, sizeof out) != 0;
    }
    return bad ? arg : NULL;
}

static void threads_have_their_own_context(void **state)
{
    char fill[4] = {1, 2, 3, 4};
    pthread_t threads[4];

    (void)state;
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, hash_many, &fill[i]), 0);
    for (int i = 0; i < 4; i++) {
        void *bad;

        assert_int_equal(pthread_join(threads[i], &bad), 0);
        assert_null(bad);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digests_are_those_of_the_standards),
        cmocka_unit_test(a_digest_begins_anew_after_a_reset),
        cmocka_unit_test(xxh3_is_the_published_function),
        cmocka_unit_test(pieces_hash_as_the_whole_does),
        cmocka_unit_test(seed_length_and_every_bit_matter),
        cmocka_unit_test(threads_have_their_own_context),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
