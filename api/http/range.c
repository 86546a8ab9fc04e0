/*
 * A Range header is a hint: whatever is wrong with it means the whole body, never an error. The one
 * exception is a well-formed header of which no range has a byte in common with the body: 416.
 *
 * Ranges that share a block are merged, because the block would be read and verified for each of
 * them; the merged range takes the place of the earliest asked for. Many or overlapping ranges that
 * ask for more than the body are an attack (CVE-2011-3192).
 */
#include "api/http/range.h"

#include "base/text.h"

#include <assert.h>
#include <stdbool.h>

static void skip_blanks(const char **at, const char *end)
{
    while (*at < end && (**at == ' ' || **at == '\t'))
        ++*at;
}

/* Digits at *AT into NUMBER, UINT64_MAX where it is larger. False where there are none. */
static bool take_number(const char **at, const char *end, uint64_t *number)
{
    const char *begin = *at;

    *number = 0;
    for (; *at < end && **at >= '0' && **at <= '9'; ++*at) {
        unsigned digit = (unsigned)(**at - '0');

        if (*number > (UINT64_MAX - digit) / 10)
            *number = UINT64_MAX;
        else if (*number != UINT64_MAX)
            *number = *number * 10 + digit;
    }
    return *at > begin;
}

enum one { ONE_GOOD, ONE_OUTSIDE, ONE_MALFORMED };

/* One of "first-last", "first-", "-suffix" at *AT against a body of SIZE bytes. */
static enum one take_one(const char **at, const char *end, uint64_t size, struct byte_range *range)
{
    uint64_t suffix;
    bool has_first = take_number(at, end, &range->first);

    if (*at == end || **at != '-')
        return ONE_MALFORMED;
    ++*at;
    if (!has_first) {
        if (!take_number(at, end, &suffix))
            return ONE_MALFORMED;
        if (!suffix || !size)
            return ONE_OUTSIDE;
        range->first = suffix < size ? size - suffix : 0;
        range->last = size - 1;
        return ONE_GOOD;
    }
    if (!take_number(at, end, &range->last))
        range->last = UINT64_MAX;
    else if (range->last < range->first)
        return ONE_MALFORMED;
    if (range->first >= size)
        return ONE_OUTSIDE;
    if (range->last >= size)
        range->last = size - 1;
    return ONE_GOOD;
}

static bool share_a_block(const struct byte_range *a, const struct byte_range *b)
{
    return a->first / BLOCK_BYTES <= b->last / BLOCK_BYTES &&
           b->first / BLOCK_BYTES <= a->last / BLOCK_BYTES;
}

/* Merge what shares a block, until nothing does. */
static unsigned merge(struct byte_range *ranges, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        for (unsigned j = i + 1; j < count;) {
            if (!share_a_block(&ranges[i], &ranges[j])) {
                j++;
                continue;
            }
            if (ranges[j].first < ranges[i].first)
                ranges[i].first = ranges[j].first;
            if (ranges[j].last > ranges[i].last)
                ranges[i].last = ranges[j].last;
            for (unsigned k = j; k + 1 < count; k++)
                ranges[k] = ranges[k + 1];
            count--;
            j = i + 1; /* the larger one may meet those that it missed before */
        }
    }
    return count;
}

enum range_result range_resolve(const char *value, size_t len, uint64_t size,
                                struct byte_range out[LIMIT_HTTP_RANGES], unsigned *count)
{
    const char *at = value, *end = value + len;
    uint64_t sum = 0;
    bool any = false;
    unsigned asked = 0, n = 0;

    *count = 0;
    if (len < 6 || !text_equal_nocase(value, 6, "bytes=", 6))
        return RANGE_NONE;
    for (at += 6; at < end; at++) { /* once for each item of the list */
        struct byte_range range;
        enum one one;

        skip_blanks(&at, end);
        if (at < end && *at == ',')
            continue; /* empty items are to be ignored */
        if (at == end)
            break;
        if (asked++ == LIMIT_HTTP_RANGES)
            return RANGE_NONE;
        one = take_one(&at, end, size, &range);
        skip_blanks(&at, end);
        if (one == ONE_MALFORMED || (at < end && *at != ','))
            return RANGE_NONE;
        any = true;
        if (one == ONE_OUTSIDE)
            continue;
        if (range.last - range.first + 1 > size - sum)
            return RANGE_NONE;
        sum += range.last - range.first + 1;
        out[n++] = range;
    }
    if (!any)
        return RANGE_NONE;
    if (!n)
        return RANGE_UNSATISFIABLE;
    *count = merge(out, n);
    assert(*count >= 1 && *count <= LIMIT_HTTP_RANGES);
    return RANGE_SOME;
}
