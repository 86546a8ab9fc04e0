/* An object's facts as a JSON object, for people and tools: what the state digest is made of, and
 * nothing of where this node's copy lies. */
#ifndef JOURNAL_ROW_JSON_H
#define JOURNAL_ROW_JSON_H

#include "base/buf.h"
#include "journal/db.h"

/* Pure. Each register comes with when and in which run it was written. */
void row_json(struct buf *out, const struct object *object);
/* The row of ID; nothing where it has none. Blocks. */
int row_json_read(struct buf *out, struct db_reader *reader, const struct id128 *id) MUST_CHECK;

#endif
