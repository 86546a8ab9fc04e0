/*
 * objstore, the daemon: reads its settings, starts a node, and waits for a signal.
 *
 *   SIGTERM, SIGINT   stop: answer what is under way (at most 25 s), sync, exit 0
 *   … once more       stop at once, as a crash would; nothing acknowledged is lost
 *   SIGHUP            nothing (the log goes to stderr, there is no file to open anew)
 *   SIGPIPE, SIGXFSZ  nothing; the write fails instead
 *
 * All signals are blocked before the first thread exists and taken by the main thread alone, so no
 * code runs in a handler, and it works as PID 1, too, which the kernel gives no default actions.
 *
 * Failure: one line on stderr and an exit code of options.h.
 */
#include "base/env.h"
#include "base/limits.h"
#include "base/log.h"
#include "cmd/node.h"
#include "cmd/notify.h"
#include "cmd/options.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MESSAGE_BYTES      1024
#define THREAD_STACK_BYTES MIB
#define ALIVE_TIMEOUT_MS   5000

/* Small stacks: a thread's default of 8 MiB would become huge pages where the system makes those
 * of all it can. Few arenas: each keeps what it was once given. libzmq takes and gives back three
 * buffers for each frame that it encrypts; with less kept back than the largest frames need, each
 * of their pages was faulted in again and that cost more than the encryption. */
static void tune_memory(void)
{
    pthread_attr_t attr;

    (void)mallopt(M_ARENA_MAX, 4);
    (void)mallopt(M_TRIM_THRESHOLD, (int)MIB);
    (void)mallopt(M_MMAP_THRESHOLD, (int)(512 * KIB));
    if (pthread_attr_init(&attr) != 0)
        return;
    if (pthread_attr_setstacksize(&attr, THREAD_STACK_BYTES) == 0)
        (void)pthread_setattr_default_np(&attr);
    (void)pthread_attr_destroy(&attr);
}

static void block_signals(sigset_t *set)
{
    (void)sigemptyset(set);
    (void)sigaddset(set, SIGTERM);
    (void)sigaddset(set, SIGINT);
    (void)sigaddset(set, SIGHUP);
    (void)pthread_sigmask(SIG_BLOCK, set, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN);
}

static void end_at_once(int number)
{
    _exit(128 + number);
}

/* From now on a signal ends the process: the first one has been taken. */
static void let_signals_kill(const sigset_t *set)
{
    const struct sigaction action = {.sa_handler = end_at_once};

    (void)sigaction(SIGTERM, &action, NULL);
    (void)sigaction(SIGINT, &action, NULL);
    (void)signal(SIGHUP, SIG_IGN);
    (void)pthread_sigmask(SIG_UNBLOCK, set, NULL);
}

/* Wait for SIGTERM or SIGINT, and feed the service manager's watchdog meanwhile. */
static int wait_for_end(const sigset_t *set, const struct node *node)
{
    uint64_t feed_ms = notify_watchdog_ms();
    const struct timespec rest = {(time_t)(feed_ms / 1000), (long)(feed_ms % 1000) * 1000000};

    for (;;) {
        int number = feed_ms ? sigtimedwait(set, NULL, &rest) : sigwaitinfo(set, NULL);

        if (number == SIGTERM || number == SIGINT)
            return number;
        if (number == SIGHUP)
            log_info("SIGHUP: nothing to do");
        else if (number < 0 && errno == EAGAIN &&
                 notify_alive(node_control_path(node), ALIVE_TIMEOUT_MS))
            notify_send("WATCHDOG=1");
    }
}

static void say_settings(const struct options *options)
{
    char text[1024];

    options_describe(options, text, sizeof text);
    log_info("objstore %s, process %d%s%s", OBJSTORE_VERSION, (int)getpid(),
             *text ? ", options " : "", text);
    for (unsigned i = 0; i < options->strange_count; i++)
        log_warn("unknown variable %.*s in the environment", (int)strcspn(options->strange[i], "="),
                 options->strange[i]);
}

static int run(const struct options *options)
{
    uint64_t started_ms = env_mono_ms(env_system());
    char message[MESSAGE_BYTES];
    struct node *node;
    sigset_t set;

    log_configure(options->debug ? LOG_DEBUG : LOG_INFO, (enum log_format)options->log_format);
    block_signals(&set);
    (void)umask(077);
    tune_memory();

    int rc = node_start(&node, options, message, sizeof message);
    if (rc) {
        log_error("%s", message);
        return rc;
    }
    say_settings(options);
    log_info("serving after %llu ms", (unsigned long long)(env_mono_ms(env_system()) - started_ms));
    notify_send("READY=1\nSTATUS=serving");
    int number = wait_for_end(&set, node);
    let_signals_kill(&set);
    log_info("%s: stopping", number == SIGTERM ? "SIGTERM" : "SIGINT");
    notify_send("STOPPING=1\nSTATUS=draining");
    bool displaced = node_displaced(node);

    node_stop(&node, HTTP_DRAIN_TIMEOUT_MS);
    log_info("stopped");
    return displaced ? EXIT_CONFIG : 0;
}

int main(int argc, char **argv)
{
    char message[MESSAGE_BYTES];
    struct options options;

    int rc = options_read(&options, argc, argv, environ, message, sizeof message);
    if (rc && *message)
        (void)fprintf(stderr, "objstore: %s\n", message);
    if (rc == 0 && options.action == OPTIONS_SHOW_HELP)
        options_print_help(stdout);
    else if (rc == 0 && options.action == OPTIONS_SHOW_VERSION)
        (void)printf("objstore %s\n", OBJSTORE_VERSION);
    else if (rc == 0)
        rc = run(&options);
    if (rc == 0 && fflush(stdout) != 0)
        rc = EXIT_IO;
    options_release(&options);
    return rc;
}
