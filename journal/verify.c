/*
 * Verifying the journal's hash chains: each origin's events are numbered without gaps, each names
 * the hash of the one before, and the stored head is the hash of the last.
 */
#include "journal/journal.h"
#include "journal/ulid.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct walk {
    struct journal_verify_result *result;
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
    else if (seq != walk->seq + 1)
        broken(walk, seq, "events before it are missing");
    else if (memcmp(event.prev, walk->hash, SHA256_BYTES) != 0)
        broken(walk, seq, "it does not follow the event before");
    walk->seq = seq;
    event_hash(raw, len, walk->hash);
    return 0;
}

int journal_verify(struct db_reader *reader, struct journal_verify_result *out)
{
    struct db_origin *origins;
    size_t count;
    int rc = db_reader_origins(reader, &origins, &count);

    memset(out, 0, sizeof *out);
    if (rc)
        return rc;
    for (size_t i = 0; rc == 0 && i < count; i++) {
        struct walk walk = {.result = out, .origin = &origins[i], .seq = origins[i].anchor_seq};

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
    free(origins);
    return rc;
}
