/*
 * journal verify, dump, rebuild. verify asks the node where it runs (over its control socket), and
 * reads the database itself where it does not; dump and rebuild want the node stopped.
 */
#include "base/buf.h"
#include "base/env.h"
#include "cmd/objctl_dump.h"
#include "cmd/objctl_http.h"
#include "cmd/objctl_offline.h"
#include "journal/journal.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGE_BYTES 512

static const struct option options[] = {CTL_OPTIONS};

static int say_verified(const struct ctl *ctl, uint64_t origins, uint64_t events, uint64_t breaks,
                        const char *message)
{
    if (breaks == 0) {
        ctl_say(ctl, "%llu events of %llu origins form unbroken chains", (unsigned long long)events,
                (unsigned long long)origins);
        return CTL_OK;
    }
    return ctl_fail(CTL_SOME_FAILED, "%llu breaks in the journal; the first: %s",
                    (unsigned long long)breaks, message);
}

static uint64_t number(const json_t *json, const char *name)
{
    json_int_t value = json_integer_value(json_object_get(json, name));

    return value > 0 ? (uint64_t)value : 0;
}

/* CTL_UNREACHABLE, with nothing said: no node runs there. */
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
        code = CTL_UNREACHABLE;
        goto out;
    }
    code = client_complain(&client, &call, rc, "journal verify");
    if (code)
        goto out;
    json_t *json = json_loadb(call.text.data, call.text.len, 0, NULL);
    const char *message = json_string_value(json_object_get(json, "message"));
    if (json_is_integer(json_object_get(json, "breaks")))
        code = say_verified(ctl, number(json, "origins"), number(json, "events"),
                            number(json, "breaks"), message ? message : "");
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
        code = say_verified(ctl, found.origins, found.events, found.breaks, found.message);
out:
    offline_close(&offline);
    return code;
}

static int verify(const struct ctl *ctl)
{
    int code = verify_running(ctl);

    return code == CTL_UNREACHABLE ? verify_stopped(ctl) : code;
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

static int rebuild(const struct ctl *ctl)
{
    char message[MESSAGE_BYTES] = "";
    uint64_t events = 0, objects = 0;
    struct offline offline;

    int code = offline_open(&offline, ctl);
    if (code)
        return code;
    uint64_t begun = ctl_now_ms();
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
    int code = CTL_OK;

    if (ctl_option(ctl, argc, argv, "", options, &code) != -1)
        return code;
    const char *verb = argc - optind == 1 ? argv[optind] : "";
    if (strcmp(verb, "verify") == 0)
        return verify(ctl);
    if (strcmp(verb, "dump") == 0)
        return dump(ctl);
    if (strcmp(verb, "rebuild") == 0)
        return rebuild(ctl);
    return ctl_fail(CTL_USAGE, "journal wants one of verify, dump, rebuild");
}
