/*
 * Goal: whatever peers ask and whenever, and however reads end, the giving side stays within its
 * bounds, sends to nobody more than that one gave credit for, each transfer's bytes in order and
 * inside the body, and nothing for a transfer that is over.
 * Input: steps, each an operation, the milliseconds since the last (one byte), and its arguments.
 */
#include "cluster/serve.h"
#include "tests/fuzz/fuzz.h"

#define PEERS     8
#define TRANSFERS 32
#define MAX_STEP  12000

/* What a peer may expect of one of its transfers. */
struct expected {
    bool open;
    uint64_t credit; /* given, and not used up */
    uint64_t at, end;
};

struct run {
    struct serve *core;
    uint64_t now_ms;
    struct expected transfers[PEERS][TRANSFERS];
    struct serve_read reads[LIMIT_SERVE_READS + LIMIT_SERVE_READS_DELEGATED];
    size_t read_count;
    const void *lent; /* data of the read that is done just now */
    size_t lent_len;
    /* The question that is being asked just now. */
    unsigned asker, asked;
    bool asks;
};

static struct run run;
static uint8_t bytes[LIMIT_WIRE_CHUNK_BYTES];

static struct id128 node_id(unsigned node)
{
    return (struct id128){{6, (uint8_t)node}};
}

static size_t reads_of(bool delegated)
{
    size_t count = 0;

    for (size_t i = 0; i < run.read_count; i++)
        count += run.reads[i].delegated == delegated;
    return count;
}

static void on_read(void *arg, const struct serve_read *read)
{
    (void)arg;
    CHECK(reads_of(read->delegated) <
          (read->delegated ? LIMIT_SERVE_READS_DELEGATED : LIMIT_SERVE_READS));
    CHECK(read->len >= 1 && read->len <= LIMIT_WIRE_CHUNK_BYTES);
    CHECK(read->offset <= UINT64_MAX - read->len);
    run.reads[run.read_count++] = *read;
}

static void check_data(struct expected *it, const struct wire_body_data *data)
{
    CHECK(it->open && data->offset == it->at && data->data.len > 0);
    CHECK(data->data.len <= it->credit && data->data.len <= it->end - it->at);
    CHECK(data->offset + data->data.len <= data->size);
    CHECK(data->data.len <= run.lent_len && data->data.ptr == run.lent);
    it->at += data->data.len;
    it->credit -= data->data.len;
}

static void on_over(void *arg, uint64_t key)
{
    (void)arg;
    for (size_t i = 0; i < run.read_count; i++)
        CHECK(run.reads[i].key != key);
}

static void on_send(void *arg, const struct id128 *to, const struct wire_message *message)
{
    struct wire_message whole = *message;
    struct buf out = {0};

    (void)arg;
    CHECK(to->bytes[0] == 6 && to->bytes[1] < PEERS);
    whole.from = node_id(99);
    wire_encode(&out, &whole);
    CHECK(buf_check(&out) == 0);
    buf_release(&out);
    bool is_data = message->type == WIRE_BODY_DATA;
    uint64_t number = is_data ? message->body_data.transfer : message->flow.session;
    CHECK(is_data || message->type == WIRE_BODY_END || message->type == WIRE_BODY_COMING);
    if (number >= TRANSFERS) { /* a message of the fuzzer's own bytes */
        CHECK(!is_data);
        return;
    }
    struct expected *it = &run.transfers[to->bytes[1]][number];
    if (is_data)
        check_data(it, &message->body_data);
    else if (message->type == WIRE_BODY_END)
        it->open = false;
}

static void ask(struct feed *feed, unsigned peer, unsigned number)
{
    struct wire_message message = {.type = WIRE_BODY_ASK, .from = node_id(peer)};
    struct wire_body_ask *it = &message.body_ask;
    struct expected *expected = &run.transfers[peer][number];
    unsigned what = (unsigned)feed_number(feed, 1);

    *it = (struct wire_body_ask){.transfer = number,
                                 .id = {{(uint8_t)(what >> 4)}},
                                 .offset = feed_number(feed, what & 1 ? 8 : 2),
                                 .length = feed_number(feed, 3),
                                 .credit_bytes = feed_number(feed, what & 2 ? 8 : 3),
                                 .background = what >> 2 & 1,
                                 .delegated = what >> 5 & 1};
    if (what & 8 || it->length > UINT64_MAX - it->offset)
        it->length = UINT64_MAX;
    if (!expected->open) {
        *expected = (struct expected){
            true, it->credit_bytes, it->offset,
            it->length > UINT64_MAX - it->offset ? UINT64_MAX : it->offset + it->length};
    }
    serve_message(run.core, &message, run.now_ms);
}

static void flow(unsigned peer, unsigned number, enum wire_type type, uint64_t amount)
{
    struct wire_message message = {
        .type = type, .from = node_id(peer), .flow = {.session = number, .end = WIRE_END_CANCEL}};
    struct expected *it = &run.transfers[peer][number];

    message.flow.bytes = amount;
    if (type == WIRE_BODY_CREDIT)
        it->credit = amount > UINT64_MAX - it->credit ? UINT64_MAX : it->credit + amount;
    else
        it->open = false; /* nothing may come any more */
    serve_message(run.core, &message, run.now_ms);
}

static void read_done(struct feed *feed)
{
    static const int codes[] = {0,         0,        0,           0,      ERR_NOT_FOUND,
                                ERR_AGAIN, ERR_FULL, ERR_CORRUPT, ERR_IO, ERR_DELETED};
    unsigned which = (unsigned)feed_number(feed, 1), what = (unsigned)feed_number(feed, 1);

    if (run.read_count == 0)
        return;
    size_t at = which % run.read_count;
    struct serve_read read = run.reads[at];
    int rc = codes[what % 10];
    uint64_t left = what & 64 ? feed_number(feed, 3) : UINT64_MAX - read.offset;
    size_t len = left < read.len ? (size_t)left : read.len;

    /* The bodies of two ids are always of one size; others change theirs. */
    run.reads[at] = run.reads[--run.read_count];
    run.lent = bytes;
    run.lent_len = len;
    serve_read_done(run.core, read.key, rc, bytes, len, read.offset + left, run.now_ms);
    run.lent_len = 0;
}

static void hear_bytes(struct feed *feed)
{
    struct wire_message message;
    size_t got, len = feed_number(feed, 1);
    const uint8_t *at = feed_some(feed, len, &got);

    if (wire_decode(&message, at, got) != 0)
        return;
    message.from = node_id(message.from.bytes[0] % PEERS);
    if (message.type == WIRE_BODY_ASK)
        message.body_ask.transfer |= TRANSFERS;
    else if (message.type == WIRE_BODY_CREDIT || message.type == WIRE_BODY_END)
        message.flow.session |= TRANSFERS;
    message.type = message.type == WIRE_BODY_ASK ? WIRE_BODY_CREDIT : message.type;
    serve_message(run.core, &message, run.now_ms);
}

static void check_bounds(void)
{
    struct serve_stats stats;
    unsigned open = 0;

    serve_stats(run.core, &stats);
    CHECK(stats.active <= LIMIT_SERVED && stats.reading == reads_of(false));
    for (unsigned p = 0; p < PEERS; p++) {
        unsigned its = 0;

        for (unsigned t = 0; t < TRANSFERS; t++)
            its += run.transfers[p][t].open;
        CHECK(its <= LIMIT_SERVED_PER_PEER);
        open += its;
    }
    CHECK(open >= stats.active); /* a dropped one is not told to the peer */
}

static void step(struct feed *feed)
{
    unsigned what = (unsigned)feed_number(feed, 1), who = (unsigned)feed_number(feed, 1);
    unsigned peer = who % PEERS, number = (who >> 3) % TRANSFERS;

    run.now_ms += feed_number(feed, 1) << (what >> 5);
    switch (what % 8) {
    case 0:
    case 1:
        ask(feed, peer, number);
        break;
    case 2:
        flow(peer, number, WIRE_BODY_CREDIT, feed_number(feed, what & 16 ? 8 : 3));
        break;
    case 3:
        flow(peer, number, WIRE_BODY_END, 0);
        break;
    case 4:
    case 5:
        read_done(feed);
        break;
    case 6:
        if (what & 16) {
            struct id128 id = node_id(peer);

            memset(run.transfers[peer], 0, sizeof run.transfers[peer]);
            serve_peer_failed(run.core, &id);
        } else {
            hear_bytes(feed);
        }
        break;
    default:
        serve_tick(run.core, run.now_ms);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct serve_sink sink = {on_read, on_over, on_send, NULL};
    struct feed feed = {data, size};

    memset(&run, 0, sizeof run);
    run.now_ms = 1000;
    CHECK(serve_create(&run.core, &sink) == 0);
    while (feed.left > 0) {
        step(&feed);
        check_bounds();
    }
    serve_destroy(&run.core);
    return 0;
}
