/* The table of the daemon's options: what each is called, where it goes, what it may be. Pure. */
#ifndef CMD_OPTIONS_TABLE_H
#define CMD_OPTIONS_TABLE_H

#include "base/err.h"
#include "cmd/options.h"

#define VARIABLE_PREFIX "OBJSTORE_"
#define VARIABLE_BYTES  64

enum option_kind {
    KIND_FLAG,     /* yes or no */
    KIND_NUMBER,   /* min … max */
    KIND_SIZE,     /* 64MiB; min … max */
    KIND_DURATION, /* 7d; min … max milliseconds */
    KIND_WORD,     /* one of `words`, as its index */
    KIND_TEXT,     /* what `check` allows */
    KIND_NODES,    /* the list of nodes */
};

struct option_spec {
    const char *name;
    const char *variable; /* the ancestor's, NULL where it had none */
    const char *argument; /* as --help calls it */
    const char *standard; /* the default's text; NULL: an empty list */
    const char *help;
    const char *words;                      /* KIND_WORD: "none|read|write" */
    const char *(*check)(const char *text); /* KIND_TEXT: a complaint, or NULL */
    size_t offset;
    uint64_t min, max;
    enum option_kind kind;
    char letter;
    bool zero; /* 0 is allowed although it is below min */
    bool hidden;
};

#define OPTION_COUNT 37
extern const struct option_spec option_specs[OPTION_COUNT];

/* NULL where there is none. */
const struct option_spec *option_by_name(const char *name, size_t len);

/* The name of our own variable for it: OBJSTORE_STATE_DIR. */
void option_variable(char out[VARIABLE_BYTES], const struct option_spec *spec);

/* The number that TEXT means to SPEC, which is none of KIND_TEXT and KIND_NODES. On a failure a
 * complaint about it is in MESSAGE (CAP bytes). */
int option_number(uint64_t *out, const struct option_spec *spec, const char *text, char *message,
                  size_t cap) MUST_CHECK;

/* The value is a directory's path. */
bool option_is_directory(const struct option_spec *spec);

#endif
