/* The layers between the library and the system: each wrapped call counts itself, and fails where
 * its turn has come. */
#include "tests/fault/fault.h"

#include <curl/curl.h>
#include <dirent.h>
#include <errno.h>
#include <execinfo.h>
#include <expat.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <pthread.h>
#include <sanitizer/common_interface_defs.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

const char *const fault_way_names[FAULT_WAYS] = {"alloc",     "sqlite",       "file-io",
                                                 "file-full", "file-signal",  "file-short",
                                                 "socket",    "socket-retry", "socket-short"};

static struct {
    struct fault_shared *shared;
    atomic_int way; /* FAULT_WAYS: not armed */
    unsigned k;
    bool persistent, explain;
    atomic_uint calls;
    atomic_uint port;
} fault = {.way = FAULT_WAYS};

static _Thread_local int spared;

bool fault_is_harmless(enum fault_way way)
{
    return way == FAULT_FILE_SIGNAL || way == FAULT_FILE_SHORT || way == FAULT_SOCKET_RETRY ||
           way == FAULT_SOCKET_SHORT;
}

void fault_spare(void)
{
    spared++;
}

void fault_unspare(void)
{
    spared--;
}

unsigned fault_port(void)
{
    return atomic_load(&fault.port);
}

void fault_arm(enum fault_way way, unsigned k, bool persistent, bool explain)
{
    fault.k = k;
    fault.persistent = persistent;
    fault.explain = explain;
    atomic_store(&fault.calls, 0);
    atomic_store(&fault.way, (int)way);
}

void fault_disarm(void)
{
    atomic_store(&fault.way, FAULT_WAYS);
    unsigned calls = atomic_load(&fault.calls);

    fault.shared->calls = calls < FAULT_MAX_CALLS ? calls : FAULT_MAX_CALLS;
}

static uint64_t stack_hash(void)
{
    void *frames[12];
    uint64_t hash = 0;
    int count = backtrace(frames, 12);

    for (int i = 2; i < count; i++)
        hash = (hash ^ (uint64_t)(uintptr_t)frames[i]) * 0x9e3779b97f4a7c15;
    return hash;
}

static bool hits(enum fault_way way)
{
    if (spared || atomic_load_explicit(&fault.way, memory_order_relaxed) != (int)way)
        return false;
    unsigned number = atomic_fetch_add(&fault.calls, 1) + 1;
    bool hit = fault.k && (number == fault.k || (fault.persistent && number > fault.k));

    spared++;
    if (fault.k == 0 && number <= FAULT_MAX_CALLS)
        fault.shared->sites[number - 1] = stack_hash();
    if (hit && fault.explain && number == fault.k) {
        fprintf(stderr, "call %u of %s fails here:\n", number, fault_way_names[way]);
        __sanitizer_print_stack_trace();
    }
    spared--;
    if (hit)
        __atomic_fetch_add(&fault.shared->fired, 1, __ATOMIC_RELAXED);
    return hit;
}

/* Wrapped: TYPE NAME PARAMS, called with ARGS; what follows may return first. */
#define WRAP(type, name, params, args, ...)                                                        \
    type __real_##name params;                                                                     \
    type __wrap_##name params;                                                                     \
    type __wrap_##name params                                                                      \
    {                                                                                              \
        __VA_ARGS__ return __real_##name args;                                                     \
    }
#define FAIL(way, value, error)                                                                    \
    if (hits(way)) {                                                                               \
        errno = error;                                                                             \
        return value;                                                                              \
    }

/* ---- Memory ---- */

#define NO_MEMORY FAIL(FAULT_ALLOC, NULL, ENOMEM)
#define NO_MAP    FAIL(FAULT_ALLOC, MAP_FAILED, ENOMEM)

WRAP(void *, malloc, (size_t size), (size), NO_MEMORY)
WRAP(void *, calloc, (size_t n, size_t size), (n, size), NO_MEMORY)
WRAP(void *, realloc, (void *p, size_t size), (p, size), NO_MEMORY)
WRAP(void *, reallocarray, (void *p, size_t n, size_t size), (p, n, size), NO_MEMORY)
WRAP(void *, aligned_alloc, (size_t align, size_t size), (align, size), NO_MEMORY)
WRAP(int, posix_memalign, (void **p, size_t align, size_t size), (p, align, size),
     FAIL(FAULT_ALLOC, ENOMEM, ENOMEM))
WRAP(char *, strdup, (const char *s), (s), NO_MEMORY)
WRAP(char *, strndup, (const char *s, size_t n), (s, n), NO_MEMORY)
WRAP(void *, mmap64, (void *p, size_t n, int prot, int flags, int fd, off_t at),
     (p, n, prot, flags, fd, at), NO_MAP)
WRAP(int, memfd_create, (const char *name, unsigned flags), (name, flags),
     FAIL(FAULT_ALLOC, -1, EMFILE))
WRAP(int, pthread_create,
     (pthread_t * thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg),
     (thread, attr, run, arg), FAIL(FAULT_ALLOC, EAGAIN, EAGAIN))
WRAP(EVP_MD *, EVP_MD_fetch, (OSSL_LIB_CTX * c, const char *name, const char *p), (c, name, p),
     NO_MEMORY)
WRAP(EVP_MD_CTX *, EVP_MD_CTX_new, (void), (), NO_MEMORY)
WRAP(int, EVP_DigestInit_ex2, (EVP_MD_CTX * c, const EVP_MD *md, const OSSL_PARAM *p), (c, md, p),
     if (!EVP_MD_CTX_get0_md(c)) /* the first start of a context alone allocates */
     FAIL(FAULT_ALLOC, 0, ENOMEM))

WRAP(unsigned char *, HMAC,
     (const EVP_MD *md, const void *key, int key_len, const unsigned char *data, size_t len,
      unsigned char *out, unsigned *out_len),
     (md, key, key_len, data, len, out, out_len), NO_MEMORY)
WRAP(XML_Parser, XML_ParserCreate, (const XML_Char *encoding), (encoding), NO_MEMORY)

int __wrap_asprintf(char **out, const char *format, ...) __attribute__((format(printf, 2, 3)));
int __wrap_asprintf(char **out, const char *format, ...)
{
    va_list args;

    FAIL(FAULT_ALLOC, -1, ENOMEM)
    va_start(args, format);
    int len = vasprintf(out, format, args);
    va_end(args);
    return len;
}

/* Of libcurl what can fail for want of memory. Not its own allocations: without memory for it, it
 * sends a request without its query string, which S3 refuses by the signature. */

WRAP(CURL *, curl_easy_init, (void), (), NO_MEMORY)
WRAP(CURLM *, curl_multi_init, (void), (), NO_MEMORY)
WRAP(CURLMcode, curl_multi_add_handle, (CURLM * multi, CURL *easy), (multi, easy),
     FAIL(FAULT_ALLOC, CURLM_OUT_OF_MEMORY, ENOMEM))
WRAP(struct curl_slist *, curl_slist_append, (struct curl_slist * list, const char *text),
     (list, text), NO_MEMORY)

#undef curl_easy_setopt
CURLcode __real_curl_easy_setopt(CURL *easy, CURLoption option, ...);
CURLcode __wrap_curl_easy_setopt(CURL *easy, CURLoption option, ...);
CURLcode __wrap_curl_easy_setopt(CURL *easy, CURLoption option, ...)
{
    va_list args;

    FAIL(FAULT_ALLOC, CURLE_OUT_OF_MEMORY, ENOMEM)
    va_start(args, option);
    void *value = va_arg(args, void *); /* as wide as a long and a curl_off_t */
    va_end(args);
    return __real_curl_easy_setopt(easy, option, value);
}

/* ---- SQLite ---- */

static sqlite3_mem_methods sqlite_memory;

static void *sqlite_malloc(int size)
{
    return hits(FAULT_SQLITE) ? NULL : sqlite_memory.xMalloc(size);
}

static void *sqlite_realloc(void *p, int size)
{
    return hits(FAULT_SQLITE) ? NULL : sqlite_memory.xRealloc(p, size);
}

#define NO_SQLITE(code)                                                                            \
    if (hits(FAULT_SQLITE))                                                                        \
        return code;

WRAP(int, sqlite3_step, (sqlite3_stmt * s), (s), NO_SQLITE(SQLITE_IOERR))
WRAP(int, sqlite3_exec,
     (sqlite3 * db, const char *sql, int (*f)(void *, int, char **, char **), void *a, char **e),
     (db, sql, f, a, e), NO_SQLITE(SQLITE_IOERR))
WRAP(
    int, sqlite3_prepare_v2,
    (sqlite3 * db, const char *sql, int n, sqlite3_stmt **s, const char **tail),
    (db, sql, n, s, tail), if (hits(FAULT_SQLITE)) {
        *s = NULL;
        return SQLITE_NOMEM;
    })
WRAP(
    int, sqlite3_prepare_v3,
    (sqlite3 * db, const char *sql, int n, unsigned flags, sqlite3_stmt **s, const char **tail),
    (db, sql, n, flags, s, tail), if (hits(FAULT_SQLITE)) {
        *s = NULL;
        return SQLITE_NOMEM;
    })
WRAP(int, sqlite3_bind_blob,
     (sqlite3_stmt * s, int i, const void *p, int n, void (*destroy)(void *)),
     (s, i, p, n, destroy), NO_SQLITE(SQLITE_NOMEM))
WRAP(int, sqlite3_bind_text,
     (sqlite3_stmt * s, int i, const char *p, int n, void (*destroy)(void *)),
     (s, i, p, n, destroy), NO_SQLITE(SQLITE_NOMEM))
WRAP(int, sqlite3_wal_checkpoint_v2,
     (sqlite3 * db, const char *name, int mode, int *log, int *done), (db, name, mode, log, done),
     NO_SQLITE(SQLITE_BUSY))
WRAP(int, sqlite3_backup_step, (sqlite3_backup * b, int pages), (b, pages), NO_SQLITE(SQLITE_BUSY))
WRAP(sqlite3_backup *, sqlite3_backup_init,
     (sqlite3 * to, const char *to_name, sqlite3 *from, const char *from_name),
     (to, to_name, from, from_name), NO_SQLITE(NULL))

/* ---- Files ---- */

#define IO_ERROR(value, error) FAIL(FAULT_FILE_IO, value, error)
#define FULL(value)            FAIL(FAULT_FILE_FULL, value, ENOSPC)
#define SIGNAL(value)          FAIL(FAULT_FILE_SIGNAL, value, EINTR)

int __real_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...)
{
    va_list args;

    va_start(args, flags);
    mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
    va_end(args);
    IO_ERROR(-1, EMFILE)
    if (strncmp(path, "/dev/", 5) != 0) /* what never waits is never interrupted */
        SIGNAL(-1)
    if (flags & O_CREAT)
        FULL(-1)
    return __real_open64(path, flags, mode);
}

WRAP(
    int, close, (int fd), (fd), if (hits(FAULT_FILE_IO)) {
        (void)__real_close(fd);
        errno = EIO;
        return -1;
    })
WRAP(ssize_t, pread64, (int fd, void *buf, size_t n, off_t at), (fd, buf, n, at),
     IO_ERROR(-1, EIO) SIGNAL(-1) if (n > 1 && hits(FAULT_FILE_SHORT)) n /= 2;)
WRAP(ssize_t, preadv64v2, (int fd, const struct iovec *iov, int count, off_t at, int flags),
     (fd, iov, count, at, flags),
     IO_ERROR(-1, EIO) SIGNAL(-1) struct iovec half = {iov->iov_base, iov->iov_len / 2};
     if (half.iov_len && hits(FAULT_FILE_SHORT)) return __real_preadv64v2(fd, &half, 1, at, flags);)
WRAP(ssize_t, pwritev64, (int fd, const struct iovec *iov, int count, off_t at),
     (fd, iov, count, at),
     IO_ERROR(-1, EIO) FULL(-1) SIGNAL(-1) struct iovec half = {iov->iov_base, iov->iov_len / 2};
     if (half.iov_len && hits(FAULT_FILE_SHORT)) return __real_pwritev64(fd, &half, 1, at);)

/* Nothing here cuts the power: tests/sim does. So that a run is quick, a sync is none. */
int __wrap_fdatasync(int fd);
int __wrap_fdatasync(int fd)
{
    (void)fd;
    IO_ERROR(-1, EIO)
    FULL(-1)
    SIGNAL(-1)
    return 0;
}
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
    return __wrap_fdatasync(fd);
}
int __wrap_sync_file_range(int fd, off_t at, off_t n, unsigned flags);
int __wrap_sync_file_range(int fd, off_t at, off_t n, unsigned flags)
{
    (void)at, (void)n, (void)flags;
    return __wrap_fdatasync(fd);
}

WRAP(int, ftruncate64, (int fd, off_t size), (fd, size), IO_ERROR(-1, EIO) FULL(-1) SIGNAL(-1))
WRAP(int, fstat64, (int fd, struct stat *out), (fd, out), IO_ERROR(-1, EIO))
WRAP(int, stat64, (const char *path, struct stat *out), (path, out), IO_ERROR(-1, EIO))
WRAP(int, posix_fadvise64, (int fd, off_t at, off_t n, int advice), (fd, at, n, advice),
     IO_ERROR(EIO, EIO))
WRAP(int, rename, (const char *from, const char *to), (from, to), IO_ERROR(-1, EIO) FULL(-1))
WRAP(int, link, (const char *from, const char *to), (from, to), IO_ERROR(-1, EIO) FULL(-1))
WRAP(int, unlink, (const char *path), (path), IO_ERROR(-1, EIO))
WRAP(int, mkdir, (const char *path, mode_t mode), (path, mode), IO_ERROR(-1, EIO) FULL(-1))
WRAP(int, statvfs64, (const char *path, struct statvfs *out), (path, out),
     IO_ERROR(-1, EIO) SIGNAL(-1))
WRAP(int, flock, (int fd, int how), (fd, how), IO_ERROR(-1, ENOLCK) SIGNAL(-1))
WRAP(DIR *, opendir, (const char *path), (path), IO_ERROR(NULL, EMFILE))
WRAP(struct dirent *, readdir64, (DIR * dir), (dir), IO_ERROR(NULL, EIO))

/* ---- Sockets ---- */

#define BROKEN(value, error) FAIL(FAULT_SOCKET, value, error)
/* A signal, or "not now" although there is something: by turns. */
#define RETRY FAIL(FAULT_SOCKET_RETRY, -1, atomic_load(&fault.calls) % 2 ? EINTR : EAGAIN)

WRAP(int, socket, (int domain, int type, int protocol), (domain, type, protocol),
     BROKEN(-1, EMFILE))
WRAP(int, listen, (int fd, int backlog), (fd, backlog), BROKEN(-1, EADDRINUSE))
WRAP(int, connect, (int fd, const struct sockaddr *addr, socklen_t len), (fd, addr, len),
     BROKEN(-1, EACCES))
WRAP(int, setsockopt, (int fd, int level, int name, const void *value, socklen_t len),
     (fd, level, name, value, len), BROKEN(-1, ENOMEM))
WRAP(int, getsockname, (int fd, struct sockaddr *addr, socklen_t *len), (fd, addr, len),
     BROKEN(-1, ENOBUFS))
WRAP(int, shutdown, (int fd, int how), (fd, how), BROKEN(-1, ENOTCONN))
WRAP(int, accept4, (int fd, struct sockaddr *addr, socklen_t *len, int flags),
     (fd, addr, len, flags), BROKEN(-1, EMFILE) RETRY)
WRAP(int, epoll_create1, (int flags), (flags), BROKEN(-1, EMFILE))
WRAP(int, epoll_ctl, (int fd, int what, int of, struct epoll_event *event), (fd, what, of, event),
     if (what != EPOLL_CTL_DEL) BROKEN(-1, ENOMEM))
WRAP(int, epoll_wait, (int fd, struct epoll_event *events, int max, int timeout),
     (fd, events, max, timeout), FAIL(FAULT_SOCKET_RETRY, -1, EINTR))
WRAP(int, eventfd, (unsigned value, int flags), (value, flags), BROKEN(-1, EMFILE))
WRAP(ssize_t, recv, (int fd, void *buf, size_t n, int flags), (fd, buf, n, flags),
     BROKEN(-1, ECONNRESET) RETRY if (n > 1 && hits(FAULT_SOCKET_SHORT)) n /= 2;)
WRAP(ssize_t, send, (int fd, const void *buf, size_t n, int flags), (fd, buf, n, flags),
     BROKEN(-1, EPIPE) RETRY if (n > 1 && hits(FAULT_SOCKET_SHORT)) n /= 2;)
WRAP(ssize_t, sendfile64, (int to, int from, off_t *at, size_t n), (to, from, at, n),
     BROKEN(-1, EIO) RETRY if (n > 1 && hits(FAULT_SOCKET_SHORT)) n /= 2;)
WRAP(
    ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags), (fd, message, flags),
    BROKEN(-1, EPIPE) RETRY if (message->msg_iovlen && message->msg_iov->iov_len > 1 &&
                                hits(FAULT_SOCKET_SHORT)) {
        struct iovec half = {message->msg_iov->iov_base, message->msg_iov->iov_len / 2};
        struct msghdr less = *message;

        less.msg_iov = &half;
        less.msg_iovlen = 1;
        return __real_sendmsg(fd, &less, flags);
    })
/* The eventfds, which wake the loops. */
WRAP(ssize_t, read, (int fd, void *buf, size_t n), (fd, buf, n), RETRY)
WRAP(ssize_t, write, (int fd, const void *buf, size_t n), (fd, buf, n),
     if (fd != STDERR_FILENO) FAIL(FAULT_SOCKET_RETRY, -1, EINTR))

int __real_bind(int fd, const struct sockaddr *addr, socklen_t len);
int __wrap_bind(int fd, const struct sockaddr *addr, socklen_t len);
int __wrap_bind(int fd, const struct sockaddr *addr, socklen_t len)
{
    struct sockaddr_in bound;
    socklen_t size = sizeof bound;

    BROKEN(-1, EADDRINUSE)
    int rc = __real_bind(fd, addr, len);
    if (rc == 0 && addr->sa_family == AF_INET &&
        __real_getsockname(fd, (struct sockaddr *)&bound, &size) == 0)
        atomic_store(&fault.port, ntohs(bound.sin_port));
    return rc;
}

void fault_init(struct fault_shared *shared)
{
    void *frames[2];

    fault.shared = shared;
    (void)backtrace(frames, 2); /* loads what it needs */
    (void)sqlite3_config(SQLITE_CONFIG_GETMALLOC, &sqlite_memory);
    sqlite3_mem_methods ours = sqlite_memory;
    ours.xMalloc = sqlite_malloc;
    ours.xRealloc = sqlite_realloc;
    (void)sqlite3_config(SQLITE_CONFIG_MALLOC, &ours);
}
