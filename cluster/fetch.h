/*
 * Pulling bodies from other nodes: the asking side. Pure: time, peers' messages and what the reader
 * has taken come in, messages and bytes go out through the sink's calls. The giving side is
 * cluster/serve.h, the messages are wire.h's WIRE_BODY_….
 *
 * A fetch has one holder at a time and a window of credit; where the holder fails it, the next one
 * is asked at the offset reached, with a fresh transfer number. Every chunk bears a checksum of its
 * own; whether the whole body has the SHA-256 that was asked for is the caller's to compute as the
 * bytes pass by (only it knows the bytes before `offset`), and to judge before it calls any of them
 * durable.
 *
 * Nothing here blocks or allocates after create. Not thread-safe. The sink's functions must not
 * call back into the same struct fetches.
 */
#ifndef CLUSTER_FETCH_H
#define CLUSTER_FETCH_H

#include "cluster/wire.h"

/* Milliseconds. */
#define FETCH_FIRST_BYTE_MS  1000  /* from asking a holder to its first chunk */
#define FETCH_PROGRESS_MS    3000  /* from chunk to chunk, while there is credit */
#define FETCH_COMING_MS      60000 /* without one, however often the delegate says that it comes */
#define FETCH_PAUSE_MS       2000  /* without credit, for a slow reader: the holder is let go */
#define FETCH_PLACE_MS       30000 /* while we ask every holder for as much as we may */
#define FETCH_ROUND_DELAY_MS 250   /* before round 2; twice that before round 3; + up to 50 % */
#define FETCH_ROUNDS         3     /* that go by without BLOCK_BYTES */

struct fetches;

struct fetch_sink {
    /* MESSAGE lacks the tag and the sender. A send may fail: deadlines take care of that. */
    void (*send)(void *arg, const struct id128 *to, const struct wire_message *message);
    /* The next LEN bytes of fetch NUMBER, which begin at OFFSET of the body; FROM has sent them.
     * BYTES are those of the message that is being looked at. */
    void (*data)(void *arg, uint64_t number, uint64_t offset, const void *bytes, size_t len,
                 const struct id128 *from);
    /*
     * Fetch NUMBER is over and forgotten. 0: all its bytes were given to `data`. Otherwise no
     * holder is left to ask, and the worst that may pass decides: ERR_TIMEOUT (one did not answer,
     * or stopped), ERR_AGAIN (one was busy, or we asked it for as much as we may for
     * FETCH_PLACE_MS on end), ERR_CLOSED (one is dead); else what will not pass:
     * ERR_CORRUPT (one's bytes or messages were wrong, or it cannot read its copy), ERR_NOT_FOUND
     * (none has it).
     */
    void (*done)(void *arg, uint64_t number, int rc);
    void *arg;
};

struct fetch_stats {
    uint64_t begun, done, failed, cancelled;
    uint64_t bytes;      /* given to `data` */
    uint64_t tries;      /* questions sent */
    uint64_t corrupt;    /* holders given up for wrong chunks */
    uint64_t timeouts;   /* … for silence */
    uint64_t gaps;       /* tries ended since something was lost on the way */
    uint64_t busy;       /* answers */
    uint64_t late;       /* messages of transfers that were over, or never were */
    uint64_t duplicates; /* chunks that had come before */
    uint32_t active;
};

struct fetch_request {
    uint64_t number; /* chosen by the caller; names the fetch from now on */
    struct id128 id;
    uint8_t sha256[SHA256_BYTES];
    uint64_t size;           /* of the whole body */
    uint64_t offset, length; /* what is wanted of it: at least one byte, within `size` */
    bool background;
    bool delegated;              /* whoever is asked may fetch it for us from elsewhere */
    unsigned rounds;             /* 0: FETCH_ROUNDS */
    unsigned first_byte_ms;      /* 0: FETCH_FIRST_BYTE_MS */
    unsigned coming_ms;          /* 0: FETCH_COMING_MS */
    const struct id128 *holders; /* whom to ask, the best first, each once; lent for the call */
    size_t holder_count;         /* at most LIMIT_FETCH_HOLDERS */
};

/* SEED: different for each run of a node, or messages of an earlier run could be taken for ours. */
int fetch_create(struct fetches **out, const struct fetch_sink *sink, uint64_t seed) MUST_CHECK;
void fetch_destroy(struct fetches **fetches);

/*
 * Begin. On failure nothing has begun, and `done` will not be called: ERR_INVALID (nothing wanted,
 * not within size, too many holders), ERR_NOT_FOUND (no holder named), ERR_EXISTS (the number is in
 * use), ERR_FULL (LIMIT_FETCHES are under way).
 */
int fetch_start(struct fetches *fetches, const struct fetch_request *request,
                uint64_t now_ms) MUST_CHECK;

/* A WIRE_BODY_DATA, WIRE_BODY_COMING or WIRE_BODY_END; others are not looked at. MESSAGE->from is
 * whom it came from, as the transport knows it. */
void fetch_message(struct fetches *fetches, const struct wire_message *message, uint64_t now_ms);

/* NODE failed: nobody waits for it any longer. Or it is back. */
void fetch_peer(struct fetches *fetches, const struct id128 *node, bool alive, uint64_t now_ms);

/* The reader of fetch NUMBER has taken BYTES, at most what `data` gave and it had not taken yet.
 * Nothing, where the fetch is over. */
void fetch_consumed(struct fetches *fetches, uint64_t number, uint64_t bytes, uint64_t now_ms);

/* Forget fetch NUMBER; `done` will not be called. Nothing, where it is over. */
void fetch_cancel(struct fetches *fetches, uint64_t number, uint64_t now_ms);

/* At least every 100 ms or so, after the messages that have come by then: deadlines are looked at
 * here. NOW_MS: any clock that never goes back, the same for all calls. */
void fetch_tick(struct fetches *fetches, uint64_t now_ms);

void fetch_stats(const struct fetches *fetches, struct fetch_stats *out);

#endif
