/*
 * Goal: whatever an S3 server answers, its head is read within limits and the same each time; what
 * is believed of ETag, Content-Range, Content-Length, Retry-After and metadata is what a second
 * reading finds; and the verdict is one that a caller can act on: an error of ours, a bounded wait,
 * one printable line.
 * Input: two bytes (how the transfer ended; method), then the answer as it arrives: lines, an empty
 * one, the body.
 */
#include "base/text.h"
#include "storage/cloud_s3_internal.h"
#include "tests/fuzz/fuzz.h"

#define NOW_S INT64_C(1763700000)
#define META  "x-amz-meta-"

/* Give ANSWER the lines of TEXT, as libcurl does. Returns where the body begins. */
static size_t give(struct s3_answer *answer, const char *text, size_t len)
{
    size_t at = 0;

    while (at < len && !answer->complete) {
        const char *end = memchr(text + at, '\n', len - at);
        size_t line = end ? (size_t)(end - text) + 1 - at : len - at;
        char *copy = exact_copy(text + at, line);

        s3_answer_line(answer, copy, line);
        free(copy);
        at += line;
    }
    return at;
}

static void check_text(const char *text, size_t cap)
{
    CHECK(strnlen(text, cap) < cap);
}

static void check_pairs(const struct s3_answer *answer)
{
    CHECK(answer->pair_count <= LIMIT_CLOUD_PAIRS);
    CHECK(answer->text.len <= S3_PAIRS_BYTES);
    for (size_t i = 0; i < answer->pair_count; i++) {
        const struct cloud_pair *pair = &answer->pairs[i];
        const char *end = answer->text.data + answer->text.len;

        CHECK(pair->name.ptr >= answer->text.data && pair->name.len > 0);
        CHECK(pair->name.ptr + pair->name.len == pair->value.ptr);
        CHECK(pair->value.ptr + pair->value.len <= end);
        for (uint32_t k = 0; k < pair->name.len; k++)
            CHECK(!(pair->name.ptr[k] >= 'A' && pair->name.ptr[k] <= 'Z'));
        if (pair->value.len > 0) {
            char first = pair->value.ptr[0], last = pair->value.ptr[pair->value.len - 1];

            CHECK(!strchr(" \t\r\n", first) || !first);
            CHECK(!strchr(" \t\r\n", last) || !last);
        }
    }
}

static void check_answer(const struct s3_answer *answer)
{
    check_text(answer->etag, sizeof answer->etag);
    check_text(answer->type, sizeof answer->type);
    check_text(answer->region, sizeof answer->region);
    check_text(answer->location, sizeof answer->location);
    CHECK(answer->status >= 0 && answer->status <= 999);
    CHECK(answer->length <= INT64_MAX && (answer->has_length || answer->length == 0));
    CHECK(answer->retry_after_s <= 86400 && answer->tag_count <= 1000);
    CHECK(answer->date_s >= 0 && answer->modified_s >= 0);
    CHECK(!answer->complete || answer->status >= 200);
    if (answer->has_range)
        CHECK(answer->range_first <= answer->range_last &&
              answer->range_last < answer->range_total && answer->range_total <= INT64_MAX);
    check_pairs(answer);
}

/* ---- A second reading: what the last of each header says, written without haste. ---- */

static size_t trimmed(const char **text, size_t len)
{
    while (len > 0 && strchr(" \t\r\n", (*text)[len - 1]) && (*text)[len - 1])
        len--;
    while (len > 0 && strchr(" \t\r\n", **text) && **text) {
        (*text)++;
        len--;
    }
    return len;
}

static void check_header(const struct s3_answer *answer, const char *name, const char *value,
                         size_t len)
{
    char text[128];
    unsigned long long first, last, total;
    int used = 0;

    if (len >= sizeof text || memchr(value, 0, len))
        return;
    (void)snprintf(text, sizeof text, "%.*s", (int)len, value);
    bool digits = len > 0 && len < 10 && strspn(text, "0123456789") == len;
    if (strcasecmp(name, "etag") == 0) {
        bool quoted = len >= 2 && text[0] == '"' && text[len - 1] == '"';

        CHECK(strlen(answer->etag) == len - 2 * quoted);
        CHECK(memcmp(answer->etag, text + quoted, len - 2 * quoted) == 0);
    } else if (strcasecmp(name, "content-length") == 0) {
        CHECK(!digits || (answer->has_length && answer->length == strtoul(text, NULL, 10)));
        CHECK(answer->has_length <= (len > 0 && text[0] >= '0' && text[0] <= '9'));
    } else if (strcasecmp(name, "retry-after") == 0) {
        if (digits)
            CHECK(answer->retry_after_s ==
                  (strtoul(text, NULL, 10) <= 86400 ? strtoul(text, NULL, 10) : 0));
    } else if (strcasecmp(name, "content-range") == 0 && answer->has_range) {
        CHECK(sscanf(text, "bytes %llu-%llu/%llu%n", &first, &last, &total, &used) == 3);
        CHECK((size_t)used == len && answer->range_first == first && answer->range_last == last &&
              answer->range_total == total);
    }
}

/* Headers that came once: of several, the answer has one. */
static void check_headers(const struct s3_answer *answer, const char *text, size_t len)
{
    static const char *const names[] = {"etag", "content-length", "retry-after", "content-range"};

    for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
        const char *found = NULL;
        size_t found_len = 0, count = 0, want = strlen(names[n]);

        for (size_t at = 0; at < len;) {
            const char *line = text + at, *end = memchr(line, '\n', len - at);
            size_t whole = end ? (size_t)(end - line) + 1 : len - at;
            const char *value = line + want + 1;

            if (whole > want && line[want] == ':' && strncasecmp(line, names[n], want) == 0) {
                count++;
                found_len = trimmed(&value, whole - want - 1);
                found = value;
            }
            count += whole >= 5 && memcmp(line, "HTTP/", 5) == 0 && at > 0; /* it begins anew */
            at += whole;
        }
        if (count == 1 && found)
            check_header(answer, names[n], found, found_len);
    }
}

/* ---- The verdict ---- */

static void check_verdict(const struct s3_verdict *verdict, const struct s3_call *call,
                          CURLcode code)
{
    CHECK(verdict->rc <= 0 && verdict->again <= S3_KEYS);
    check_text(verdict->message, sizeof verdict->message);
    check_text(verdict->code, sizeof verdict->code);
    for (const char *c = verdict->message; *c; c++)
        CHECK((unsigned char)*c >= 0x20 && *c != 0x7f);
    CHECK((verdict->rc != 0) == (verdict->message[0] != '\0'));
    CHECK(verdict->wait_ms <= 86400u * 1000);
    if (verdict->rc == 0)
        CHECK(code == CURLE_OK && call->answer.complete && call->answer.status / 100 == 2);
    if (verdict->rc == ERR_NOT_FOUND)
        CHECK(call->answer.complete && call->answer.status >= 300);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const CURLcode codes[] = {
        CURLE_OK,           CURLE_OK,          CURLE_RECV_ERROR,         CURLE_GOT_NOTHING,
        CURLE_PARTIAL_FILE, CURLE_WRITE_ERROR, CURLE_WEIRD_SERVER_REPLY, CURLE_OPERATION_TIMEDOUT};
    static const char *const methods[] = {"GET", "HEAD", "PUT", "DELETE", "POST"};
    struct feed feed = {data, size};
    CURLcode code = codes[feed_number(&feed, 1) % (sizeof codes / sizeof *codes)];
    struct s3_call call = {.method = methods[feed_number(&feed, 1) % 5],
                           .bucket = s3_text("bucket-one"),
                           .host = "127.0.0.1:7070"};
    struct s3_answer again = {.status = 0};
    struct s3_verdict verdict, second;
    const char *text = (const char *)feed.at;

    s3_answer_reset(&call.answer);
    s3_answer_reset(&again);
    size_t at = give(&call.answer, text, feed.left);
    CHECK(give(&again, text, feed.left) == at);
    check_answer(&call.answer);
    check_headers(&call.answer, text, at);
    CHECK(again.status == call.answer.status && again.pair_count == call.answer.pair_count &&
          strcmp(again.etag, call.answer.etag) == 0);
    buf_add(&call.answer.body, text + at, feed.left - at);
    if (buf_check(&call.answer.body) == 0) {
        s3_judge(&verdict, &call, code, NOW_S);
        s3_judge(&second, &call, code, NOW_S);
        CHECK(verdict.rc == second.rc && verdict.again == second.again &&
              verdict.wait_ms == second.wait_ms && strcmp(verdict.message, second.message) == 0);
        check_verdict(&verdict, &call, code);
    }
    s3_answer_release(&call.answer);
    s3_answer_release(&again);
    return 0;
}
