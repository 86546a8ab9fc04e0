/*
 * A ring of the notes of late, with their bytes; the ids seen; the peers.
 *
 *   said     -> seen, kept, delivered; bytes to every peer that answers
 *   came     -> seen before: the sender hears so, no more
 *               young, and not too many: seen, kept, delivered; the sender hears that it is seen
 *   offered  -> seen before: said so; else asked for, unless it may be on its way from another
 *   wanted   -> bytes, if it is still kept, LIMIT_NOTE_SENDS times at most
 *   round    -> each young note's id to the next few peers of which nothing shows that they have it
 *
 * A peer that has sent, offered or reported a note has it, and hears of it no more. Only an offer
 * is answered, and a note; so no two nodes keep each other busy.
 *
 * Failure: no memory for a note's bytes: it is not taken, and offered again.
 */
#include "cluster/notes.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define PEERS   (2 * LIMIT_MEMBERS)
#define BUCKETS 1024
#define NONE    UINT16_MAX
#define WANTS   64
#define UNIT    1000 /* what one note takes from a bucket: tokens come by the millisecond */

_Static_assert(NOTE_BURST + NOTE_RATE * (NOTE_SEEN_MS / 1000) + NOTE_OWN_BURST +
                       NOTE_OWN_RATE * (NOTE_SEEN_MS / 1000) <=
                   LIMIT_NOTES_SEEN,
               "no id is forgotten before its time");
_Static_assert(LIMIT_NOTES_SEEN < NONE, "");
_Static_assert(NOTE_SEEN_MS >= 4 * NOTE_LIFE_MS, "a note is remembered while any copy of it lives");

/* A token bucket. */
struct rate {
    uint64_t tokens, since_ms;
};

struct peer {
    struct id128 node; /* zero: free */
    bool alive;
    struct rate rate; /* of notes that it is the author of */
};

struct kept {
    struct id128 id, author;
    uint64_t wall_ms;
    uint64_t dies_ms; /* not passed on from here on */
    char *data;
    uint32_t len;
    uint32_t cursor;      /* the peer to be offered it next */
    bool has[PEERS];      /* by place: known to have it */
    bool due[PEERS];      /* to be offered in this round */
    uint8_t sends[PEERS]; /* of its bytes */
};

struct seen {
    struct id128 id;
    uint64_t until_ms;
    uint16_t next; /* in its bucket */
};

struct want {
    struct id128 id;
    uint64_t since_ms;
};

struct notes {
    struct id128 self;
    uint64_t seed;
    struct notes_sink sink;
    struct peer peers[PEERS];
    struct kept *kept[LIMIT_NOTES_KEPT]; /* a ring: FIRST is the oldest */
    size_t first, count;
    uint64_t bytes;
    struct seen seen[LIMIT_NOTES_SEEN]; /* likewise */
    size_t seen_first, seen_count;
    uint16_t buckets[BUCKETS]; /* the first of each; NONE: empty */
    struct want wants[WANTS];  /* a ring */
    size_t want_next;
    struct rate own, others, all; /* OTHERS: of authors that are no peers of ours */
    uint64_t round_ms;
    struct notes_stats stats;
};

int notes_create(struct notes **out, const struct id128 *self, uint64_t seed,
                 const struct notes_sink *sink)
{
    struct notes *notes = calloc(1, sizeof *notes);

    assert(sink->send && sink->deliver && !id_is_zero(self));
    *out = notes;
    if (!notes)
        return ERR_NO_MEMORY;
    notes->self = *self;
    notes->seed = seed;
    notes->sink = *sink;
    memset(notes->buckets, 0xff, sizeof notes->buckets);
    return 0;
}

/* ---- Rates ---- */

/* Whether one more fits RATE: so many a second, BURST at once. A bucket never used is full. */
static bool fits(struct rate *rate, uint64_t a_second, uint64_t burst, uint64_t now_ms)
{
    uint64_t full = burst * UNIT, passed = now_ms - rate->since_ms;

    if (rate->since_ms == 0 || passed >= full / a_second)
        rate->tokens = full;
    else
        rate->tokens += passed * a_second;
    if (rate->tokens > full)
        rate->tokens = full;
    rate->since_ms = now_ms;
    return rate->tokens >= UNIT;
}

static void take(struct rate *rate)
{
    assert(rate->tokens >= UNIT);
    rate->tokens -= UNIT;
}

/* ---- What was seen ---- */

static uint16_t *bucket_of(struct notes *notes, const struct id128 *id)
{
    uint64_t low, high;

    memcpy(&low, id->bytes, sizeof low);
    memcpy(&high, id->bytes + sizeof low, sizeof high);
    uint64_t hash = (low ^ notes->seed) * UINT64_C(0x9e3779b97f4a7c15);

    hash = (hash ^ hash >> 29 ^ high) * UINT64_C(0xbf58476d1ce4e5b9);
    return &notes->buckets[(hash ^ hash >> 32) % BUCKETS];
}

static bool was_seen(struct notes *notes, const struct id128 *id)
{
    uint16_t at = *bucket_of(notes, id);

    while (at != NONE && !id_equal(&notes->seen[at].id, id))
        at = notes->seen[at].next;
    return at != NONE;
}

static void forget_oldest(struct notes *notes)
{
    struct seen *oldest = &notes->seen[notes->seen_first];
    uint16_t *link = bucket_of(notes, &oldest->id);

    while (*link != notes->seen_first) {
        assert(*link != NONE);
        link = &notes->seen[*link].next;
    }
    *link = oldest->next;
    notes->seen_first = (notes->seen_first + 1) % LIMIT_NOTES_SEEN;
    notes->seen_count--;
}

static void remember(struct notes *notes, const struct id128 *id, uint64_t now_ms)
{
    while (notes->seen_count > 0 && notes->seen[notes->seen_first].until_ms <= now_ms)
        forget_oldest(notes);
    assert(notes->seen_count < LIMIT_NOTES_SEEN); /* the rates see to it */
    size_t at = (notes->seen_first + notes->seen_count++) % LIMIT_NOTES_SEEN;
    uint16_t *bucket = bucket_of(notes, id);

    notes->seen[at] = (struct seen){*id, now_ms + NOTE_SEEN_MS, *bucket};
    *bucket = (uint16_t)at;
}

/* ---- What is kept ---- */

static struct kept *kept_at(const struct notes *notes, size_t at)
{
    assert(at < notes->count);
    return notes->kept[(notes->first + at) % LIMIT_NOTES_KEPT];
}

static struct kept *find_kept(struct notes *notes, const struct id128 *id)
{
    for (size_t i = notes->count; i-- > 0;)
        if (id_equal(&kept_at(notes, i)->id, id))
            return kept_at(notes, i);
    return NULL;
}

static void drop_oldest(struct notes *notes)
{
    struct kept *oldest = kept_at(notes, 0);

    notes->bytes -= oldest->len;
    notes->first = (notes->first + 1) % LIMIT_NOTES_KEPT;
    notes->count--;
    free(oldest->data);
    free(oldest);
}

void notes_destroy(struct notes **notes)
{
    if (!*notes)
        return;
    while ((*notes)->count > 0)
        drop_oldest(*notes);
    free(*notes);
    *notes = NULL;
}

/* A copy of SAID, AGE_MS old; NULL: no memory. */
static struct kept *keep(struct notes *notes, const struct wire_note *said,
                         struct notes_times times)
{
    struct kept *kept = calloc(1, sizeof *kept);
    char *data = malloc(said->data.len ? said->data.len : 1);

    if (!kept || !data) {
        free(kept);
        free(data);
        return NULL;
    }
    while (notes->count == LIMIT_NOTES_KEPT ||
           (notes->count > 0 && notes->bytes + said->data.len > LIMIT_NOTES_KEPT_BYTES))
        drop_oldest(notes);
    if (said->data.len)
        memcpy(data, said->data.ptr, said->data.len);
    kept->id = said->note;
    kept->author = said->author;
    kept->wall_ms = times.wall_ms;
    kept->dies_ms = times.now_ms + NOTE_LIFE_MS - said->age_ms;
    kept->data = data;
    kept->len = said->data.len;
    /* Not every node begins with the same peers. */
    kept->cursor = (uint32_t)((notes->seed ^ said->note.bytes[15]) % PEERS);
    notes->kept[(notes->first + notes->count++) % LIMIT_NOTES_KEPT] = kept;
    notes->bytes += said->data.len;
    remember(notes, &said->note, times.now_ms);
    return kept;
}

static struct note note_of(const struct kept *kept)
{
    return (struct note){kept->id, kept->author, kept->wall_ms, {kept->data, kept->len}};
}

/* ---- Peers ---- */

static struct peer *find_peer(struct notes *notes, const struct id128 *node)
{
    for (size_t i = 0; i < PEERS; i++)
        if (id_equal(&notes->peers[i].node, node))
            return &notes->peers[i];
    return NULL;
}

/* A free place, else that of one which is gone: who comes back soon finds its rate used up. */
static struct peer *place_for(struct notes *notes)
{
    struct peer *place = NULL;

    for (size_t i = 0; i < PEERS; i++) {
        if (id_is_zero(&notes->peers[i].node))
            return &notes->peers[i];
        if (!notes->peers[i].alive)
            place = &notes->peers[i];
    }
    return place;
}

void notes_peer(struct notes *notes, const struct id128 *node, bool alive)
{
    struct peer *peer = find_peer(notes, node);

    if (id_is_zero(node) || id_equal(node, &notes->self))
        return;
    if (!peer && alive && (peer = place_for(notes)) != NULL) {
        *peer = (struct peer){.node = *node};
        for (size_t i = 0; i < notes->count; i++) {
            struct kept *kept = kept_at(notes, i);

            kept->has[peer - notes->peers] = false;
            kept->sends[peer - notes->peers] = 0;
        }
    }
    if (peer)
        peer->alive = alive;
}

static void send_note(struct notes *notes, struct kept *kept, const struct peer *to,
                      uint64_t now_ms)
{
    uint8_t *sends = &kept->sends[to - notes->peers];

    if (now_ms >= kept->dies_ms || *sends == LIMIT_NOTE_SENDS)
        return;
    ++*sends;
    notes->stats.sent++;
    const struct wire_message message = {
        .type = WIRE_NOTE,
        .note = {.note = kept->id,
                 .data = {kept->data, kept->len},
                 .author = kept->author,
                 .age_ms = (uint32_t)(NOTE_LIFE_MS - (kept->dies_ms - now_ms))}};
    notes->sink.send(notes->sink.arg, &to->node, &message);
}

/* ---- Saying and hearing ---- */

int notes_say(struct notes *notes, const struct id128 *id, struct text data,
              struct notes_times times)
{
    const struct wire_note said = {.note = *id, .data = data, .author = notes->self};

    assert(!id_is_zero(id) && !was_seen(notes, id));
    if (data.len > LIMIT_WIRE_NOTE_BYTES)
        return ERR_TOO_BIG;
    if (!fits(&notes->own, NOTE_OWN_RATE, NOTE_OWN_BURST, times.now_ms)) {
        notes->stats.refused++;
        return ERR_FULL;
    }
    struct kept *kept = keep(notes, &said, times);
    if (!kept)
        return ERR_NO_MEMORY;
    take(&notes->own);
    notes->stats.said++;
    struct note note = note_of(kept);
    notes->sink.deliver(notes->sink.arg, &note);
    for (size_t i = 0; i < PEERS; i++)
        if (notes->peers[i].alive)
            send_note(notes, kept, &notes->peers[i], times.now_ms);
    return 0;
}

static void send_ids(struct notes *notes, const struct peer *to, struct wire_note_ids ids)
{
    const struct wire_message message = {.type = WIRE_NOTE_IDS, .note_ids = ids};

    notes->sink.send(notes->sink.arg, &to->node, &message);
}

static void say_seen(struct notes *notes, const struct peer *to, const struct id128 *id)
{
    send_ids(notes, to,
             (struct wire_note_ids){.seen = {(const char *)id->bytes, sizeof id->bytes}});
}

/* Whether one more note of AUTHOR is to be taken now; if so, it counts. */
static bool admit(struct notes *notes, const struct id128 *author, uint64_t now_ms)
{
    struct peer *peer = find_peer(notes, author);
    struct rate *rate = peer ? &peer->rate : &notes->others;

    if (!fits(rate, NOTE_AUTHOR_RATE, NOTE_AUTHOR_BURST, now_ms) ||
        !fits(&notes->all, NOTE_RATE, NOTE_BURST, now_ms))
        return false;
    take(rate);
    take(&notes->all);
    return true;
}

static void hear(struct notes *notes, const struct peer *from, const struct wire_note *said,
                 struct notes_times times)
{
    struct kept *kept = find_kept(notes, &said->note);

    if (kept)
        kept->has[from - notes->peers] = true;
    if (kept || was_seen(notes, &said->note)) {
        notes->stats.duplicates++;
        say_seen(notes, from, &said->note);
        return;
    }
    if (said->age_ms >= NOTE_LIFE_MS) {
        notes->stats.old++;
        return;
    }
    if (!admit(notes, &said->author, times.now_ms)) {
        notes->stats.refused++;
        return;
    }
    kept = keep(notes, said, times);
    if (!kept)
        return;
    notes->stats.taken++;
    kept->has[from - notes->peers] = true;
    const struct peer *author = find_peer(notes, &said->author);
    if (author)
        kept->has[author - notes->peers] = true;
    struct note note = note_of(kept);
    notes->sink.deliver(notes->sink.arg, &note);
    say_seen(notes, from, &kept->id);
}

/* ---- Offers ---- */

static struct id128 id_at(struct text ids, size_t at)
{
    struct id128 id;

    assert((at + 1) * sizeof id <= ids.len);
    memcpy(id.bytes, ids.ptr + at * sizeof id, sizeof id);
    return id;
}

/* Whether to ask for ID: of the first that offers it; and of everybody, once that one had its time:
 * our question to it may never arrive, while its offers do. */
static bool may_want(struct notes *notes, const struct id128 *id, uint64_t now_ms)
{
    for (size_t i = 0; i < WANTS; i++)
        if (id_equal(&notes->wants[i].id, id))
            return now_ms - notes->wants[i].since_ms >= NOTE_WANT_MS;
    notes->wants[notes->want_next++ % WANTS] = (struct want){*id, now_ms};
    return true;
}

static void take_offer(struct notes *notes, const struct peer *from, struct text offered,
                       uint64_t now_ms)
{
    struct id128 seen[LIMIT_WIRE_NOTE_IDS], wanted[LIMIT_WIRE_NOTE_IDS];
    uint32_t seen_bytes = 0, wanted_bytes = 0;

    for (size_t i = 0; i < offered.len / sizeof(struct id128); i++) {
        struct id128 id = id_at(offered, i);
        struct kept *kept = find_kept(notes, &id);

        if (kept)
            kept->has[from - notes->peers] = true;
        if (kept || was_seen(notes, &id)) {
            seen[seen_bytes / sizeof id] = id;
            seen_bytes += sizeof id;
        } else if (!id_is_zero(&id) && wanted_bytes < WANTS * sizeof id &&
                   may_want(notes, &id, now_ms)) {
            wanted[wanted_bytes / sizeof id] = id;
            wanted_bytes += sizeof id;
        }
    }
    if (seen_bytes + wanted_bytes > 0)
        send_ids(notes, from,
                 (struct wire_note_ids){.seen = {(const char *)seen, seen_bytes},
                                        .wanted = {(const char *)wanted, wanted_bytes}});
}

static void hear_ids(struct notes *notes, const struct peer *from, const struct wire_note_ids *ids,
                     uint64_t now_ms)
{
    for (size_t i = 0; i < ids->seen.len / sizeof(struct id128); i++) {
        struct id128 id = id_at(ids->seen, i);
        struct kept *kept = find_kept(notes, &id);

        if (kept)
            kept->has[from - notes->peers] = true;
    }
    for (size_t i = 0; i < ids->wanted.len / sizeof(struct id128); i++) {
        struct id128 id = id_at(ids->wanted, i);
        struct kept *kept = find_kept(notes, &id);

        if (kept) {
            kept->has[from - notes->peers] = false;
            send_note(notes, kept, from, now_ms);
        }
    }
    take_offer(notes, from, ids->offered, now_ms);
}

void notes_message(struct notes *notes, const struct wire_message *message,
                   struct notes_times times)
{
    const struct peer *from = find_peer(notes, &message->from);

    if (!from || id_is_zero(&message->from))
        return;
    if (message->type == WIRE_NOTE)
        hear(notes, from, &message->note, times);
    else if (message->type == WIRE_NOTE_IDS)
        hear_ids(notes, from, &message->note_ids, times.now_ms);
}

/* Whom KEPT is offered to in this round. */
static void choose(struct notes *notes, struct kept *kept)
{
    uint32_t at = kept->cursor, chosen = 0;

    for (uint32_t i = 0; i < PEERS && chosen < NOTE_FANOUT; i++, at = (at + 1) % PEERS) {
        if (!notes->peers[at].alive || kept->has[at])
            continue;
        kept->due[at] = true;
        chosen++;
    }
    kept->cursor = at;
}

static void offer(struct notes *notes, size_t place)
{
    struct id128 ids[LIMIT_WIRE_NOTE_IDS];
    uint32_t bytes = 0;

    _Static_assert(LIMIT_NOTES_KEPT <= LIMIT_WIRE_NOTE_IDS, "all of them fit one message");
    for (size_t i = 0; i < notes->count; i++) {
        struct kept *kept = kept_at(notes, i);

        if (!kept->due[place])
            continue;
        kept->due[place] = false;
        ids[bytes / sizeof *ids] = kept->id;
        bytes += sizeof *ids;
        notes->stats.offers++;
    }
    if (bytes > 0)
        send_ids(notes, &notes->peers[place],
                 (struct wire_note_ids){.offered = {(const char *)ids, bytes}});
}

void notes_tick(struct notes *notes, uint64_t now_ms)
{
    bool young = false;

    if (now_ms - notes->round_ms < NOTE_ROUND_MS)
        return;
    notes->round_ms = now_ms;
    for (size_t i = 0; i < notes->count; i++) {
        struct kept *kept = kept_at(notes, i);

        if (now_ms >= kept->dies_ms)
            continue;
        choose(notes, kept);
        young = true;
    }
    for (size_t i = 0; young && i < PEERS; i++)
        if (notes->peers[i].alive)
            offer(notes, i);
}

/* ---- Looking at it ---- */

size_t notes_count(const struct notes *notes)
{
    return notes->count;
}

struct note notes_at(const struct notes *notes, size_t at)
{
    return note_of(kept_at(notes, at));
}

void notes_stats(const struct notes *notes, struct notes_stats *out)
{
    *out = notes->stats;
}
