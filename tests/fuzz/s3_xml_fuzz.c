/*
 * Goal: whatever XML comes, S3's answers are read the same each time, within their limits; an error
 * is one printable line or nothing; and what was read of a list or of tags, written down again as
 * S3 does, is read as the same.
 * Input: the text of one answer. All readers get it.
 */
#include "base/buf.h"
#include "base/hash.h"
#include "base/text.h"
#include "storage/s3_xml.h"
#include "storage/sigv4.h"
#include "tests/fuzz/fuzz.h"

#define MOST 64 /* entries that are written again */

static void check_text(const char *text, size_t cap)
{
    size_t len = strnlen(text, cap);

    CHECK(len < cap);
    for (size_t i = 0; i < len; i++)
        CHECK((unsigned char)text[i] >= 0x20 && text[i] != 0x7f);
}

static void check_error(const char *text, size_t len)
{
    struct s3_error error;
    int rc = s3_xml_error(&error, text, len);

    check_text(error.code, sizeof error.code);
    check_text(error.message, sizeof error.message);
    check_text(error.region, sizeof error.region);
    check_text(error.endpoint, sizeof error.endpoint);
    CHECK(rc == 0 || rc == ERR_INVALID);
    CHECK((rc == 0) == (error.code[0] != '\0'));
    CHECK(rc == 0 || (!error.message[0] && !error.region[0] && !error.endpoint[0]));
}

static void check_value(const char *text, size_t len)
{
    static const char path[] = "InitiateMultipartUploadResult/UploadId";
    char small[8], large[S3_XML_VALUE_BYTES + 1];
    int rc = s3_xml_value(large, sizeof large, path, text, len);
    int rc_small = s3_xml_value(small, sizeof small, path, text, len);

    CHECK(rc == 0 || rc == ERR_INVALID);
    if (rc == 0)
        CHECK(strnlen(large, sizeof large) < sizeof large);
    if (rc_small == 0)
        CHECK(rc == 0 && strcmp(small, large) == 0);
    else if (rc == 0)
        CHECK(strlen(large) >= sizeof small);
}

/* ---- Lists ---- */

struct seen {
    uint64_t hash;
    size_t count, stop_at; /* end there; 0: never */
    struct buf again;      /* the same list, written as S3 does */
};

static void add_hash(struct seen *seen, const void *bytes, size_t len)
{
    seen->hash = xxh64(len ? bytes : "", len, seen->hash);
}

static void add_escaped(struct buf *out, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        buf_format(out, strchr("<>&\r", text[i]) && text[i] ? "&#%u;" : "%c",
                   (unsigned char)text[i]);
}

static int take_entry(void *arg, const struct cloud_entry *entry)
{
    struct seen *seen = arg;
    const uint64_t numbers[] = {entry->size, (uint64_t)entry->modified_s, entry->key.len,
                                entry->etag.len};

    CHECK(entry->key.len > 0 && entry->key.len <= LIMIT_CLOUD_KEY_BYTES);
    CHECK(entry->etag.len <= 128);
    if (++seen->count == seen->stop_at)
        return ERR_DELETED;
    add_hash(seen, numbers, sizeof numbers);
    add_hash(seen, entry->key.ptr, entry->key.len);
    add_hash(seen, entry->etag.ptr, entry->etag.len);
    if (seen->count > MOST || seen->stop_at)
        return 0;
    buf_text(&seen->again, "<Contents><Key>");
    sigv4_encode(&seen->again, entry->key, false);
    buf_format(&seen->again, "</Key><Size>%llu</Size><ETag>&quot;",
               (unsigned long long)entry->size);
    add_escaped(&seen->again, entry->etag.ptr, entry->etag.len);
    buf_text(&seen->again, "&quot;</ETag></Contents>");
    return 0;
}

struct compared {
    const struct buf *with;
    size_t at;
    uint64_t keys;
};

static int hash_key(void *arg, const struct cloud_entry *entry)
{
    struct compared *compared = arg;

    if (compared->at++ < MOST)
        compared->keys = xxh64(entry->key.ptr, entry->key.len, compared->keys + entry->size) +
                         xxh64(entry->etag.len ? entry->etag.ptr : "", entry->etag.len, 1);
    return 0;
}

static void check_list(const char *text, size_t len)
{
    struct seen first = {.again = {0}}, second = {.again = {0}}, stopped = {.stop_at = 2};
    struct compared was = {0}, now = {0};
    bool more = false, more_again = false;

    buf_text(&first.again, "<ListBucketResult><EncodingType>url</EncodingType>");
    int rc = s3_xml_list(text, len, take_entry, &first, &more);
    CHECK(rc == 0 || rc == ERR_INVALID);
    CHECK(s3_xml_list(text, len, take_entry, &second, &more_again) == rc);
    CHECK(more == more_again && first.hash == second.hash && first.count == second.count);
    int rc_stopped = s3_xml_list(text, len, take_entry, &stopped, &more_again);
    CHECK(first.count < 2 ? rc_stopped == rc : rc_stopped == ERR_DELETED && stopped.count == 2);
    buf_text(&first.again, "</ListBucketResult>");
    CHECK(buf_check(&first.again) == 0);
    if (rc == 0) {
        CHECK(s3_xml_list(text, len, hash_key, &was, &more_again) == 0);
        CHECK(s3_xml_list(first.again.data, first.again.len, hash_key, &now, &more_again) == 0);
        CHECK(now.keys == was.keys && now.at == (was.at < MOST ? was.at : MOST) && !more_again);
    }
    buf_release(&first.again);
    buf_release(&second.again);
    buf_release(&stopped.again);
}

/* ---- Tags ---- */

static int take_tag(void *arg, struct cloud_text name, struct cloud_text value)
{
    struct seen *seen = arg;

    CHECK(name.len <= S3_XML_VALUE_BYTES && value.len <= S3_XML_VALUE_BYTES);
    CHECK(utf8_valid(name.ptr, name.len) && utf8_valid(value.ptr, value.len));
    seen->count++;
    add_hash(seen, name.ptr, name.len);
    add_hash(seen, value.ptr, value.len);
    buf_text(&seen->again, "<Tag><Key>");
    add_escaped(&seen->again, name.ptr, name.len);
    buf_text(&seen->again, "</Key><Value>");
    add_escaped(&seen->again, value.ptr, value.len);
    buf_text(&seen->again, "</Value></Tag>");
    return 0;
}

static void check_tags(const char *text, size_t len)
{
    struct seen first = {.again = {0}}, second = {.again = {0}};

    buf_text(&first.again, "<Tagging><TagSet>");
    int rc = s3_xml_tags(text, len, take_tag, &first);
    CHECK(rc == 0 || rc == ERR_INVALID);
    buf_text(&first.again, "</TagSet></Tagging>");
    CHECK(buf_check(&first.again) == 0);
    if (rc == 0) {
        CHECK(s3_xml_tags(first.again.data, first.again.len, take_tag, &second) == 0);
        CHECK(first.hash == second.hash && first.count == second.count);
    }
    buf_release(&first.again);
    buf_release(&second.again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = exact_copy(data, size);

    check_error(text, size);
    check_value(text, size);
    check_list(text, size);
    check_tags(text, size);
    free(text);
    return 0;
}
