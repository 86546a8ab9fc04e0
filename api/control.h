/*
 * Administration: what objctl asks of a running node over the Unix socket in its state directory,
 * which only the node's own user can open. Served by the same HTTP core.
 *
 *   GET  /control/v1/stats            as /api/v1/stats
 *   POST /control/v1/backup           {"dir":"/absolute/path"}: journal_backup
 *   POST /control/v1/journal/verify   journal_verify
 *   …    /control/v1/node/…, /control/v1/cluster/…   api/control_cluster.h
 */
#ifndef API_CONTROL_H
#define API_CONTROL_H

#include "api/http/http.h"
#include "api/stats.h"

struct control;

/* Starts a thread for what takes long. */
int control_create(struct control **out, const struct stats_source *stats) MUST_CHECK;
/* Lent until control_destroy. */
const struct http_handler *control_handler(const struct control *control);
/* Waits for what is under way; before the server is destroyed, which wants it all posted. */
void control_stop(struct control *control);
/* After the server has ended. */
void control_destroy(struct control **control);

#endif
