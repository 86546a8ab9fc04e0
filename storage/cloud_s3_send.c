/*
 * An easy handle of libcurl for one try of a call: address, headers, signature, callbacks.
 *
 * The address follows from what is known of the bucket: where it said that it lives, else the
 * configured endpoint, else AWS's for the region. With the bucket in the host's name ("virtual-host
 * style") unless path_style is set, the host is a number, or TLS could not verify it: a certificate
 * for *.s3… covers no bucket with a dot.
 *
 * Signed are the host and all x-amz- headers, and the hash of the body among these; so metadata,
 * tags and bytes arrive as they were sent, or not at all.
 */
#include "storage/cloud_s3_internal.h"

#include "base/text.h"

#include <assert.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define READ_BYTES (256L * 1024) /* libcurl's own buffers */
#define IDLE_S     50L           /* connections not used for so long are not used again */
#define TOKEN      "x-amz-security-token"

/* ---- Within curl ---- */

static size_t on_header(char *line, size_t size, size_t count, void *arg)
{
    struct s3_call *call = arg;
    size_t len = size * count;

    call->progress_ms = call->s3->now_ms;
    s3_answer_line(&call->answer, line, len);
    if (call->answer.incomplete) {
        call->refused = ERR_NO_MEMORY;
        return 0;
    }
    if (call->answer.complete && !call->given && call->head && call->answer.status / 100 == 2) {
        call->given = true;
        call->refused = call->head(call);
        if (call->refused)
            return 0;
    }
    return len;
}

static size_t on_data(char *bytes, size_t size, size_t count, void *arg)
{
    struct s3_call *call = arg;
    size_t len = size * count;

    call->progress_ms = call->s3->now_ms;
    if (call->data && call->answer.status / 100 == 2) {
        int rc = call->data(call, bytes, len);

        if (rc == ERR_FULL) {
            call->paused = true;
            return CURL_WRITEFUNC_PAUSE;
        }
        call->refused = rc;
        return rc ? 0 : len;
    }
    buf_add(&call->answer.body, bytes, len);
    int rc = buf_check(&call->answer.body);
    call->refused = rc == ERR_TOO_BIG ? ERR_INVALID : rc;
    return call->refused ? 0 : len;
}

static size_t on_send(char *out, size_t size, size_t count, void *arg)
{
    struct s3_call *call = arg;

    call->progress_ms = call->s3->now_ms;
    if (!call->feed) /* a PUT without a body */
        return 0;
    size_t len = s3_feed_take(call->feed, out, size * count);
    if (len > 0) {
        call->sent_bytes += len;
        return len;
    }
    if (call->feed->rc)
        return CURL_READFUNC_ABORT;
    if (s3_feed_at_end(call->feed))
        return 0;
    call->starved = true;
    return CURL_READFUNC_PAUSE;
}

/* ---- The address ---- */

/* A number, or a name that has no room for another in front. */
static bool host_is_number(const char *host)
{
    size_t len = strcspn(host, ":");

    return host[0] == '[' || strspn(host, "0123456789.") == len;
}

static bool in_host(const struct s3 *s3, const char *base, struct cloud_text bucket)
{
    const char *host = strstr(base, "://") + 3;
    bool tls = strncmp(base, "https", 5) == 0;

    return !s3->path_style && !host_is_number(host) &&
           !(tls && memchr(bucket.ptr, '.', bucket.len));
}

static bool own_bucket(const struct s3_call *call)
{
    return strlen(call->s3->bucket_name) == call->bucket.len &&
           memcmp(call->s3->bucket_name, call->bucket.ptr, call->bucket.len) == 0;
}

static const char *region_of(const struct s3_call *call)
{
    return call->region[0] ? call->region : call->s3->region;
}

/* The scheme into SCHEME, the host into call->host, the path into PATH. */
static void address(struct s3_call *call, const char **scheme, struct buf *path)
{
    const struct s3 *s3 = call->s3;
    const char *region = region_of(call);
    int bucket_len = (int)call->bucket.len;
    char base[S3_HOST_BYTES];
    bool host_names_bucket;

    if (call->elsewhere[0] || (s3->elsewhere[0] && own_bucket(call))) {
        const char *there = call->elsewhere[0] ? call->elsewhere : s3->elsewhere;
        const char *host = strstr(there, "://") + 3;

        (void)snprintf(base, sizeof base, "%s", there);
        host_names_bucket =
            strncmp(host, call->bucket.ptr, call->bucket.len) == 0 && host[call->bucket.len] == '.';
        (void)snprintf(call->host, sizeof call->host, "%s", host);
    } else {
        if (s3->endpoint[0])
            (void)snprintf(base, sizeof base, "%s", s3->endpoint);
        else
            (void)snprintf(base, sizeof base, "https://s3.%s.amazonaws.com%s", region,
                           strncmp(region, "cn-", 3) == 0 ? ".cn" : "");
        const char *host = strstr(base, "://") + 3;

        host_names_bucket = in_host(s3, base, call->bucket);
        if (!host_names_bucket)
            (void)snprintf(call->host, sizeof call->host, "%s", host);
        else if ((size_t)snprintf(call->host, sizeof call->host, "%.*s.%s", bucket_len,
                                  call->bucket.ptr, host) >= sizeof call->host)
            path->rc = ERR_TOO_BIG;
    }
    call->tls = strncmp(base, "https", 5) == 0;
    *scheme = call->tls ? "https" : "http";
    buf_char(path, '/');
    if (!host_names_bucket) {
        sigv4_encode(path, call->bucket, false);
        if (call->key.len > 0)
            buf_char(path, '/');
    }
    sigv4_encode(path, call->key, true);
    buf_char(path, '\0');
}

/* ---- Headers ---- */

struct headers {
    struct cloud_pair list[LIMIT_SIGV4_HEADERS];
    size_t count;
    struct buf text[LIMIT_CLOUD_PAIRS + 1]; /* names of metadata; the tags */
    size_t texts;
};

static void header(struct headers *headers, const char *name, struct cloud_text value)
{
    assert(headers->count < LIMIT_SIGV4_HEADERS);
    headers->list[headers->count++] = (struct cloud_pair){s3_text(name), value};
}

static void add_description(struct headers *headers, const struct cloud_request *request)
{
    for (size_t i = 0; i < request->pair_count; i++) {
        struct buf *name = &headers->text[headers->texts++];

        buf_text(name, "x-amz-meta-");
        buf_add(name, request->pairs[i].name.ptr, request->pairs[i].name.len);
        buf_char(name, '\0');
        if (buf_check(name) == 0)
            header(headers, name->data, request->pairs[i].value);
    }
    if (request->tag_count > 0) {
        struct buf *tags = &headers->text[headers->texts++];

        for (size_t i = 0; i < request->tag_count; i++) {
            if (i > 0)
                buf_char(tags, '&');
            sigv4_encode(tags, request->tags[i].name, false);
            buf_char(tags, '=');
            sigv4_encode(tags, request->tags[i].value, false);
        }
        buf_char(tags, '\0');
        if (buf_check(tags) == 0)
            header(headers, "x-amz-tagging", s3_text(tags->data));
    }
    header(headers, "content-type",
           request->type.len > 0 ? request->type : s3_text("application/octet-stream"));
}

static int check_texts(const struct headers *headers)
{
    for (size_t i = 0; i < headers->texts; i++) {
        int rc = buf_check(&headers->text[i]);

        if (rc)
            return rc;
    }
    return 0;
}

static void append(struct s3_call *call, struct buf *line, int *rc)
{
    buf_char(line, '\0');
    struct curl_slist *more =
        *rc == 0 && buf_check(line) == 0 ? curl_slist_append(call->headers, line->data) : NULL;

    if (more)
        call->headers = more;
    else if (*rc == 0)
        *rc = ERR_NO_MEMORY;
    if (line->data)
        OPENSSL_cleanse(line->data, line->len);
    buf_reset(line);
}

/* libcurl takes "Name;" for a header without a value. */
static int to_curl(struct s3_call *call, const struct headers *headers, const char *authorization)
{
    struct buf line;
    int rc = 0;

    buf_init(&line, 0);
    for (size_t i = 0; i < headers->count; i++) {
        const struct cloud_pair *pair = &headers->list[i];

        buf_add(&line, pair->name.ptr, pair->name.len);
        buf_text(&line, pair->value.len > 0 ? ": " : ";");
        buf_add(&line, pair->value.ptr, pair->value.len);
        append(call, &line, &rc);
    }
    if (authorization) {
        buf_format(&line, "Authorization: %s", authorization);
        append(call, &line, &rc);
    }
    if (call->range[0]) {
        buf_format(&line, "Range: bytes=%s", call->range);
        append(call, &line, &rc);
    }
    if (call->if_match.len > 0) {
        buf_format(&line, "If-Match: \"%.*s\"", (int)call->if_match.len, call->if_match.ptr);
        append(call, &line, &rc);
    }
    if (call->extra) {
        buf_text(&line, call->extra);
        append(call, &line, &rc);
    }
    buf_release(&line);
    return rc;
}

static int add_headers(struct s3_call *call, const char *path)
{
    struct s3 *s3 = call->s3;
    const struct credentials *who = &s3->keys.now;
    char date[SIGV4_DATE_BYTES], payload[SIGV4_HEX_BYTES];
    struct headers headers = {.count = 0};
    struct buf authorization;

    buf_init(&authorization, 0);
    sigv4_date(date, (int64_t)(env_wall_ms(s3->env) / 1000));
    hex_encode(payload, call->sha256, SHA256_BYTES);
    header(&headers, "Host", s3_text(call->host));
    header(&headers, "x-amz-date", s3_text(date));
    header(&headers, "x-amz-content-sha256", s3_text(payload));
    if (who->token[0])
        header(&headers, TOKEN, s3_text(who->token));
    if (call->describe)
        add_description(&headers, call->describe);
    int rc = check_texts(&headers);
    if (rc)
        goto out;
    struct sigv4_key key = {.access_key = who->access_key,
                            .secret_key = who->secret_key,
                            .region = region_of(call),
                            .service = "s3",
                            .date = date};
    struct sigv4_request request = {.method = call->method,
                                    .path = path,
                                    .query = call->query,
                                    .query_count = call->query_count,
                                    .headers = headers.list,
                                    .header_count = headers.count,
                                    .payload = payload};
    rc = sigv4_authorize(&authorization, &key, &request);
    if (rc)
        goto out;
    buf_char(&authorization, '\0');
    rc = buf_check(&authorization);
    if (rc == 0)
        rc = to_curl(call, &headers, authorization.data);
out:
    for (size_t i = 0; i < headers.texts; i++)
        buf_release(&headers.text[i]);
    buf_release(&authorization);
    return rc;
}

/* ---- All together ---- */

static int set_method(const struct s3_call *call)
{
    CURL *easy = call->easy;
    bool good = true;

    if (strcmp(call->method, "HEAD") == 0) {
        good &= curl_easy_setopt(easy, CURLOPT_NOBODY, 1L) == CURLE_OK;
    } else if (strcmp(call->method, "PUT") == 0) {
        uint64_t size = call->feed ? call->feed->end - call->feed->first : 0;

        good &= curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L) == CURLE_OK;
        good &= curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)size) == CURLE_OK;
        if (size >= (uint64_t)READ_BYTES)
            (void)curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, READ_BYTES);
    } else if (strcmp(call->method, "POST") == 0) {
        good &= curl_easy_setopt(easy, CURLOPT_POST, 1L) == CURLE_OK;
        good &= curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->body.len) ==
                CURLE_OK;
        good &= curl_easy_setopt(easy, CURLOPT_POSTFIELDS, call->body.len ? call->body.ptr : "") ==
                CURLE_OK;
    } else if (strcmp(call->method, "DELETE") == 0) {
        good &= curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, "DELETE") == CURLE_OK;
    }
    return good ? 0 : ERR_NO_MEMORY;
}

/* Those that are texts are copied. One that is not set would make another request of it. */
static int set_options(struct s3_call *call)
{
    struct s3 *s3 = call->s3;
    CURL *easy = call->easy;
    bool good = true;

    good &= curl_easy_setopt(easy, CURLOPT_PRIVATE, call) == CURLE_OK;
    good &= curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK;
    good &= curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L) == CURLE_OK;
    good &= curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK;
    good &= curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1) == CURLE_OK;
    good &= curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L) == CURLE_OK;
    good &= curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)s3->connect_ms) == CURLE_OK;
    good &= curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L) == CURLE_OK;
    good &= curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, IDLE_S) == CURLE_OK;
    /* Refused where a transfer that was broken off has left its buffer: of this size, too. */
    (void)curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, READ_BYTES);
    good &= curl_easy_setopt(easy, CURLOPT_USERAGENT, "objstore/" OBJSTORE_VERSION) == CURLE_OK;
    good &= curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, call->curl_message) == CURLE_OK;
    good &= curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header) == CURLE_OK;
    good &= curl_easy_setopt(easy, CURLOPT_HEADERDATA, call) == CURLE_OK;
    good &= curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_data) == CURLE_OK;
    good &= curl_easy_setopt(easy, CURLOPT_WRITEDATA, call) == CURLE_OK;
    good &= curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_send) == CURLE_OK;
    good &= curl_easy_setopt(easy, CURLOPT_READDATA, call) == CURLE_OK;
    good &= curl_easy_setopt(easy, CURLOPT_HTTPHEADER, call->headers) == CURLE_OK;
    if (s3->ca_file)
        good &= curl_easy_setopt(easy, CURLOPT_CAINFO, s3->ca_file) == CURLE_OK;
    if (call->url) /* those endpoints are next door; nobody in between may see what they say */
        good &= curl_easy_setopt(easy, CURLOPT_NOPROXY, "*") == CURLE_OK;
    return good ? 0 : ERR_NO_MEMORY;
}

int s3_send_prepare(struct s3_call *call)
{
    const char *scheme = "";
    struct buf path, url;
    int rc;

    assert(call->easy && !call->headers);
    buf_init(&path, 0);
    buf_init(&url, 0);
    call->curl_message[0] = '\0';
    call->sent_bytes = 0;
    if (call->url) {
        const char *host = strstr(call->url, "://") + 3;

        buf_text(&url, call->url);
        (void)snprintf(call->host, sizeof call->host, "%.*s", (int)strcspn(host, "/?#"), host);
        struct headers none = {.count = 0};
        rc = to_curl(call, &none, NULL);
    } else {
        address(call, &scheme, &path);
        rc = buf_check(&path);
        if (rc)
            goto out;
        buf_format(&url, "%s://%s%s", scheme, call->host, path.data);
        if (call->query_count > 0) {
            buf_char(&url, '?');
            sigv4_query(&url, call->query, call->query_count);
        }
        rc = add_headers(call, path.data);
    }
    buf_char(&url, '\0');
    if (rc == 0)
        rc = buf_check(&url);
    if (rc)
        goto out;
    if (curl_easy_setopt(call->easy, CURLOPT_URL, url.data) != CURLE_OK)
        rc = ERR_NO_MEMORY;
    if (rc == 0)
        rc = set_options(call);
    if (rc == 0)
        rc = set_method(call);
out:
    buf_release(&url);
    buf_release(&path);
    return rc;
}

void s3_send_release(struct s3_call *call)
{
    for (struct curl_slist *at = call->headers; at; at = at->next) {
        if (strncmp(at->data, TOKEN, strlen(TOKEN)) == 0 ||
            strncasecmp(at->data, "authorization", 13) == 0)
            OPENSSL_cleanse(at->data, strlen(at->data));
    }
    curl_slist_free_all(call->headers);
    call->headers = NULL;
}
