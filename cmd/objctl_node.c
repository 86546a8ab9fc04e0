/*
 * node: who belongs to the cluster, changed over a running node's control socket. drain makes that
 * node leave and shows how far it is; join takes that back once it has left; forget writes off
 * another one that is dead.
 *
 * A drain goes on in the node whether or not somebody watches: what ends objctl does not end it.
 */
#include "cmd/objctl_admin.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { OPT_CANCEL = CTL_OPT_FIRST, OPT_NO_WAIT, OPT_ACCEPT_LOSS, OPT_FORCE };

#define POLL_MS 250
#define TELL_MS 5000 /* between lines where nobody watches a terminal */

static const struct option options[] = {{"cancel", no_argument, NULL, OPT_CANCEL},
                                        {"no-wait", no_argument, NULL, OPT_NO_WAIT},
                                        {"accept-loss", no_argument, NULL, OPT_ACCEPT_LOSS},
                                        {"force", no_argument, NULL, OPT_FORCE},
                                        CTL_DIR_OPTIONS};

/* ---- Drain ---- */

static void say_status(const struct ctl *ctl, const json_t *status)
{
    const char *phase = admin_text(status, "phase"), *waiting = admin_text(status, "waiting");
    const char *stuck = admin_text(status, "stuck");
    char size[SIZE_TEXT_BYTES];

    ctl_size(size, admin_number(status, "bytes_left"));
    ctl_say(ctl, "%s: %llu objects (%s) left, %llu handed over%s%s%s%s", phase,
            (unsigned long long)admin_number(status, "objects_left"), size,
            (unsigned long long)admin_number(status, "objects_moved"),
            *waiting ? "; waiting: " : "", waiting, *stuck ? "; asked for again and again: " : "",
            stuck);
}

/* STATUS, given away, until the node has left. */
static int watch(const struct ctl *ctl, json_t *status)
{
    const struct timespec pause = {0, POLL_MS * 1000000};
    uint64_t said_ms = 0;
    char phase[16] = "";
    int code = CTL_OK;

    while (code == CTL_OK) {
        const char *now = admin_text(status, "phase");
        bool left = strcmp(now, "left") == 0, none = strcmp(now, "none") == 0;
        unsigned pace = isatty(STDERR_FILENO) ? 1000 : TELL_MS;

        if (left || none) {
            json_decref(status);
            if (none)
                return ctl_fail(CTL_REFUSED, "the drain was cancelled");
            ctl_say(ctl, "this node has left the cluster; it can be stopped");
            return CTL_OK;
        }
        if (strcmp(phase, now) != 0 || ctl_now_ms() - said_ms >= pace) {
            said_ms = ctl_now_ms();
            (void)snprintf(phase, sizeof phase, "%s", now);
            say_status(ctl, status);
        }
        json_decref(status);
        (void)nanosleep(&pause, NULL);
        code = admin_ask(ctl, "GET", "/control/v1/node/drain", NULL, "node drain", &status);
    }
    ctl_say(ctl, "a drain goes on when the node is started again");
    return code;
}

static int drain(const struct ctl *ctl, bool cancel, bool wait)
{
    json_t *status;
    int code = admin_ask(ctl, "POST", "/control/v1/node/drain",
                         json_pack("{s:b}", "cancel", cancel), "node drain", &status);

    if (code)
        return code;
    if (wait && !cancel)
        return watch(ctl, status);
    if (cancel)
        ctl_say(ctl, "cancelled; this node stays in the cluster");
    else
        say_status(ctl, status);
    json_decref(status);
    return CTL_OK;
}

/* ---- Join, forget ---- */

static int join(const struct ctl *ctl)
{
    json_t *answer;
    int code = admin_ask(ctl, "POST", "/control/v1/node/join", NULL, "node join", &answer);

    if (code == CTL_OK)
        ctl_say(ctl, "this node belongs to the cluster again");
    json_decref(answer);
    return code;
}

static int forget(const struct ctl *ctl, const char *node, bool accept_loss, bool force)
{
    json_t *answer;
    json_t *args =
        json_pack("{s:s,s:b,s:b}", "node", node, "accept_loss", accept_loss, "force", force);

    if (!args)
        return ctl_fail(CTL_USAGE, "a node's id is not UTF-8");
    int code = admin_ask(ctl, "POST", "/control/v1/node/forget", args, "node forget", &answer);
    if (code)
        return code;
    uint64_t lost = admin_number(answer, "objects");
    if (lost)
        ctl_say(ctl, "node %s is forgotten, and %llu objects with it", node,
                (unsigned long long)lost);
    else
        ctl_say(ctl, "node %s is forgotten", node);
    json_decref(answer);
    return CTL_OK;
}

int ctl_node(struct ctl *ctl, int argc, char **argv)
{
    bool cancel = false, no_wait = false, accept_loss = false, force = false;
    int code = CTL_OK, c;

    while ((c = ctl_option(ctl, argc, argv, "", options, &code)) != -1) {
        switch (c) {
        case OPT_CANCEL:
            cancel = true;
            break;
        case OPT_NO_WAIT:
            no_wait = true;
            break;
        case OPT_ACCEPT_LOSS:
            accept_loss = true;
            break;
        case OPT_FORCE:
            force = true;
            break;
        default:
            return code;
        }
    }
    const char *verb = optind < argc ? argv[optind] : "";
    int rest = argc - optind - 1;
    bool is_drain = strcmp(verb, "drain") == 0, is_forget = strcmp(verb, "forget") == 0;

    if (((cancel || no_wait) && !is_drain) || ((accept_loss || force) && !is_forget))
        return ctl_fail(CTL_USAGE, "--cancel and --no-wait are for node drain, --accept-loss and "
                                   "--force for node forget");
    if (is_drain && rest == 0)
        return drain(ctl, cancel, !no_wait);
    if (is_forget && rest == 1)
        return forget(ctl, argv[optind + 1], accept_loss, force);
    if (strcmp(verb, "join") == 0 && rest == 0)
        return join(ctl);
    return ctl_fail(CTL_USAGE, "node wants drain, join, or forget and the ID of a node");
}
