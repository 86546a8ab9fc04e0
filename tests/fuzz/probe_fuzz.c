/*
 * Goal: whatever comes in, in whatever order and at whatever time, the probe core stays within its
 * bounds, sends only to members, seeds and whoever asked, never fails a member that it has just
 * heard, has nothing left to do after a tick, and does the same again for the same input.
 * Input: steps, each an operation, the milliseconds since the last (two bytes), and its arguments.
 */
#include "cluster/probe.h"
#include "tests/fuzz/fuzz.h"

#define NODES    16
#define SENT     16
#define MAX_STEP 2000
#define START_MS 100000

struct run {
    struct probe *core, *twin;
    uint64_t now_ms;
    uint64_t nonces[SENT]; /* of the last messages that it sent */
    unsigned sent;
    bool member[NODES];
    enum probe_state state[NODES]; /* as told; 0: not yet */
    uint64_t heard_ms[NODES];      /* 0: never */
};

static struct id128 id_of(unsigned node)
{
    return (struct id128){{5, (uint8_t)node}};
}

static unsigned node_of(const struct id128 *id)
{
    CHECK(id->bytes[0] == 5 && id->bytes[1] < NODES);
    return id->bytes[1];
}

static void check_message(struct run *run, const struct probe_output *out)
{
    const struct wire_message *message = &out->message;
    struct id128 self = id_of(0);

    CHECK(id_equal(&message->from, &self) && message->tag.len == 1 && *message->tag.ptr == 't');
    run->nonces[run->sent++ % SENT] =
        message->type >= WIRE_PROBE_FOR ? message->probe_for.nonce : message->probe.nonce;
    switch ((int)out->kind) {
    case PROBE_SEND:
        CHECK(message->type == WIRE_PROBE || message->type == WIRE_PROBE_FOR ||
              message->type == WIRE_PROBE_SAW);
        CHECK(run->member[node_of(&out->node)]);
        break;
    case PROBE_SEND_SEED:
        CHECK(message->type == WIRE_PROBE && out->address.len > 0 &&
              id_is_zero(&message->probe.to));
        break;
    default:
        CHECK(message->type == WIRE_PROBE_ACK);
    }
}

static void check_output(struct run *run, const struct probe_output *out)
{
    unsigned node;

    CHECK(out->address.len <= LIMIT_WIRE_ADDR_BYTES);
    switch (out->kind) {
    case PROBE_SEND:
    case PROBE_SEND_SEED:
    case PROBE_REPLY:
        check_message(run, out);
        break;
    case PROBE_STATE:
        node = node_of(&out->node);
        CHECK(run->member[node] && out->state.state != run->state[node]);
        CHECK(out->state.state >= PROBE_ALIVE && out->state.state <= PROBE_LEFT);
        CHECK(out->state.since_ms == run->now_ms);
        CHECK(out->state.state != PROBE_FAILED || run->heard_ms[node] == 0 ||
              run->now_ms - run->heard_ms[node] >= PROBE_FAILED_MS - PROBE_ROUND_MS);
        run->state[node] = out->state.state;
        break;
    case PROBE_MET:
        CHECK(out->address.len > 0 && node_of(&out->node) != 0);
        break;
    case PROBE_SELF:
        CHECK(out->address.len > 0 && node_of(&out->node) == 0);
        break;
    case PROBE_PEER_SUMMARY:
        CHECK(run->member[node_of(&out->node)] && out->summary.rtt_ms >= -1);
        break;
    default:
        CHECK(!"an output of no kind");
    }
}

static void check_views(const struct run *run)
{
    enum probe_health health = probe_health(run->core);
    size_t members = 1, answering = 1;
    int64_t offset;

    for (unsigned node = 1; node < NODES; node++) {
        struct id128 id = id_of(node);
        struct probe_peer peer;
        bool known = probe_peer(run->core, &id, &peer);

        CHECK(known == run->member[node]);
        if (!known)
            continue;
        CHECK(peer.state == run->state[node]);
        CHECK(!peer.answers || peer.state == PROBE_ALIVE);
        members++;
        answering += peer.answers;
    }
    CHECK((health == PROBE_GOOD) == (answering == members));
    CHECK((health == PROBE_BAD) == (answering < members && 2 * answering <= members));
    CHECK(!probe_clock_offset(run->core, &offset) || answering >= 3);
    CHECK(probe_doubt(run->core) <= PROBE_DOUBT_MAX);
    CHECK(probe_seeds(run->core) <= LIMIT_SEEDS);
}

static int step(struct run *run, struct probe_input *in)
{
    const struct probe_output *out, *twin;
    size_t count, twins;

    in->now_ms = run->now_ms;
    int rc = probe_step(run->core, in, &out, &count);
    CHECK(rc == 0 || ((rc == ERR_FULL || rc == ERR_TOO_BIG || rc == ERR_INVALID) && count == 0));
    if (rc == 0 && in->kind == PROBE_MEMBER && node_of(&in->member.node) != 0) {
        unsigned node = node_of(&in->member.node);

        if (!in->member.joined || !run->member[node])
            run->state[node] = (enum probe_state)0, run->heard_ms[node] = 0;
        run->member[node] = in->member.joined;
    }
    for (size_t i = 0; i < count; i++)
        check_output(run, &out[i]);
    CHECK(in->kind != PROBE_TICK || probe_next_ms(run->core) > run->now_ms);

    CHECK(probe_step(run->twin, in, &twin, &twins) == rc && twins == count);
    for (size_t i = 0; i < count; i++)
        CHECK(twin[i].kind == out[i].kind && id_equal(&twin[i].node, &out[i].node));
    CHECK(probe_next_ms(run->twin) == probe_next_ms(run->core));
    return rc;
}

static void heard(struct run *run, unsigned node)
{
    if (node != 0)
        run->heard_ms[node] = run->now_ms;
}

static void step_message(struct run *run, struct feed *feed, struct probe_input in)
{
    static const enum wire_type types[] = {WIRE_PROBE, WIRE_PROBE_ACK, WIRE_PROBE_FOR,
                                           WIRE_PROBE_SAW, WIRE_SYNC_CREDIT};
    uint8_t what = (uint8_t)feed_number(feed, 1), who = (uint8_t)feed_number(feed, 1);
    struct wire_message message = {.type = types[what % 5], .from = id_of(who % NODES)};
    uint64_t nonce = what & 128 ? run->nonces[(what >> 3) % SENT] : feed_number(feed, 8);

    if (message.type == WIRE_PROBE || message.type == WIRE_PROBE_ACK) {
        message.probe = (struct wire_probe){.nonce = nonce,
                                            .address = {"a", 1},
                                            .leaving = (what & 64) != 0,
                                            .wall_ms = feed_number(feed, 8)};
        if (!(who & 128))
            message.probe.to = id_of(who >> 4 & 1);
    } else {
        message.probe_for = (struct wire_probe_for){
            .nonce = nonce, .subject = id_of(who >> 4), .answered = (what & 64) != 0};
    }
    in.message.message = &message;
    in.message.peer = (struct text){"1.2.3.4:5", who % 10u};
    heard(run, who % NODES);
    CHECK(step(run, &in) == 0);
}

static void run_step(struct run *run, struct feed *feed)
{
    char address[LIMIT_WIRE_ADDR_BYTES + 2];
    struct probe_input in = {.kind = (enum probe_input_kind)(feed_number(feed, 1) % 10)};
    unsigned byte;

    memset(address, 'x', sizeof address);
    run->now_ms += feed_number(feed, 2) % MAX_STEP;
    in.wall_ms = run->now_ms;
    switch (in.kind) {
    case PROBE_MEMBER:
        byte = (unsigned)feed_number(feed, 1);
        in.member.node = id_of(byte % NODES);
        in.member.joined = (byte & 16) != 0;
        in.member.address = (struct text){address, byte & 32 ? 301 : byte >> 6};
        (void)!step(run, &in);
        break;
    case PROBE_SEED:
        in.seed = (struct text){address, (uint32_t)feed_number(feed, 2) % 303};
        (void)!step(run, &in);
        break;
    case PROBE_MESSAGE:
        step_message(run, feed, in);
        break;
    case PROBE_HEARD:
        in.heard = id_of((unsigned)feed_number(feed, 1) % NODES);
        heard(run, node_of(&in.heard));
        CHECK(step(run, &in) == 0);
        break;
    case PROBE_LOCAL:
        byte = (unsigned)feed_number(feed, 1);
        in.local.leaving = byte & 1;
        in.local.address = (struct text){address, byte >> 1};
        (void)!step(run, &in);
        break;
    case PROBE_NOW:
        byte = (unsigned)feed_number(feed, 1);
        if (!(byte & 16)) /* else all */
            in.now = id_of(byte % NODES);
        CHECK(step(run, &in) == 0);
        break;
    case PROBE_SEED_DROP:
        in.seed = (struct text){address, (uint32_t)feed_number(feed, 2) % 303};
        CHECK(step(run, &in) == 0);
        break;
    case PROBE_TICK:
        CHECK(step(run, &in) == 0);
        break;
    default:
        CHECK(step(run, &in) == ERR_INVALID);
    }
    check_views(run);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed feed = {data, size};
    struct run run = {.now_ms = START_MS};
    struct probe_config config = {
        .node = id_of(0), .seed = feed_number(&feed, 2), .tag = {"t", 1}, .address = {"self", 4}};

    CHECK(probe_create(&run.core, &config, run.now_ms) == 0);
    CHECK(probe_create(&run.twin, &config, run.now_ms) == 0);
    while (feed.left > 0)
        run_step(&run, &feed);
    probe_destroy(&run.core);
    probe_destroy(&run.twin);
    return 0;
}
