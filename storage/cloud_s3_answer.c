/*
 * The header of an answer of S3, line by line: what of it anybody here wants to know. Names come in
 * any case, values without what surrounds them. What is malformed counts as not said, as it is
 * checked where it is needed; pairs of metadata over our limits are left out.
 */
#include "storage/cloud_s3_internal.h"

#include "base/text.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define META "x-amz-meta-"

void s3_answer_reset(struct s3_answer *answer)
{
    struct buf text = answer->text, body = answer->body;

    *answer = (struct s3_answer){.text = text, .body = body};
    answer->text.limit = S3_PAIRS_BYTES;
    answer->body.limit = S3_ANSWER_BYTES;
    buf_reset(&answer->text);
    buf_reset(&answer->body);
}

void s3_answer_release(struct s3_answer *answer)
{
    buf_release(&answer->text);
    buf_release(&answer->body);
}

static void copy(char *out, size_t cap, struct cloud_text value)
{
    size_t len = value.len < cap ? value.len : 0; /* cut it would be another value */

    memcpy(out, value.ptr, len);
    out[len] = '\0';
}

static void take_pair(struct s3_answer *answer, struct cloud_text name, struct cloud_text value)
{
    size_t need = (size_t)name.len + value.len;

    if (answer->pair_count == LIMIT_CLOUD_PAIRS || need > S3_PAIRS_BYTES - answer->text.len)
        return;
    /* All of the room at once: pointers into it stay good. */
    if (answer->text.cap < S3_PAIRS_BYTES && !buf_reserve(&answer->text, S3_PAIRS_BYTES)) {
        answer->incomplete = true;
        return;
    }
    char *at = answer->text.data + answer->text.len;
    for (uint32_t i = 0; i < name.len; i++)
        at[i] = (char)(name.ptr[i] >= 'A' && name.ptr[i] <= 'Z' ? name.ptr[i] + 32 : name.ptr[i]);
    memcpy(at + name.len, value.ptr, value.len);
    answer->text.len += need;
    answer->pairs[answer->pair_count++] =
        (struct cloud_pair){{at, name.len}, {at + name.len, value.len}};
}

/* "bytes 0-99/1000", or with a 416 "bytes * /1000" */
static void take_range(struct s3_answer *answer, struct cloud_text value)
{
    const char *end = value.ptr + value.len, *dash, *slash;

    if (value.len < 6 || memcmp(value.ptr, "bytes ", 6) != 0)
        return;
    const char *at = value.ptr + 6;
    slash = memchr(at, '/', (size_t)(end - at));
    dash = slash ? memchr(at, '-', (size_t)(slash - at)) : NULL;
    if (!dash)
        return;
    answer->has_range =
        parse_u64(&answer->range_first, at, (size_t)(dash - at), INT64_MAX) == 0 &&
        parse_u64(&answer->range_last, dash + 1, (size_t)(slash - dash - 1), INT64_MAX) == 0 &&
        parse_u64(&answer->range_total, slash + 1, (size_t)(end - slash - 1), INT64_MAX) == 0 &&
        answer->range_first <= answer->range_last && answer->range_last < answer->range_total;
}

static int64_t take_date(struct cloud_text value)
{
    char date[64];

    copy(date, sizeof date, value);
    time_t when = date[0] ? curl_getdate(date, NULL) : -1;
    return when < 0 ? 0 : (int64_t)when;
}

static uint64_t take_number(struct cloud_text value, uint64_t max, bool *said)
{
    uint64_t number;

    *said = parse_u64(&number, value.ptr, value.len, max) == 0;
    return *said ? number : 0;
}

static void take_etag(struct s3_answer *answer, struct cloud_text value)
{
    if (value.len >= 2 && value.ptr[0] == '"' && value.ptr[value.len - 1] == '"') {
        value.ptr++;
        value.len -= 2;
    }
    copy(answer->etag, sizeof answer->etag, value);
}

static bool is(struct cloud_text name, const char *wanted)
{
    return text_equal_nocase(name.ptr, name.len, wanted, strlen(wanted));
}

static void take(struct s3_answer *answer, struct cloud_text name, struct cloud_text value)
{
    bool said;

    if (name.len > strlen(META) && text_equal_nocase(name.ptr, strlen(META), META, strlen(META))) {
        name.ptr += strlen(META);
        name.len -= (uint32_t)strlen(META);
        take_pair(answer, name, value);
    } else if (is(name, "content-length")) {
        answer->length = take_number(value, INT64_MAX, &answer->has_length);
    } else if (is(name, "content-range")) {
        take_range(answer, value);
    } else if (is(name, "content-type")) {
        copy(answer->type, sizeof answer->type, value);
    } else if (is(name, "etag")) {
        take_etag(answer, value);
    } else if (is(name, "last-modified")) {
        answer->modified_s = take_date(value);
    } else if (is(name, "date")) {
        answer->date_s = take_date(value);
    } else if (is(name, "location")) {
        copy(answer->location, sizeof answer->location, value);
    } else if (is(name, "x-amz-bucket-region")) {
        copy(answer->region, sizeof answer->region, value);
    } else if (is(name, "x-amz-tagging-count")) {
        answer->tag_count = (unsigned)take_number(value, 1000, &said);
    } else if (is(name, "retry-after")) {
        answer->retry_after_s = (uint32_t)take_number(value, 86400, &said);
        if (!said && take_date(value) > answer->date_s && answer->date_s > 0 &&
            take_date(value) - answer->date_s <= 86400)
            answer->retry_after_s = (uint32_t)(take_date(value) - answer->date_s);
    }
}

static bool blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

void s3_answer_line(struct s3_answer *answer, const char *line, size_t len)
{
    while (len > 0 && blank(line[len - 1]))
        len--;
    if (len >= 5 && memcmp(line, "HTTP/", 5) == 0) {
        const char *space = memchr(line, ' ', len);
        uint64_t status = 0;

        s3_answer_reset(answer);
        if (space && line + len - space >= 4 && parse_u64(&status, space + 1, 3, 999) == 0)
            answer->status = (long)status;
        return;
    }
    if (len == 0) {
        answer->complete = answer->status >= 200;
        return;
    }
    const char *colon = memchr(line, ':', len);
    if (!colon || answer->complete) /* or a trailer */
        return;
    const char *value = colon + 1;
    while (value < line + len && blank(*value))
        value++;
    take(answer, (struct cloud_text){line, (uint32_t)(colon - line)},
         (struct cloud_text){value, (uint32_t)(line + len - value)});
}
