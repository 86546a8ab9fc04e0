/*
 * The runner. For each scenario and each way to fail: one run that counts the calls, then one run
 * for each call that is made to fail, in a process of its own (so that whatever happens there is
 * one failure), under the address and leak sanitizers.
 *
 *   fault DEPTH|all [NAME [WAY]]           of scenarios, and ways to fail, named so, or of each
 *   fault replay SCENARIO WAY once|on K    one run, with the stack of the call that fails
 *
 * `all` is every k where one call fails; where all later ones fail too, one k for each distinct
 * stack from which a call came. Else it is one k for each stack, at most DEPTH times a mode's picks
 * of them, evenly spread. Where several threads run, the k-th call is not the same one in every
 * run; in scenarios `store-…` it is.
 */
#include "tests/fault/fault.h"

#include "base/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#define JOBS        4 /* they mostly wait */
#define SHOWN       5 /* failures of one scenario and way */
#define DEADLINE_S  60
#define LEAK_STATUS 23

static const struct scenario {
    const char *name;
    void (*prepare)(struct world *world); /* NULL: from nothing */
    void (*act)(struct world *world);
    enum {
        STORE,
        SOCKETS, /* a store, and sockets */
        CLOUD,   /* neither: it looks at everything itself */
    } over;
} scenarios[] = {
    {"store-first", NULL, store_restart, STORE},
    {"store-restart", store_prepare, store_restart, STORE},
    {"store-recover", store_prepare_killed, store_restart, STORE},
    {"store-change", store_prepare, store_change, STORE},
    {"store-clean", store_prepare_dead, store_clean, STORE},
    {"store-compact", store_prepare_dead, store_compact, STORE},
    {"store-backup", store_prepare, store_backup, STORE},
    {"store-rebuild", store_prepare, store_rebuild, STORE},
    {"node-first", NULL, node_start_stop, SOCKETS},
    {"node-start", store_prepare, node_start_stop, SOCKETS},
    {"node-put", store_prepare, node_put_small, SOCKETS},
    {"node-put-large", store_prepare, node_put_large, SOCKETS},
    {"node-get", store_prepare, node_get, SOCKETS},
    {"node-meta", store_prepare, node_meta, SOCKETS},
    {"node-delete", store_prepare, node_delete, SOCKETS},
    {"node-stats", store_prepare, node_stats, SOCKETS},
    {"node-backup", store_prepare, node_backup, SOCKETS},
    {"node-stop", store_prepare, node_stopping, SOCKETS},
    {"cloud-dir", NULL, cloud_dir_requests, CLOUD},
    {"cloud-s3", NULL, cloud_s3_requests, CLOUD},
};

static const struct mode {
    enum fault_way way;
    bool persistent;
    unsigned picks; /* runs of one scenario at depth 1, at most */
} modes[] = {
    {FAULT_ALLOC, false, 12},      {FAULT_ALLOC, true, 3},         {FAULT_SQLITE, false, 12},
    {FAULT_SQLITE, true, 3},       {FAULT_FILE_IO, false, 12},     {FAULT_FILE_IO, true, 3},
    {FAULT_FILE_FULL, false, 6},   {FAULT_FILE_FULL, true, 2},     {FAULT_FILE_SIGNAL, false, 2},
    {FAULT_FILE_SHORT, false, 2},  {FAULT_FILE_SHORT, true, 1},    {FAULT_SOCKET, false, 6},
    {FAULT_SOCKET, true, 2},       {FAULT_SOCKET_RETRY, false, 4}, {FAULT_SOCKET_SHORT, false, 2},
    {FAULT_SOCKET_SHORT, true, 1},
};

/* One process under test. */
struct job {
    pid_t pid; /* 0: none */
    unsigned k;
    char root[64], log[80];
    struct fault_shared *shared;
};

static struct {
    const char *root;
    bool all;
    unsigned depth;
    const char *only, *way;
    struct job jobs[JOBS];
    unsigned long calls, runs, injected, failures;
} runner;

/* Thousands of short processes: what is freed need not be kept apart for long. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "quarantine_size_mb=1:thread_local_quarantine_size_kb=16:malloc_context_size=8:"
           "max_malloc_fill_size=0";
}

static void die(const char *what)
{
    fprintf(stderr, "fault: %s: %s\n", what, strerror(errno));
    exit(2);
}

/* ---- In the child ---- */

static void make_world(struct world *world, const char *root)
{
    memset(world, 0, sizeof *world);
    (void)snprintf(world->root, sizeof world->root, "%s", root);
    (void)snprintf(world->state, sizeof world->state, "%s/state", root);
    (void)snprintf(world->files, sizeof world->files, "%s/files", root);
    (void)snprintf(world->backup, sizeof world->backup, "%s/backup", root);
    for (unsigned n = 0; n < OBJECTS; n++)
        world->may[n] = IS_ABSENT;
}

static unsigned count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    unsigned count = 0;

    while (dir && readdir(dir))
        count++;
    if (dir)
        (void)closedir(dir);
    return count;
}

static void child(const struct scenario *scenario, const struct mode *mode, const struct job *job,
                  bool explain)
{
    struct world world;
    char path[128];

    (void)alarm(DEADLINE_S);
    int fd = open(job->log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (!explain && (fd < 0 || dup2(fd, STDERR_FILENO) < 0 || close(fd) != 0))
        die(job->log);
    fault_init(job->shared);
    log_configure(explain ? LOG_DEBUG : LOG_INFO, LOG_TEXT);
    (void)snprintf(path, sizeof path, "%s/world", job->root);
    make_world(&world, job->root);
    if (scenario->prepare) {
        /* The test's own memory of what is in the store comes from the one who filled it. */
        FILE *file = fopen(path, "rb");
        if (!file || fread(world.may, sizeof world.may, 1, file) != 1)
            die(path);
        (void)fclose(file);
    }
    world.way = mode->way;
    world.persistent = mode->persistent;
    world.k = job->k;
    world.explain = explain;
    unsigned fds = count_fds();
    scenario->act(&world);
    fault_disarm();
    if (count_fds() != fds)
        fault_fail("%u file descriptors before, %u after", fds, count_fds());
    if (scenario->over != CLOUD)
        store_check(&world);
    exit(0); /* leaks are looked for here */
}

static void prepare(const struct scenario *scenario, const char *root)
{
    struct world world;
    char path[128];

    fault_init(runner.jobs[0].shared);
    log_configure(LOG_ERROR, LOG_TEXT);
    make_world(&world, root);
    scenario->prepare(&world);
    (void)snprintf(path, sizeof path, "%s/world", root);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(world.may, sizeof world.may, 1, file) != 1 || fclose(file) != 0)
        die(path);
    exit(0);
}

/* ---- In the runner ---- */

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *ftw)
{
    (void)info, (void)type, (void)ftw;
    return remove(path);
}

static void remove_all(const char *root)
{
    (void)nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void copy_all(const char *from, const char *to)
{
    char command[256];

    (void)snprintf(command, sizeof command, "cp -r --sparse=always %s %s", from, to);
    if (system(command) != 0)
        die("cp");
}

static void begin(const struct scenario *scenario, const struct mode *mode, struct job *job,
                  unsigned k, bool explain)
{
    char template[80];

    (void)snprintf(template, sizeof template, "%s/%s", runner.root, scenario->name);
    remove_all(job->root);
    copy_all(template, job->root);
    job->k = k;
    job->shared->calls = job->shared->fired = 0;
    (void)fflush(NULL);
    if ((job->pid = fork()) < 0)
        die("fork");
    if (job->pid == 0)
        child(scenario, mode, job, explain);
}

static void show(const struct job *job)
{
    FILE *file = fopen(job->log, "r");
    char line[1024];

    for (int lines = 0; file && lines < 60 && fgets(line, sizeof line, file); lines++)
        if (!strstr(line, " INFO ") && *line != '\n')
            printf("      | %s", line);
    if (file)
        (void)fclose(file);
}

/* Wait for one to end. False: it failed. */
static bool finish(const struct scenario *scenario, const struct mode *mode, unsigned *failures)
{
    struct job *job = NULL;
    int status;
    pid_t pid = waitpid(-1, &status, 0);

    for (int i = 0; i < JOBS; i++)
        if (runner.jobs[i].pid == pid)
            job = &runner.jobs[i];
    if (!job)
        die("waitpid");
    job->pid = 0;
    runner.runs++;
    runner.injected += job->shared->fired > 0;
    if (status == 0)
        return true;
    if (++*failures <= SHOWN) {
        printf("  FAIL: %s\n    replay with: make fault REPLAY='%s %s %s %u'\n",
               WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM ? "it hangs"
               : WIFSIGNALED(status)                              ? strsignal(WTERMSIG(status))
               : WEXITSTATUS(status) == LEAK_STATUS               ? "leak"
                                                                  : "wrong",
               scenario->name, fault_way_names[mode->way], mode->persistent ? "on" : "once",
               job->k);
        show(job);
        (void)fflush(stdout);
    }
    return false;
}

static struct job *free_job(const struct scenario *scenario, const struct mode *mode,
                            unsigned *failures)
{
    for (;;) {
        for (int i = 0; i < JOBS; i++)
            if (!runner.jobs[i].pid)
                return &runner.jobs[i];
        (void)finish(scenario, mode, failures);
    }
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* The first call from each distinct stack, in order, into KS. */
static unsigned first_calls(const uint64_t *sites, unsigned calls, unsigned *ks)
{
    uint64_t *seen = calloc(calls + 1, sizeof *seen);
    unsigned count = 0;

    if (!seen)
        die("memory");
    for (unsigned i = 0; i < calls; i++) {
        if (count && bsearch(&sites[i], seen, count, sizeof *seen, compare))
            continue;
        ks[count] = i + 1;
        seen[count++] = sites[i];
        qsort(seen, count, sizeof *seen, compare);
    }
    free(seen);
    return count;
}

static void run_mode(const struct scenario *scenario, const struct mode *mode)
{
    unsigned failures = 0, count = 0;
    struct job *job = &runner.jobs[0];

    begin(scenario, mode, job, 0, false);
    if (!finish(scenario, mode, &failures)) {
        runner.failures++;
        return;
    }
    unsigned calls = job->shared->calls;
    unsigned *ks = calloc(calls + 1, sizeof *ks);
    if (!ks)
        die("memory");
    if (runner.all && !mode->persistent)
        while (count < calls) {
            ks[count] = count + 1;
            count++;
        }
    else
        count = first_calls(job->shared->sites, calls, ks);
    unsigned most = mode->picks * runner.depth;
    unsigned runs = runner.all || count < most ? count : most;
    unsigned long before = runner.injected;
    for (unsigned i = 0; i < runs; i++) {
        job = free_job(scenario, mode, &failures);
        begin(scenario, mode, job, ks[(uint64_t)i * count / runs], false);
    }
    for (int i = 0; i < JOBS; i++)
        if (runner.jobs[i].pid)
            i = -1, (void)finish(scenario, mode, &failures);
    printf("%-15s %-12s %-4s %6u calls %5u picked %5lu faults %3u failures\n", scenario->name,
           fault_way_names[mode->way], mode->persistent ? "on" : "once", calls, runs,
           runner.injected - before, failures);
    (void)fflush(stdout);
    runner.calls += calls;
    runner.failures += failures;
    free(ks);
}

static void make_template(const struct scenario *scenario)
{
    char root[80];
    int status;

    (void)snprintf(root, sizeof root, "%s/%s", runner.root, scenario->name);
    if (mkdir(root, 0700) != 0)
        die(root);
    pid_t pid = scenario->prepare ? fork() : 0;
    if (pid == 0 && scenario->prepare)
        prepare(scenario, root);
    if (scenario->prepare && (waitpid(pid, &status, 0) != pid || status != 0)) {
        printf("%s cannot be prepared\n", scenario->name);
        runner.failures++;
    }
}

static int replay(char **argv)
{
    struct mode mode = {.persistent = strcmp(argv[2], "on") == 0};
    unsigned failures = 0;

    while (mode.way < FAULT_WAYS && strcmp(fault_way_names[mode.way], argv[1]) != 0)
        mode.way++;
    for (size_t s = 0; s < sizeof scenarios / sizeof *scenarios; s++) {
        if (mode.way == FAULT_WAYS || strcmp(scenarios[s].name, argv[0]) != 0)
            continue;
        make_template(&scenarios[s]);
        begin(&scenarios[s], &mode, &runner.jobs[0], (unsigned)strtoul(argv[3], NULL, 10), true);
        bool good = finish(&scenarios[s], &mode, &failures);
        printf("%u calls, %u failed: %s\n", runner.jobs[0].shared->calls,
               runner.jobs[0].shared->fired, good ? "well" : "NOT WELL");
        return good ? 0 : 1;
    }
    fprintf(stderr, "fault: no such scenario or way\n");
    return 2;
}

int main(int argc, char **argv)
{
    struct timespec begun, ended;
    int rc;

    /* The same addresses in every run: a stack's hash means the same. */
    if (!(personality(0xffffffff) & ADDR_NO_RANDOMIZE) &&
        personality(ADDR_NO_RANDOMIZE | (unsigned long)personality(0xffffffff)) != -1)
        (void)execv("/proc/self/exe", argv);
    (void)clock_gettime(CLOCK_MONOTONIC, &begun);
    static char root[] = "/dev/shm/objstore-fault-XXXXXX";
    if (!mkdtemp(root))
        die("mkdtemp");
    runner.root = root;
    for (int i = 0; i < JOBS; i++) {
        struct job *job = &runner.jobs[i];

        (void)snprintf(job->root, sizeof job->root, "%s/job%d", root, i);
        (void)snprintf(job->log, sizeof job->log, "%s/job%d.log", root, i);
        job->shared = mmap(NULL, sizeof *job->shared, PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (job->shared == MAP_FAILED)
            die("mmap");
    }
    if (argc == 6 && strcmp(argv[1], "replay") == 0) {
        rc = replay(argv + 2);
        remove_all(runner.root);
        return rc;
    }
    runner.all = argc > 1 && strcmp(argv[1], "all") == 0;
    runner.depth = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 1;
    runner.only = argc > 2 ? argv[2] : "";
    runner.way = argc > 3 ? argv[3] : "";
    unsigned count = 0;
    for (size_t s = 0; s < sizeof scenarios / sizeof *scenarios; s++) {
        if (!strstr(scenarios[s].name, runner.only))
            continue;
        count++;
        make_template(&scenarios[s]);
        for (size_t m = 0; m < sizeof modes / sizeof *modes; m++)
            if ((scenarios[s].over == SOCKETS || modes[m].way < FAULT_SOCKET) &&
                (scenarios[s].over != CLOUD || modes[m].way != FAULT_SQLITE) &&
                strstr(fault_way_names[modes[m].way], runner.way))
                run_mode(&scenarios[s], &modes[m]);
    }
    remove_all(runner.root);
    (void)clock_gettime(CLOCK_MONOTONIC, &ended);
    printf("faults: %u scenarios, %lu calls, %lu runs, %lu faults injected, %lu failures, %ld s\n",
           count, runner.calls, runner.runs, runner.injected, runner.failures,
           (long)(ended.tv_sec - begun.tv_sec));
    return runner.failures || count == 0 ? 1 : 0;
}
