/*
 * Goal: the X-Meta and digest headers of a request are read as they are meant or refused; what is
 * accepted the journal accepts, too, and the headers of an answer made of it hold nothing that
 * could be taken for another line.
 * Input: what the request is (1 byte), then header lines.
 */
#include "api/document.h"
#include "api/headers.h"
#include "api/http/conditional.h"
#include "base/limits.h"
#include "base/text.h"
#include "journal/ulid.h"
#include "tests/fuzz/fuzz.h"

#include <jansson.h>

#define MAX_HEADERS 16

struct sent {
    struct slice names[MAX_HEADERS], values[MAX_HEADERS];
    unsigned count;
};

static struct slice get(const void *arg, const char *name, unsigned *count)
{
    const struct sent *sent = arg;
    struct slice found = {NULL, 0};

    *count = 0;
    for (unsigned i = 0; i < sent->count; i++)
        if (text_equal_nocase(sent->names[i].ptr, sent->names[i].len, name, strlen(name)) &&
            (*count)++ == 0)
            found = sent->values[i];
    return found;
}

/* Lines "name: value"; what the HTTP core would refuse becomes a blank. Values are exact copies. */
static void split(struct sent *sent, char *text, size_t len)
{
    char *end = text + len;

    while (text < end && sent->count < MAX_HEADERS) {
        char *stop = memchr(text, '\n', (size_t)(end - text));
        stop = stop ? stop : end;
        char *colon = memchr(text, ':', (size_t)(stop - text));
        if (colon) {
            char *value = colon + 1;
            size_t value_len;

            for (char *c = value; c < stop; c++)
                if ((unsigned char)*c < 0x20 || *c == 0x7f)
                    *c = ' ';
            while (value < stop && *value == ' ')
                value++;
            value_len = (size_t)(stop - value);
            while (value_len && value[value_len - 1] == ' ')
                value_len--;
            sent->names[sent->count] = (struct slice){text, (size_t)(colon - text)};
            sent->values[sent->count++] = (struct slice){exact_copy(value, value_len), value_len};
        }
        text = stop + 1;
    }
}

/* Each line of HEAD is "Name: value" of bytes that the core would accept. */
static void check_lines(const struct buf *head)
{
    size_t at = 0;

    CHECK(buf_check(head) == 0);
    while (at < head->len) {
        const char *line = head->data + at, *end = memmem(line, head->len - at, "\r\n", 2);

        CHECK(end && end > line && memmem(line, (size_t)(end - line), ": ", 2));
        CHECK(*line >= 'A' && *line <= 'Z');
        for (const char *c = line; c < end; c++)
            CHECK(*c != 0x7f && (unsigned char)*c >= 0x20);
        at = (size_t)(end - head->data) + 2;
    }
}

static void check_answer(const struct meta_headers *headers)
{
    struct object like = {
        .id = {{1}}, .flags = OBJECT_PUT, .level = headers->level, .put_at = {.stamp = 1 << 20}};
    struct object *object = object_create(&like, headers->name, headers->type, headers->user_meta);
    struct buf head = {0}, document = {0};
    json_error_t error;

    CHECK(object);
    headers_render(&head, object);
    check_lines(&head);
    const struct db_copies one = {.members = 1, .held = 1};

    document_render(&document, object, &one, 2);
    CHECK(buf_check(&document) == 0);
    json_t *parsed = json_loadb(document.data, document.len, JSON_REJECT_DUPLICATES, &error);
    CHECK(parsed);
    const char *name = json_string_value(json_object_get(parsed, "name"));
    CHECK(name && strlen(name) == headers->name.len &&
          (!headers->name.len || memcmp(name, headers->name.ptr, headers->name.len) == 0));
    json_decref(parsed);
    buf_release(&head);
    buf_release(&document);
    object_destroy(&object);
}

static void check_event(const struct meta_headers *headers)
{
    struct event decoded,
        event = {.origin = {{1}},
                 .node = {{2}},
                 .id = {{3}},
                 .seq = 1,
                 .stamp = 1,
                 .kind = EVENT_PUT,
                 .fields = headers->fields | EVENT_HAS_SHA256 | EVENT_HAS_SIZE | EVENT_HAS_LEVEL,
                 .level = headers->level,
                 .name = headers->name,
                 .type = headers->type,
                 .user_meta = headers->user_meta};
    struct buf bytes = {0};

    event_encode(&bytes, &event);
    CHECK(buf_check(&bytes) == 0);
    CHECK(event_decode(&decoded, (const uint8_t *)bytes.data, bytes.len) == 0);
    CHECK(decoded.fields == event.fields && decoded.name.len == event.name.len);
    buf_release(&bytes);
}

/* The digests, spelled by us, are read as the same. */
static void check_digests(const struct store_expect *expect)
{
    char sha256[48], md5[32], list[128];
    struct sent sent = {.count = 0};
    const struct header_source source = {get, &sent};
    struct meta_headers again;

    base64_encode(sha256, expect->sha256, SHA256_BYTES);
    base64_encode(md5, expect->md5, MD5_BYTES);
    (void)snprintf(list, sizeof list, "%s%s,%s%s", expect->has_md5 ? "md5=" : "",
                   expect->has_md5 ? md5 : "", expect->has_sha256 ? " SHA-256=" : "",
                   expect->has_sha256 ? sha256 : "");
    sent.names[0] = (struct slice){"digest", 6};
    sent.values[0] = (struct slice){list, strlen(list)};
    sent.names[1] = (struct slice){"content-md5", 11};
    sent.values[1] = (struct slice){md5, strlen(md5)};
    sent.count = expect->has_md5 ? 2 : 1;
    CHECK(headers_parse(&again, &source, HEADERS_FOR_PUT) == NULL);
    CHECK(again.expect.has_md5 == expect->has_md5 && again.expect.has_sha256 == expect->has_sha256);
    CHECK(!expect->has_md5 || memcmp(again.expect.md5, expect->md5, MD5_BYTES) == 0);
    CHECK(!expect->has_sha256 || memcmp(again.expect.sha256, expect->sha256, SHA256_BYTES) == 0);
    headers_release(&again);
}

static void check_accepted(const struct meta_headers *headers)
{
    CHECK(headers->level <= 2 && headers->ack <= ACK_CLOUD && headers->timeout_ms <= 3600000);
    CHECK(headers->name.len <= LIMIT_NAME_BYTES);
    CHECK(utf8_valid(headers->name.ptr, headers->name.len));
    CHECK(!text_has_control(headers->name.ptr, headers->name.len));
    CHECK(headers->type.len <= LIMIT_CONTENT_TYPE_BYTES);
    CHECK(headers->user_meta.len <= LIMIT_USER_META_BYTES);
    CHECK(!headers->has_id || ulid_check_time(&headers->id) == 0);
}

/* What is kept of a condition judges a row as the whole of the headers judges a GET of it. */
static void check_condition(const struct condition *condition, const struct sent *sent)
{
    struct object row = {.flags = OBJECT_PUT, .put_at = {.stamp = UINT64_C(1) << 60}};
    const struct conditional whole = {.if_match = get(sent, "if-match", &(unsigned){0}),
                                      .if_none_match = get(sent, "if-none-match", &(unsigned){0}),
                                      .if_unmodified_since =
                                          get(sent, "if-unmodified-since", &(unsigned){0})};
    char etag[ETAG_BYTES + 1];

    if (!condition) {
        CHECK(!whole.if_match.ptr && !whole.if_none_match.ptr && !whole.if_unmodified_since.ptr);
        return;
    }
    CHECK(condition->match.count <= LIMIT_CONDITION_TAGS);
    CHECK(condition->none_match.count <= LIMIT_CONDITION_TAGS);
    for (unsigned i = 0; i <= condition->match.count + condition->none_match.count; i++) {
        if (i < condition->match.count)
            memcpy(row.sha256, condition->match.sha256[i], SHA256_BYTES);
        else if (i < condition->match.count + condition->none_match.count)
            memcpy(row.sha256, condition->none_match.sha256[i - condition->match.count],
                   SHA256_BYTES);
        else
            memset(row.sha256, 0xa5, SHA256_BYTES);
        headers_etag(etag, &row);
        CHECK(condition_holds(condition, &row) ==
              (conditional_evaluate(&whole, etag, headers_modified_s(&row)) == CONDITIONAL_GO));
    }
    CHECK(condition_holds(condition, NULL) ==
          (conditional_evaluate(&whole, NULL, 0) == CONDITIONAL_GO));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed feed = {data, size};
    enum headers_for purpose = (enum headers_for)(feed_number(&feed, 1) % 3);
    struct sent sent = {.count = 0};
    const struct header_source source = {get, &sent};
    size_t len = feed.left;
    char *text = exact_copy(feed.at, len);
    struct meta_headers headers;

    split(&sent, text, len);
    const struct refusal *refusal = headers_parse(&headers, &source, purpose);
    if (refusal) {
        CHECK(refusal->status == 400 && *refusal->code && *refusal->message);
    } else {
        check_accepted(&headers);
        check_condition(headers.condition, &sent);
        check_event(&headers);
        check_answer(&headers);
        check_digests(&headers.expect);
    }
    headers_release(&headers);
    for (unsigned i = 0; i < sent.count; i++)
        free((char *)(uintptr_t)sent.values[i].ptr);
    free(text);
    return 0;
}
