/*
 * One put. The client draws the id, so a put whose answer was lost can be sent again: the same id
 * and bytes are the same put. A small file is read first and goes with its SHA-256, which the node
 * checks before it stores anything; a large one is hashed while it is sent, and what the node says
 * it has stored is compared.
 *
 * Failure: the node busy, gone or restarting is waited for, as long as the source can be read again
 * (a pipe cannot). A file that changes while it is read is reported, never stored with a wrong
 * hash.
 */
#include "cmd/objctl_upload.h"

#include "base/env.h"
#include "base/limits.h"
#include "base/text.h"
#include "cmd/objctl_progress.h"

#include <assert.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A body that is read while it is sent. */
struct source {
    struct digest *digest;
    int fd;
    bool seekable, touched;
    uint64_t at;
    int64_t length;  /* -1: up to the end */
    const char *why; /* it cannot be read any more */
};

int uploader_open(struct uploader *uploader, const char *addr, const struct upload_options *options)
{
    *uploader = (struct uploader){.options = options};
    int code = client_open(&uploader->client, addr);
    if (code)
        return code;
    uploader->small = malloc(UPLOAD_SMALL_BYTES + 1);
    if (!uploader->small || digest_create(&uploader->digest, DIGEST_SHA256))
        return ctl_fail(CTL_IO, "out of memory");
    return CTL_OK;
}

void uploader_close(struct uploader *uploader)
{
    client_close(&uploader->client);
    digest_destroy(&uploader->digest);
    free(uploader->small);
    uploader->small = NULL;
}

/* ---- Names ---- */

static char *escaped(const char *name)
{
    size_t len = strlen(name), used = 0;
    char *out = malloc(3 * len + 1);

    for (size_t i = 0; out && i < len;) {
        size_t step = utf8_char(name + i, len - i);

        if (step > 0 && !text_has_control(name + i, step)) {
            memcpy(out + used, name + i, step);
            used += step;
        } else {
            step = 1;
            used += (size_t)sprintf(out + used, "%%%02X", (unsigned char)name[i]);
        }
        i += step;
    }
    if (out)
        out[used] = 0;
    return out;
}

char *upload_name(const char *name)
{
    char *whole = escaped(name);
    if (!whole || strlen(whole) <= LIMIT_NAME_BYTES)
        return whole;
    char *slash = strrchr(whole, '/'), *last = slash ? strdup(slash + 1) : NULL;
    free(whole);
    if (last && strlen(last) > LIMIT_NAME_BYTES) {
        free(last);
        return NULL;
    }
    return last;
}

void call_header_name(struct call *call, const char *name)
{
    char encoded[3 * LIMIT_NAME_BYTES + 1];
    size_t len = strlen(name);
    bool plain = len > 0 && name[0] != ' ' && name[len - 1] != ' ';

    assert(len <= LIMIT_NAME_BYTES);
    for (size_t i = 0; i < len; i++)
        plain &= (unsigned char)name[i] >= 0x20 && (unsigned char)name[i] < 0x7f;
    if (plain) {
        call_header(call, "X-Meta-Name: %s", name);
        return;
    }
    (void)percent_encode(encoded, name, len);
    call_header(call, "X-Meta-Name*: UTF-8''%s", encoded);
}

static void add_headers(struct call *call, const struct upload_options *options,
                        const struct upload *upload)
{
    char id[ULID_TEXT_BYTES + 1];

    ulid_format(id, &upload->id);
    call_header(call, "X-Meta-ID: %s", id);
    if (upload->name && *upload->name)
        call_header_name(call, upload->name);
    if (options->level)
        call_header(call, "X-Meta-ConsistencyLevel: %s", options->level);
    if (options->user_meta)
        call_header(call, "X-Meta-UserMeta: %s", options->user_meta);
    if (options->type)
        call_header(call, "Content-Type: %s", options->type);
    else
        call_header(call, "Content-Type:"); /* libcurl's own would be a form's */
}

/* ---- Sending ---- */

static ssize_t read_source(void *arg, char *out, size_t cap)
{
    struct source *source = arg;
    uint64_t left = source->length < 0 ? UINT64_MAX : (uint64_t)source->length - source->at;
    ssize_t len;

    do
        len = read(source->fd, out, cap < left ? cap : (size_t)left);
    while (len < 0 && errno == EINTR);
    source->touched = true;
    if (len < 0)
        source->why = strerror(errno);
    else if (len == 0 && left > 0 && source->length >= 0)
        source->why = "became shorter while it was read";
    if (source->why)
        return -1;
    digest_update(source->digest, out, (size_t)len);
    source->at += (uint64_t)len;
    progress_add((uint64_t)len, 0);
    return len;
}

static int rewind_source(void *arg)
{
    struct source *source = arg;

    if (source->touched && (!source->seekable || lseek(source->fd, 0, SEEK_SET) != 0))
        return ERR_UNSUPPORTED;
    if (source->touched)
        progress_reset();
    source->at = 0;
    source->touched = false;
    digest_reset(source->digest);
    return 0;
}

/* Read FD whole into SMALL where it is no longer than that. ERR_TOO_BIG: it is. */
static int read_small(char *small, int fd, size_t *len)
{
    *len = 0;
    while (*len <= UPLOAD_SMALL_BYTES) {
        ssize_t got = read(fd, small + *len, UPLOAD_SMALL_BYTES + 1 - *len);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_from_errno(errno);
        if (got == 0)
            return 0;
        *len += (size_t)got;
    }
    return ERR_TOO_BIG;
}

/* Compare what the node has with what was read. */
static int take_answer(struct upload *upload, const struct call *call,
                       const uint8_t sha256_read[SHA256_BYTES])
{
    json_t *json = json_loadb(call->text.data ? call->text.data : "", call->text.len, 0, NULL);
    const char *id = json_string_value(json_object_get(json, "id"));
    const char *sha256_there = json_string_value(json_object_get(json, "sha256"));
    char hex[2 * SHA256_BYTES + 1];
    int code = CTL_OK;

    hex_encode(hex, sha256_read, SHA256_BYTES);
    if (!id || strlen(id) != ULID_TEXT_BYTES || !sha256_there)
        code = ctl_fail(CTL_REFUSED, "%s: the node's answer is not understood", upload->path);
    else if (strcmp(hex, sha256_there) != 0)
        code = ctl_fail(CTL_REFUSED, "%s: the node stored other bytes as %s (SHA-256 %s, not %s)",
                        upload->path, id, sha256_there, hex);
    else
        (void)snprintf(upload->id_text, sizeof upload->id_text, "%s", id);
    upload->pending = call->status == 202;
    json_decref(json);
    return code;
}

/* Make the call until it is answered or patience ends. */
static int send_call(struct uploader *uploader, struct upload *upload, struct call *call,
                     struct source *source)
{
    struct patience patience = {.limit_ms = uploader->options->retry_ms};
    int rc;

    do {
        if (source && rewind_source(source))
            return ctl_fail(CTL_UNREACHABLE, "%s: cannot be read a second time: %s", upload->path,
                            uploader->client.error);
        call_release(call);
        call->headers = NULL;
        add_headers(call, uploader->options, upload);
        if (!source) {
            uint8_t sum[SHA256_BYTES];
            char base64[4 * ((SHA256_BYTES + 2) / 3) + 1];

            sha256(call->body, (size_t)call->length, sum);
            base64_encode(base64, sum, sizeof sum);
            call_header(call, "X-Amz-Checksum-Sha256: %s", base64);
        }
        rc = client_call(&uploader->client, call);
        if (source && source->why)
            return ctl_fail(CTL_IO, "%s: %s", upload->path, source->why);
    } while (patience_left(&patience, &uploader->client, call, rc));
    return client_complain(&uploader->client, call, rc, upload->path);
}

/* LENGTH: -1 where only the end of the file will tell. */
static int upload_large(struct uploader *uploader, struct upload *upload, int64_t length,
                        bool seekable)
{
    struct source source = {
        .digest = uploader->digest, .fd = upload->fd, .seekable = seekable, .length = length};
    struct call call = {.method = "POST",
                        .path = "/api/v1/put",
                        .length = length,
                        .read = read_source,
                        .rewind = rewind_source,
                        .arg = &source};
    uint8_t sum[SHA256_BYTES];

    if (seekable && lseek(upload->fd, 0, SEEK_SET) != 0)
        return ctl_fail(CTL_IO, "%s: %s", upload->path, strerror(errno));
    digest_reset(source.digest);
    int code = send_call(uploader, upload, &call, &source);
    digest_final(source.digest, sum);
    if (code == CTL_OK)
        code = take_answer(upload, &call, sum);
    upload->size = source.at;
    call_release(&call);
    return code;
}

static int upload_small(struct uploader *uploader, struct upload *upload, size_t len)
{
    struct call call = {
        .method = "POST", .path = "/api/v1/put", .body = uploader->small, .length = (int64_t)len};
    uint8_t sum[SHA256_BYTES];

    sha256(uploader->small, len, sum);
    int code = send_call(uploader, upload, &call, NULL);
    if (code == CTL_OK)
        code = take_answer(upload, &call, sum);
    upload->size = len;
    progress_add(len, 0);
    call_release(&call);
    return code;
}

int upload_file(struct uploader *uploader, struct upload *upload)
{
    struct stat stat;
    size_t len;

    if (fstat(upload->fd, &stat) != 0)
        return ctl_fail(CTL_IO, "%s: %s", upload->path, strerror(errno));
    if (S_ISDIR(stat.st_mode))
        return ctl_fail(CTL_NOT_FOUND, "%s: is a directory (put -r stores trees)", upload->path);
    bool regular = S_ISREG(stat.st_mode);
    if (!regular || stat.st_size > UPLOAD_SMALL_BYTES)
        return upload_large(uploader, upload, regular ? stat.st_size : -1, regular);
    int rc = read_small(uploader->small, upload->fd, &len);
    if (rc == ERR_TOO_BIG) /* it grows, or is one of those in /proc that have no size */
        return upload_large(uploader, upload, -1, true);
    if (rc)
        return ctl_fail(CTL_IO, "%s: %s", upload->path, err_text(rc));
    return upload_small(uploader, upload, len);
}
