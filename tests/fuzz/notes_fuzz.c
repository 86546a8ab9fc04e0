/*
 * Goal: whatever peers say and whenever, a note is delivered once, no more of them than the rates
 * allow, what is kept and sent stays bounded, messages go to peers alone and can be written, and
 * the same input does the same again.
 * Input: steps, each an operation, the milliseconds since the last (two bytes), and its arguments.
 */
#include "cluster/notes.h"
#include "tests/fuzz/fuzz.h"

#define NODES    12
#define IDS      4096
#define MAX_STEP 3000
#define START_MS 100000

struct run {
    struct notes *core, *twin;
    uint64_t now_ms;
    unsigned own; /* notes said */
    uint64_t delivered_ms[IDS];
    uint64_t delivered, sent, twin_sent;
    bool met[NODES];
};

static struct run *run;

static struct id128 node_id(unsigned node)
{
    return (struct id128){{6, (uint8_t)node}};
}

static struct id128 note_id(unsigned note)
{
    return (struct id128){{8, (uint8_t)(note >> 8), (uint8_t)note}};
}

static void on_send(void *arg, const struct id128 *to, const struct wire_message *message)
{
    struct wire_message whole = *message;
    struct buf out = {0};

    (void)arg;
    CHECK(to->bytes[0] == 6 && to->bytes[1] < NODES && run->met[to->bytes[1]]);
    CHECK(message->type == WIRE_NOTE || message->type == WIRE_NOTE_IDS);
    whole.from = node_id(0);
    wire_encode(&out, &whole);
    CHECK(buf_check(&out) == 0);
    CHECK(message->type != WIRE_NOTE || message->note.age_ms < NOTE_LIFE_MS);
    buf_release(&out);
    run->sent++;
}

static void on_twin_send(void *arg, const struct id128 *to, const struct wire_message *message)
{
    (void)arg;
    (void)to;
    (void)message;
    run->twin_sent++;
}

static void on_deliver(void *arg, const struct note *note)
{
    unsigned number = note->id.bytes[1] * 256u + note->id.bytes[2];

    (void)arg;
    CHECK(note->data.len <= LIMIT_WIRE_NOTE_BYTES);
    run->delivered++;
    if (note->id.bytes[0] != 8 || number >= IDS)
        return;
    CHECK(run->delivered_ms[number] == 0 ||
          run->now_ms - run->delivered_ms[number] >= NOTE_SEEN_MS);
    run->delivered_ms[number] = run->now_ms;
}

static void on_twin_deliver(void *arg, const struct note *note)
{
    (void)arg;
    (void)note;
}

static void check_bounds(void)
{
    uint64_t passed_s = (run->now_ms - START_MS) / 1000 + 1, bytes = 0;
    struct notes_stats stats;

    CHECK(run->delivered <=
          NOTE_BURST + NOTE_OWN_BURST + (uint64_t)(NOTE_RATE + NOTE_OWN_RATE) * passed_s);
    CHECK(notes_count(run->core) <= LIMIT_NOTES_KEPT);
    for (size_t i = 0; i < notes_count(run->core); i++)
        bytes += notes_at(run->core, i).data.len;
    CHECK(bytes <= LIMIT_NOTES_KEPT_BYTES);
    CHECK(run->sent == run->twin_sent);
    notes_stats(run->core, &stats);
    CHECK(stats.said + stats.taken == run->delivered);
}

static struct notes_times times(void)
{
    return (struct notes_times){run->now_ms, run->now_ms};
}

static void hear(struct wire_message *message)
{
    notes_message(run->core, message, times());
    notes_message(run->twin, message, times());
}

static void hear_note(struct feed *feed)
{
    static char data[LIMIT_WIRE_NOTE_BYTES];
    unsigned who = (unsigned)feed_number(feed, 1), number = (unsigned)feed_number(feed, 2);
    unsigned copies = who & 128 ? 1 + (unsigned)feed_number(feed, 1) : 1;
    struct wire_message message = {
        .type = WIRE_NOTE,
        .from = node_id(who % NODES),
        .note = {.data = {data, number % 7 ? number % 100 : LIMIT_WIRE_NOTE_BYTES},
                 .author = node_id((who >> 4) % NODES),
                 .age_ms = who & 64 ? (uint32_t)feed_number(feed, 2) : 0}};

    for (unsigned i = 0; i < copies; i++) {
        message.note.note = note_id((number + i) % IDS);
        hear(&message);
    }
}

static void hear_ids(struct feed *feed)
{
    char ids[3][LIMIT_WIRE_NOTE_IDS * 16];
    unsigned who = (unsigned)feed_number(feed, 1);
    struct text lists[3];

    for (unsigned list = 0; list < 3; list++) {
        unsigned count = (unsigned)feed_number(feed, 1), first = (unsigned)feed_number(feed, 2);

        for (unsigned i = 0; i < count; i++) {
            struct id128 id = first & 0x8000 ? (struct id128){{7, (uint8_t)(first + i)}}
                                             : note_id((first + i) % IDS);
            memcpy(ids[list] + 16 * i, id.bytes, 16);
        }
        lists[list] = (struct text){ids[list], 16 * count};
    }
    struct wire_message message = {.type = WIRE_NOTE_IDS,
                                   .from = node_id(who % NODES),
                                   .note_ids = {lists[0], lists[1], lists[2]}};
    hear(&message);
}

/* Bytes that are a message, or none. */
static void hear_bytes(struct feed *feed)
{
    struct wire_message message;
    size_t got, len = feed_number(feed, 1);
    const uint8_t *bytes = feed_some(feed, len, &got);

    if (wire_decode(&message, bytes, got) == 0)
        hear(&message);
}

static void say(struct feed *feed)
{
    static char data[LIMIT_WIRE_NOTE_BYTES + 2];
    struct text text = {data, (uint32_t)feed_number(feed, 2) % sizeof data};
    struct id128 id = {{7, 0, (uint8_t)(run->own >> 8), (uint8_t)run->own, 1}};

    run->own++;
    int rc = notes_say(run->core, &id, text, times());
    CHECK(rc == 0 || rc == (text.len > LIMIT_WIRE_NOTE_BYTES ? ERR_TOO_BIG : ERR_FULL));
    CHECK(notes_say(run->twin, &id, text, times()) == rc);
}

static void step(struct feed *feed)
{
    unsigned what = (unsigned)feed_number(feed, 1);

    run->now_ms += feed_number(feed, 2) % MAX_STEP;
    switch (what % 6) {
    case 0:
        notes_tick(run->core, run->now_ms);
        notes_tick(run->twin, run->now_ms);
        break;
    case 1: {
        struct id128 id = node_id((what >> 3) % NODES);
        bool alive = what & 128 ? false : true;

        run->met[(what >> 3) % NODES] |= alive;
        notes_peer(run->core, &id, alive);
        notes_peer(run->twin, &id, alive);
        break;
    }
    case 2:
        say(feed);
        break;
    case 3:
        hear_note(feed);
        break;
    case 4:
        hear_ids(feed);
        break;
    default:
        hear_bytes(feed);
    }
    check_bounds();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct notes_sink sink = {on_send, on_deliver, NULL};
    const struct notes_sink twin_sink = {on_twin_send, on_twin_deliver, NULL};
    struct feed feed = {data, size};
    struct id128 self = node_id(0);

    run = calloc(1, sizeof *run);
    CHECK(run);
    run->now_ms = START_MS;
    uint64_t seed = feed_number(&feed, 2);
    CHECK(notes_create(&run->core, &self, seed, &sink) == 0);
    CHECK(notes_create(&run->twin, &self, seed, &twin_sink) == 0);
    while (feed.left > 0)
        step(&feed);
    notes_destroy(&run->core);
    notes_destroy(&run->twin);
    free(run);
    return 0;
}
