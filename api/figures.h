/*
 * Figures as they are shown: members of a JSON object, and samples of Prometheus' text format
 * 0.0.4. Pure; whatever goes wrong shows in the buffer.
 */
#ifndef API_FIGURES_H
#define API_FIGURES_H

#include "base/buf.h"

#include <stdbool.h>
#include <stdint.h>

/* ---- JSON: members of the object that is being written; a comma before all but the first ---- */

void figures_key(struct buf *out, const char *name);
void figures_number(struct buf *out, const char *name, uint64_t value);
void figures_string(struct buf *out, const char *name, const char *value);
void figures_boolean(struct buf *out, const char *name, bool value);
/* An object as a member, and its end. */
void figures_begin(struct buf *out, const char *name);
void figures_end(struct buf *out);

/* ---- Prometheus ---- */

enum figure_type { FIGURE_GAUGE, FIGURE_COUNTER };

struct figure {
    const char *name, *help;
    enum figure_type type;
    uint64_t value;
};

/* HELP and TYPE of a family whose samples follow. */
void figures_head(struct buf *out, const char *name, const char *help, const char *type);
/* Whole families of one sample each. */
void figures_metrics(struct buf *out, const struct figure *figures, size_t count);
/* name="value", escaped. */
void figures_label(struct buf *out, const char *name, const char *value);
/* Microseconds as seconds, without an exponent. */
void figures_seconds(struct buf *out, uint64_t us);

#endif
