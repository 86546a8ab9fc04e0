/*
 * Enough of an S3 server for the backend's requests: objects, ranges, metadata, tags, lists,
 * uploads in parts, in memory; bytes are taken only with the SHA-256 that the request was signed
 * with. One thread for each connection, and none of their calls fail: what fails is on the other
 * side.
 */
#include "base/hash.h"
#include "base/text.h"
#include "tests/fault/fault.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#define MOST    16 /* objects, parts, connections */
#define PATH    "/bucket/"
#define UPLOADS 64
#define LOOK_MS 20

struct call {
    int fd;
    char head[8192], method[8], key[64], query[512];
    uint8_t *body;
    size_t len;
};

static struct {
    int fd;
    pthread_t thread, threads[512];
    unsigned thread_count;
    atomic_bool stopping;
    pthread_mutex_t lock;
    struct bucket_object objects[MOST];
    size_t count;
    /* Uploads in parts: which are open, and of the last one what came of it. */
    bool open[UPLOADS];
    unsigned last;
    struct bucket_object upload;
    struct {
        uint8_t *bytes;
        size_t len;
    } parts[MOST];
} bucket = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- Objects; under the lock ---- */

const struct bucket_object *bucket_find(const char *key)
{
    for (size_t i = 0; i < bucket.count; i++)
        if (strcmp(bucket.objects[i].key, key) == 0)
            return &bucket.objects[i];
    return NULL;
}

unsigned bucket_uploads(void)
{
    (void)pthread_mutex_lock(&bucket.lock);
    unsigned uploads = 0;
    for (unsigned i = 0; i < UPLOADS; i++)
        uploads += bucket.open[i];
    (void)pthread_mutex_unlock(&bucket.lock);
    return uploads;
}

static void forget(const char *key)
{
    struct bucket_object *object = (struct bucket_object *)(uintptr_t)bucket_find(key);

    if (!object)
        return;
    free(object->body);
    *object = bucket.objects[--bucket.count];
}

/* OBJECT's body is taken. */
static void keep(const struct bucket_object *object)
{
    forget(object->key);
    if (bucket.count == MOST)
        fault_fail("the bucket is full");
    bucket.objects[bucket.count++] = *object;
}

static void drop_parts(void)
{
    for (size_t i = 0; i < MOST; i++) {
        free(bucket.parts[i].bytes);
        bucket.parts[i].bytes = NULL;
        bucket.parts[i].len = 0;
    }
}

/* ---- HTTP ---- */

static bool send_all(int fd, const void *data, size_t len)
{
    const char *at = data;

    while (len) {
        ssize_t n = send(fd, at, len, MSG_NOSIGNAL);

        if (n <= 0)
            return false;
        at += n;
        len -= (size_t)n;
    }
    return true;
}

static bool reply(const struct call *call, unsigned status, const char *more, const void *body,
                  size_t len)
{
    char head[1024];
    bool no_body = strcmp(call->method, "HEAD") == 0;
    int n = snprintf(head, sizeof head, "HTTP/1.1 %u x\r\nContent-Length: %zu\r\n%s\r\n", status,
                     len, more);

    return send_all(call->fd, head, (size_t)n) && (no_body || send_all(call->fd, body, len));
}

static bool reply_text(const struct call *call, unsigned status, const char *text)
{
    return reply(call, status, "", text, strlen(text));
}

static bool refuse(const struct call *call, unsigned status, const char *code)
{
    char text[256];

    (void)snprintf(text, sizeof text, "<Error><Code>%s</Code><Message>no</Message></Error>", code);
    return reply_text(call, status, text);
}

/* A header's value into OUT, "" where there is none. */
static const char *header(const struct call *call, const char *name, char out[256])
{
    char wanted[64];

    (void)snprintf(wanted, sizeof wanted, "\r\n%s:", name);
    const char *at = strcasestr(call->head, wanted);
    out[0] = '\0';
    if (at) {
        at += strlen(wanted);
        at += strspn(at, " ");
        (void)snprintf(out, 256, "%.*s", (int)strcspn(at, "\r"), at);
    }
    return out;
}

static void describe(const struct call *call, struct bucket_object *object)
{
    char value[256];

    (void)snprintf(object->key, sizeof object->key, "%s", call->key);
    object->meta[0] = '\0';
    for (const char *at = call->head; (at = strstr(at, "\r\n")) && at[2] != '\r';) {
        at += 2;
        size_t used = strlen(object->meta), len = strcspn(at, "\r");
        if (strncasecmp(at, "x-amz-meta-", 11) == 0 && used + len + 3 < sizeof object->meta)
            (void)snprintf(object->meta + used, sizeof object->meta - used, "%.*s\r\n", (int)len,
                           at);
    }
    (void)snprintf(object->tags, sizeof object->tags, "%s", header(call, "x-amz-tagging", value));
}

static void etag_of(const struct bucket_object *object, char out[17])
{
    (void)snprintf(out, 17, "%016llx", (unsigned long long)xxh64(object->body, object->size, 7));
}

/* ---- What is asked ---- */

static bool get(const struct call *call)
{
    const struct bucket_object *object = bucket_find(call->key);
    char value[256], etag[17], more[1024], range[96] = "", match[24];
    unsigned long long first = 0, last;
    int has_last = 0;

    if (!object)
        return refuse(call, 404, "NoSuchKey");
    etag_of(object, etag);
    (void)snprintf(match, sizeof match, "\"%s\"", etag);
    if (*header(call, "If-Match", value) && strcmp(value, match) != 0)
        return refuse(call, 412, "PreconditionFailed");
    last = object->size ? object->size - 1 : 0;
    if (*header(call, "Range", value)) {
        unsigned long long end;

        has_last = sscanf(value, "bytes=%llu-%llu", &first, &end);
        if (has_last == 2 && end < last)
            last = end;
        if (first >= object->size)
            return refuse(call, 416, "InvalidRange");
        (void)snprintf(range, sizeof range, "Content-Range: bytes %llu-%llu/%zu\r\n", first, last,
                       object->size);
    }
    (void)snprintf(more, sizeof more, "ETag: \"%s\"\r\nx-amz-tagging-count: %d\r\n%s%s", etag,
                   object->tags[0] != '\0', range, object->meta);
    return reply(call, *range ? 206 : 200, more, object->body + first,
                 object->size ? last - first + 1 : 0);
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct bucket_object *)a)->key, ((const struct bucket_object *)b)->key);
}

static bool list(const struct call *call)
{
    char text[2048];
    int at = snprintf(text, sizeof text,
                      "<ListBucketResult><EncodingType>url</EncodingType>"
                      "<IsTruncated>false</IsTruncated>");

    qsort(bucket.objects, bucket.count, sizeof *bucket.objects, by_key);
    for (size_t i = 0; i < bucket.count; i++)
        at += snprintf(text + at, sizeof text - (size_t)at,
                       "<Contents><Key>%s%%2B</Key><Size>%zu</Size></Contents>",
                       bucket.objects[i].key, bucket.objects[i].size);
    (void)snprintf(text + at, sizeof text - (size_t)at, "</ListBucketResult>");
    return reply_text(call, 200, text);
}

static bool tags(const struct call *call)
{
    const struct bucket_object *object = bucket_find(call->key);
    char text[512];
    int name = object ? (int)strcspn(object->tags, "=") : 0;

    if (!object)
        return refuse(call, 404, "NoSuchKey");
    (void)snprintf(
        text, sizeof text,
        "<Tagging><TagSet><Tag><Key>%.*s</Key><Value>%s</Value></Tag></TagSet></Tagging>", name,
        object->tags, object->tags + name + (object->tags[name] == '='));
    return reply_text(call, 200, text);
}

/* The upload that CALL names; 0: it is not open. */
static unsigned upload_of(const struct call *call)
{
    const char *at = strstr(call->query, "uploadId=");
    unsigned id = at ? (unsigned)atoi(at + 9) : 0;

    return id < UPLOADS && bucket.open[id] ? id : 0;
}

static bool take_part(struct call *call, unsigned number)
{
    if (number < 1 || number > MOST || !upload_of(call) || upload_of(call) != bucket.last)
        return refuse(call, 404, "NoSuchUpload");
    free(bucket.parts[number - 1].bytes);
    bucket.parts[number - 1].bytes = call->body;
    bucket.parts[number - 1].len = call->len;
    call->body = NULL;
    return reply(call, 200, "ETag: \"part\"\r\n", "", 0);
}

static bool complete(const struct call *call)
{
    struct bucket_object whole = bucket.upload;
    size_t at = 0;

    if (!upload_of(call) || upload_of(call) != bucket.last)
        return refuse(call, 404, "NoSuchUpload");
    for (size_t i = 0; i < MOST; i++)
        whole.size += bucket.parts[i].len;
    whole.body = malloc(whole.size + 1);
    if (!whole.body)
        fault_fail("no memory for the bucket");
    for (size_t i = 0; i < MOST; i++) {
        if (bucket.parts[i].len)
            memcpy(whole.body + at, bucket.parts[i].bytes, bucket.parts[i].len);
        at += bucket.parts[i].len;
    }
    keep(&whole);
    drop_parts();
    bucket.open[bucket.last] = false;
    return reply_text(call, 200,
                      "<CompleteMultipartUploadResult><ETag>\"whole\"</ETag>"
                      "</CompleteMultipartUploadResult>");
}

static bool put(struct call *call)
{
    struct bucket_object object = {.body = call->body, .size = call->len};
    char sha[2 * SHA256_BYTES + 1], value[256], more[64], etag[17];
    uint8_t digest[SHA256_BYTES];

    sha256(call->len ? (void *)call->body : "", call->len, digest);
    hex_encode(sha, digest, sizeof digest);
    if (strcmp(sha, header(call, "x-amz-content-sha256", value)) != 0)
        return refuse(call, 400, "XAmzContentSHA256Mismatch");
    const char *part = strstr(call->query, "partNumber=");
    if (part)
        return take_part(call, (unsigned)atoi(part + 11));
    describe(call, &object);
    etag_of(&object, etag);
    (void)snprintf(more, sizeof more, "ETag: \"%s\"\r\n", etag);
    call->body = NULL;
    keep(&object);
    return reply(call, 200, more, "", 0);
}

static bool post(struct call *call)
{
    char text[160];

    if (strncmp(call->query, "uploads", 7) != 0)
        return complete(call);
    if (++bucket.last == UPLOADS)
        fault_fail("too many uploads");
    describe(call, &bucket.upload);
    bucket.open[bucket.last] = true;
    drop_parts();
    (void)snprintf(text, sizeof text,
                   "<InitiateMultipartUploadResult><UploadId>%u</UploadId>"
                   "</InitiateMultipartUploadResult>",
                   bucket.last);
    return reply_text(call, 200, text);
}

static bool answer(struct call *call)
{
    if (strcmp(call->method, "PUT") == 0)
        return put(call);
    if (strcmp(call->method, "POST") == 0)
        return post(call);
    if (strcmp(call->method, "DELETE") == 0) {
        if (!strstr(call->query, "uploadId"))
            forget(call->key);
        else if (upload_of(call))
            bucket.open[upload_of(call)] = false;
        else
            return refuse(call, 404, "NoSuchUpload");
        return reply(call, 204, "", "", 0);
    }
    if (strstr(call->query, "list-type"))
        return list(call);
    return strstr(call->query, "tagging") ? tags(call) : get(call);
}

/* ---- Connections ---- */

/* Up to LEN bytes; 0: it is over. */
static size_t receive(int fd, void *out, size_t len, int flags)
{
    struct pollfd look = {.fd = fd, .events = POLLIN};

    while (!atomic_load(&bucket.stopping)) {
        if (poll(&look, 1, LOOK_MS) <= 0)
            continue;
        ssize_t n = recv(fd, out, len, flags);
        return n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static bool read_head(struct call *call)
{
    for (;;) {
        size_t len = receive(call->fd, call->head, sizeof call->head - 1, MSG_PEEK);
        char *end;

        call->head[len] = '\0';
        if (len == 0 || (!(end = strstr(call->head, "\r\n\r\n")) && len + 1 == sizeof call->head))
            return false;
        if (end) {
            len = (size_t)(end - call->head) + 4;
            call->head[len] = '\0';
            return receive(call->fd, call->head, len, 0) == len;
        }
    }
}

static bool read_call(struct call *call)
{
    char value[256], target[600];

    if (!read_head(call))
        return false;
    if (sscanf(call->head, "%7s %599s", call->method, target) != 2 ||
        strncmp(target, PATH, strlen(PATH) - 1) != 0)
        return false;
    const char *path = target + strlen(PATH) - 1;
    path += *path == '/';
    size_t key = strcspn(path, "?");
    (void)snprintf(call->key, sizeof call->key, "%.*s", (int)key, path);
    (void)snprintf(call->query, sizeof call->query, "%s", path[key] ? path + key + 1 : "");
    call->len = strtoul(header(call, "Content-Length", value), NULL, 10);
    call->body = malloc(call->len + 1);
    if (!call->body)
        fault_fail("no memory for the bucket");
    if (*header(call, "Expect", value) && !send_all(call->fd, "HTTP/1.1 100 x\r\n\r\n", 18))
        return false;
    for (size_t got = 0, n; got < call->len; got += n) {
        n = receive(call->fd, call->body + got, call->len - got, 0);
        if (n == 0)
            return false;
    }
    return true;
}

static void *serve(void *arg)
{
    struct call *call = arg;
    bool open = true;

    fault_spare();
    while (open) {
        open = read_call(call);
        if (open) {
            (void)pthread_mutex_lock(&bucket.lock);
            open = answer(call);
            (void)pthread_mutex_unlock(&bucket.lock);
        }
        free(call->body);
        call->body = NULL;
    }
    (void)close(call->fd);
    free(call);
    return NULL;
}

static void *run(void *arg)
{
    struct pollfd look = {.fd = bucket.fd, .events = POLLIN};

    (void)arg;
    fault_spare();
    while (!atomic_load(&bucket.stopping)) {
        if (poll(&look, 1, LOOK_MS) <= 0)
            continue;
        struct call *call = calloc(1, sizeof *call);
        if (!call || (call->fd = accept(bucket.fd, NULL, NULL)) < 0 ||
            bucket.thread_count == sizeof bucket.threads / sizeof *bucket.threads ||
            pthread_create(&bucket.threads[bucket.thread_count++], NULL, serve, call) != 0)
            fault_fail("the bucket: %s", strerror(errno));
    }
    for (unsigned i = 0; i < bucket.thread_count; i++)
        (void)pthread_join(bucket.threads[i], NULL);
    return NULL;
}

unsigned bucket_start(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;

    fault_spare();
    bucket.fd = socket(AF_INET, SOCK_STREAM, 0);
    if (bucket.fd < 0 || bind(bucket.fd, (struct sockaddr *)&address, len) != 0 ||
        listen(bucket.fd, 64) != 0 ||
        getsockname(bucket.fd, (struct sockaddr *)&address, &len) != 0 ||
        pthread_create(&bucket.thread, NULL, run, NULL) != 0)
        fault_fail("the bucket: %s", strerror(errno));
    fault_unspare();
    return ntohs(address.sin_port);
}

void bucket_stop(void)
{
    fault_spare();
    atomic_store(&bucket.stopping, true);
    (void)pthread_join(bucket.thread, NULL);
    (void)close(bucket.fd);
    drop_parts();
    while (bucket.count)
        forget(bucket.objects[0].key);
    fault_unspare();
}
