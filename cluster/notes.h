/*
 * Notes: a message that each live node gets once. Gossip for the moment, never an event: whoever
 * is not there does not get it later. Pure: time and peers' messages come in, messages and notes
 * go out through the sink's calls.
 *
 * The author sends its note to every node that answers. Whoever has it offers its id to those not
 * known to have it, NOTE_FANOUT of them each NOTE_ROUND_MS, in turn, as long as the note is young;
 * who lacks it asks for it. So a lost message is made up for, and a node that the author cannot
 * reach gets it from another one, while a note's bytes travel to each node once.
 *
 * Once: its id is remembered for NOTE_SEEN_MS, much longer than a note lives. A restarted node
 * remembers nothing and may take what is still young again.
 *
 * Nobody can flood others: each node says at most NOTE_OWN_RATE notes a second (and
 * NOTE_OWN_BURST at once), and takes twice that of one other node and NOTE_RATE of all together.
 * What is over that is not taken, and may come again by an offer.
 *
 * Nothing here blocks. Not thread-safe. The sink's functions must not call back into the same
 * struct notes.
 */
#ifndef CLUSTER_NOTES_H
#define CLUSTER_NOTES_H

#include "cluster/wire.h"

struct notes;

struct note {
    struct id128 id, author;
    uint64_t wall_ms; /* when it came; Unix */
    struct text data;
};

struct notes_sink {
    /* MESSAGE lacks the tag and the sender. It may get lost. */
    void (*send)(void *arg, const struct id128 *to, const struct wire_message *message);
    /* It came, or this node said it: once for each note. Lent for the call. */
    void (*deliver)(void *arg, const struct note *note);
    void *arg;
};

struct notes_stats {
    uint64_t said;       /* by this node */
    uint64_t taken;      /* of others */
    uint64_t sent;       /* with their bytes, once for each node that they went to */
    uint64_t duplicates; /* that came again */
    uint64_t old;        /* that came too late */
    uint64_t refused;    /* that were too many, said or heard */
    uint64_t offers;     /* ids offered */
};

struct notes_times {
    uint64_t now_ms;  /* any clock that never goes back, the same for all calls */
    uint64_t wall_ms; /* Unix */
};

/* SEED: unpredictable, where it matters. */
int notes_create(struct notes **out, const struct id128 *self, uint64_t seed,
                 const struct notes_sink *sink) MUST_CHECK;
void notes_destroy(struct notes **notes);

/*
 * Say DATA to all, as note ID, which nobody ever used. Delivered here, too, before this returns.
 * ERR_TOO_BIG: over LIMIT_WIRE_NOTE_BYTES; ERR_FULL: too many of late; ERR_NO_MEMORY. Then nothing
 * was said.
 */
int notes_say(struct notes *notes, const struct id128 *id, struct text data,
              struct notes_times times) MUST_CHECK;

/* A WIRE_NOTE or WIRE_NOTE_IDS, as wire_decode gave it; others are not looked at. */
void notes_message(struct notes *notes, const struct wire_message *message,
                   struct notes_times times);

/* NODE answers, or not any more. Beyond 2 * LIMIT_MEMBERS of them the rest gets nothing. */
void notes_peer(struct notes *notes, const struct id128 *node, bool alive);

/* At least every NOTE_ROUND_MS / 2. */
void notes_tick(struct notes *notes, uint64_t now_ms);

/* The notes of late, at most LIMIT_NOTES_KEPT of LIMIT_NOTES_KEPT_BYTES together: AT from 0, the
 * oldest first. Lent until the next call of another function. */
size_t notes_count(const struct notes *notes);
struct note notes_at(const struct notes *notes, size_t at);

void notes_stats(const struct notes *notes, struct notes_stats *out);

#endif
