/* put -r: whole trees, several files at a time. */
#ifndef CMD_OBJCTL_TREE_H
#define CMD_OBJCTL_TREE_H

#include "cmd/objctl_upload.h"

#define TREE_MAX_JOBS 64

/*
 * Store every regular file at and below the COUNT PATHS, JOBS at a time, and print "ID  PATH" for
 * each, in no order. Symbolic links and special files are skipped and counted. CTL_OK,
 * CTL_SOME_FAILED, or the reason why it was given up (CTL_UNREACHABLE).
 */
int tree_put(const struct ctl *ctl, const struct upload_options *options, unsigned jobs, int count,
             char **paths);

#endif
