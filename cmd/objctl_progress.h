/*
 * A line on the terminal that says how far the work is; nothing where stderr is no terminal, or
 * quiet was asked for. Safe from any thread.
 */
#ifndef CMD_OBJCTL_PROGRESS_H
#define CMD_OBJCTL_PROGRESS_H

#include "cmd/objctl.h"

#include <stdint.h>

/* WHAT stands at the line's head (cut where it is long); TOTAL: bytes to come, 0 = unknown; ITEMS:
 * count items rather than show a bar. */
void progress_begin(const struct ctl *ctl, const char *what, uint64_t total_bytes, bool items);
/* So much more is done. Draws at most ten times a second. */
void progress_add(uint64_t bytes, uint64_t items);
/* Begin to count anew (an upload that starts again). */
void progress_reset(void);
/* Take the line away. */
void progress_end(void);

#endif
