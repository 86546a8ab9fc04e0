/*
 * A cloud in memory, for tests: a thread of its own answers, one request after the other, as a
 * backend does. The test says what goes wrong, holds answers back, looks at what is there, and
 * counts what was asked. Any thread; every wait has a deadline.
 */
#ifndef TESTS_UNIT_CLOUD_MEMORY_H
#define TESTS_UNIT_CLOUD_MEMORY_H

#include "storage/cloud.h"

/* To be ended with cloud_destroy. Its bucket is "memory". */
struct cloud *cloud_memory_create(void);

/* ---- What is there ---- */

struct cloud_memory_object {
    const uint8_t *body; /* lent until the key is written or removed */
    uint64_t size;
    const char *etag, *type; /* terminated */
    const struct cloud_pair *pairs, *tags;
    size_t pair_count, tag_count;
    int64_t modified_s; /* counts writes */
};
/* False: no such key. */
bool cloud_memory_find(struct cloud *cloud, const char *key, struct cloud_memory_object *out);
size_t cloud_memory_count(struct cloud *cloud);
/* The first key of all into KEY, terminated. False: there is none. */
bool cloud_memory_first(struct cloud *cloud, char *key, size_t cap);
/* As somebody else would: TYPE, PAIRS and TAGS may be NULL. */
void cloud_memory_set(struct cloud *cloud, const char *key, const void *body, uint64_t size,
                      const char *type, const struct cloud_pair *pairs, size_t pair_count,
                      const struct cloud_pair *tags, size_t tag_count);
void cloud_memory_remove(struct cloud *cloud, const char *key);
/* A value of these, or an empty text. */
struct cloud_text cloud_memory_value(const struct cloud_pair *pairs, size_t count,
                                     const char *name);

/* ---- What was asked ---- */

/* Requests of OP that were begun, and bytes of bodies that were given. */
unsigned cloud_memory_asked(struct cloud *cloud, enum cloud_op op);
uint64_t cloud_memory_bytes_down(struct cloud *cloud);
/* Until COUNT requests of OP were begun; those held back count. */
void cloud_memory_wait(struct cloud *cloud, enum cloud_op op, unsigned count);

/* ---- What goes wrong ---- */

/* The next TIMES requests of OP (0: of any) end with RC. DONE: they were carried out all the same,
 * and the answer got lost. */
void cloud_memory_fail(struct cloud *cloud, enum cloud_op op, int rc, unsigned times, bool done);
/* What ends with ERR_AGAIN asks to be left alone for so long. */
void cloud_memory_retry_after(struct cloud *cloud, uint32_t ms);
/* The next GET ends with RC once so many bytes of it were given. */
void cloud_memory_cut(struct cloud *cloud, uint64_t bytes, int rc);
/* The next GET's byte at OFFSET of the body is another one. */
void cloud_memory_damage(struct cloud *cloud, uint64_t offset);
/* Answer nothing (GETs: nor begin to) until it is taken back. */
void cloud_memory_hold(struct cloud *cloud, bool hold);
/* GETs give at most so many bytes in all until more are allowed; UINT64_MAX, the default: any. */
void cloud_memory_allow(struct cloud *cloud, uint64_t bytes);

#endif
