/*
 * Reading and writing the headers of the ancestor's API.
 *
 * A put is judged by its headers before a byte of its body is read, so each one that is sent must
 * be right: a level that is misspelt, a digest that is no digest, a header sent twice end in a 400
 * that says which. Reading stops at the first.
 *
 * A name is UTF-8 as it stands, or percent-encoded in X-Meta-Name* (RFC 8187), which wins. The user
 * meta is kept in its canonical spelling, which is ASCII, so an answer sends it as it is.
 */
#include "api/headers.h"

#include "api/http/conditional.h"
#include "api/http/date.h"
#include "api/http/mime.h"
#include "base/text.h"
#include "journal/ulid.h"
#include "journal/usermeta.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define REFUSAL(name, text_code, text)                                                             \
    static const struct refusal name = {400, text_code, text, NULL}

REFUSAL(bad_id, "invalid_id", "X-Meta-ID must be one ULID of 26 characters");
REFUSAL(bad_id_time, "id_time_out_of_range", "the time in X-Meta-ID must be in 2010 to 2099");
REFUSAL(bad_level, "invalid_level", "X-Meta-ConsistencyLevel must be 0, 1, 2, local, s3 or full");
REFUSAL(bad_name, "invalid_name",
        "the name must be UTF-8 of at most 1024 bytes without control characters");
REFUSAL(bad_user_meta, "invalid_user_meta",
        "X-Meta-UserMeta must be a JSON object of strings of at most 8 KiB");
REFUSAL(bad_type, "invalid_content_type", "Content-Type is not a media type of at most 255 bytes");
REFUSAL(bad_digest, "invalid_digest",
        "Digest, Content-MD5 or X-Amz-Checksum-Sha256 is malformed, or they disagree");
REFUSAL(bad_ack, "invalid_ack", "X-Meta-Ack must be local, one, quorum, all or cloud");
REFUSAL(bad_ack_level, "ack_needs_level_2",
        "X-Meta-Ack: one, quorum and all count copies, which only level 2 makes");
REFUSAL(bad_ack_cloud, "ack_needs_level_1",
        "X-Meta-Ack: cloud cannot be waited for: level 0 is not sent there");
REFUSAL(bad_timeout, "invalid_timeout", "X-Meta-Timeout must be decimal seconds, at most 3600");
REFUSAL(bad_purge, "invalid_purge", "X-Meta-Purge must be 0, 1, false or true");

REFUSAL(bad_condition, "invalid_precondition",
        "If-Match and If-None-Match must be * or at most 16 entity tags in quotes; with "
        "If-Unmodified-Since each may be sent once");

static const struct refusal no_memory = {503, "no_memory", "out of memory", "Retry-After: 1\r\n"};

static struct slice from_request(const void *arg, const char *name, unsigned *count)
{
    return http_request_header(arg, name, count);
}

struct header_source headers_of(const struct http_request *request)
{
    return (struct header_source){from_request, request};
}

/* Header NAME into VALUE; false where it was not sent. *ONCE: at most once. */
static bool fetch(const struct header_source *source, const char *name, struct slice *value,
                  bool *once)
{
    unsigned count = 0;

    *value = source->get(source->arg, name, &count);
    *once = count <= 1;
    return value->ptr != NULL;
}

static bool is(struct slice value, const char *word)
{
    return text_equal_nocase(value.ptr, value.len, word, strlen(word));
}

static const struct refusal *read_id(struct meta_headers *out, const struct header_source *source)
{
    struct slice value;
    bool once;

    if (!fetch(source, "x-meta-id", &value, &once))
        return NULL;
    if (!once || ulid_parse(&out->id, value.ptr, value.len) != 0)
        return &bad_id;
    if (ulid_check_time(&out->id) != 0)
        return &bad_id_time;
    out->has_id = true;
    return NULL;
}

static const struct refusal *read_level(struct meta_headers *out,
                                        const struct header_source *source)
{
    static const char *const words[] = {"local", "s3", "full"};
    struct slice value;
    bool once;

    if (!fetch(source, "x-meta-consistencylevel", &value, &once))
        return NULL;
    if (!once)
        return &bad_level;
    for (uint8_t i = 0; i < 3; i++) {
        if ((value.len == 1 && value.ptr[0] == '0' + i) || is(value, words[i])) {
            out->level = i;
            out->fields |= EVENT_HAS_LEVEL;
            return NULL;
        }
    }
    return &bad_level;
}

static bool name_is_good(const char *name, size_t len)
{
    return len <= LIMIT_NAME_BYTES && utf8_valid(name, len) && !text_has_control(name, len);
}

/* UTF-8'language'percent-encoded */
static const struct refusal *decode_name(struct meta_headers *out, struct slice value)
{
    static const char charset[] = "utf-8'";
    size_t skip = sizeof charset - 1, len = 0;

    if (value.len < skip || !text_equal_nocase(value.ptr, skip, charset, skip))
        return &bad_name;
    const char *at = memchr(value.ptr + skip, '\'', value.len - skip);
    if (!at)
        return &bad_name;
    at++;
    size_t left = (size_t)(value.ptr + value.len - at);
    if (left > (size_t)3 * LIMIT_NAME_BYTES)
        return &bad_name;
    out->decoded_name = malloc(left + 1);
    if (!out->decoded_name)
        return &no_memory;
    if (percent_decode(out->decoded_name, &len, at, left) != 0 ||
        !name_is_good(out->decoded_name, len))
        return &bad_name;
    out->name = (struct text){out->decoded_name, (uint32_t)len};
    out->fields |= EVENT_HAS_NAME;
    return NULL;
}

static const struct refusal *read_name(struct meta_headers *out, const struct header_source *source)
{
    struct slice value;
    bool once;

    if (fetch(source, "x-meta-name*", &value, &once))
        return once ? decode_name(out, value) : &bad_name;
    if (!fetch(source, "x-meta-name", &value, &once))
        return NULL;
    if (!once || !name_is_good(value.ptr, value.len))
        return &bad_name;
    out->name = (struct text){value.ptr, (uint32_t)value.len};
    out->fields |= EVENT_HAS_NAME;
    return NULL;
}

static const struct refusal *read_user_meta(struct meta_headers *out,
                                            const struct header_source *source)
{
    struct slice value;
    bool once;

    if (!fetch(source, "x-meta-usermeta", &value, &once))
        return NULL;
    if (!once)
        return &bad_user_meta;
    int rc = usermeta_canonical(&out->canonical, value.ptr, value.len);
    if (rc == ERR_NO_MEMORY)
        return &no_memory;
    if (rc)
        return &bad_user_meta;
    /* An empty map and none at all are the same fact: the journal knows the latter. */
    if (out->canonical.len > 2)
        out->user_meta = (struct text){out->canonical.data, (uint32_t)out->canonical.len};
    out->fields |= EVENT_HAS_USER_META;
    return NULL;
}

static bool is_token_char(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c && strchr("!#$%&'*+-.^_`|~", c));
}

static size_t token_length(const char *text, size_t len)
{
    size_t i = 0;

    while (i < len && is_token_char((unsigned char)text[i]))
        i++;
    return i;
}

/* type "/" subtype, then nothing, or ";" and printable ASCII. */
static bool is_media_type(struct slice value)
{
    if (value.len > LIMIT_CONTENT_TYPE_BYTES)
        return false;
    size_t type = token_length(value.ptr, value.len);
    if (type == 0 || type == value.len || value.ptr[type] != '/')
        return false;
    size_t subtype = token_length(value.ptr + type + 1, value.len - type - 1);
    size_t at = type + 1 + subtype;
    if (subtype == 0)
        return false;
    if (at < value.len && value.ptr[at] != ';' && value.ptr[at] != ' ')
        return false;
    for (; at < value.len; at++) {
        if ((unsigned char)value.ptr[at] < 0x20 || (unsigned char)value.ptr[at] > 0x7e)
            return false;
    }
    return true;
}

/* curl and browsers send these without being asked; they tell nothing about the bytes. */
static bool is_form_type(struct slice value)
{
    struct slice type = value;
    const char *end = value.len ? memchr(value.ptr, ';', value.len) : NULL;

    if (end)
        type.len = (size_t)(end - value.ptr);
    while (type.len && type.ptr[type.len - 1] == ' ')
        type.len--;
    return is(type, "application/x-www-form-urlencoded") || is(type, "multipart/form-data");
}

static const struct refusal *read_type(struct meta_headers *out, const struct header_source *source)
{
    struct slice value;
    bool once;

    if (!fetch(source, "content-type", &value, &once) || (once && value.len == 0))
        return NULL;
    if (!once || !is_media_type(value))
        return &bad_type;
    /* Kept only where it will be used: the name's extension comes first. */
    if (is_form_type(value) || mime_by_name(out->name.ptr, out->name.len))
        return NULL;
    out->type = (struct text){value.ptr, (uint32_t)value.len};
    out->fields |= EVENT_HAS_TYPE;
    return NULL;
}

/* Take one more digest in base64; false where it is malformed or contradicts an earlier one. */
static bool expect_digest(bool *has, uint8_t *digest, size_t len, struct slice value)
{
    uint8_t sent[SHA256_BYTES];

    assert(len <= sizeof sent);
    if (base64_decode(sent, len, value.ptr, value.len) != 0)
        return false;
    if (*has)
        return memcmp(digest, sent, len) == 0;
    memcpy(digest, sent, len);
    *has = true;
    return true;
}

static struct slice trim(struct slice value)
{
    while (value.len && (value.ptr[0] == ' ' || value.ptr[0] == '\t')) {
        value.ptr++;
        value.len--;
    }
    while (value.len && (value.ptr[value.len - 1] == ' ' || value.ptr[value.len - 1] == '\t'))
        value.len--;
    return value;
}

/* Digest: algorithm=base64, … (RFC 3230); algorithms that we do not know are left alone. */
static bool read_digest_list(struct store_expect *expect, struct slice list)
{
    while (list.len) {
        const char *comma = memchr(list.ptr, ',', list.len);
        size_t len = comma ? (size_t)(comma - list.ptr) : list.len;
        struct slice item = trim((struct slice){list.ptr, len});
        bool good = true;

        list.ptr += comma ? len + 1 : len;
        list.len -= comma ? len + 1 : len;
        if (item.len == 0)
            continue;
        const char *equals = memchr(item.ptr, '=', item.len);
        if (!equals)
            return false;
        struct slice name = {item.ptr, (size_t)(equals - item.ptr)};
        struct slice value = {equals + 1, item.len - name.len - 1};
        if (is(name, "sha-256"))
            good = expect_digest(&expect->has_sha256, expect->sha256, SHA256_BYTES, value);
        else if (is(name, "md5"))
            good = expect_digest(&expect->has_md5, expect->md5, MD5_BYTES, value);
        if (!good)
            return false;
    }
    return true;
}

static const struct refusal *read_digests(struct meta_headers *out,
                                          const struct header_source *source)
{
    struct store_expect *expect = &out->expect;
    struct slice value;
    bool once;

    if (fetch(source, "digest", &value, &once) && (!once || !read_digest_list(expect, value)))
        return &bad_digest;
    if (fetch(source, "content-md5", &value, &once) &&
        (!once || !expect_digest(&expect->has_md5, expect->md5, MD5_BYTES, value)))
        return &bad_digest;
    if (fetch(source, "x-amz-checksum-sha256", &value, &once) &&
        (!once || !expect_digest(&expect->has_sha256, expect->sha256, SHA256_BYTES, value)))
        return &bad_digest;
    return NULL;
}

/* Decimal seconds with an optional fraction. */
static bool parse_seconds_ms(uint32_t *out, struct slice value)
{
    const char *dot = value.len ? memchr(value.ptr, '.', value.len) : NULL;
    size_t whole_len = dot ? (size_t)(dot - value.ptr) : value.len;
    size_t rest = dot ? value.len - whole_len - 1 : 0;
    uint64_t whole = 0, ms = 0;

    if (parse_u64(&whole, value.ptr, whole_len, LIMIT_ACK_TIMEOUT_MS / 1000) != 0 ||
        (dot && rest == 0))
        return false;
    for (size_t i = 0; i < (rest > 3 ? rest : 3); i++) {
        char digit = i < rest ? dot[1 + i] : '0';

        if (digit < '0' || digit > '9')
            return false;
        if (i < 3)
            ms = ms * 10 + (uint64_t)(digit - '0');
    }
    ms += whole * 1000;
    *out = (uint32_t)ms;
    return ms <= LIMIT_ACK_TIMEOUT_MS;
}

uint8_t headers_ack_level(enum ack ack)
{
    switch (ack) {
    case ACK_ONE:
    case ACK_QUORUM:
    case ACK_ALL:
        return 2;
    case ACK_CLOUD:
        return 1;
    case ACK_DEFAULT:
    case ACK_LOCAL:
        break;
    }
    return 0;
}

const struct refusal *headers_ack_needs(enum ack ack)
{
    return ack == ACK_CLOUD ? &bad_ack_cloud : &bad_ack_level;
}

static const struct refusal *read_ack(struct meta_headers *out, const struct header_source *source,
                                      bool level_known)
{
    static const char *const words[] = {"", "local", "one", "quorum", "all", "cloud"};
    struct slice value;
    bool once;

    if (fetch(source, "x-meta-timeout", &value, &once) &&
        (!once || !parse_seconds_ms(&out->timeout_ms, value)))
        return &bad_timeout;
    if (!fetch(source, "x-meta-ack", &value, &once))
        return NULL;
    for (unsigned i = ACK_LOCAL; once && i <= ACK_CLOUD; i++) {
        if (is(value, words[i]))
            out->ack = (enum ack)i;
    }
    if (out->ack == ACK_DEFAULT)
        return &bad_ack;
    return level_known && out->level < headers_ack_level(out->ack) ? headers_ack_needs(out->ack)
                                                                   : NULL;
}

static const struct refusal *read_purge(struct meta_headers *out,
                                        const struct header_source *source)
{
    struct slice value;
    bool once;

    if (!fetch(source, "x-meta-purge", &value, &once))
        return NULL;
    out->purge = is(value, "1") || is(value, "true");
    return once && (out->purge || is(value, "0") || is(value, "false")) ? NULL : &bad_purge;
}

/* "*" or a list of entity tags; false where it is neither, or too long. */
static bool parse_tags(struct condition_tags *tags, struct slice list, bool keep_weak)
{
    struct slice tag;
    bool weak;
    unsigned seen = 0;

    tags->sent = true;
    tags->any = list.len == 1 && list.ptr[0] == '*';
    if (tags->any)
        return true;
    while (conditional_next_tag(&list, &tag, &weak)) {
        char again[ETAG_BYTES + 1];

        if (++seen > LIMIT_CONDITION_TAGS)
            return false;
        uint8_t *sha256 = tags->sha256[tags->count];
        if ((weak && !keep_weak) || tag.len != ETAG_BYTES ||
            hex_decode(sha256, SHA256_BYTES, tag.ptr + 1, tag.len - 2) != 0)
            continue;
        /* Tags differ where their letters' case does. */
        hex_encode(again, sha256, SHA256_BYTES);
        if (memcmp(again, tag.ptr + 1, tag.len - 2) == 0)
            tags->count++;
    }
    return list.len == 0 && seen > 0;
}

/* If-Modified-Since counts for GET and HEAD alone (RFC 9110 §13.1.3). A list that cannot be read is
 * refused here: to let a put pass as if it had not been sent would be no harmless guess. */
static const struct refusal *read_condition(struct meta_headers *out,
                                            const struct header_source *source)
{
    struct slice match, none_match, since;
    bool match_once, none_match_once, since_once;
    bool sent = fetch(source, "if-match", &match, &match_once);

    sent |= fetch(source, "if-none-match", &none_match, &none_match_once);
    sent |= fetch(source, "if-unmodified-since", &since, &since_once);
    if (!sent)
        return NULL;
    if (!match_once || !none_match_once || !since_once)
        return &bad_condition;
    struct condition *condition = calloc(1, sizeof *condition);
    if (!condition)
        return &no_memory;
    out->condition = condition;
    if (match.ptr && !parse_tags(&condition->match, match, false))
        return &bad_condition;
    if (none_match.ptr && !parse_tags(&condition->none_match, none_match, true))
        return &bad_condition;
    /* A date that is none counts as not sent (§13.1.4). */
    condition->has_unmodified_since =
        since.ptr && http_date_parse(&condition->unmodified_since_s, since.ptr, since.len) == 0;
    return NULL;
}

const struct refusal *headers_parse(struct meta_headers *out, const struct header_source *source,
                                    enum headers_for purpose)
{
    const struct refusal *refusal = NULL;

    *out = (struct meta_headers){.timeout_ms = ACK_TIMEOUT_MS,
                                 .canonical = {.limit = 4 * LIMIT_USER_META_BYTES}};
    if (purpose == HEADERS_FOR_DELETE) {
        refusal = read_purge(out, source);
        return refusal ? refusal : read_condition(out, source);
    }
    if (purpose == HEADERS_FOR_PUT)
        refusal = read_id(out, source);
    if (!refusal)
        refusal = read_level(out, source);
    if (!refusal)
        refusal = read_name(out, source);
    if (!refusal)
        refusal = read_user_meta(out, source);
    if (!refusal && purpose == HEADERS_FOR_PUT)
        refusal = read_type(out, source);
    if (!refusal && purpose == HEADERS_FOR_PUT)
        refusal = read_digests(out, source);
    if (!refusal)
        refusal =
            read_ack(out, source, purpose == HEADERS_FOR_PUT || (out->fields & EVENT_HAS_LEVEL));
    if (!refusal)
        refusal = read_condition(out, source);
    return refusal;
}

void headers_release(struct meta_headers *headers)
{
    free(headers->decoded_name);
    headers->decoded_name = NULL;
    free(headers->condition);
    headers->condition = NULL;
    buf_release(&headers->canonical);
}

/* ---- Answers ---- */

struct text headers_type(const struct object *object)
{
    static const char unknown[] = "application/octet-stream";
    struct text name = object_name(object), sent = object_type(object);
    const char *type = mime_by_name(name.ptr, name.len);

    if (type)
        return (struct text){type, (uint32_t)strlen(type)};
    return sent.len ? sent : (struct text){unknown, sizeof unknown - 1};
}

void headers_etag(char out[ETAG_BYTES + 1], const struct object *object)
{
    out[0] = '"';
    hex_encode(out + 1, object->sha256, SHA256_BYTES);
    out[ETAG_BYTES - 1] = '"';
    out[ETAG_BYTES] = 0;
}

uint64_t headers_modified_s(const struct object *object)
{
    return object_modified_s(object);
}

#define ADD(out, literal) buf_add(out, literal, sizeof(literal) - 1)

static void add_name(struct buf *out, struct text name)
{
    bool plain = name.ptr[0] != ' ' && name.ptr[name.len - 1] != ' ';

    for (uint32_t i = 0; i < name.len; i++)
        plain = plain && (unsigned char)name.ptr[i] < 0x80;
    ADD(out, "X-Meta-Name: ");
    buf_add(out, name.ptr, name.len);
    ADD(out, "\r\n");
    if (plain)
        return;
    /* Not every client reads UTF-8 in headers: once more in RFC 8187's form. */
    ADD(out, "X-Meta-Name*: UTF-8''");
    char *at = buf_reserve(out, (size_t)3 * name.len + 1);
    if (at)
        out->len += percent_encode(at, name.ptr, name.len);
    ADD(out, "\r\n");
}

void headers_render_meta(struct buf *out, const struct object *object)
{
    struct text name = object_name(object), user_meta = object_user_meta(object);
    char id[ULID_TEXT_BYTES + 1];

    ulid_format(id, &object->id);
    ADD(out, "X-Meta-Id: ");
    buf_add(out, id, ULID_TEXT_BYTES);
    ADD(out, "\r\n");
    if (object->flags & OBJECT_DELETED) {
        ADD(out, "X-Meta-Deleted: true\r\n");
        return;
    }
    if (name.len)
        add_name(out, name);
    if (user_meta.len) {
        ADD(out, "X-Meta-UserMeta: ");
        buf_add(out, user_meta.ptr, user_meta.len);
        ADD(out, "\r\n");
    }
    ADD(out, "X-Meta-ConsistencyLevel: ");
    buf_char(out, (char)('0' + object->level));
    ADD(out, "\r\n");
    if (place_is_none(&object->place))
        ADD(out, "X-Meta-Symlink: true\r\n");
}

void headers_render(struct buf *out, const struct object *object)
{
    struct text type = headers_type(object);
    char etag[ETAG_BYTES + 1], date[HTTP_DATE_BYTES + 1];

    assert(!(object->flags & OBJECT_DELETED));
    headers_etag(etag, object);
    http_date_format(date, headers_modified_s(object));
    ADD(out, "Content-Type: ");
    buf_add(out, type.ptr, type.len);
    ADD(out, "\r\nAccept-Ranges: bytes\r\nETag: ");
    buf_add(out, etag, ETAG_BYTES);
    ADD(out, "\r\nLast-Modified: ");
    buf_add(out, date, HTTP_DATE_BYTES);
    ADD(out, "\r\n");
    headers_render_meta(out, object);
    /* What users stored is never run as a page of this origin. */
    ADD(out, "X-Content-Type-Options: nosniff\r\nContent-Security-Policy: sandbox\r\n");
}
