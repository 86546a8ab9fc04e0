/*
 * The four steps of a signature: a canonical form of the request, its hash with date and scope as
 * the string to sign, a key derived from the secret by a chain of HMACs, and the HMAC of the one
 * under the other.
 *
 * Names and order are what implementations get wrong: headers go by lower-case name, those of one
 * name are joined by commas in the order in which they are sent; the query goes by its *encoded*
 * names, then values; blanks around and in a value shrink to one. Each is a function here.
 */
#include "storage/sigv4.h"

#include "base/text.h"

#include <assert.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ALGORITHM  "AWS4-HMAC-SHA256"
#define DAY_BYTES  8 /* of the date, "YYYYMMDD" */
#define LAST_SCOPE "aws4_request"

void sigv4_date(char out[SIGV4_DATE_BYTES], int64_t unix_s)
{
    time_t when = (time_t)unix_s;
    struct tm utc;

    if (!gmtime_r(&when, &utc) || strftime(out, SIGV4_DATE_BYTES, "%Y%m%dT%H%M%SZ", &utc) != 16)
        (void)snprintf(out, SIGV4_DATE_BYTES, "19700101T000000Z"); /* the cloud refuses it */
}

void sigv4_encode(struct buf *out, struct cloud_text text, bool slashes)
{
    static const char digits[] = "0123456789ABCDEF";

    for (uint32_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];

        if ((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
            c == '-' || c == '.' || c == '_' || c == '~' || (c == '/' && slashes)) {
            buf_char(out, (char)c);
        } else {
            buf_char(out, '%');
            buf_char(out, digits[c >> 4]);
            buf_char(out, digits[c & 15]);
        }
    }
}

static int text_compare(const char *a, size_t a_len, const char *b, size_t b_len)
{
    int order = memcmp(a, b, a_len < b_len ? a_len : b_len);

    return order ? order : (a_len > b_len) - (a_len < b_len);
}

/* An encoded name and value, as pieces of the buffer that holds them all. */
struct piece {
    size_t name, name_len, value, value_len;
};

static int piece_compare(const void *a, const void *b, void *data)
{
    const struct piece *x = a, *y = b;
    const char *text = data;
    int order = text_compare(text + x->name, x->name_len, text + y->name, y->name_len);

    return order ? order
                 : text_compare(text + x->value, x->value_len, text + y->value, y->value_len);
}

void sigv4_query(struct buf *out, const struct cloud_pair *query, size_t count)
{
    struct piece pieces[LIMIT_SIGV4_QUERY];
    struct buf encoded;

    if (count > LIMIT_SIGV4_QUERY) {
        out->rc = out->rc ? out->rc : ERR_TOO_BIG;
        return;
    }
    buf_init(&encoded, 0);
    for (size_t i = 0; i < count; i++) {
        pieces[i].name = encoded.len;
        sigv4_encode(&encoded, query[i].name, false);
        pieces[i].name_len = encoded.len - pieces[i].name;
        pieces[i].value = encoded.len;
        sigv4_encode(&encoded, query[i].value, false);
        pieces[i].value_len = encoded.len - pieces[i].value;
    }
    int rc = buf_check(&encoded);
    if (rc && !out->rc)
        out->rc = rc;
    if (rc == 0 && count > 0) {
        qsort_r(pieces, count, sizeof *pieces, piece_compare, encoded.data);
        for (size_t i = 0; i < count; i++) {
            if (i > 0)
                buf_char(out, '&');
            buf_add(out, encoded.data + pieces[i].name, pieces[i].name_len);
            buf_char(out, '=');
            buf_add(out, encoded.data + pieces[i].value, pieces[i].value_len);
        }
    }
    buf_release(&encoded);
}

static int lower(char c)
{
    return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : (unsigned char)c;
}

static int name_compare(struct cloud_text a, struct cloud_text b)
{
    for (uint32_t i = 0; i < a.len && i < b.len; i++) {
        if (lower(a.ptr[i]) != lower(b.ptr[i]))
            return lower(a.ptr[i]) - lower(b.ptr[i]);
    }
    return (a.len > b.len) - (a.len < b.len);
}

/* By name; those of one name stay as they were sent, which pointers into one array tell. */
static int header_compare(const void *a, const void *b)
{
    const struct cloud_pair *x = *(const struct cloud_pair *const *)a;
    const struct cloud_pair *y = *(const struct cloud_pair *const *)b;
    int order = name_compare(x->name, y->name);

    return order ? order : (x > y) - (x < y);
}

static size_t sort_headers(const struct cloud_pair **out, const struct sigv4_request *request)
{
    size_t count = request->header_count;

    if (count > LIMIT_SIGV4_HEADERS)
        return 0;
    for (size_t i = 0; i < count; i++)
        out[i] = &request->headers[i];
    qsort(out, count, sizeof *out, header_compare);
    return count;
}

static void add_lower(struct buf *out, struct cloud_text text)
{
    for (uint32_t i = 0; i < text.len; i++)
        buf_char(out, (char)lower(text.ptr[i]));
}

static void add_trimmed(struct buf *out, struct cloud_text text)
{
    bool begun = false, blank = false;

    for (uint32_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];

        if (c == ' ' || c == '\t') {
            blank = begun;
        } else {
            if (blank)
                buf_char(out, ' ');
            buf_char(out, c);
            begun = true;
            blank = false;
        }
    }
}

static void add_signed_names(struct buf *out, const struct cloud_pair *const *headers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && name_compare(headers[i]->name, headers[i - 1]->name) == 0)
            continue;
        if (i > 0)
            buf_char(out, ';');
        add_lower(out, headers[i]->name);
    }
}

void sigv4_canonical(struct buf *out, const struct sigv4_request *request)
{
    const struct cloud_pair *headers[LIMIT_SIGV4_HEADERS];
    size_t count = sort_headers(headers, request);

    assert(request->path[0] == '/');
    if (count < request->header_count && !out->rc)
        out->rc = ERR_TOO_BIG;
    buf_text(out, request->method);
    buf_char(out, '\n');
    buf_text(out, request->path);
    buf_char(out, '\n');
    sigv4_query(out, request->query, request->query_count);
    buf_char(out, '\n');
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && name_compare(headers[i]->name, headers[i - 1]->name) == 0) {
            buf_char(out, ',');
        } else {
            if (i > 0)
                buf_char(out, '\n');
            add_lower(out, headers[i]->name);
            buf_char(out, ':');
        }
        add_trimmed(out, headers[i]->value);
    }
    buf_text(out, count > 0 ? "\n\n" : "\n");
    add_signed_names(out, headers, count);
    buf_char(out, '\n');
    buf_text(out, request->payload);
}

static void add_scope(struct buf *out, const struct sigv4_key *key)
{
    buf_add(out, key->date, DAY_BYTES);
    buf_format(out, "/%s/%s/" LAST_SCOPE, key->region, key->service);
}

void sigv4_to_sign(struct buf *out, const struct sigv4_key *key, struct cloud_text canonical)
{
    uint8_t hash[SHA256_BYTES];
    char hex[SIGV4_HEX_BYTES];

    assert(strlen(key->date) == SIGV4_DATE_BYTES - 1);
    sha256(canonical.ptr, canonical.len, hash);
    hex_encode(hex, hash, sizeof hash);
    buf_format(out, ALGORITHM "\n%s\n", key->date);
    add_scope(out, key);
    buf_format(out, "\n%s", hex);
}

/* OpenSSL has it in every provider: if it fails, then for want of memory. */
static bool hmac(uint8_t out[SHA256_BYTES], const void *key, size_t key_len, const void *text,
                 size_t len)
{
    unsigned out_len = 0;

    return HMAC(EVP_sha256(), key, (int)key_len, text, len, out, &out_len) != NULL &&
           out_len == SHA256_BYTES;
}

int sigv4_signature(char out[SIGV4_HEX_BYTES], const struct sigv4_key *key,
                    struct cloud_text to_sign)
{
    uint8_t step[2][SHA256_BYTES];
    size_t secret_len = strlen(key->secret_key);
    char *first = malloc(secret_len + 5);

    if (!first)
        return ERR_NO_MEMORY;
    memcpy(first, "AWS4", 4);
    memcpy(first + 4, key->secret_key, secret_len + 1);
    bool good = hmac(step[0], first, secret_len + 4, key->date, DAY_BYTES) &&
                hmac(step[1], step[0], SHA256_BYTES, key->region, strlen(key->region)) &&
                hmac(step[0], step[1], SHA256_BYTES, key->service, strlen(key->service)) &&
                hmac(step[1], step[0], SHA256_BYTES, LAST_SCOPE, strlen(LAST_SCOPE)) &&
                hmac(step[0], step[1], SHA256_BYTES, to_sign.ptr, to_sign.len);
    OPENSSL_cleanse(first, secret_len + 5);
    free(first);
    if (good)
        hex_encode(out, step[0], SHA256_BYTES);
    OPENSSL_cleanse(step, sizeof step);
    return good ? 0 : ERR_NO_MEMORY;
}

int sigv4_authorize(struct buf *out, const struct sigv4_key *key,
                    const struct sigv4_request *request)
{
    const struct cloud_pair *headers[LIMIT_SIGV4_HEADERS];
    char signature[SIGV4_HEX_BYTES];
    struct buf canonical, to_sign;

    buf_init(&canonical, 0);
    buf_init(&to_sign, 0);
    sigv4_canonical(&canonical, request);
    int rc = buf_check(&canonical);
    if (rc)
        goto out;
    sigv4_to_sign(&to_sign, key, (struct cloud_text){canonical.data, (uint32_t)canonical.len});
    rc = buf_check(&to_sign);
    if (rc)
        goto out;
    rc = sigv4_signature(signature, key, (struct cloud_text){to_sign.data, (uint32_t)to_sign.len});
    if (rc)
        goto out;
    buf_format(out, ALGORITHM " Credential=%s/", key->access_key);
    add_scope(out, key);
    buf_text(out, ", SignedHeaders=");
    add_signed_names(out, headers, sort_headers(headers, request));
    buf_format(out, ", Signature=%s", signature);
    rc = buf_check(out);
out:
    buf_release(&to_sign);
    buf_release(&canonical);
    return rc;
}
