/*
 * Goal: whatever holders answer and whenever, a fetch gives its reader the bytes that were asked
 * for, in order, each once; asks no holder for more than the window that the reader has room for,
 * at the offset reached; and ends once, with 0 only after all bytes. The same input does the same.
 * Input: steps, each an operation, the milliseconds since the last (one byte), and its arguments.
 */
#include "base/hash.h"
#include "cluster/fetch.h"
#include "tests/fuzz/fuzz.h"

#define NODES   8
#define FETCHES 16
#define TALK    32

struct wanted {
    bool open;
    uint64_t size, at, end, consumed, begin;
    uint8_t holders; /* by bit */
};

/* A question, as the holder may answer it. */
struct question {
    unsigned to;
    uint64_t transfer, offset, end;
    uint64_t credit; /* given, and not used up by data that came */
    uint64_t size;
};

struct run {
    struct fetches *core, *twin;
    uint64_t now_ms;
    struct wanted fetches[FETCHES];
    struct question talk[TALK];
    unsigned talk_next;
    uint64_t sent, twin_sent;
    const struct wire_message *message; /* that is being looked at */
};

static struct run run;
static uint8_t bytes[LIMIT_WIRE_CHUNK_BYTES];

static struct id128 node_id(unsigned node)
{
    return (struct id128){{6, (uint8_t)node}};
}

static struct question *find_question(unsigned to, uint64_t transfer)
{
    for (unsigned i = 0; i < TALK; i++)
        if (run.talk[i].to == to && run.talk[i].transfer == transfer && run.talk[i].size)
            return &run.talk[i];
    return NULL;
}

static void check_ask(unsigned to, const struct wire_body_ask *ask)
{
    struct wanted *it = &run.fetches[ask->id.bytes[0] % FETCHES];
    uint64_t unread = it->at - it->begin - it->consumed;

    CHECK(it->open && it->holders & 1u << to);
    CHECK(ask->offset == it->at && ask->length == it->end - it->at && ask->length > 0);
    CHECK(ask->credit_bytes > 0 && ask->credit_bytes + unread <= BODY_WINDOW_BYTES);
    run.talk[run.talk_next++ % TALK] = (struct question){
        to, ask->transfer, ask->offset, ask->offset + ask->length, ask->credit_bytes, it->size};
}

static void on_send(void *arg, const struct id128 *to, const struct wire_message *message)
{
    struct wire_message whole = *message;
    struct question *question;
    struct buf out = {0};

    (void)arg;
    CHECK(to->bytes[0] == 6 && to->bytes[1] < NODES);
    whole.from = node_id(99);
    wire_encode(&out, &whole);
    CHECK(buf_check(&out) == 0);
    buf_release(&out);
    run.sent++;
    switch (message->type) {
    case WIRE_BODY_ASK:
        check_ask(to->bytes[1], &message->body_ask);
        break;
    case WIRE_BODY_CREDIT:
        question = find_question(to->bytes[1], message->flow.session);
        if (question) /* else asked too long ago to be remembered here */
            question->credit += message->flow.bytes;
        CHECK(!question || question->credit <= BODY_WINDOW_BYTES);
        break;
    default:
        CHECK(message->type == WIRE_BODY_END && message->flow.end == WIRE_END_CANCEL);
    }
}

static void on_data(void *arg, uint64_t number, uint64_t offset, const void *data, size_t len,
                    const struct id128 *from)
{
    struct wanted *it = &run.fetches[number % FETCHES];
    const struct wire_body_data *sent = &run.message->body_data;

    (void)arg;
    CHECK(it->open && offset == it->at && len > 0 && len <= it->end - it->at);
    CHECK(run.message->type == WIRE_BODY_DATA && id_equal(from, &run.message->from));
    CHECK(sent->sum == xxh64(sent->data.ptr, sent->data.len, 0) && sent->size == it->size);
    CHECK((const char *)data >= sent->data.ptr &&
          (const char *)data + len <= sent->data.ptr + sent->data.len);
    CHECK(sent->offset + (uint64_t)((const char *)data - sent->data.ptr) == offset);
    it->at += len;
    CHECK(it->at - it->begin - it->consumed <= BODY_WINDOW_BYTES);
}

static void on_done(void *arg, uint64_t number, int rc)
{
    struct wanted *it = &run.fetches[number % FETCHES];

    (void)arg;
    CHECK(it->open && (rc == 0) == (it->at == it->end));
    CHECK(rc == 0 || rc == ERR_TIMEOUT || rc == ERR_AGAIN || rc == ERR_CLOSED ||
          rc == ERR_CORRUPT || rc == ERR_NOT_FOUND);
    it->open = false;
}

static void on_twin_send(void *arg, const struct id128 *to, const struct wire_message *message)
{
    (void)arg;
    (void)to;
    (void)message;
    run.twin_sent++;
}

static void on_twin_data(void *arg, uint64_t number, uint64_t offset, const void *data, size_t len,
                         const struct id128 *from)
{
    (void)arg;
    (void)number;
    (void)offset;
    (void)data;
    (void)len;
    (void)from;
}

static void on_twin_done(void *arg, uint64_t number, int rc)
{
    (void)arg;
    (void)number;
    (void)rc;
}

static void start(struct feed *feed, unsigned number)
{
    uint8_t holders = (uint8_t)feed_number(feed, 1);
    uint64_t size = feed_number(feed, 3), offset = feed_number(feed, 3);
    struct wanted *it = &run.fetches[number];
    struct id128 nodes[NODES];
    struct fetch_request request = {.number = number,
                                    .id = {{(uint8_t)number}},
                                    .size = size,
                                    .offset = size ? offset % size : 0,
                                    .background = holders & 1,
                                    .holders = nodes};

    request.length = offset & 1 ? size - request.offset : feed_number(feed, 3);
    for (unsigned i = 0; i < NODES; i++)
        if (holders & 1u << i)
            nodes[request.holder_count++] = node_id(i);
    bool fine = request.length > 0 && request.length <= size - request.offset;
    bool open = it->open;
    if (!open)
        *it = (struct wanted){true, size,           request.offset, request.offset + request.length,
                              0,    request.offset, holders};
    int rc = fetch_start(run.core, &request, run.now_ms);
    CHECK(fetch_start(run.twin, &request, run.now_ms) == rc);
    if (rc && !open)
        it->open = false;
    CHECK(rc == 0 ? !open && fine && holders : open || !fine || !holders);
}

static void hear(struct wire_message *message)
{
    struct question *question = NULL;

    run.message = message;
    if (message->type == WIRE_BODY_DATA)
        question = find_question(message->from.bytes[1], message->body_data.transfer);
    if (question) {
        uint64_t len = message->body_data.data.len;

        question->credit -= len < question->credit ? len : question->credit;
    }
    fetch_message(run.core, message, run.now_ms);
    fetch_message(run.twin, message, run.now_ms);
}

static void answer(struct feed *feed, unsigned which, bool end)
{
    struct question *it = &run.talk[which % TALK];
    unsigned what = (unsigned)feed_number(feed, 1);
    struct wire_message message = {.type = end ? WIRE_BODY_END : WIRE_BODY_DATA,
                                   .from = node_id(it->to)};

    if (what & 1 && what & 2)
        message.from = node_id(what >> 4 & 7);
    if (end) {
        message.flow = (struct wire_flow){.session = it->transfer, .end = what % 7};
        hear(&message);
        return;
    }
    uint32_t len = (uint32_t)feed_number(feed, 3) % (LIMIT_WIRE_CHUNK_BYTES + 1);
    uint64_t left = it->end - it->offset;
    if (!(what & 16))
        len = (uint32_t)(left < len ? left : len);
    message.body_data =
        (struct wire_body_data){.transfer = it->transfer, .offset = it->offset, .size = it->size};
    if (what & 32 && what & 4)
        message.body_data.offset += feed_number(feed, 2);
    if (what & 64 && what & 4)
        message.body_data.size ^= 1 + (what & 15);
    if (message.body_data.offset > message.body_data.size ||
        len > message.body_data.size - message.body_data.offset)
        return; /* no message */
    message.body_data.data = (struct text){(const char *)bytes, len};
    message.body_data.sum = xxh64(bytes, len, 0) ^ (what & 128 && what & 8 ? 1 : 0);
    it->offset += message.body_data.offset == it->offset ? len : 0;
    if (it->offset > it->end)
        it->offset = it->end;
    hear(&message);
}

static void hear_bytes(struct feed *feed)
{
    struct wire_message message;
    size_t got, len = feed_number(feed, 1);
    const uint8_t *at = feed_some(feed, len, &got);

    if (wire_decode(&message, at, got) == 0)
        hear(&message);
}

static void consume(struct feed *feed, unsigned number)
{
    struct wanted *it = &run.fetches[number];
    uint64_t unread = it->at - it->begin - it->consumed, amount = feed_number(feed, 3);

    if (amount > unread)
        amount = unread;
    it->consumed += amount;
    fetch_consumed(run.core, number, amount, run.now_ms);
    fetch_consumed(run.twin, number, amount, run.now_ms);
}

static void step(struct feed *feed)
{
    unsigned what = (unsigned)feed_number(feed, 1);
    unsigned number = (what >> 3) % FETCHES;
    struct id128 node = node_id(number % NODES);

    run.now_ms += feed_number(feed, 1) << (what >> 6);
    switch (what % 8) {
    case 0:
        start(feed, number);
        break;
    case 1:
    case 2:
        answer(feed, (unsigned)feed_number(feed, 1), false);
        break;
    case 3:
        answer(feed, (unsigned)feed_number(feed, 1), true);
        break;
    case 4:
        consume(feed, number);
        break;
    case 5:
        if (what & 128) {
            hear_bytes(feed);
            break;
        }
        fetch_peer(run.core, &node, what & 64, run.now_ms);
        fetch_peer(run.twin, &node, what & 64, run.now_ms);
        break;
    case 6:
        if (what & 128) {
            run.fetches[number].open = false;
            fetch_cancel(run.core, number, run.now_ms);
            fetch_cancel(run.twin, number, run.now_ms);
            break;
        }
        __attribute__((fallthrough));
    default:
        fetch_tick(run.core, run.now_ms);
        fetch_tick(run.twin, run.now_ms);
    }
}

static void check_bounds(void)
{
    struct fetch_stats stats;
    uint32_t open = 0;

    for (unsigned i = 0; i < FETCHES; i++)
        open += run.fetches[i].open;
    fetch_stats(run.core, &stats);
    CHECK(stats.active == open);
    CHECK(stats.begun == stats.done + stats.failed + stats.cancelled + stats.active);
    CHECK(run.sent == run.twin_sent);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct fetch_sink sink = {on_send, on_data, on_done, NULL};
    const struct fetch_sink twin = {on_twin_send, on_twin_data, on_twin_done, NULL};
    struct feed feed = {data, size};

    memset(&run, 0, sizeof run);
    run.now_ms = 1000;
    uint64_t seed = feed_number(&feed, 2);
    CHECK(fetch_create(&run.core, &sink, seed) == 0);
    CHECK(fetch_create(&run.twin, &twin, seed) == 0);
    while (feed.left > 0) {
        step(&feed);
        check_bounds();
    }
    fetch_destroy(&run.core);
    fetch_destroy(&run.twin);
    return 0;
}
