/* Events as JSON lines on standard output. */
#ifndef CMD_OBJCTL_DUMP_H
#define CMD_OBJCTL_DUMP_H

#include "journal/db.h"

/* All events of ORIGIN in order. ERR_IO: they cannot be read, or written. */
int dump_origin(struct db_reader *reader, const struct db_origin *origin) MUST_CHECK;

#endif
