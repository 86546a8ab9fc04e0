/*
 * journal verify, compact, dump, rebuild, new-node-id. verify and compact ask the node where it
 * runs (over its control socket), and open the store themselves where it does not; the others want
 * the node stopped.
 */
#include "base/buf.h"
#include "base/env.h"
#include "cmd/objctl_dump.h"
#include "cmd/objctl_http.h"
#include "cmd/objctl_offline.h"
#include "journal/journal.h"
#include "journal/ulid.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGE_BYTES 512

enum { OPT_ACCEPT_LOSS = CTL_OPT_FIRST };

static const struct option options[] = {{"accept-data-loss", no_argument, NULL, OPT_ACCEPT_LOSS},
                                        CTL_DIR_OPTIONS};

static int say_verified(const struct ctl *ctl, const struct journal_verify_result *found)
{
    if (found->frozen)
        ctl_say(ctl, "frozen runs: %llu", (unsigned long long)found->frozen);
    if (found->forks)
        ctl_say(ctl, "forks between runs: %llu", (unsigned long long)found->forks);
    if (found->note[0])
        ctl_say(ctl, "%s", found->note);
    if (found->breaks == 0) {
        ctl_say(ctl, "%llu events of %llu origins form unbroken chains",
                (unsigned long long)found->events, (unsigned long long)found->origins);
        return CTL_OK;
    }
    return ctl_fail(CTL_SOME_FAILED, "%llu breaks in the journal; the first: %s",
                    (unsigned long long)found->breaks, found->message);
}

static uint64_t number(const json_t *json, const char *name)
{
    json_int_t value = json_integer_value(json_object_get(json, name));

    return value > 0 ? (uint64_t)value : 0;
}

static void copy_text(char *out, size_t cap, const json_t *json, const char *name)
{
    const char *text = json_string_value(json_object_get(json, name));

    snprintf(out, cap, "%s", text ? text : "");
}

static void read_verified(struct journal_verify_result *out, const json_t *json)
{
    *out = (struct journal_verify_result){.origins = number(json, "origins"),
                                          .events = number(json, "events"),
                                          .breaks = number(json, "breaks"),
                                          .frozen = number(json, "frozen"),
                                          .forks = number(json, "forks")};
    copy_text(out->message, sizeof out->message, json, "message");
    copy_text(out->note, sizeof out->note, json, "note");
}

/* CTL_NO_NODE, or an exit code. */
static int verify_running(const struct ctl *ctl)
{
    struct call call = {.method = "POST", .path = "/control/v1/journal/verify"};
    struct client client;

    int code = client_open_control(&client, ctl->state_dir);
    if (code)
        return code;
    client.patient = true;
    int rc = client_call(&client, &call);
    if (rc == ERR_CLOSED) {
        code = CTL_NO_NODE;
        goto out;
    }
    code = client_complain(&client, &call, rc, "journal verify");
    if (code)
        goto out;
    json_t *json = json_loadb(call.text.data, call.text.len, 0, NULL);
    struct journal_verify_result found;
    read_verified(&found, json);
    if (json_is_integer(json_object_get(json, "breaks")))
        code = say_verified(ctl, &found);
    else
        code = ctl_fail(CTL_REFUSED, "the node's answer is not understood");
    json_decref(json);
out:
    call_release(&call);
    client_close(&client);
    return code;
}

static int verify_stopped(const struct ctl *ctl)
{
    struct journal_verify_result found;
    char report[MESSAGE_BYTES] = "";
    struct offline offline;

    int code = offline_open(&offline, ctl);
    if (code == CTL_OK)
        code = offline_reader(&offline);
    if (code)
        goto out;
    int rc = db_check(offline.reader, report, sizeof report);
    if (rc) {
        code = ctl_fail(rc == ERR_CORRUPT ? CTL_SOME_FAILED : CTL_IO, "the database: %s",
                        *report ? report : err_text(rc));
        goto out;
    }
    rc = journal_verify(offline.reader, &found);
    if (rc)
        code = ctl_fail(CTL_IO, "cannot read the journal: %s", err_text(rc));
    else
        code = say_verified(ctl, &found);
out:
    offline_close(&offline);
    return code;
}

static int verify(const struct ctl *ctl)
{
    int code = verify_running(ctl);

    return code == CTL_NO_NODE ? verify_stopped(ctl) : code;
}

static void say_compacted(const struct ctl *ctl, uint64_t events, uint64_t snapshot_bytes,
                          bool waiting)
{
    ctl_say(ctl, "%llu events left the database; the snapshot that covers them takes %llu bytes",
            (unsigned long long)events, (unsigned long long)snapshot_bytes);
    if (waiting)
        ctl_say(ctl, "others leave it once every live member has them, too");
}

/* CTL_NO_NODE, or an exit code. */
static int compact_running(const struct ctl *ctl)
{
    struct call call = {.method = "POST", .path = "/control/v1/journal/compact"};
    struct client client;

    int code = client_open_control(&client, ctl->state_dir);
    if (code)
        return code;
    client.patient = true;
    int rc = client_call(&client, &call);
    code = rc == ERR_CLOSED ? CTL_NO_NODE : client_complain(&client, &call, rc, "journal compact");
    if (code == CTL_OK) {
        json_t *json = json_loadb(call.text.data, call.text.len, 0, NULL);

        say_compacted(ctl, number(json, "events"), number(json, "snapshot_bytes"),
                      json_is_true(json_object_get(json, "waiting")));
        json_decref(json);
    }
    call_release(&call);
    client_close(&client);
    return code;
}

/* As a node without doors. */
static int compact_stopped(const struct ctl *ctl)
{
    struct journal_compact_result result = {0};
    char message[MESSAGE_BYTES] = "";
    struct journal *journal = NULL;
    struct store_dirs dirs;

    /* First look: opening alone would make a store where there is none. */
    struct offline offline;
    int code = offline_open(&offline, ctl);
    offline_close(&offline);
    if (code)
        return code;
    int rc = store_dirs_open(&dirs, env_system(), ctl->state_dir, ctl->files_dir, false, message,
                             sizeof message);
    if (rc)
        return ctl_fail(ctl_exit_of(rc), "%s", *message ? message : err_text(rc));
    const struct journal_config config = {.dirs = &dirs, .sync = true};
    rc = journal_open(&journal, &config, message, sizeof message);
    if (rc == 0) {
        rc = journal_compact(journal, &result);
        journal_stop(journal);
    }
    journal_close(&journal);
    store_dirs_close(&dirs);
    if (rc)
        return ctl_fail(ctl_exit_of(rc), "%s", *message ? message : err_text(rc));
    say_compacted(ctl, result.events, result.snapshot_bytes, result.waiting);
    return CTL_OK;
}

static int compact(const struct ctl *ctl)
{
    int code = compact_running(ctl);

    return code == CTL_NO_NODE ? compact_stopped(ctl) : code;
}

/* A copy of a node's directories becomes a node of its own. */
static int new_node_id(const struct ctl *ctl)
{
    char message[MESSAGE_BYTES] = "", text[ULID_TEXT_BYTES + 1];
    struct journal *journal = NULL;
    struct offline offline;
    struct store_dirs dirs;
    struct id128 node;

    int code = offline_open(&offline, ctl); /* there is a store, and nobody runs on it */
    offline_close(&offline);
    if (code)
        return code;
    int rc = store_dirs_open(&dirs, env_system(), ctl->state_dir, ctl->files_dir, false, message,
                             sizeof message);
    if (rc)
        return ctl_fail(ctl_exit_of(rc), "%s", *message ? message : err_text(rc));
    const struct journal_config config = {.dirs = &dirs, .sync = true, .new_node = true};
    rc = journal_open(&journal, &config, message, sizeof message);
    if (rc == 0) {
        rc = journal_new_node(journal, &node);
        journal_stop(journal);
    }
    journal_close(&journal);
    store_dirs_close(&dirs);
    if (rc)
        return ctl_fail(ctl_exit_of(rc), "%s", *message ? message : err_text(rc));
    ulid_format(text, &node);
    ctl_say(ctl, "this is node %s from now on", text);
    return CTL_OK;
}

static int dump(const struct ctl *ctl)
{
    struct db_origin *origins = NULL;
    struct offline offline;
    size_t count = 0;

    int code = offline_open(&offline, ctl);
    if (code == CTL_OK)
        code = offline_reader(&offline);
    if (code == CTL_OK) {
        int rc = db_reader_origins(offline.reader, &origins, &count);

        for (size_t i = 0; rc == 0 && i < count; i++)
            rc = dump_origin(offline.reader, &origins[i]);
        if (rc)
            code = ctl_fail(CTL_IO, "cannot read or print the journal: %s", err_text(rc));
    }
    free(origins);
    offline_close(&offline);
    return code;
}

static int rebuild(const struct ctl *ctl, bool accept_loss)
{
    char message[MESSAGE_BYTES] = "";
    uint64_t events = 0, objects = 0;
    struct offline offline;

    int code = offline_open(&offline, ctl);
    if (code)
        return code;
    uint64_t begun = ctl_now_ms();
    offline.dirs.accept_loss = accept_loss;
    int rc = journal_rebuild(&offline.dirs, &events, &objects, message, sizeof message);
    if (rc)
        code = ctl_fail(ctl_exit_of(rc), "%s", *message ? message : err_text(rc));
    else
        ctl_say(ctl, "rebuilt from the log: %llu events, %llu objects, %llu ms",
                (unsigned long long)events, (unsigned long long)objects,
                (unsigned long long)(ctl_now_ms() - begun));
    offline_close(&offline);
    return code;
}

int ctl_journal(struct ctl *ctl, int argc, char **argv)
{
    bool accept_loss = false;
    int code = CTL_OK, c;

    while ((c = ctl_option(ctl, argc, argv, "", options, &code)) != -1) {
        if (c != OPT_ACCEPT_LOSS)
            return code;
        accept_loss = true;
    }
    const char *verb = argc - optind == 1 ? argv[optind] : "";
    if (accept_loss && strcmp(verb, "rebuild") != 0)
        return ctl_fail(CTL_USAGE, "--accept-data-loss is for journal rebuild alone");
    if (strcmp(verb, "verify") == 0)
        return verify(ctl);
    if (strcmp(verb, "dump") == 0)
        return dump(ctl);
    if (strcmp(verb, "rebuild") == 0)
        return rebuild(ctl, accept_loss);
    if (strcmp(verb, "compact") == 0)
        return compact(ctl);
    if (strcmp(verb, "new-node-id") == 0)
        return new_node_id(ctl);
    return ctl_fail(CTL_USAGE, "journal wants one of verify, dump, compact, rebuild, new-node-id");
}
