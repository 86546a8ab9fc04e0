/*
 * What clients were told, as a plain map: id → what stands there. The rules are written down a
 * second time here, as shortly as they can be, so that the journal's are checked against them.
 */
#ifndef TESTS_SIM_MODEL_H
#define TESTS_SIM_MODEL_H

#include "base/id.h"
#include "journal/journal.h"

#define SIM_IDS        40
#define SIM_VARIANTS   2 /* bodies an id may be put with */
#define SIM_BODY_BYTES (160 * 1024)

enum fact_kind { FACT_NONE, FACT_LIVE, FACT_DELETED };

struct fact {
    enum fact_kind kind;
    unsigned variant, level, name; /* of a live one; else 0 */
    /* Of both: what is known of the cloud. */
    bool cloud;                 /* anything */
    unsigned uploaded;          /* the body uploaded last, 1 + variant; 0: none */
    bool purge, purged, marked; /* of a deleted one */
    bool begun;                 /* an upload, of which no end was said; not in the row */
};

/* What a client asks for. */
struct wish {
    enum change_kind kind;
    unsigned id, variant, level, name;
    bool has_level, has_name; /* META */
    bool verified;            /* PUT: the copy that is there was read and found good */
    bool purge;               /* DELETE */
    unsigned cloud_state;     /* CLOUD */
};

struct id128 model_id(unsigned id);
size_t model_size(unsigned id, unsigned variant);
/* In a large file rather than inline. */
bool model_large(unsigned id, unsigned variant);
void model_body(unsigned id, unsigned variant, uint8_t *out);
const uint8_t *model_sha256(unsigned id, unsigned variant);
/* The name's text: two characters. */
const char *model_name(unsigned name);

/* The key and etag in the cloud of an upload: some characters that no other has. */
const char *model_place(unsigned id, unsigned variant, char out[16]);

/* The answer to WISH where BEFORE stands, and what stands there after it. */
int model_expect(const struct fact *before, const struct wish *wish, struct fact *after);
bool fact_equal(const struct fact *a, const struct fact *b);
/* A row as a fact, but for `begun`. False: it is none that a client could have asked for. */
bool model_observe(unsigned id, const struct object *object, struct fact *out);
/* In words, into OUT (80 bytes). */
const char *fact_text(const struct fact *fact, char out[80]);

#endif
