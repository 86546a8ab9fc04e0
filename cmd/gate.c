/*
 * A request belongs to whoever took it: the gate marks those that it answered itself as its own, so
 * that the handler behind it never hears of the end of a request whose beginning it missed.
 */
#include "cmd/gate.h"

#include <assert.h>
#include <string.h>

static const struct http_handler *inner_of(const struct gate *gate)
{
    return atomic_load_explicit(&gate->inner, memory_order_acquire);
}

static void on_request(void *arg, struct http_request *request)
{
    static const char alive[] = "ok\n";
    struct gate *gate = arg;
    const struct http_handler *inner = inner_of(gate);

    if (inner) {
        inner->on_request(inner->arg, request);
        return;
    }
    struct slice path = http_request_path(request);
    http_request_set_data(request, gate);
    if (path.len == 8 && memcmp(path.ptr, "/healthz", 8) == 0) {
        const struct http_answer answer = {.status = 200,
                                           .head = "Content-Type: text/plain; charset=utf-8\r\n",
                                           .head_len = 41,
                                           .body = alive,
                                           .length = sizeof alive - 1};
        http_answer(request, &answer);
        return;
    }
    http_answer_error(request, 503, "starting", "the node is recovering and will serve soon",
                      "Retry-After: 1\r\n");
}

static void on_body(void *arg, struct http_request *request, const uint8_t *data, size_t len)
{
    const struct http_handler *inner = inner_of(arg);

    assert(inner);
    inner->on_body(inner->arg, request, data, len);
}

static void on_body_end(void *arg, struct http_request *request)
{
    const struct http_handler *inner = inner_of(arg);

    assert(inner);
    inner->on_body_end(inner->arg, request);
}

static void on_done(void *arg, struct http_request *request)
{
    const struct http_handler *inner = inner_of(arg);

    if (http_request_data(request) == arg)
        return;
    assert(inner);
    inner->on_done(inner->arg, request);
}

void gate_init(struct gate *gate)
{
    gate->handler = (struct http_handler){.on_request = on_request,
                                          .on_body = on_body,
                                          .on_body_end = on_body_end,
                                          .on_done = on_done,
                                          .arg = gate};
    atomic_init(&gate->inner, NULL);
}

void gate_open(struct gate *gate, const struct http_handler *inner)
{
    assert(inner && !inner_of(gate));
    atomic_store_explicit(&gate->inner, inner, memory_order_release);
}
