/*
 * The lock comes first: the node keeps SQLite's shared memory to itself, so nobody else may open
 * the database while it runs.
 */
#include "cmd/objctl_offline.h"

#include "base/env.h"
#include "base/io.h"
#include "journal/vfs.h"

#include <stdlib.h>

int offline_open(struct offline *offline, const struct ctl *ctl)
{
    char message[512] = "";

    *offline = (struct offline){.open = false};
    int rc = store_dirs_inspect(&offline->dirs, env_system(), ctl->state_dir, ctl->files_dir,
                                message, sizeof message);
    if (rc == ERR_LOCKED)
        return ctl_fail(CTL_LOCKED, "%s; stop the node first", message);
    if (rc)
        return ctl_fail(ctl_exit_of(rc), "%s", *message ? message : err_text(rc));
    offline->open = true;
    return CTL_OK;
}

int offline_reader(struct offline *offline)
{
    char *path = io_join(offline->dirs.state_dir, "journal.db");
    int rc = path ? vfs_register(env_system(), offline->vfs) : ERR_NO_MEMORY;

    if (rc == 0)
        rc = db_reader_open(&offline->reader, offline->vfs, path);
    int code = CTL_OK;
    if (rc)
        code = ctl_fail(ctl_exit_of(rc), "%s: %s%s", path ? path : "journal.db", err_text(rc),
                        rc == ERR_CORRUPT || rc == ERR_NOT_FOUND
                            ? "; 'objctl journal rebuild' makes it anew from the log"
                            : "");
    free(path);
    return code;
}

void offline_close(struct offline *offline)
{
    db_reader_close(&offline->reader);
    if (*offline->vfs)
        vfs_unregister(offline->vfs);
    if (offline->open)
        store_dirs_close(&offline->dirs);
    offline->open = false;
}
