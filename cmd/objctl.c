/*
 * objctl, the client tool: finds the command, and what all commands share.
 *
 * Results go to stdout, one a line, so that they can be piped; everything else goes to stderr. Each
 * command's options may stand anywhere behind its name. The exit code says what kind of failure it
 * was (objctl.h).
 */
#include "cmd/objctl.h"

#include "base/err.h"
#include "base/limits.h"
#include "base/log.h"

#include <assert.h>
#include <curl/curl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What a command works on; so its shared options (CTL_NODE_OPTIONS, CTL_DIR_OPTIONS). */
enum target { NODE, DIRS };

struct command {
    const char *name;
    int (*run)(struct ctl *ctl, int argc, char **argv);
    enum target target;
    const char *arguments, *about, *options;
};

static const struct command commands[] = {
    {"put", ctl_put, NODE, "[OPTION]... FILE...|-", "store files, print their ids",
     "  -r, --recursive        store whole trees; prints 'ID  PATH' lines\n"
     "  -j, --jobs=N           uploads at a time with -r (default 8)\n"
     "      --id=ID            store one file under this id (default: a new one)\n"
     "      --name=NAME        the object's name (default: the file's)\n"
     "      --type=TYPE        its media type (default: by the name)\n"
     "      --level=LEVEL      local, s3 or full; or 0, 1, 2\n"
     "      --meta=KEY=VALUE   user meta data; repeat it, or give a JSON object\n"
     "      --retry=DURATION   how long to try again when the node is busy or gone\n"
     "                         (default 30s)\n"},
    {"get", ctl_get, NODE, "[OPTION]... ID", "fetch an object, verified by its SHA-256",
     "  -o, --output=FILE      write to FILE, which appears when it is complete\n"
     "      --fetch            look in the cloud, too, where the id is not known here\n"},
    {"meta", ctl_meta, NODE, "[OPTION]... ID", "show what is known about an object, or change it",
     "      --name=NAME        change its name\n"
     "      --level=LEVEL      raise its level\n"
     "      --meta=KEY=VALUE   replace its user meta data\n"},
    {"rm", ctl_rm, NODE, "[OPTION]... ID...|-", "delete objects, for ever ('-': ids from stdin)",
     "      --purge            delete the cloud's copy, too\n"},
    {"stats", ctl_stats, NODE, "[OPTION]...", "show the node's figures",
     "      --json             as JSON\n"},
    {"cluster", ctl_cluster, NODE, "[OPTION]... [watch|secret|diff A B|upgrade]",
     "show who belongs to the cluster, as the node sees it",
     "  watch                  show it anew each second (on a terminal), with what goes on\n"
     "  secret                 print a new secret for --cluster-secret-file; needs no node\n"
     "  diff A B               print the first objects of which members A and B say different\n"
     "                         things; members are named by id or address\n"
     "  upgrade                raise the cluster's feature level\n"
     "      --limit=N          so many differences at most (default 10, at most 100)\n"
     "      --to=LEVEL         to this level (default: the highest that all understand)\n"
     "      --state-dir=DIR    of the node that diff and upgrade ask\n"
     "                         (default $OBJSTORE_STATE_DIR, else state/)\n"},
    {"node", ctl_node, DIRS, "[OPTION]... drain|join|forget ID",
     "change who belongs to the cluster",
     "  drain                  hand over what this node alone has, then leave\n"
     "  join                   belong to the cluster again, after drain or forget\n"
     "  forget ID              write off another member, which is dead\n"
     "      --cancel           take a drain back\n"
     "      --no-wait          begin a drain, do not wait for its end\n"
     "      --accept-loss      forget a node though the only copies of objects are on it\n"
     "      --force            forget a node that answers\n"},
    {"cloud", ctl_cloud, DIRS, "[OPTION]... check|outbox|import",
     "look after the cloud behind a running node",
     "  check                  try each kind of request once, say what to mend\n"
     "  outbox                 list what the node owes the cloud, oldest first\n"
     "  import                 adopt what lies in the bucket; nothing is copied\n"
     "      --limit=N          so many entries of the outbox at most (default 100)\n"
     "      --prefix=TEXT      keys that begin so (default: the node's --cloud-prefix)\n"
     "      --dry-run          count what an import would do\n"
     "      --cancel           end an import that runs\n"
     "      --no-wait          begin an import, do not wait for its end\n"},
    {"journal", ctl_journal, DIRS, "[OPTION]... verify|dump|compact|rebuild|new-node-id",
     "look after the journal",
     "  verify                 check every hash chain; also on a running node\n"
     "  dump                   print all events as JSON lines; the node must be stopped\n"
     "  compact                write a snapshot, drop the events that it covers; also on a running "
     "node\n"
     "  rebuild                make the database anew from the log; the node must be stopped\n"
     "      --accept-data-loss go on without what the disk cannot read\n"
     "  new-node-id            make a copy of a node's directories a node of its own; it must be "
     "stopped\n"},
    {"verify", ctl_verify, DIRS, "[OPTION]...",
     "read and check everything; the node must be stopped", ""},
    {"backup", ctl_backup, DIRS, "[OPTION]... DIR",
     "copy the node, running or stopped, into a new DIR", ""},
};

#define COMMAND_COUNT (sizeof commands / sizeof *commands)

static const char *const target_options[] = {
    [NODE] = "      --addr=HOST:PORT   the node (default $OBJSTORE_ADDR, else 127.0.0.1:10999)\n",
    [DIRS] = "      --state-dir=DIR    the node's directories\n"
             "                         (default $OBJSTORE_STATE_DIR, else state/)\n"
             "      --files-dir=DIR    (default $OBJSTORE_FILES_DIR, else files/)\n",
};
static const char common_options[] = "  -q, --quiet            no progress and no summary\n"
                                     "  -h, --help             this help\n";

static const struct command *command_by_name(const char *name)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    }
    return NULL;
}

static void show_help(void)
{
    (void)puts("Usage: objctl COMMAND [OPTION]... [ARGUMENT]...\n\nCommands:");
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        (void)printf("  %-10s %s\n", commands[i].name, commands[i].about);
    (void)printf("\nOptions of put, get, meta, rm, stats and cluster:\n%s"
                 "\nOptions of node, cloud, journal, verify and backup:\n%s"
                 "\nOptions of all commands:\n%s\n"
                 "'objctl COMMAND --help' tells more; so does objctl(1).\n",
                 target_options[NODE], target_options[DIRS], common_options);
}

static void show_command_help(const struct command *command)
{
    (void)printf("Usage: objctl %s %s\n\nobjctl %s: %s.\n\n%s%s%s", command->name,
                 command->arguments, command->name, command->about, command->options,
                 target_options[command->target], common_options);
}

int ctl_option(struct ctl *ctl, int argc, char **argv, const char *letters,
               const struct option *options, int *code)
{
    char all[32];

    int len = snprintf(all, sizeof all, "%sqh", letters);
    assert(len > 0 && (size_t)len < sizeof all);
    for (;;) {
        int key = getopt_long(argc, argv, all, options, NULL);

        switch (key) {
        case CTL_OPT_ADDR:
            ctl->addr = optarg;
            break;
        case CTL_OPT_STATE:
            ctl->state_dir = optarg;
            break;
        case CTL_OPT_FILES:
            ctl->files_dir = optarg;
            break;
        case 'q':
            ctl->quiet = true;
            break;
        case 'h':
            show_command_help(command_by_name(argv[0] + strlen("objctl ")));
            *code = CTL_OK;
            return '?';
        case '?':
            *code = CTL_USAGE;
            return key;
        default:
            return key;
        }
    }
}

static void print_line(const char *format, va_list args) __attribute__((format(printf, 1, 0)));
static void print_line(const char *format, va_list args)
{
    char line[2048];
    int head = snprintf(line, sizeof line, "objctl: ");
    int len = vsnprintf(line + head, sizeof line - (size_t)head - 1, format, args);
    size_t end = len < 0 ? 0 : (size_t)len;

    if (end > sizeof line - (size_t)head - 2)
        end = sizeof line - (size_t)head - 2;
    end += (size_t)head;
    /* Names and keys in it are others': none steers the terminal. */
    for (size_t i = 0; i < end; i++) {
        if (((unsigned char)line[i] < 0x20 && line[i] != '\n') || line[i] == 0x7f)
            line[i] = '?';
    }
    /* A bar of progress may stand on this line. */
    if (isatty(STDERR_FILENO))
        (void)!write(STDERR_FILENO, "\r\033[K", 4);
    line[end++] = '\n';
    (void)!write(STDERR_FILENO, line, end);
}

int ctl_fail(int code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    print_line(format, args);
    va_end(args);
    return code;
}

void ctl_say(const struct ctl *ctl, const char *format, ...)
{
    va_list args;

    if (ctl->quiet)
        return;
    va_start(args, format);
    print_line(format, args);
    va_end(args);
}

int ctl_exit_of(int rc)
{
    switch (rc) {
    case 0:
        return CTL_OK;
    case ERR_NOT_FOUND:
        return CTL_NOT_FOUND;
    case ERR_LOCKED:
        return CTL_LOCKED;
    case ERR_EXISTS:
        return CTL_EXISTS;
    case ERR_PERMISSION:
        return CTL_PERMISSION;
    case ERR_FORMAT:
    case ERR_WRONG_STORE:
    case ERR_INVALID:
        return CTL_CONFIG;
    default:
        return CTL_IO;
    }
}

void ctl_size(char out[SIZE_TEXT_BYTES], uint64_t bytes)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB"};
    double value = (double)bytes / 1024;
    size_t unit = 0;

    if (bytes < KIB) {
        (void)snprintf(out, SIZE_TEXT_BYTES, "%u B", (unsigned)bytes);
        return;
    }
    for (; value >= 1023.95 && unit + 1 < sizeof units / sizeof *units; unit++)
        value /= 1024;
    (void)snprintf(out, SIZE_TEXT_BYTES, "%.1f %s", value, units[unit]);
}

static const char *variable_or(const char *name, const char *otherwise)
{
    const char *value = getenv(name);

    return value && *value ? value : otherwise;
}

static int run_command(const struct command *command, int argc, char **argv)
{
    struct ctl ctl = {.addr = variable_or("OBJSTORE_ADDR", "127.0.0.1:10999"),
                      .state_dir = variable_or("OBJSTORE_STATE_DIR", "state"),
                      .files_dir = variable_or("OBJSTORE_FILES_DIR", "files")};
    char name[64];

    /* The store's modules log; of that only what is wrong belongs here. */
    log_configure(LOG_WARN, LOG_TEXT);
    /* getopt begins its messages with argv[0]. */
    (void)snprintf(name, sizeof name, "objctl %s", command->name);
    argv[0] = name;
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return ctl_fail(CTL_IO, "cannot set up libcurl");
    int code = command->run(&ctl, argc, argv);
    curl_global_cleanup();
    if (fflush(stdout) != 0 || ferror(stdout))
        return ctl_fail(CTL_IO, "cannot write to standard output");
    return code;
}

int main(int argc, char **argv)
{
    (void)signal(SIGPIPE, SIG_IGN);
    if (argc < 2)
        return ctl_fail(CTL_USAGE, "which command? 'objctl --help' lists them");
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        const struct command *command = argc > 2 ? command_by_name(argv[2]) : NULL;

        if (command)
            show_command_help(command);
        else
            show_help();
        return CTL_OK;
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
        (void)printf("objctl %s\n", OBJSTORE_VERSION);
        return CTL_OK;
    }
    const struct command *command = command_by_name(argv[1]);
    if (!command)
        return ctl_fail(CTL_USAGE, "unknown command '%s'; 'objctl --help' lists them", argv[1]);
    return run_command(command, argc - 1, argv + 1);
}
