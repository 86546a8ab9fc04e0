/* Goal: whole transfers come out whole however short the disk answers; errors reach the caller as
 * they are; and what is said to be replaced is replaced entirely or not at all. */
#include "base/io.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static char *dir; /* fresh for each test */

static int make_dir(void **state)
{
    const char *parent = getenv("TMPDIR");
    static char path[PATH_MAX];

    (void)state;
    (void)snprintf(path, sizeof path, "%s/base_io_test.XXXXXX", parent ? parent : "/tmp");
    dir = mkdtemp(path);
    return dir ? 0 : -1;
}

static int remove_each(void *arg, const char *name);

static void remove_tree(const char *path)
{
    struct io *io = io_system();
    struct io_stat stat;

    if (io->stat(io, path, &stat) == 0 && stat.is_dir) {
        (void)io->list(io, path, remove_each, (void *)(uintptr_t)path);
        (void)rmdir(path);
    } else {
        (void)io->unlink(io, path);
    }
}

static int remove_each(void *arg, const char *name)
{
    char *path = io_join(arg, name);

    if (!path)
        return ERR_NO_MEMORY;
    remove_tree(path);
    free(path);
    return 0;
}

static int drop_dir(void **state)
{
    (void)state;
    remove_tree(dir);
    return 0;
}

/* DIR/NAME; valid until the next but three. */
static const char *at(const char *name)
{
    static char paths[4][PATH_MAX];
    static unsigned next;
    char *path = paths[next++ % 4];

    (void)snprintf(path, PATH_MAX, "%s/%s", dir, name);
    return path;
}

/* A disk in memory that moves at most STEP bytes a call and fails its FAIL_AT-th call. */
struct fake {
    struct io io;
    unsigned char data[256];
    size_t size, step;
    int calls, fail_at, fail_with;
};

static bool fails(struct fake *fake)
{
    return ++fake->calls == fake->fail_at;
}

static ssize_t fake_pread(struct io *io, int fd, void *buf, size_t len, uint64_t offset,
                          bool nowait)
{
    struct fake *fake = io->arg;

    (void)fd;
    (void)nowait;
    if (fails(fake))
        return fake->fail_with;
    size_t left = offset < fake->size ? fake->size - offset : 0;
    if (len > left)
        len = left;
    if (len > fake->step)
        len = fake->step;
    memcpy(buf, fake->data + offset, len);
    return (ssize_t)len;
}

static ssize_t fake_pwritev(struct io *io, int fd, const struct iovec *iov, int count,
                            uint64_t offset)
{
    struct fake *fake = io->arg;
    size_t done = 0;

    (void)fd;
    assert_true(count > 0 && count <= IOV_MAX);
    if (fails(fake))
        return fake->fail_with;
    for (int i = 0; i < count && done < fake->step; i++) {
        size_t len = iov[i].iov_len < fake->step - done ? iov[i].iov_len : fake->step - done;

        assert_true(offset + done + len <= sizeof fake->data);
        if (len > 0)
            memcpy(fake->data + offset + done, iov[i].iov_base, len);
        done += len;
    }
    if (offset + done > fake->size)
        fake->size = offset + done;
    return (ssize_t)done;
}

static void fake_init(struct fake *fake, size_t step)
{
    *fake = (struct fake){
        .io = {.pread = fake_pread, .pwritev = fake_pwritev, .arg = fake},
        .step = step,
    };
}

static void short_reads_add_up_to_the_whole(void **state)
{
    (void)state;
    for (size_t step = 1; step < 12; step++) {
        struct fake fake;
        char buf[11] = "..........";

        fake_init(&fake, step);
        memcpy(fake.data, "0123456789abcdef", 16);
        fake.size = 16;
        assert_int_equal(io_read(&fake.io, 3, buf, 10, 5, false), 0);
        assert_string_equal(buf, "56789abcde");
        assert_int_equal(fake.calls, (int)((10 + step - 1) / step));
    }
}

static void a_file_that_ends_early_is_corrupt(void **state)
{
    struct fake fake;
    char buf[10];

    (void)state;
    fake_init(&fake, 4);
    fake.size = 9;
    assert_int_equal(io_read(&fake.io, 3, buf, 10, 0, false), ERR_CORRUPT);
    assert_int_equal(io_read(&fake.io, 3, buf, 9, 0, false), 0);
    assert_int_equal(io_read(&fake.io, 3, buf, 1, 9, false), ERR_CORRUPT);
    assert_int_equal(io_read(&fake.io, 3, buf, 0, 9, false), 0);
}

static void an_error_in_the_middle_of_a_read_comes_out(void **state)
{
    struct fake fake;
    char buf[10];

    (void)state;
    for (int k = 1; k <= 5; k++) {
        fake_init(&fake, 2);
        fake.size = 10;
        fake.fail_at = k;
        fake.fail_with = k % 2 ? ERR_AGAIN : ERR_IO;
        assert_int_equal(io_read(&fake.io, 3, buf, 10, 0, true), fake.fail_with);
        assert_int_equal(fake.calls, k);
    }
}

static void short_writes_add_up_across_pieces(void **state)
{
    (void)state;
    for (size_t step = 1; step < 14; step++) {
        struct fake fake;
        char a[] = "abc", b[] = "defgh", c[] = "ijklm";
        struct iovec iov[] = {{NULL, 0}, {a, 3}, {NULL, 0}, {b, 5}, {c, 5}, {NULL, 0}};

        fake_init(&fake, step);
        assert_int_equal(io_writev(&fake.io, 3, iov, 6, 2), 0);
        assert_int_equal(fake.size, 15);
        assert_memory_equal(fake.data, "\0\0abcdefghijklm", 15);
    }
}

static void a_write_that_fails_or_stands_still_ends(void **state)
{
    struct fake fake;

    (void)state;
    for (int k = 1; k <= 5; k++) {
        fake_init(&fake, 2);
        fake.fail_at = k;
        fake.fail_with = ERR_NO_SPACE;
        assert_int_equal(io_write(&fake.io, 3, "0123456789", 10, 0), ERR_NO_SPACE);
        assert_int_equal(fake.size, (k - 1) * 2);
    }
    fake_init(&fake, 0);
    assert_int_equal(io_write(&fake.io, 3, "x", 1, 0), ERR_IO);
    assert_int_equal(fake.calls, 1);
    assert_int_equal(io_write(&fake.io, 3, "", 0, 0), 0);
    assert_int_equal(fake.calls, 1); /* nothing to write asks nobody */
}

static void more_pieces_than_the_system_takes_are_split(void **state)
{
    enum { PIECES = 2 * IOV_MAX + 7 };
    static struct iovec iov[PIECES];
    static unsigned char bytes[PIECES], back[PIECES];
    struct io *io = io_system();

    (void)state;
    for (size_t i = 0; i < PIECES; i++) {
        bytes[i] = (unsigned char)(i * 7);
        iov[i] = (struct iovec){&bytes[i], 1};
    }
    int fd = io_open(io, at("many"), IO_WRITE | IO_CREATE);
    assert_true(fd >= 0);
    assert_int_equal(io_writev(io, fd, iov, PIECES, 100), 0);
    assert_int_equal(io_read(io, fd, back, PIECES, 100, false), 0);
    assert_memory_equal(back, bytes, PIECES);
    assert_int_equal(io_close(io, &fd), 0);
}

static void open_says_what_is_wrong(void **state)
{
    struct io *io = io_system();

    (void)state;
    assert_int_equal(io_open(io, at("none"), IO_READ), ERR_NOT_FOUND);
    assert_int_equal(io_open(io, at("none/below"), IO_WRITE | IO_CREATE), ERR_NOT_FOUND);
    int fd = io_open(io, at("file"), IO_WRITE | IO_CREATE | IO_EXCLUSIVE);
    assert_true(fd >= 0);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    struct stat mode;
    assert_int_equal(fstat(fd, &mode), 0);
    assert_int_equal(mode.st_mode & 0077, 0);
    assert_int_equal(io_open(io, at("file"), IO_WRITE | IO_CREATE | IO_EXCLUSIVE), ERR_EXISTS);
    assert_int_equal(io_open(io, at("file/below"), IO_READ), ERR_NOT_FOUND);
    assert_int_equal(io_open(io, dir, IO_WRITE), ERR_INVALID);
    assert_int_equal(io_close(io, &fd), 0);
    assert_int_equal(fd, -1);
    assert_int_equal(io_close(io, &fd), 0); /* closed already: nothing to do */
    fd = io_open(io, at("file"), IO_READ);
    assert_true(fd >= 0);
    assert_int_not_equal(io_write(io, fd, "x", 1, 0), 0); /* opened for reading */
    assert_int_equal(io_close(io, &fd), 0);
    assert_int_not_equal(io->close(io, 999999), 0);
}

static void sizes_offsets_and_syncs_reach_the_system(void **state)
{
    struct io *io = io_system();
    struct io_stat stat;
    char buf[4];

    (void)state;
    int fd = io_open(io, at("file"), IO_WRITE | IO_CREATE);
    assert_true(fd >= 0);
    uint64_t far = (UINT64_C(5) << 30) - 2;
    assert_int_equal(io_write(io, fd, "far", 3, far), 0);
    assert_int_equal(io->fdatasync(io, fd), 0);
    assert_int_equal(io->fsync(io, fd), 0);
    assert_int_equal(io->sync_range(io, fd, 0, far, false), 0);
    assert_int_equal(io->sync_range(io, fd, 0, far, true), 0);
    assert_int_equal(io->stat_fd(io, fd, &stat), 0);
    assert_true(stat.size_bytes == far + 3);
    assert_true(stat.used_bytes < UINT64_C(1) << 30); /* sparse */
    assert_false(stat.is_dir);
    assert_int_equal(io_read(io, fd, buf, 3, far, false), 0);
    assert_memory_equal(buf, "far", 3);
    assert_int_equal(io->truncate(io, fd, 10), 0);
    assert_int_equal(io->stat(io, at("file"), &stat), 0);
    assert_int_equal(stat.size_bytes, 10);
    assert_int_equal(io->stat(io, dir, &stat), 0);
    assert_true(stat.is_dir);
    assert_int_equal(io->stat(io, at("none"), &stat), ERR_NOT_FOUND);
    assert_int_equal(io->pread(io, fd, buf, 1, UINT64_MAX, false), ERR_RANGE);
    assert_int_equal(io_write(io, fd, "x", 1, UINT64_MAX), ERR_RANGE);
    assert_int_equal(io->truncate(io, fd, UINT64_MAX), ERR_TOO_BIG);
    assert_int_equal(io->sync_range(io, fd, UINT64_MAX, 1, true), ERR_RANGE);
    assert_int_equal(io_close(io, &fd), 0);
}

/* Which of the two depends on the file system; that nothing else comes, and no wrong byte, does
 * not. */
static void reading_without_waiting_gives_the_bytes_or_again(void **state)
{
    struct io *io = io_system();
    char buf[6] = "";

    (void)state;
    int fd = io_open(io, at("file"), IO_WRITE | IO_CREATE);
    assert_true(fd >= 0);
    assert_int_equal(io_write(io, fd, "bytes", 5, 0), 0);
    int rc = io_read(io, fd, buf, 5, 0, true);
    assert_true(rc == 0 || rc == ERR_AGAIN);
    if (rc == 0)
        assert_string_equal(buf, "bytes");
    assert_int_equal(io->fdatasync(io, fd), 0);
    assert_int_equal(io->drop_cache(io, fd), 0);
    rc = io_read(io, fd, buf, 5, 0, true);
    assert_true(rc == 0 || rc == ERR_AGAIN);
    assert_int_equal(io_read(io, fd, buf, 5, 0, false), 0);
    assert_string_equal(buf, "bytes");
    assert_int_equal(io_close(io, &fd), 0);
    assert_int_not_equal(io->drop_cache(io, 999999), 0);
}

/* The kernel cannot tell about files of /proc: "would wait" is the safe answer. */
static void a_file_system_without_nowait_says_again(void **state)
{
    struct io *io = io_system();
    char c;

    (void)state;
    int fd = io_open(io, "/proc/self/status", IO_READ);
    assert_true(fd >= 0);
    assert_int_equal(io_read(io, fd, &c, 1, 0, true), ERR_AGAIN);
    assert_int_equal(io_read(io, fd, &c, 1, 0, false), 0);
    assert_int_equal(io_close(io, &fd), 0);
}

static void what_a_file_takes_on_the_disk_is_in_bytes(void **state)
{
    static unsigned char bytes[65536];
    struct io *io = io_system();
    struct io_stat stat;

    (void)state;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(i * i >> 3);
    assert_int_equal(io_replace(io, at("file"), bytes, sizeof bytes), 0);
    assert_int_equal(io->stat(io, at("file"), &stat), 0);
    assert_in_range(stat.used_bytes, 4096, 1 << 20);
}

static void names_can_be_moved_linked_and_removed(void **state)
{
    struct io *io = io_system();
    struct io_stat stat;

    (void)state;
    assert_int_equal(io_replace(io, at("a"), "1", 1), 0);
    assert_int_equal(io->link(io, at("a"), at("b")), 0);
    assert_int_equal(io->link(io, at("a"), at("b")), ERR_EXISTS);
    assert_int_equal(io->rename(io, at("a"), at("c")), 0);
    assert_int_equal(io->stat(io, at("a"), &stat), ERR_NOT_FOUND);
    assert_int_equal(io->unlink(io, at("b")), 0);
    assert_int_equal(io->unlink(io, at("b")), ERR_NOT_FOUND);
    assert_int_equal(io->rename(io, at("b"), at("d")), ERR_NOT_FOUND);
    assert_int_equal(io->stat(io, at("c"), &stat), 0);
    assert_int_equal(io->sync_dir(io, dir), 0);
    assert_int_equal(io->sync_dir(io, at("c")), ERR_NOT_FOUND);
}

static void the_free_space_is_within_the_total(void **state)
{
    struct io *io = io_system();
    struct io_space space;

    (void)state;
    assert_int_equal(io->space(io, dir, &space), 0);
    assert_true(space.total_bytes > 0);
    assert_true(space.free_bytes <= space.total_bytes);
    assert_int_equal(io->space(io, at("none"), &space), ERR_NOT_FOUND);
}

static void a_lock_is_exclusive_until_it_is_closed(void **state)
{
    struct io *io = io_system();

    (void)state;
    int first = io_open(io, at("lock"), IO_WRITE | IO_CREATE);
    int second = io_open(io, at("lock"), IO_WRITE | IO_CREATE);
    assert_true(first >= 0 && second >= 0);
    assert_int_equal(io->lock(io, first), 0);
    assert_int_equal(io->lock(io, second), ERR_LOCKED);
    assert_int_equal(io_close(io, &first), 0);
    assert_int_equal(io->lock(io, second), 0);
    assert_int_equal(io_close(io, &second), 0);
    assert_int_not_equal(io->lock(io, 999999), 0);
}

struct listing {
    int seen[3], others, stop_after;
};

static int note(void *arg, const char *name)
{
    struct listing *listing = arg;

    if (strlen(name) == 1 && name[0] >= 'a' && name[0] <= 'c')
        listing->seen[name[0] - 'a']++;
    else
        listing->others++;
    return --listing->stop_after == 0 ? 42 : 0;
}

static void a_listing_names_each_entry_once_and_stops_when_told(void **state)
{
    struct listing listing = {.stop_after = -1};
    struct io *io = io_system();

    (void)state;
    assert_int_equal(io_replace(io, at("a"), "", 0), 0);
    assert_int_equal(io_replace(io, at("b"), "", 0), 0);
    assert_int_equal(io->mkdir(io, at("c")), 0);
    assert_int_equal(io->list(io, dir, note, &listing), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(listing.seen[i], 1);
    assert_int_equal(listing.others, 0);
    listing = (struct listing){.stop_after = 2};
    assert_int_equal(io->list(io, dir, note, &listing), 42);
    assert_int_equal(listing.seen[0] + listing.seen[1] + listing.seen[2], 2);
    assert_int_equal(io->list(io, at("none"), note, &listing), ERR_NOT_FOUND);
}

static void assert_content(const char *path, const char *expected, size_t expected_len)
{
    char *data;
    size_t len;

    assert_int_equal(io_read_all(io_system(), path, 100000, &data, &len), 0);
    assert_int_equal(len, expected_len);
    assert_memory_equal(data, expected, len);
    assert_int_equal(data[len], 0);
    free(data);
}

static void replace_leaves_the_new_content_alone(void **state)
{
    struct io *io = io_system();
    struct io_stat stat;

    (void)state;
    assert_int_equal(io_replace(io, at("file"), "first and long", 14), 0);
    /* What a crash left in the temporary file must not show. */
    int fd = io_open(io, at("file.tmp"), IO_WRITE | IO_CREATE);
    assert_true(fd >= 0);
    assert_int_equal(io_write(io, fd, "left over from a crash", 22, 0), 0);
    assert_int_equal(io_close(io, &fd), 0);
    assert_int_equal(io_replace(io, at("file"), "2\0nd", 4), 0);
    assert_content(at("file"), "2\0nd", 4);
    assert_int_equal(io->stat(io, at("file.tmp"), &stat), ERR_NOT_FOUND);
    assert_int_equal(io_replace(io, at("none/file"), "x", 1), ERR_NOT_FOUND);

    /* A target that cannot be replaced: the error, and no temporary file. */
    assert_int_equal(io->mkdir(io, at("dir")), 0);
    assert_int_not_equal(io_replace(io, at("dir"), "x", 1), 0);
    assert_int_equal(io->stat(io, at("dir.tmp"), &stat), ERR_NOT_FOUND);
}

/* The system's files, with one call that fails. */
static int fail_fsync(struct io *io, int fd)
{
    (void)io;
    (void)fd;
    return ERR_IO;
}

static int fail_sync_dir(struct io *io, const char *path)
{
    (void)io;
    (void)path;
    return ERR_IO;
}

static void a_failed_sync_keeps_the_old_content(void **state)
{
    struct io io = *io_system();
    struct io_stat stat;

    (void)state;
    assert_int_equal(io_replace(&io, at("file"), "old", 3), 0);
    io.fsync = fail_fsync;
    assert_int_equal(io_replace(&io, at("file"), "new", 3), ERR_IO);
    assert_content(at("file"), "old", 3);
    assert_int_equal(io.stat(&io, at("file.tmp"), &stat), ERR_NOT_FOUND);
    io = *io_system();
    io.sync_dir = fail_sync_dir;
    assert_int_equal(io_replace(&io, at("file"), "new", 3), ERR_IO);
    assert_int_equal(io_mkdirs(&io, at("x/y")), ERR_IO);
}

static void read_all_takes_files_of_any_size_up_to_its_bound(void **state)
{
    struct io *io = io_system();
    static char big[50000];
    char *data = big;
    size_t len = 1;

    (void)state;
    memset(big, 'x', sizeof big);
    assert_int_equal(io_replace(io, at("empty"), NULL, 0), 0);
    assert_content(at("empty"), "", 0);
    assert_int_equal(io_replace(io, at("big"), big, sizeof big), 0);
    assert_content(at("big"), big, sizeof big);
    assert_int_equal(io_read_all(io, at("big"), sizeof big - 1, &data, &len), ERR_TOO_BIG);
    assert_null(data);
    assert_int_equal(len, 0);
    assert_int_equal(io_read_all(io, at("big"), sizeof big, &data, &len), 0);
    assert_int_equal(len, sizeof big);
    free(data);
    assert_int_equal(io_read_all(io, at("none"), 10, &data, &len), ERR_NOT_FOUND);
    assert_int_equal(io_read_all(io, dir, 10, &data, &len), ERR_INVALID);
}

/* As files under /proc do: no size, yet content. */
static int no_size(struct io *io, int fd, struct io_stat *out)
{
    (void)io;
    (void)fd;
    *out = (struct io_stat){0};
    return 0;
}

static void read_all_does_not_trust_the_size(void **state)
{
    static char big[50000];
    struct io io = *io_system();
    char *data;
    size_t len;

    (void)state;
    memset(big, 'y', sizeof big);
    assert_int_equal(io_replace(&io, at("big"), big, sizeof big), 0);
    io.stat_fd = no_size;
    assert_int_equal(io_read_all(&io, at("big"), sizeof big, &data, &len), 0);
    assert_int_equal(len, sizeof big);
    assert_memory_equal(data, big, len);
    free(data);
    assert_int_equal(io_read_all(&io, at("big"), sizeof big - 1, &data, &len), ERR_TOO_BIG);
    assert_int_equal(io_read_all(&io, at("big"), 10, &data, &len), ERR_TOO_BIG);
}

static void mkdirs_makes_what_is_missing(void **state)
{
    struct io *io = io_system();
    struct io_stat stat;

    (void)state;
    assert_int_equal(io_mkdirs(io, at("a//b/c/")), 0);
    assert_int_equal(io_mkdirs(io, at("a/b/c")), 0);
    assert_int_equal(io->stat(io, at("a/b/c"), &stat), 0);
    assert_true(stat.is_dir);
    assert_int_equal(io_replace(io, at("file"), "", 0), 0);
    assert_int_equal(io_mkdirs(io, at("file")), ERR_EXISTS);
    assert_int_equal(io_mkdirs(io, at("file/below")), ERR_EXISTS);
    assert_int_equal(io_mkdirs(io, "/"), 0);
    assert_int_equal(io_mkdirs(io, "."), 0);
    assert_int_equal(io_mkdirs(io, ""), ERR_INVALID);

    assert_int_equal(chdir(dir), 0);
    assert_int_equal(io_mkdirs(io, "relative/path"), 0);
    assert_int_equal(io->stat(io, at("relative/path"), &stat), 0);
    assert_int_equal(chdir("/"), 0);
    assert_int_equal(io->mkdir(io, at("a")), ERR_EXISTS);
}

/* ---- Signals ---- */

/* The program's own definitions come before the C library's: so many of the next calls of them end
 * with EINTR and do nothing, as with a signal that came in between. */
static int interruptions;
static unsigned interrupted; /* since it was last set to 0 */

static bool is_interrupted(void)
{
    if (interruptions == 0)
        return false;
    interruptions--;
    interrupted++;
    errno = EINTR;
    return true;
}

/* NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): the headers' are reserved */
ssize_t pread(int fd, void *buf, size_t len, off_t offset)
{
    return is_interrupted() ? -1 : syscall(SYS_pread64, fd, buf, len, offset);
}

ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
    return is_interrupted() ? -1 : syscall(SYS_pwritev, fd, iov, count, offset, 0);
}

ssize_t preadv2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    return is_interrupted() ? -1 : syscall(SYS_preadv2, fd, iov, count, offset, 0, flags);
}

int fdatasync(int fd)
{
    return is_interrupted() ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    return is_interrupted() ? -1 : (int)syscall(SYS_fsync, fd);
}

int ftruncate(int fd, off_t size)
{
    return is_interrupted() ? -1 : (int)syscall(SYS_ftruncate, fd, size);
}

int open(const char *path, int flags, ...)
{
    va_list args;

    va_start(args, flags);
    int mode = flags & O_CREAT ? va_arg(args, int) : 0;
    va_end(args);
    return is_interrupted() ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int flock(int fd, int operation)
{
    return is_interrupted() ? -1 : (int)syscall(SYS_flock, fd, operation);
}

/* NOLINTEND(readability-inconsistent-declaration-parameter-name) */

/* The next two calls of the following are interrupted. */
static void storm(void)
{
    interruptions = 2;
    interrupted = 0;
}

static void expect_interrupted(void)
{
    assert_int_equal(interruptions, 0);
    assert_int_equal(interrupted, 2);
}

static void a_signal_in_between_is_not_an_error(void **state)
{
    struct io *io = io_system();
    char text[] = "interrupted", back[sizeof text];
    struct iovec iov = {.iov_base = text, .iov_len = sizeof text};
    struct io_stat stat;

    (void)state;
    storm();
    int fd = io_open(io, at("file"), IO_READ | IO_WRITE | IO_CREATE);
    assert_true(fd >= 0);
    expect_interrupted();
    storm();
    assert_int_equal(io_writev(io, fd, &iov, 1, 100), 0);
    expect_interrupted();
    storm();
    assert_int_equal(io->fdatasync(io, fd), 0);
    expect_interrupted();
    storm();
    assert_int_equal(io->fsync(io, fd), 0);
    expect_interrupted();
    storm();
    assert_int_equal(io->sync_dir(io, dir), 0);
    expect_interrupted();
    storm();
    assert_int_equal(io_read(io, fd, back, sizeof back, 100, false), 0);
    expect_interrupted();
    assert_string_equal(back, "interrupted");
    storm();
    int rc = io_read(io, fd, back, sizeof back, 100, true);
    assert_true(rc == 0 || rc == ERR_AGAIN);
    expect_interrupted();
    storm();
    assert_int_equal(io->truncate(io, fd, 50), 0);
    expect_interrupted();
    assert_int_equal(io->stat_fd(io, fd, &stat), 0);
    assert_int_equal(stat.size_bytes, 50);
    storm();
    assert_int_equal(io->lock(io, fd), 0);
    expect_interrupted();
    assert_int_equal(io_close(io, &fd), 0);
    storm();
    assert_int_equal(io_replace(io, at("file"), "new", 3), 0);
    expect_interrupted();
}

int main(void)
{
#define WITH_DIR(test) cmocka_unit_test_setup_teardown(test, make_dir, drop_dir)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_reads_add_up_to_the_whole),
        cmocka_unit_test(a_file_that_ends_early_is_corrupt),
        cmocka_unit_test(an_error_in_the_middle_of_a_read_comes_out),
        cmocka_unit_test(short_writes_add_up_across_pieces),
        cmocka_unit_test(a_write_that_fails_or_stands_still_ends),
        WITH_DIR(more_pieces_than_the_system_takes_are_split),
        WITH_DIR(open_says_what_is_wrong),
        WITH_DIR(sizes_offsets_and_syncs_reach_the_system),
        WITH_DIR(reading_without_waiting_gives_the_bytes_or_again),
        WITH_DIR(a_file_system_without_nowait_says_again),
        WITH_DIR(what_a_file_takes_on_the_disk_is_in_bytes),
        WITH_DIR(names_can_be_moved_linked_and_removed),
        WITH_DIR(the_free_space_is_within_the_total),
        WITH_DIR(a_lock_is_exclusive_until_it_is_closed),
        WITH_DIR(a_listing_names_each_entry_once_and_stops_when_told),
        WITH_DIR(replace_leaves_the_new_content_alone),
        WITH_DIR(a_failed_sync_keeps_the_old_content),
        WITH_DIR(read_all_takes_files_of_any_size_up_to_its_bound),
        WITH_DIR(read_all_does_not_trust_the_size),
        WITH_DIR(mkdirs_makes_what_is_missing),
        WITH_DIR(a_signal_in_between_is_not_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
