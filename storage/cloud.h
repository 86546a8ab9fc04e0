/*
 * The cloud: a place for bodies outside the cluster, reached through one of its backends (S3, a
 * directory). It knows keys, bytes and short texts that belong to them; of objects, levels and
 * events it knows nothing, and it never guesses a key: callers name it in full.
 *
 *   caller ──cloud_start──► backend's thread ──head──► data … ──► done
 *                 ◄──────────── cloud_consumed ──── as fast as the caller takes them
 *
 * A request is embedded in its owner's struct and lent from cloud_start until `done` was called;
 * callbacks come on the backend's thread and must not block, but for `read`. Retries, deadlines and
 * redirects of single requests are the backend's; whether the cloud is asked at all, and what is
 * owed to it, is decided above.
 */
#ifndef STORAGE_CLOUD_H
#define STORAGE_CLOUD_H

#include "base/err.h"
#include "base/hash.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LIMIT_CLOUD_KEY_BYTES    1024 /* as S3's */
#define LIMIT_CLOUD_BUCKET_BYTES 255
#define LIMIT_CLOUD_PAIRS        64   /* of metadata, or of tags */
#define LIMIT_CLOUD_META_BYTES   2048 /* names and values together, as S3's */
#define LIMIT_CLOUD_TAGS         10   /* as S3's: names to 128, values to 256 characters */
#define LIMIT_CLOUD_TAG_BYTES    2048 /* all tags, percent-encoded: they share a header's 8 KiB */
#define LIMIT_CLOUD_LIST         1000 /* keys of one answer */
#define LIMIT_CLOUD_REQUESTS     128  /* under way; more: ERR_FULL */
#define CLOUD_WINDOW_BYTES       (2u << 20) /* given to `data` and not yet consumed */
#define CLOUD_MESSAGE_BYTES      256

struct cloud;

enum cloud_op {
    CLOUD_PUT = 1, /* write the whole body under the key, instead of what is there */
    CLOUD_GET,     /* [offset, offset + length) of it */
    CLOUD_HEAD,
    CLOUD_DELETE, /* fine where there is none */
    CLOUD_LIST,   /* keys that begin with `key`, above `after`, in byte order */
    CLOUD_TAGS,   /* the tags of a key: given as `head` with them as pairs */
};

/* Names are lower-case ASCII letters, digits and '-'; values UTF-8. Not terminated. */
struct cloud_text {
    const char *ptr;
    uint32_t len;
};
struct cloud_pair {
    struct cloud_text name, value;
};

/* What is known of an object in the cloud; lent for the callback that gets it. */
struct cloud_head {
    uint64_t size;                  /* of the whole body, whatever was asked for */
    struct cloud_text etag;         /* as the backend names it, without quotes; opaque */
    struct cloud_text type;         /* Content-Type */
    int64_t modified_s;             /* Unix */
    const struct cloud_pair *pairs; /* metadata */
    size_t pair_count;
    unsigned tag_count; /* how many tags it has, as far as the backend says so unasked */
};

/* One key of a list; lent likewise. */
struct cloud_entry {
    struct cloud_text key, etag;
    uint64_t size;
    int64_t modified_s;
};

struct cloud_request {
    /* ---- The caller's; zero what is not said. All pointers are lent until `done`. ---- */
    enum cloud_op op;
    struct cloud_text bucket; /* empty: the configured one; a backend without buckets ignores it */
    struct cloud_text key;    /* in full; LIST: the prefix */
    uint64_t offset, length;  /* GET; length 0: to the end (with offset 0: all of it) */
    struct cloud_text if_match; /* GET: the etag that it has to have, else ERR_PRECONDITION */
    struct cloud_text after;    /* LIST */
    unsigned max;               /* LIST: entries; 0: LIMIT_CLOUD_LIST */

    /* PUT. */
    uint64_t size;
    uint8_t sha256[SHA256_BYTES]; /* of the whole body */
    struct cloud_text type;
    const struct cloud_pair *pairs, *tags;
    size_t pair_count, tag_count;
    /* LEN bytes from OFFSET on into BUF, all of them, or why not; any part, in any order, more than
     * once; from several threads of the backend at once. May block on this node's disk. */
    int (*read)(struct cloud_request *request, uint64_t offset, void *buf, size_t len);

    /* GET, HEAD, TAGS: once, before any data. GET: nothing of the body came yet. Non-zero: no more
     * is wanted, and `done` gets that. NULL: not wanted. */
    int (*head)(struct cloud_request *request, const struct cloud_head *head);
    /* GET: the next bytes, in order. At most CLOUD_WINDOW_BYTES come beyond what was consumed. */
    void (*data)(struct cloud_request *request, const void *bytes, size_t len);
    /* LIST: one key; `etag` alone may be empty. */
    void (*entry)(struct cloud_request *request, const struct cloud_entry *entry);
    /*
     * Once, at the end; the request may be freed in it.
     *   0              done; PUT, DELETE: durable there, and the next GET, HEAD or LIST sees it
     *   ERR_NOT_FOUND  GET, HEAD, TAGS: no such key; any: no such bucket (MESSAGE says so)
     *   ERR_PRECONDITION  `if_match`     ERR_RANGE  GET: the body ends before `offset`
     *   ERR_PERMISSION refused: credentials, rights, or a clock that is wrong
     *   ERR_MISMATCH   PUT: what `read` gave has not that SHA-256; what arrived was damaged
     *   ERR_TIMEOUT, ERR_CLOSED, ERR_AGAIN  not reached, cut off, told to come back (503): the
     *                  outcome of a PUT or DELETE is not known
     *   ERR_INVALID    the answer makes no sense, or the cloud refuses the request as malformed
     *   ERR_CLOSED     cancelled, or the cloud is being closed
     *   what `read` or `head` returned; ERR_NO_SPACE, ERR_IO (directory); ERR_NO_MEMORY
     */
    void (*done)(struct cloud_request *request, int rc);

    /* ---- Set before `done`, readable in it ---- */
    char etag[128];                    /* PUT: what it got; terminated */
    char message[CLOUD_MESSAGE_BYTES]; /* of an error: one line for an operator, no secrets */
    uint32_t retry_after_ms;           /* the cloud asked to be left alone for so long; 0: no */
    bool more;                         /* LIST: there are keys above the last one given */

    /* ---- The backend's ---- */
    struct cloud_request *next;
    void *work;
    uint64_t consumed;
    bool cancelled;
};

/* What one kind of request came to, since the start. */
struct cloud_count {
    uint64_t sent, failed; /* HTTP requests, or system calls' worth; failed: not answered, or 5xx */
};
struct cloud_figures {
    struct cloud_count by_op[CLOUD_TAGS + 1];
    uint64_t bytes_up, bytes_down; /* of bodies */
    uint64_t retries;
};

/* What a backend provides. Any thread calls them, but for destroy; none blocks. */
struct cloud_backend {
    const char *name; /* "s3", "dir": what cloud events call it */
    int (*start)(struct cloud *cloud, struct cloud_request *request);
    void (*consumed)(struct cloud *cloud, struct cloud_request *request, uint64_t bytes);
    void (*cancel)(struct cloud *cloud, struct cloud_request *request);
    void (*figures)(struct cloud *cloud, struct cloud_figures *out);
    void (*destroy)(struct cloud *cloud);
};

/* Embedded, first, in each backend's struct. */
struct cloud {
    const struct cloud_backend *backend;
    const char *bucket; /* what cloud events name: the bucket, or the directory; lent by it */
};

/* Begin. ERR_FULL: LIMIT_CLOUD_REQUESTS are under way; ERR_CLOSED; ERR_INVALID: a key, pair or tag
 * that the cloud could not take; ERR_NO_MEMORY. `done` is not called then. Any thread. */
static inline MUST_CHECK int cloud_start(struct cloud *cloud, struct cloud_request *request)
{
    return cloud->backend->start(cloud, request);
}

/* The owner of a GET has taken so many of the bytes it was given. Any thread, until `done`. */
static inline void cloud_consumed(struct cloud *cloud, struct cloud_request *request,
                                  uint64_t bytes)
{
    cloud->backend->consumed(cloud, request, bytes);
}

/* No more is wanted: `done` follows soon with ERR_CLOSED, if it was not on its way already. Any
 * thread, until `done`. */
static inline void cloud_cancel(struct cloud *cloud, struct cloud_request *request)
{
    cloud->backend->cancel(cloud, request);
}

static inline void cloud_figures(struct cloud *cloud, struct cloud_figures *out)
{
    cloud->backend->figures(cloud, out);
}

/* End what is under way (each `done` is called), join, free. */
static inline void cloud_destroy(struct cloud **cloud)
{
    if (*cloud)
        (*cloud)->backend->destroy(*cloud);
    *cloud = NULL;
}

#endif
