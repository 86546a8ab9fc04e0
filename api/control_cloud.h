/*
 * The control door's verbs about the cloud (docs/OPERATIONS.md says what they do):
 *
 *   POST /control/v1/cloud/check       each kind of request once
 *   POST /control/v1/cloud/outbox      {"limit"}: what this node owes the cloud, oldest first
 *   POST /control/v1/cloud/import      {"prefix", "dry_run"}: begin, or {"cancel": true}
 *   GET  /control/v1/cloud/import      how far it is
 */
#ifndef API_CONTROL_CLOUD_H
#define API_CONTROL_CLOUD_H

#include "api/control_cluster.h"

/* As admin_run calls them; the last one does not block. */
void control_cloud_check(struct admin_call *call);
void control_cloud_outbox(struct admin_call *call);
void control_cloud_import(struct admin_call *call);
void control_cloud_status(struct admin_call *call);

#endif
