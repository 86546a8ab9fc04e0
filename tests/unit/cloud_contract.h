/*
 * What storage/cloud.h promises of every backend, as tests. A backend's test program says how to
 * make one, and runs them: cloud_contract_run.
 */
#ifndef TESTS_UNIT_CLOUD_CONTRACT_H
#define TESTS_UNIT_CLOUD_CONTRACT_H

#include "storage/cloud.h"

struct cloud_contract {
    /* A cloud of the backend; all those made see the same objects. Fails the test, or returns it.
     */
    struct cloud *(*create)(void *arg);
    void *arg;
    const char *prefix; /* of all keys that the tests make; ends in '/' */
    /* Behind it is a server that keeps keys as files: no part of one may be over 255 bytes. */
    bool short_parts;
};

/* Run the tests; the count of those that failed. */
int cloud_contract_run(const struct cloud_contract *asked);

/* ---- For further tests of a backend: one request, and what came of it. ---- */

struct cloud_call {
    struct cloud_request request; /* first */
    struct cloud *cloud;
    const char *prefix;
    /* PUT: what it reads. */
    const uint8_t *body;
    int read_rc; /* what `read` returns, if not 0 */
    int head_rc; /* what `head` returns */
    bool hold;   /* nothing of what comes is consumed, but by cloud_call_take */
    /* What came; texts are "name=value\n" one after the other, in order of their names. */
    uint8_t *bytes;
    size_t len, consumed;
    char key[1200], pairs[4096], etag[128], type[256];
    char keys[65536], last[1200]; /* LIST: "key:size\n" without the prefix; the last key, whole */
    uint64_t size;
    unsigned tag_count, entries, heads;
    bool over;
    int rc;
};

/* A call of OP on PREFIX + KEY, not begun yet. PREFIX is lent. */
void cloud_call_init(struct cloud_call *call, struct cloud *of, enum cloud_op op,
                     const char *prefix, const char *key);
/* Give a PUT its bytes and their SHA-256. */
void cloud_call_body(struct cloud_call *call, const void *body, size_t len);
int cloud_call_begin(struct cloud_call *call) MUST_CHECK;
/* Until it is over, at most half a minute: else the test fails. Its `rc`. */
int cloud_call_wait(struct cloud_call *call);
int cloud_call_do(struct cloud_call *call);
/* Until so many bytes have come, or it is over. */
void cloud_call_wait_for(struct cloud_call *call, size_t len);
/* Consume what came so far. */
void cloud_call_take(struct cloud_call *call);
void cloud_call_free(struct cloud_call *call);

#endif
