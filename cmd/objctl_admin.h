/* What the commands that administer a running node share: a question over its control socket. */
#ifndef CMD_OBJCTL_ADMIN_H
#define CMD_OBJCTL_ADMIN_H

#include "cmd/objctl_http.h"

#include <jansson.h>

/* METHOD and PATH with ARGS (given away; NULL: none) as the body, to the node in CTL's state
 * directory. CTL_OK and the answer in *OUT, which the caller releases; else an exit code, after
 * saying what went wrong with WHAT. */
int admin_ask(const struct ctl *ctl, const char *method, const char *path, json_t *args,
              const char *what, json_t **out);

uint64_t admin_number(const json_t *object, const char *name);
const char *admin_text(const json_t *object, const char *name); /* "" where there is none */

#endif
