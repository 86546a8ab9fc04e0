/* What the public_*.c files share; nobody else includes it. */
#ifndef API_PUBLIC_IMPL_H
#define API_PUBLIC_IMPL_H

#include "api/http/conditional.h"
#include "api/http/range.h"
#include "api/adoption.h"
#include "api/multipart.h"
#include "api/peer_body.h"
#include "api/public.h"
#include "base/container.h"

#include <assert.h>
#include <stddef.h>

enum operation {
    OPERATION_GET,
    OPERATION_META,
    OPERATION_META_SET,
    OPERATION_PUT,
    OPERATION_DELETE,
    OPERATION_ID,
    OPERATION_PING,
    OPERATION_VERSION,
    OPERATION_STATS,
    OPERATION_METRICS,
    OPERATION_HEALTH,
    OPERATION_OTHER,
};

struct public_request;
struct private_order;

/* What one loop keeps; touched by its thread alone. */
struct public_loop {
    struct public_request *idle; /* requests to be used again */
    unsigned idle_count;
    uint8_t *scratch; /* STORE_SCRATCH_BYTES, made when first needed */
} __attribute__((aligned(64)));

struct public_api {
    struct public_config config;
    struct store *store;
    struct ram *ram;
    struct env *env;
    struct http_handler handler;
    char node[32]; /* text of the node's id */
    struct public_loop loops[];
};

/* The preconditions and the range of a GET, and what they come to. */
struct get_asks {
    struct conditional conditional;
    struct slice range;
};

struct get_plan {
    unsigned status; /* 200, 206, 304, 412, 416 */
    unsigned count;  /* of ranges: 206 */
    struct byte_range ranges[LIMIT_HTTP_RANGES];
};

/* One request that holds something; its memory is used again. */
struct public_request {
    struct public_request *next; /* in the idle list */
    struct public_loop *loop;
    struct public_api *api;
    struct http_request *http;
    /* Released when the request is over: */
    const struct ram_entry *entry;
    struct store_body *body;
    struct store_put *put;
    struct store_change *change;
    struct peer_body *peer_body;
    struct adoption *adoption;
    struct http_source *source;  /* not yet the core's */
    struct private_order *order; /* the debug door's: see private_orders.c */
    /* Set by whoever uses them: */
    struct id128 id;
    int rc;
    unsigned operation;
    bool is_head;
    bool level_sent;
    bool may_fetch;  /* an unknown id may be looked for in the cloud */
    bool is_fetched; /* the answer comes from there */
    bool whole_only; /* no parts of it can be had, but maybe all */
    enum ack ack;
    uint32_t timeout_ms;  /* what the client is ready to wait … */
    uint64_t deadline_ms; /* … after its last byte, or the cloud's last step forward */
    bool late;            /* the wait was ended because the time was up */
    struct copies_wait wait;
    struct db_copies copies; /* of the object, as far as they were counted */
    struct store_result result;
    struct store_job job;
    struct peer_waiter waiter; /* for peer_body */
    struct adoption_waiter adoption_waiter;
    uint64_t source_length; /* of the answer that source is for */
    struct get_asks asks;
    struct get_plan plan;
    /* Memory that is kept from one use to the next: */
    struct buf base; /* an object's rendered header lines */
    struct buf head; /* an answer's, where they differ */
    struct buf text; /* an answer's body, or saved header values */
};

/* A request with all buffers empty, attached to HTTP; NULL: no memory (answered already). */
struct public_request *public_take(struct public_api *api, struct http_request *http);
/* The loop's scratch, or NULL. */
uint8_t *public_scratch(struct public_request *request);

void public_refuse(struct http_request *http, const struct refusal *refusal);
/* Why this node takes no changes from clients now; NULL: it does. */
const struct refusal *public_forbids_changes(struct public_api *api);
/* Answer what the store said; OPERATION tells apart what one code means for it. */
void public_fail(struct http_request *http, int rc, enum operation operation,
                 const struct id128 *id);

/* Count LENGTH bytes of a body that an answer with the header lines HEAD brings, if the object is
 * one for the cloud. */
void public_get_count(struct public_request *request, struct slice head, uint64_t length);

void public_get(struct public_api *api, struct http_request *http, const struct id128 *id);
/* Answer as the plan says from request->entry. False: it does not suffice. */
bool public_get_entry(struct public_request *request);
/* Answer as the plan says; the header lines are request->base, BODY, of request->body's row, stays
 * until on_done. */
void public_get_answer(struct public_request *request, const uint8_t *body);
/* The layout of what the plan (200 or 206) sends of a large body; for a 206 its header lines into
 * request->head. Any thread that has the request. */
int public_get_lay_out(struct public_request *request, uint64_t size,
                       struct multipart *layout) MUST_CHECK;
/* Remember a small body, verified, in the RAM tier. */
void public_get_fill(struct public_request *request, const uint8_t *body);
/* On a pool thread: the body that request->body's row names is on other nodes. Posts the request in
 * any case; the caller touches it no more. */
void public_get_from_peers(struct public_request *request, struct db_reader *reader);
/* Add the line that says so to HEAD, where the answer comes from the cloud. */
void public_get_say_fetched(const struct public_request *request, struct buf *head);
/* Look it up once more; on the loop. */
void public_get_again(struct public_request *request);
/* Whether the client allows to look for an unknown id in the cloud; in on_request. */
bool public_fetch_allowed(const struct public_request *request);
/* Look for it there: on 0 the request is answered later, and the caller touches it no more. */
int public_fetch(struct public_request *request) MUST_CHECK;
void public_meta(struct public_api *api, struct http_request *http, const struct id128 *id);
void public_meta_set(struct public_api *api, struct http_request *http, const struct id128 *id);
void public_delete(struct public_api *api, struct http_request *http, const struct id128 *id);
void public_put(struct public_api *api, struct http_request *http, const struct id128 *id);
void public_put_body(struct public_request *request, const uint8_t *data, size_t len);
void public_put_end(struct public_request *request);

/* Answer with OBJECT's document and request->copies. */
void public_answer_document(struct public_request *request, const struct object *object,
                            unsigned status);
/* request->result is durable (rc 0): wait for what was asked for, and answer. */
void public_wait(struct public_request *request);

#endif
