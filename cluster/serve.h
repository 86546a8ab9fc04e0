/*
 * Giving bodies to other nodes: the giving side of cluster/fetch.h. Pure: peers' messages, results
 * of reads and the time come in; reads to be made and messages go out through the sink's calls.
 *
 * Bounded whatever peers ask: LIMIT_SERVED transfers (LIMIT_SERVED_PER_PEER and LIMIT_PEER_WINDOWS
 * for one peer; beyond, it is told to come back later), LIMIT_SERVE_READS reads of a chunk at most
 * and all of them LIMIT_SERVE_READ_BYTES, BODY_WINDOW_BYTES of credit for a transfer. What clients
 * wait for goes before background transfers; within each of the two, transfers take turns by bytes
 * (deficit round robin: Shreedhar and Varghese, SIGCOMM 1995). A delegated transfer, whose body may
 * have to be fetched first, is read besides, LIMIT_SERVE_READS_DELEGATED at once, so that nobody
 * else waits for that; its asker hears that it comes.
 *
 * Nothing here blocks or allocates after create. Not thread-safe. The sink's functions must not
 * call back into the same struct serve.
 */
#ifndef CLUSTER_SERVE_H
#define CLUSTER_SERVE_H

#include "cluster/wire.h"

#define SERVE_IDLE_MS   10000 /* without a credit or a byte: the transfer is dropped */
#define SERVE_COMING_MS 150   /* a delegated transfer waits: it is said so often */

struct serve;

/* Read `len` bytes of the body (id, sha256) at `offset`; fewer only where the body ends. */
struct serve_read {
    uint64_t key; /* to be handed back */
    struct id128 id;
    uint8_t sha256[SHA256_BYTES];
    uint64_t offset;
    uint32_t len; /* 1 to LIMIT_WIRE_CHUNK_BYTES */
    uint64_t end; /* of what the transfer is to bring; beyond the body: all of the rest */
    bool background;
    bool delegated; /* a body that is not here may be fetched for it: the read may take long */
};

struct serve_sink {
    /* Each is answered by one call of serve_read_done, later. */
    void (*read)(void *arg, const struct serve_read *read);
    /* The delegated transfer whose reads were KEY is over: there will be no more. */
    void (*over)(void *arg, uint64_t key);
    /* MESSAGE lacks the tag and the sender; its data are those of the serve_read_done under way. */
    void (*send)(void *arg, const struct id128 *to, const struct wire_message *message);
    void *arg;
};

struct serve_stats {
    uint64_t begun, done, busy, absent, damaged, cancelled, dropped;
    uint64_t bytes;           /* sent */
    uint64_t unknown;         /* credits for transfers that were over, or never were */
    uint32_t active, reading; /* reading: without delegated ones */
};

int serve_create(struct serve **out, const struct serve_sink *sink) MUST_CHECK;
void serve_destroy(struct serve **serve);

/* A WIRE_BODY_ASK, WIRE_BODY_CREDIT or a cancelling WIRE_BODY_END; others are not looked at.
 * MESSAGE->from is whom it came from, as the transport knows it. */
void serve_message(struct serve *serve, const struct wire_message *message, uint64_t now_ms);

/*
 * The read KEY came to RC. 0: LEN bytes at DATA (lent for this call, checked against their block's
 * checksum) of a body of SIZE bytes; none where it begins at or beyond the end. ERR_NOT_FOUND,
 * ERR_DELETED: these bytes are not here. ERR_AGAIN, ERR_FULL, ERR_NO_MEMORY: not now. Anything
 * else: the copy is damaged. A read of a transfer that was dropped meanwhile is answered all the
 * same: until then its buffer is in use.
 */
void serve_read_done(struct serve *serve, uint64_t key, int rc, const void *data, size_t len,
                     uint64_t size, uint64_t now_ms);

/* NODE failed: its transfers are dropped. */
void serve_peer_failed(struct serve *serve, const struct id128 *node);

/* At least every second or so. NOW_MS: any clock that never goes back, the same for all calls. */
void serve_tick(struct serve *serve, uint64_t now_ms);

void serve_stats(const struct serve *serve, struct serve_stats *out);

#endif
