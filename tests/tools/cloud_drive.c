/*
 * Drives the S3 backend for tests in Python: the first line on stdin is the configuration, each
 * further one a request (both JSON); each request's outcome is one line on stdout, as it ends. So
 * many requests can be under way at once, and be cancelled or held while they are.
 *
 *   {"endpoint":"http://127.0.0.1:7070","bucket":"b","path_style":true}
 *   {"id":1,"op":"put","key":"k","file":"in","pairs":{"a":"b"},"tags":{"c":"d"}}
 *   {"id":2,"op":"get","key":"k","file":"out","offset":0,"length":10}
 *   {"id":2,"op":"cancel"}   {"id":2,"op":"consume","bytes":1000}   {"id":3,"op":"figures"}
 */
#include "base/hash.h"
#include "base/log.h"
#include "base/text.h"
#include "storage/cloud_s3.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOST 256

struct drive {
    struct cloud_request request;
    json_t *said, *reply;
    struct cloud_pair pairs[LIMIT_CLOUD_PAIRS], tags[LIMIT_CLOUD_TAGS + 1];
    int fd;
    int id;
    _Atomic uint64_t got; /* read while it grows */
    uint64_t hold_after, fail_read_at, cancel_after;
    int head_rc;
    bool garble_read;
    struct digest *digest;
};

static struct cloud *cloud;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards what follows, and stdout */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct drive *drives[MOST];
static unsigned under_way;

static void die(const char *what)
{
    (void)fprintf(stderr, "cloud_drive: %s\n", what);
    exit(70);
}

static struct cloud_text text_of(json_t *value)
{
    const char *text = json_string_value(value);

    return (struct cloud_text){text, text ? (uint32_t)json_string_length(value) : 0};
}

static uint64_t number_of(json_t *said, const char *name)
{
    return (uint64_t)json_integer_value(json_object_get(said, name));
}

static void print(json_t *reply)
{
    char *line = json_dumps(reply, JSON_COMPACT);

    if (!line)
        die("no memory");
    (void)puts(line);
    (void)fflush(stdout);
    free(line);
    json_decref(reply);
}

static json_t *string_of(struct cloud_text text)
{
    return json_stringn(text.ptr ? text.ptr : "", text.len);
}

/* ---- What the backend calls ---- */

static int on_read(struct cloud_request *request, uint64_t offset, void *buf, size_t len)
{
    struct drive *drive = (struct drive *)request;

    if (drive->fail_read_at > 0 && offset + len >= drive->fail_read_at)
        return ERR_CORRUPT;
    if (pread(drive->fd, buf, len, (off_t)offset) != (ssize_t)len)
        return ERR_IO;
    if (drive->garble_read)
        ((char *)buf)[len / 2] ^= 1;
    return 0;
}

static int on_head(struct cloud_request *request, const struct cloud_head *head)
{
    struct drive *drive = (struct drive *)request;
    json_t *pairs = json_object();

    for (size_t i = 0; i < head->pair_count; i++) {
        char name[512];

        (void)snprintf(name, sizeof name, "%.*s", (int)head->pairs[i].name.len,
                       head->pairs[i].name.ptr);
        (void)json_object_set_new(pairs, name, string_of(head->pairs[i].value));
    }
    (void)json_object_set_new(drive->reply, "pairs", pairs);
    (void)json_object_set_new(drive->reply, "size", json_integer((json_int_t)head->size));
    (void)json_object_set_new(drive->reply, "type", string_of(head->type));
    (void)json_object_set_new(drive->reply, "head_etag", string_of(head->etag));
    (void)json_object_set_new(drive->reply, "modified", json_integer(head->modified_s));
    (void)json_object_set_new(drive->reply, "tag_count", json_integer(head->tag_count));
    json_t *heads = json_object_get(drive->reply, "heads");
    (void)json_object_set_new(drive->reply, "heads", json_integer(json_integer_value(heads) + 1));
    return drive->head_rc;
}

static void on_data(struct cloud_request *request, const void *bytes, size_t len)
{
    struct drive *drive = (struct drive *)request;

    if (drive->fd >= 0 && write(drive->fd, bytes, len) != (ssize_t)len)
        die("cannot write");
    digest_update(drive->digest, bytes, len);
    drive->got += len;
    if (drive->cancel_after > 0 && drive->got >= drive->cancel_after)
        cloud_cancel(cloud, request);
    else if (drive->hold_after == 0 || drive->got <= drive->hold_after)
        cloud_consumed(cloud, request, len);
}

static void on_entry(struct cloud_request *request, const struct cloud_entry *entry)
{
    struct drive *drive = (struct drive *)request;
    json_t *item = json_array();

    (void)json_array_append_new(item, string_of(entry->key));
    (void)json_array_append_new(item, json_integer((json_int_t)entry->size));
    (void)json_array_append_new(item, string_of(entry->etag));
    (void)json_array_append_new(item, json_integer(entry->modified_s));
    (void)json_array_append_new(json_object_get(drive->reply, "entries"), item);
}

static void forget(struct drive *drive)
{
    (void)pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < MOST; i++) {
        if (drives[i] == drive)
            drives[i] = NULL;
    }
    under_way--;
    (void)pthread_cond_broadcast(&changed);
    (void)pthread_mutex_unlock(&lock);
    if (drive->fd >= 0)
        (void)close(drive->fd);
    digest_destroy(&drive->digest);
    json_decref(drive->said);
    free(drive);
}

static void finish(struct drive *drive, int rc)
{
    uint8_t hash[SHA256_BYTES];
    char hex[2 * SHA256_BYTES + 1];
    json_t *reply = drive->reply;

    digest_final(drive->digest, hash);
    hex_encode(hex, hash, sizeof hash);
    (void)json_object_set_new(reply, "rc", json_string(rc ? err_name(rc) : "ok"));
    (void)json_object_set_new(reply, "etag", json_string(drive->request.etag));
    (void)json_object_set_new(reply, "message", json_string(drive->request.message));
    (void)json_object_set_new(reply, "retry_after_ms", json_integer(drive->request.retry_after_ms));
    (void)json_object_set_new(reply, "more", json_boolean(drive->request.more));
    (void)json_object_set_new(reply, "got", json_integer((json_int_t)drive->got));
    (void)json_object_set_new(reply, "sha256", json_string(hex));
    (void)pthread_mutex_lock(&lock);
    print(reply);
    (void)pthread_mutex_unlock(&lock);
    forget(drive);
}

static void on_done(struct cloud_request *request, int rc)
{
    finish((struct drive *)request, rc);
}

/* ---- What Python says ---- */

static enum cloud_op op_of(const char *name)
{
    static const char *const names[] = {
        [CLOUD_PUT] = "put",       [CLOUD_GET] = "get",   [CLOUD_HEAD] = "head",
        [CLOUD_DELETE] = "delete", [CLOUD_LIST] = "list", [CLOUD_TAGS] = "tags"};

    for (int i = CLOUD_PUT; i <= CLOUD_TAGS; i++) {
        if (strcmp(names[i], name) == 0)
            return (enum cloud_op)i;
    }
    die("no such op");
    return CLOUD_PUT;
}

static size_t pairs_of(struct cloud_pair *out, size_t most, json_t *object)
{
    const char *name;
    json_t *value;
    size_t count = 0;

    json_object_foreach(object, name, value)
    {
        if (count == most)
            die("too many pairs");
        out[count++] = (struct cloud_pair){{name, (uint32_t)strlen(name)}, text_of(value)};
    }
    return count;
}

/* The file whose bytes are put: its size and hash. */
static void describe(struct drive *drive)
{
    struct cloud_request *request = &drive->request;
    struct stat stat;
    char buf[65536];
    ssize_t len;

    if (fstat(drive->fd, &stat))
        die("cannot stat");
    request->size = (uint64_t)stat.st_size;
    while ((len = read(drive->fd, buf, sizeof buf)) > 0)
        digest_update(drive->digest, buf, (size_t)len);
    digest_final(drive->digest, request->sha256);
    digest_reset(drive->digest);
    if (json_is_true(json_object_get(drive->said, "wrong_hash")))
        request->sha256[0] ^= 1;
}

static void open_file(struct drive *drive, bool put)
{
    const char *path = json_string_value(json_object_get(drive->said, "file"));

    drive->fd = -1;
    if (!path)
        return;
    drive->fd =
        open(path, put ? O_RDONLY | O_CLOEXEC : O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (drive->fd < 0)
        die(strerror(errno));
}

static void begin(json_t *said, const char *op)
{
    struct drive *drive = calloc(1, sizeof *drive);

    if (!drive || digest_create(&drive->digest, DIGEST_SHA256))
        die("no memory");
    struct cloud_request *request = &drive->request;
    said = drive->said = json_deep_copy(said); /* its own: it ends on another thread */
    drive->reply = json_object();
    drive->id = (int)number_of(said, "id");
    (void)json_object_set_new(drive->reply, "id", json_integer(drive->id));
    request->op = op_of(op);
    open_file(drive, request->op == CLOUD_PUT);
    request->bucket = text_of(json_object_get(said, "bucket"));
    request->key = text_of(json_object_get(said, "key"));
    request->offset = number_of(said, "offset");
    request->length = number_of(said, "length");
    request->if_match = text_of(json_object_get(said, "if_match"));
    request->after = text_of(json_object_get(said, "after"));
    request->max = (unsigned)number_of(said, "max");
    request->type = text_of(json_object_get(said, "type"));
    request->pairs = drive->pairs;
    request->pair_count = pairs_of(drive->pairs, LIMIT_CLOUD_PAIRS, json_object_get(said, "pairs"));
    request->tags = drive->tags;
    request->tag_count = pairs_of(drive->tags, LIMIT_CLOUD_TAGS + 1, json_object_get(said, "tags"));
    drive->hold_after = number_of(said, "hold_after");
    drive->cancel_after = number_of(said, "cancel_after");
    drive->fail_read_at = number_of(said, "fail_read_at");
    drive->garble_read = json_is_true(json_object_get(said, "garble_read"));
    drive->head_rc = json_is_true(json_object_get(said, "refuse_head")) ? ERR_CONFLICT : 0;
    if (request->op == CLOUD_PUT)
        describe(drive);
    if (request->op == CLOUD_LIST)
        (void)json_object_set_new(drive->reply, "entries", json_array());
    request->read = on_read;
    request->head = on_head;
    request->data = on_data;
    request->entry = on_entry;
    request->done = on_done;
    (void)pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < MOST; i++) {
        if (!drives[i]) {
            drives[i] = drive;
            break;
        }
    }
    under_way++;
    (void)pthread_mutex_unlock(&lock);
    int rc = cloud_start(cloud, request);
    if (rc)
        finish(drive, rc);
}

/* Under the lock: its end waits for it, so it stays. */
static void tell(json_t *said, const char *op)
{
    int id = (int)number_of(said, "id");

    for (unsigned i = 0; i < MOST; i++) {
        if (!drives[i] || drives[i]->id != id)
            continue;
        if (strcmp(op, "cancel") == 0)
            cloud_cancel(cloud, &drives[i]->request);
        else
            cloud_consumed(cloud, &drives[i]->request, number_of(said, "bytes"));
    }
}

static void tell_figures(json_t *said)
{
    static const char *const names[] = {NULL, "put", "get", "head", "delete", "list", "tags"};
    struct cloud_figures figures;
    json_t *reply = json_object();

    cloud_figures(cloud, &figures);
    for (int i = CLOUD_PUT; i <= CLOUD_TAGS; i++) {
        json_t *count = json_array();

        (void)json_array_append_new(count, json_integer((json_int_t)figures.by_op[i].sent));
        (void)json_array_append_new(count, json_integer((json_int_t)figures.by_op[i].failed));
        (void)json_object_set_new(reply, names[i], count);
    }
    (void)json_object_set_new(reply, "id", json_integer((json_int_t)number_of(said, "id")));
    (void)json_object_set_new(reply, "up", json_integer((json_int_t)figures.bytes_up));
    (void)json_object_set_new(reply, "down", json_integer((json_int_t)figures.bytes_down));
    (void)json_object_set_new(reply, "retries", json_integer((json_int_t)figures.retries));
    print(reply);
}

/* How much of a held body has come so far. */
static void tell_progress(json_t *said)
{
    int id = (int)number_of(said, "of");
    json_t *reply = json_object();

    (void)json_object_set_new(reply, "id", json_integer((json_int_t)number_of(said, "id")));
    for (unsigned i = 0; i < MOST; i++) {
        if (drives[i] && drives[i]->id == id)
            (void)json_object_set_new(reply, "got", json_integer((json_int_t)drives[i]->got));
    }
    print(reply);
}

static void heed(const char *line)
{
    json_t *said = json_loads(line, 0, NULL);
    const char *op = json_string_value(json_object_get(said, "op"));

    if (!op)
        die("not a request");
    if (strcmp(op, "cancel") && strcmp(op, "consume") && strcmp(op, "figures") &&
        strcmp(op, "progress")) {
        begin(said, op);
    } else {
        (void)pthread_mutex_lock(&lock);
        if (strcmp(op, "figures") == 0)
            tell_figures(said);
        else if (strcmp(op, "progress") == 0)
            tell_progress(said);
        else
            tell(said, op);
        (void)pthread_mutex_unlock(&lock);
    }
    json_decref(said);
}

static int open_cloud(const char *line, char *message, size_t cap)
{
    json_t *said = json_loads(line, 0, NULL);

    if (!said)
        die("not a configuration");
    struct cloud_s3_config config = {
        .region = json_string_value(json_object_get(said, "region")),
        .bucket = json_string_value(json_object_get(said, "bucket")),
        .endpoint = json_string_value(json_object_get(said, "endpoint")),
        .path_style = json_is_true(json_object_get(said, "path_style")),
        .ca_file = json_string_value(json_object_get(said, "ca_file")),
        .download_parts = (unsigned)number_of(said, "download_parts"),
        .tries = (unsigned)number_of(said, "tries"),
        .connect_timeout_ms = (uint32_t)number_of(said, "connect_timeout_ms"),
        .stall_timeout_ms = (uint32_t)number_of(said, "stall_timeout_ms"),
        .part_bytes = number_of(said, "part_bytes"),
    };
    int rc = cloud_s3_create(&cloud, &config, message, cap);
    json_decref(said);
    return rc;
}

int main(void)
{
    char message[256] = "", *line = NULL;
    size_t cap = 0;

    log_configure(LOG_DEBUG, LOG_TEXT);
    if (getline(&line, &cap, stdin) <= 0)
        die("no configuration");
    int rc = open_cloud(line, message, sizeof message);
    print(json_pack("{s:s,s:s}", "rc", rc ? err_name(rc) : "ok", "message", rc ? message : ""));
    while (rc == 0 && getline(&line, &cap, stdin) > 0)
        heed(line);
    free(line);
    cloud_destroy(&cloud);
    (void)pthread_mutex_lock(&lock);
    while (under_way > 0)
        (void)pthread_cond_wait(&changed, &lock);
    (void)pthread_mutex_unlock(&lock);
    return 0;
}
