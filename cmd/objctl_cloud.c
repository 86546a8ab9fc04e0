/*
 * cloud: looking after what lies between a running node and its cloud, over its control socket.
 * check tries each kind of request once; outbox lists what is owed; import adopts what lies in a
 * bucket.
 *
 * An import goes on in the node whether or not somebody watches: what ends objctl does not end it.
 */
#include "cmd/objctl_admin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { OPT_PREFIX = CTL_OPT_FIRST, OPT_DRY_RUN, OPT_CANCEL, OPT_NO_WAIT, OPT_LIMIT };

#define POLL_MS 250
#define TELL_MS 5000 /* between lines where nobody watches a terminal */

static const struct option options[] = {
    {"prefix", required_argument, NULL, OPT_PREFIX}, {"dry-run", no_argument, NULL, OPT_DRY_RUN},
    {"cancel", no_argument, NULL, OPT_CANCEL},       {"no-wait", no_argument, NULL, OPT_NO_WAIT},
    {"limit", required_argument, NULL, OPT_LIMIT},   CTL_DIR_OPTIONS};

struct asked {
    const char *prefix, *limit;
    bool dry_run, cancel, no_wait;
};

static unsigned long long number(const json_t *object, const char *name)
{
    return (unsigned long long)admin_number(object, name);
}

/* ---- Check ---- */

static int check(const struct ctl *ctl)
{
    json_t *answer, *step;
    size_t i;
    int code = admin_ask(ctl, "POST", "/control/v1/cloud/check", NULL, "cloud check", &answer);

    if (code)
        return code;
    (void)printf("%s %s\n", admin_text(answer, "backend"), admin_text(answer, "bucket"));
    json_array_foreach(json_object_get(answer, "steps"), i, step)
    {
        bool good = json_is_true(json_object_get(step, "good"));

        (void)printf("%-8s %-6s %6llu ms", admin_text(step, "name"), good ? "ok" : "FAILED",
                     number(step, "took_ms"));
        if (!good)
            (void)printf("  %s\n%-8s %s", admin_text(step, "message"), "",
                         admin_text(step, "advice"));
        (void)putchar('\n');
    }
    bool good = json_is_true(json_object_get(answer, "good"));
    json_decref(answer);
    if (good)
        ctl_say(ctl, "the cloud can be used");
    return good ? CTL_OK : ctl_fail(CTL_SOME_FAILED, "the cloud cannot be used as it should");
}

/* ---- Outbox ---- */

static void say_age(char out[32], unsigned long long seconds)
{
    if (seconds < 120)
        (void)snprintf(out, 32, "%llu s", seconds);
    else if (seconds < 7200)
        (void)snprintf(out, 32, "%llu min", seconds / 60);
    else if (seconds < 172800)
        (void)snprintf(out, 32, "%llu h", seconds / 3600);
    else
        (void)snprintf(out, 32, "%llu d", seconds / 86400);
}

static int outbox(const struct ctl *ctl, const struct asked *asked)
{
    json_t *answer, *owed;
    json_t *args = NULL;
    size_t i;

    if (asked->limit) {
        char *end;
        long limit = strtol(asked->limit, &end, 10);

        if (*end || end == asked->limit || limit < 1 || limit > 1000)
            return ctl_fail(CTL_USAGE, "--limit must be 1 to 1000");
        args = json_pack("{s:i}", "limit", (int)limit);
    }
    int code = admin_ask(ctl, "POST", "/control/v1/cloud/outbox", args, "cloud outbox", &answer);
    if (code)
        return code;
    json_array_foreach(json_object_get(answer, "owed"), i, owed)
    {
        char age[32], size[SIZE_TEXT_BYTES];

        say_age(age, number(owed, "age_s"));
        ctl_size(size, admin_number(owed, "size"));
        (void)printf("%-6s  %8s  %s  %10s  %s\n", admin_text(owed, "what"), age,
                     admin_text(owed, "id"), size, admin_text(owed, "name"));
    }
    char size[SIZE_TEXT_BYTES];
    ctl_size(size, admin_number(answer, "upload_bytes"));
    ctl_say(ctl,
            "this node owes the cloud %llu uploads (%s), %llu marks of deleted objects, %llu "
            "removals",
            number(answer, "uploads"), size, number(answer, "marks"), number(answer, "purges"));
    json_decref(answer);
    return CTL_OK;
}

/* ---- Import ---- */

static void say_import(const struct ctl *ctl, const json_t *status, bool last)
{
    bool dry = json_is_true(json_object_get(status, "dry_run"));
    char size[SIZE_TEXT_BYTES], read[SIZE_TEXT_BYTES];

    ctl_size(size, admin_number(status, "adopted_bytes"));
    ctl_size(read, admin_number(status, "read_bytes"));
    ctl_say(ctl,
            "%llu keys, %llu (%s) %s, %llu known already, %llu deleted, %llu no objects, %llu "
            "refused; %llu (%s) %s once for their SHA-256%s%s",
            number(status, "listed"), number(status, "adopted"), size,
            dry ? "would be adopted" : "adopted", number(status, "known"),
            number(status, "deleted"), number(status, "others"), number(status, "refused"),
            number(status, "read"), read, dry ? "would be read" : "read", last ? "" : "; now at ",
            last ? "" : admin_text(status, "key"));
}

static int end_import(const struct ctl *ctl, const json_t *status)
{
    const char *phase = admin_text(status, "phase");

    say_import(ctl, status, true);
    if (strcmp(phase, "failed") == 0)
        return ctl_fail(CTL_REFUSED, "the import failed: %s; begin it again to go on",
                        admin_text(status, "message"));
    if (strcmp(phase, "cancelled") == 0)
        return ctl_fail(CTL_REFUSED, "the import was cancelled; begin it again to go on");
    if (strcmp(phase, "none") == 0)
        return ctl_fail(CTL_REFUSED, "the node was started anew; begin the import again to go on");
    if (number(status, "refused"))
        return ctl_fail(CTL_SOME_FAILED, "not adopted: %s%s", admin_text(status, "refusal"),
                        number(status, "refused") > 1 ? ", and others" : "");
    return CTL_OK;
}

/* STATUS, given away, until the import is over. */
static int watch(const struct ctl *ctl, json_t *status)
{
    const struct timespec pause = {0, POLL_MS * 1000000};
    unsigned pace = isatty(STDERR_FILENO) ? 1000 : TELL_MS;
    uint64_t said_ms = ctl_now_ms();
    int code = CTL_OK;

    while (code == CTL_OK && strcmp(admin_text(status, "phase"), "running") == 0) {
        if (ctl_now_ms() - said_ms >= pace) {
            said_ms = ctl_now_ms();
            say_import(ctl, status, false);
        }
        json_decref(status);
        (void)nanosleep(&pause, NULL);
        code = admin_ask(ctl, "GET", "/control/v1/cloud/import", NULL, "cloud import", &status);
    }
    if (code)
        return code;
    code = end_import(ctl, status);
    json_decref(status);
    return code;
}

static int import(const struct ctl *ctl, const struct asked *asked)
{
    json_t *status, *args = json_object();

    if (args && asked->cancel)
        (void)json_object_set_new(args, "cancel", json_true());
    if (args && asked->dry_run)
        (void)json_object_set_new(args, "dry_run", json_true());
    if (args && asked->prefix && json_object_set_new(args, "prefix", json_string(asked->prefix))) {
        json_decref(args);
        return ctl_fail(CTL_USAGE, "the prefix is not UTF-8");
    }
    int code = admin_ask(ctl, "POST", "/control/v1/cloud/import", args, "cloud import", &status);
    if (code)
        return code;
    if (!asked->no_wait && !asked->cancel)
        return watch(ctl, status);
    ctl_say(ctl, asked->cancel ? "cancelled" : "the import runs in the node");
    json_decref(status);
    return CTL_OK;
}

int ctl_cloud(struct ctl *ctl, int argc, char **argv)
{
    struct asked asked = {.prefix = NULL};
    int code = CTL_OK, c;

    while ((c = ctl_option(ctl, argc, argv, "", options, &code)) != -1) {
        switch (c) {
        case OPT_PREFIX:
            asked.prefix = optarg;
            break;
        case OPT_DRY_RUN:
            asked.dry_run = true;
            break;
        case OPT_CANCEL:
            asked.cancel = true;
            break;
        case OPT_NO_WAIT:
            asked.no_wait = true;
            break;
        case OPT_LIMIT:
            asked.limit = optarg;
            break;
        default:
            return code;
        }
    }
    const char *verb = optind == argc - 1 ? argv[optind] : "";
    bool is_import = strcmp(verb, "import") == 0, is_outbox = strcmp(verb, "outbox") == 0;

    if (((asked.prefix || asked.dry_run || asked.cancel || asked.no_wait) && !is_import) ||
        (asked.limit && !is_outbox))
        return ctl_fail(CTL_USAGE, "--prefix, --dry-run, --cancel and --no-wait are for cloud "
                                   "import, --limit for cloud outbox");
    if (strcmp(verb, "check") == 0)
        return check(ctl);
    if (is_outbox)
        return outbox(ctl, &asked);
    if (is_import)
        return import(ctl, &asked);
    return ctl_fail(CTL_USAGE, "cloud wants check, outbox or import");
}
