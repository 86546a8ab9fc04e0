/*
 * The X-Meta and digest headers that clients send, checked before anything else happens; and the
 * headers that describe an object in an answer. Pure but for memory.
 */
#ifndef API_HEADERS_H
#define API_HEADERS_H

#include "api/http/http.h"
#include "api/store.h"
#include "base/buf.h"

/* How far an answer waits (DESIGN §4). */
enum ack { ACK_DEFAULT, ACK_LOCAL, ACK_ONE, ACK_QUORUM, ACK_ALL, ACK_CLOUD };

/* An error as an answer tells it. Static. */
struct refusal {
    unsigned status;
    const char *code, *message;
    const char *head; /* further header lines, or NULL */
};

/* Where headers come from: as http_request_header. */
struct header_source {
    struct slice (*get)(const void *arg, const char *name, unsigned *count);
    const void *arg;
};
/* Those of REQUEST; inside on_request only. */
struct header_source headers_of(const struct http_request *request);

enum headers_for {
    HEADERS_FOR_PUT,    /* all of them */
    HEADERS_FOR_META,   /* name, user meta, level, ack, conditions */
    HEADERS_FOR_DELETE, /* purge, conditions */
};

struct meta_headers {
    bool has_id;
    struct id128 id;
    uint32_t fields; /* EVENT_HAS_NAME, USER_META, LEVEL, TYPE: those sent */
    struct text name, user_meta, type;
    uint8_t level;
    enum ack ack;
    uint32_t timeout_ms; /* ACK_TIMEOUT_MS unless sent */
    bool purge;
    struct store_expect expect;
    struct condition *condition; /* owned; NULL: none was sent */
    char *decoded_name;          /* owned: what name points into where it was sent encoded */
    struct buf canonical;        /* owned: user_meta's spelling */
};

/* Read and check. NULL, or why the request is refused; in both cases headers_release. Texts point
 * into the source or into OUT. */
const struct refusal *headers_parse(struct meta_headers *out, const struct header_source *source,
                                    enum headers_for purpose);
void headers_release(struct meta_headers *headers);

/* The lowest level at which ACK can be waited for. */
uint8_t headers_ack_level(enum ack ack);
/* Why ACK is refused below that. */
const struct refusal *headers_ack_needs(enum ack ack);

/* The media type an object is served with: by its name's extension, else as sent, else
 * application/octet-stream. */
struct text headers_type(const struct object *object);

/* "…" of the SHA-256 in hex. */
#define ETAG_BYTES (2 * SHA256_BYTES + 2)
void headers_etag(char out[ETAG_BYTES + 1], const struct object *object);

/* Seconds of Last-Modified. */
uint64_t headers_modified_s(const struct object *object);

/* The header lines of a GET's 200: Content-Type first, then those that do not depend on what is
 * sent. */
void headers_render(struct buf *out, const struct object *object);
/* X-Meta-Id, Name, UserMeta, ConsistencyLevel, and X-Meta-Symlink where the body is not on this
 * node; or X-Meta-Deleted alone for a tombstone. */
void headers_render_meta(struct buf *out, const struct object *object);

#endif
