/*
 * Verifying the journal's hash chains: each origin's events are numbered without gaps, each names
 * the hash of the one before, and the stored head is the hash of the last.
 *
 * Then how the runs hang together: which are frozen, and where the chain of runs forks, since a
 * run's first event names the end of the one before. Both are said, and neither is a break.
 */
#include "journal/db_freeze.h"
#include "journal/journal_internal.h"
#include "journal/ulid.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Run BY says that it goes on from this event of another. */
struct follow {
    struct id128 by;
    struct event_ref at;
};

struct follows {
    struct follow *list;
    size_t count, cap;
};

struct walk {
    struct journal_verify_result *result;
    struct follows *follows;
    const struct db_origin *origin;
    uint64_t seq; /* the last one seen */
    uint8_t hash[SHA256_BYTES];
};

static void broken(struct walk *walk, uint64_t seq, const char *what)
{
    char text[ULID_TEXT_BYTES + 1];

    if (walk->result->breaks++ == 0) {
        ulid_format(text, &walk->origin->origin);
        snprintf(walk->result->message, sizeof walk->result->message, "origin %s, event %llu: %s",
                 text, (unsigned long long)seq, what);
    }
}

static int note_follow(struct follows *follows, const struct event *event)
{
    bool freeze = event->kind == EVENT_FREEZE;

    if (!(event->fields & (uint32_t)(freeze ? EVENT_HAS_AFTER : EVENT_HAS_FOLLOWS)))
        return 0;
    if (follows->count == follows->cap) {
        size_t cap = follows->cap ? 2 * follows->cap : 16;
        struct follow *grown = reallocarray(follows->list, cap, sizeof *grown);

        if (!grown)
            return ERR_NO_MEMORY;
        follows->list = grown;
        follows->cap = cap;
    }
    follows->list[follows->count++] =
        (struct follow){.by = event->origin, .at = freeze ? event->after : event->follows};
    return 0;
}

static int check_event(void *arg, uint64_t seq, const uint8_t *raw, size_t len)
{
    struct walk *walk = arg;
    struct event event;

    walk->result->events++;
    if (event_decode(&event, raw, len) != 0)
        broken(walk, seq, "its bytes are not an event");
    else if (seq <= walk->origin->anchor_seq)
        return 0; /* compaction has left it, and taken its neighbours */
    else if (event.seq != seq || !id_equal(&event.origin, &walk->origin->origin))
        broken(walk, seq, "it bears another number or origin");
    else if (seq > walk->origin->seq && seq != walk->seq + 1 && !fold_is_covered(&event))
        return 0; /* a merge has brought it without its neighbours */
    else if (seq != walk->seq + 1)
        broken(walk, seq, "events before it are missing");
    else if (memcmp(event.prev, walk->hash, SHA256_BYTES) != 0)
        broken(walk, seq, "it does not follow the event before");
    else if (note_follow(walk->follows, &event) != 0)
        return ERR_NO_MEMORY;
    walk->seq = seq;
    event_hash(raw, len, walk->hash);
    return 0;
}

/* By the run that is followed, then by the one that follows: ULIDs, so the older first. */
static int by_followed(const void *a, const void *b)
{
    const struct follow *x = a, *y = b;
    int order = id_compare(&x->at.origin, &y->at.origin);

    return order ? order : id_compare(&x->by, &y->by);
}

static void note_fork(struct journal_verify_result *out, const struct follow *follow,
                      uint64_t last_seq)
{
    char by[ULID_TEXT_BYTES + 1], run[ULID_TEXT_BYTES + 1];

    if (out->forks++ || out->frozen)
        return;
    ulid_format(by, &follow->by);
    ulid_format(run, &follow->at.origin);
    snprintf(out->note, sizeof out->note,
             "run %s goes on from event %llu of run %s, %s: a restored backup, or a copy", by,
             (unsigned long long)follow->at.seq, run,
             last_seq > follow->at.seq ? "which has more" : "which another run follows, too");
}

static void judge_follows(struct journal_verify_result *out, struct follows *follows,
                          const struct db_origin *origins, size_t count)
{
    if (follows->count)
        qsort(follows->list, follows->count, sizeof *follows->list, by_followed);
    for (size_t i = 0; i < follows->count; i++) {
        const struct follow *f = &follows->list[i];
        bool second = i > 0 && id_equal(&f->at.origin, &follows->list[i - 1].at.origin);
        uint64_t last_seq = 0;

        for (size_t k = 0; k < count; k++)
            if (id_equal(&origins[k].origin, &f->at.origin))
                last_seq = origins[k].frozen ? 0 : origins[k].seq;
        if (second || last_seq > f->at.seq)
            note_fork(out, f, last_seq);
    }
}

static int note_frozen(struct db_reader *reader, struct journal_verify_result *out)
{
    char run[ULID_TEXT_BYTES + 1], node[ULID_TEXT_BYTES + 1];
    struct db_frozen *frozen;
    size_t count;
    int rc = db_reader_frozen(reader, &frozen, &count);

    if (rc)
        return rc;
    out->frozen = count;
    if (count) {
        ulid_format(run, &frozen[0].origin);
        ulid_format(node, &frozen[0].node);
        snprintf(out->note, sizeof out->note,
                 "run %s of node %s contradicts itself, from event %llu on at the latest: two "
                 "processes wrote under it",
                 run, node, (unsigned long long)frozen[0].seq);
    }
    free(frozen);
    return 0;
}

int journal_verify(struct db_reader *reader, struct journal_verify_result *out)
{
    struct follows follows = {0};
    struct db_origin *origins;
    size_t count;
    int rc = db_reader_origins(reader, &origins, &count);

    memset(out, 0, sizeof *out);
    if (rc)
        return rc;
    for (size_t i = 0; rc == 0 && i < count; i++) {
        struct walk walk = {.result = out,
                            .follows = &follows,
                            .origin = &origins[i],
                            .seq = origins[i].anchor_seq};

        memcpy(walk.hash, origins[i].anchor_hash, SHA256_BYTES);
        rc = db_each_event(reader, origins[i].no, 1, check_event, &walk);
        out->origins++;
        /* A running node may have added events since the origins were read. */
        if (rc == 0 && walk.seq < origins[i].seq)
            broken(&walk, origins[i].seq, "the last events are missing");
        else if (rc == 0 && walk.seq == origins[i].seq &&
                 memcmp(walk.hash, origins[i].hash, SHA256_BYTES) != 0)
            broken(&walk, walk.seq, "its hash is not the one recorded");
    }
    if (rc == 0)
        rc = note_frozen(reader, out);
    if (rc == 0)
        judge_follows(out, &follows, origins, count);
    free(follows.list);
    free(origins);
    return rc;
}
