/* cluster's verbs that go over the control socket. */
#ifndef CMD_OBJCTL_DIFF_H
#define CMD_OBJCTL_DIFF_H

#include "cmd/objctl.h"

/* Prints where members A and B differ; CTL_SOME_FAILED where they do. LIMIT: a number as text, or
 * NULL. Exit codes. */
int ctl_cluster_diff(const struct ctl *ctl, const char *a, const char *b, const char *limit);
/* TO: a level as text; NULL: the highest that all members understand. */
int ctl_cluster_upgrade(const struct ctl *ctl, const char *to);

#endif
