/* The directories of a stopped node, opened for reading: objctl's commands that need no node. */
#ifndef CMD_OBJCTL_OFFLINE_H
#define CMD_OBJCTL_OFFLINE_H

#include "cmd/objctl.h"
#include "journal/db.h"
#include "storage/store_dir.h"

struct offline {
    struct store_dirs dirs;
    char vfs[32];
    struct db_reader *reader;
    bool open;
};

/* Lock the directories. CTL_OK, or an exit code after saying why: CTL_LOCKED where the node runs.
 */
int offline_open(struct offline *offline, const struct ctl *ctl);
/* Open the database, which is not written. */
int offline_reader(struct offline *offline);
void offline_close(struct offline *offline);

#endif
