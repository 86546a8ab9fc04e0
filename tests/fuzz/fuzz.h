/*
 * What the fuzz targets share. A target is one file NAME_fuzz.c with LLVMFuzzerTestOneInput:
 * clang's libFuzzer calls it with bytes of its own (make fuzz), fuzz_replay.c with those of the
 * corpus (make fuzz-corpus). It checks properties, not only that nothing crashes: a broken one
 * aborts.
 *
 * A target that needs more than one value takes them off the front of its input with feed_…; an
 * input that is too short reads as zeros.
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            (void)fprintf(stderr, "%s:%d: broken property: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

struct feed {
    const uint8_t *at;
    size_t left;
};

/* Up to LEN bytes; *GOT of them. */
static inline const uint8_t *feed_some(struct feed *feed, size_t len, size_t *got)
{
    const uint8_t *at = feed->at;

    *got = len < feed->left ? len : feed->left;
    feed->at += *got;
    feed->left -= *got;
    return at;
}

/* A little-endian number of LEN bytes. */
static inline uint64_t feed_number(struct feed *feed, size_t len)
{
    uint64_t number = 0;
    size_t got;
    const uint8_t *at = feed_some(feed, len, &got);

    for (size_t i = 0; i < got; i++)
        number |= (uint64_t)at[i] << 8 * i;
    return number;
}

/* A copy on the heap of exactly LEN bytes, so that the sanitizer sees the first one too many. */
static inline void *exact_copy(const void *data, size_t len)
{
    void *copy = calloc(len ? len : 1, 1);

    CHECK(copy);
    if (len > 0)
        memcpy(copy, data, len);
    return copy;
}

#endif
