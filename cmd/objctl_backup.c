/*
 * backup: asks the node over its control socket; where none runs, opens the store itself, as a node
 * without doors. Either way the copy is one that a node can be started on.
 */
#include "base/env.h"
#include "cmd/objctl_http.h"
#include "journal/journal.h"
#include "storage/store_dir.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* PATH, which need not exist, from the root; the node's working directory is another. */
static char *absolute(const char *path)
{
    char here[PATH_MAX], *out = NULL;

    if (*path == '/')
        return strdup(path);
    if (!getcwd(here, sizeof here) || asprintf(&out, "%s/%s", here, path) < 0)
        return NULL;
    return out;
}

/* CTL_NO_NODE, or an exit code. */
static int backup_running(const struct ctl *ctl, const char *dir)
{
    struct call call = {.method = "POST", .path = "/control/v1/backup"};
    struct client client;

    int code = client_open_control(&client, ctl->state_dir);
    if (code)
        return code;
    json_t *json = json_pack("{s:s}", "dir", dir);
    char *body = json ? json_dumps(json, JSON_COMPACT) : NULL;
    json_decref(json);
    if (!body) {
        code = ctl_fail(CTL_USAGE, "the directory's name is not UTF-8");
        goto out;
    }
    client.patient = true;
    call.body = body;
    call.length = (int64_t)strlen(body);
    call_header(&call, "Content-Type: application/json");
    int rc = client_call(&client, &call);
    code = rc == ERR_CLOSED ? CTL_NO_NODE : client_complain(&client, &call, rc, dir);
    if (rc == 0 && call.status == 409)
        code = CTL_EXISTS;
out:
    free(body);
    call_release(&call);
    client_close(&client);
    return code;
}

static int backup_stopped(const struct ctl *ctl, const char *dir)
{
    char message[512] = "";
    struct store_dirs dirs;
    struct journal *journal = NULL;

    int rc = store_dirs_inspect(&dirs, env_system(), ctl->state_dir, ctl->files_dir, message,
                                sizeof message);
    if (rc)
        return ctl_fail(ctl_exit_of(rc), "%s", *message ? message : err_text(rc));
    store_dirs_close(&dirs);
    rc = store_dirs_open(&dirs, env_system(), ctl->state_dir, ctl->files_dir, false, message,
                         sizeof message);
    if (rc)
        return ctl_fail(ctl_exit_of(rc), "%s", *message ? message : err_text(rc));
    const struct journal_config config = {.dirs = &dirs, .sync = true};
    rc = journal_open(&journal, &config, message, sizeof message);
    if (rc == 0)
        rc = journal_start(journal);
    if (rc == 0)
        rc = journal_backup(journal, dir, message, sizeof message);
    if (journal)
        journal_stop(journal);
    journal_close(&journal);
    store_dirs_close(&dirs);
    if (rc)
        return ctl_fail(ctl_exit_of(rc), "%s", *message ? message : err_text(rc));
    return CTL_OK;
}

int ctl_backup(struct ctl *ctl, int argc, char **argv)
{
    static const struct option options[] = {CTL_DIR_OPTIONS};
    int code = CTL_OK;

    if (ctl_option(ctl, argc, argv, "", options, &code) != -1)
        return code;
    if (argc - optind != 1)
        return ctl_fail(CTL_USAGE, "backup wants one directory, which it makes");
    char *dir = absolute(argv[optind]);
    if (!dir)
        return ctl_fail(CTL_IO, "%s: %s", argv[optind], strerror(errno));
    uint64_t begun = ctl_now_ms();
    code = backup_running(ctl, dir);
    if (code == CTL_NO_NODE)
        code = backup_stopped(ctl, dir);
    if (code == CTL_OK)
        ctl_say(ctl, "backup in %s is complete, %llu ms", dir,
                (unsigned long long)(ctl_now_ms() - begun));
    free(dir);
    return code;
}
