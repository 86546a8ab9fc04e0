/*
 * announce, sync and message on the debug door.
 *
 *   on_request ► order ► suspended ► cluster's thread: done ► posted ► answered
 *
 * An order belongs to its request, which is suspended until the order is done; that comes in any
 * case, at the latest with ERR_CLOSED when the node stops. A query may hold the one parameter that
 * its path knows, once, and nothing else.
 */
#include "api/private_orders.h"

#include "api/figures.h"
#include "api/http/date.h"
#include "api/public_impl.h"
#include "base/text.h"
#include "cluster/orders.h"
#include "journal/ulid.h"

#include <stdlib.h>
#include <string.h>

#define MAX_ANSWER (4 * MIB) /* notes of 1 MiB in base64, and their frames */

struct private_order {
    struct cluster_order order; /* first: the cluster hands it back */
    struct http_request *http;
    void (*answer)(struct http_request *http, const struct cluster_order *order); /* on rc 0 */
    bool body;                                                                    /* it is coming */
};

static void refuse(struct http_request *http, unsigned status, const char *code,
                   const char *message)
{
    http_answer_error(http, status, code, message, NULL);
}

static void fail(struct http_request *http, const struct cluster_order *order)
{
    switch (order->rc) {
    case ERR_TIMEOUT:
        refuse(http, 504, "no_answer", "no node of this cluster answers at that address");
        return;
    case ERR_EXISTS:
        refuse(http, 409, "self", "at that address is this node itself");
        return;
    case ERR_NOT_FOUND:
        refuse(http, 404, "no_such_node", "no other member has this id");
        return;
    case ERR_FULL:
        if (order->kind != ORDER_SAY)
            break;
        http_answer_error(http, 429, "too_many", "this node has said too much of late",
                          "Retry-After: 1\r\n");
        return;
    default:
        break;
    }
    public_fail(http, order->rc, OPERATION_OTHER, NULL);
}

static void answer_json(struct http_request *http, struct buf *out)
{
    static const char head[] = "Content-Type: application/json\r\nCache-Control: no-store\r\n";
    int rc = buf_check(out);
    const struct http_answer answer = {.status = 200,
                                       .head = head,
                                       .head_len = sizeof head - 1,
                                       .body = out->data,
                                       .length = out->len};

    if (rc)
        public_fail(http, ERR_NO_MEMORY, OPERATION_OTHER, NULL);
    else
        http_answer(http, &answer);
    buf_release(out);
}

/* ---- The way there and back ---- */

static void posted(struct http_request *http)
{
    const struct public_request *request = http_request_data(http);
    struct cluster_order *order = &request->order->order;

    if (order->rc)
        fail(http, order);
    else
        request->order->answer(http, order);
    buf_release(&order->notes);
}

static void on_done(struct cluster_order *order)
{
    struct private_order *it = (struct private_order *)order;

    http_post(it->http, posted);
}

/* An order of KIND for HTTP; NULL: answered already. */
static struct cluster_order *
create(const struct private_orders *orders, struct http_request *http, enum order_kind kind,
       void (*answer)(struct http_request *http, const struct cluster_order *order))
{
    struct public_request *request;

    if (!orders->cluster) {
        refuse(http, 503, "no_cluster", "this node has no part in a cluster");
        return NULL;
    }
    request = public_take(orders->api, http);
    if (!request)
        return NULL;
    request->order = calloc(1, sizeof *request->order);
    if (!request->order) {
        public_fail(http, ERR_NO_MEMORY, OPERATION_OTHER, NULL);
        return NULL;
    }
    request->order->order.kind = kind;
    request->order->order.done = on_done;
    request->order->http = http;
    request->order->answer = answer;
    buf_init(&request->order->order.notes, 2 * LIMIT_NOTES_KEPT_BYTES);
    return &request->order->order;
}

/* After a success it is the cluster's until it is posted. */
static void submit(const struct private_orders *orders, struct http_request *http,
                   struct cluster_order *order)
{
    http_suspend(http);
    int rc = cluster_order(orders->cluster, order);

    if (rc) {
        order->rc = rc;
        order->kind = (enum order_kind)0; /* overloaded, not said too much */
        http_post(http, posted);
    }
}

/* ---- Queries ---- */

/* The value of NAME=, alone in HTTP's query, decoded and terminated; "" where there is no query.
 * False: something else is there, or it is too long; answered then. */
static bool query_value(struct http_request *http, const char *name, char *out, size_t cap)
{
    struct slice query = http_request_query(http);
    size_t name_len = strlen(name), len = 0;
    bool fits = true;

    if (query.len > 0) {
        fits = query.len > name_len && memcmp(query.ptr, name, name_len) == 0 &&
               query.ptr[name_len] == '=' && query.len - name_len - 1 < cap &&
               !memchr(query.ptr, '&', query.len) &&
               percent_decode(out, &len, query.ptr + name_len + 1, query.len - name_len - 1) == 0 &&
               len > 0;
    }
    if (!fits) {
        refuse(http, 400, "invalid_query", "the query is malformed, or not known here");
        return false;
    }
    out[len] = '\0';
    return true;
}

/* ---- announce ---- */

static void announced(struct http_request *http, const struct cluster_order *order)
{
    char id[ULID_TEXT_BYTES + 1];
    struct buf out;

    buf_init(&out, MAX_ANSWER);
    buf_char(&out, '{');
    if (order->kind == ORDER_ANNOUNCE) {
        figures_number(&out, "probed", order->count);
    } else {
        ulid_format(id, &order->node);
        figures_string(&out, "addr", order->address);
        figures_string(&out, "id", id);
    }
    buf_text(&out, "}\n");
    answer_json(http, &out);
}

static bool is_address(const char *text)
{
    for (; *text; text++)
        if (*text <= ' ' || *text > '~')
            return false;
    return true;
}

void private_announce(const struct private_orders *orders, struct http_request *http)
{
    char address[MEMBER_ADDRESS_BYTES + 1];

    if (!query_value(http, "addr", address, sizeof address))
        return;
    if (!is_address(address)) {
        refuse(http, 400, "invalid_address", "addr is host or host:port");
        return;
    }
    struct cluster_order *order =
        create(orders, http, *address ? ORDER_ANNOUNCE_AT : ORDER_ANNOUNCE, announced);
    if (!order)
        return;
    memcpy(order->address, address, sizeof address);
    submit(orders, http, order);
}

/* ---- sync ---- */

static void synced(struct http_request *http, const struct cluster_order *order)
{
    struct buf out;

    buf_init(&out, MAX_ANSWER);
    buf_text(&out, "{\"nodes\":[");
    for (size_t i = 0; i < order->count; i++) {
        const struct sync_outcome *outcome = &order->outcomes[i];
        char id[ULID_TEXT_BYTES + 1];

        ulid_format(id, &outcome->node);
        buf_text(&out, i > 0 ? ",{" : "{");
        figures_string(&out, "id", id);
        figures_string(&out, "result", sync_result_name(outcome->result));
        figures_number(&out, "events", outcome->events);
        buf_char(&out, '}');
    }
    buf_text(&out, "]}\n");
    answer_json(http, &out);
}

void private_sync(const struct private_orders *orders, struct http_request *http)
{
    char text[3 * ULID_TEXT_BYTES + 1];
    struct id128 node = {{0}};

    if (!query_value(http, "node", text, sizeof text))
        return;
    if (*text && ulid_parse(&node, text, strlen(text)) != 0) {
        refuse(http, 400, "invalid_id", "an id is a ULID of 26 characters");
        return;
    }
    struct cluster_order *order = create(orders, http, ORDER_SYNC, synced);
    if (!order)
        return;
    order->node = node;
    submit(orders, http, order);
}

/* ---- message ---- */

static void add_note(struct buf *out, const struct note_read *note)
{
    char id[ULID_TEXT_BYTES + 1], author[ULID_TEXT_BYTES + 1];
    char time[DATE_RFC3339_BYTES + 1];

    ulid_format(id, &note->id);
    ulid_format(author, &note->author);
    date_rfc3339_format(time, note->wall_ms);
    figures_string(out, "id", id);
    figures_string(out, "from", author);
    figures_string(out, "time", time);
    if (utf8_valid(note->data.ptr, note->data.len)) {
        figures_key(out, "text");
        buf_json(out, note->data.ptr, note->data.len);
        return;
    }
    figures_key(out, "base64");
    buf_char(out, '"');
    char *room = buf_reserve(out, 4 * ((note->data.len + 2) / 3) + 1);
    if (room) {
        base64_encode(room, note->data.ptr, note->data.len);
        out->len += strlen(room);
    }
    buf_char(out, '"');
}

static void was_read(struct http_request *http, const struct cluster_order *order)
{
    struct note_read note;
    size_t offset = 0;
    struct buf out;

    buf_init(&out, 2 * MAX_ANSWER);
    buf_text(&out, "{\"messages\":[");
    for (bool first = true; order_next_note(&order->notes, &offset, &note); first = false) {
        buf_text(&out, first ? "{" : ",{");
        add_note(&out, &note);
        buf_char(&out, '}');
    }
    buf_text(&out, "]}\n");
    answer_json(http, &out);
}

void private_read(const struct private_orders *orders, struct http_request *http)
{
    struct cluster_order *order = create(orders, http, ORDER_READ, was_read);

    if (order)
        submit(orders, http, order);
}

static void was_said(struct http_request *http, const struct cluster_order *order)
{
    char id[ULID_TEXT_BYTES + 1];
    struct buf out;

    ulid_format(id, &order->note);
    buf_init(&out, MAX_ANSWER);
    buf_char(&out, '{');
    figures_string(&out, "id", id);
    buf_text(&out, "}\n");
    answer_json(http, &out);
}

void private_say(const struct private_orders *orders, struct http_request *http)
{
    struct cluster_order *order = create(orders, http, ORDER_SAY, was_said);

    if (!order)
        return;
    ((struct private_order *)order)->body = true;
    http_read_body(http, LIMIT_WIRE_NOTE_BYTES);
}

bool private_is_note(const struct http_request *http)
{
    const struct public_request *request = http_request_data(http);

    return request && request->order && request->order->body;
}

void private_note_body(struct http_request *http, const uint8_t *data, size_t len)
{
    struct public_request *request = http_request_data(http);

    assert(request->text.len + len <= LIMIT_WIRE_NOTE_BYTES); /* the core sees to it */
    buf_add(&request->text, data, len);
}

void private_note_end(const struct private_orders *orders, struct http_request *http)
{
    struct public_request *request = http_request_data(http);
    struct private_order *order = request->order;

    order->body = false;
    if (buf_check(&request->text)) {
        public_fail(http, ERR_NO_MEMORY, OPERATION_OTHER, NULL);
        return;
    }
    if (request->text.len == 0) {
        refuse(http, 400, "empty", "the message is the request's body, and there is none");
        return;
    }
    order->order.data = (struct text){request->text.data, (uint32_t)request->text.len};
    submit(orders, http, &order->order);
}
