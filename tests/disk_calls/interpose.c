/* Stands between a process and the C library: counts the calls that concern the place of one database, over all threads,
 * and makes the nth of them fail. Loaded with LD_PRELOAD.
 *
 * MORPHKV_DISK_PLACE   what the paths of the place begin with: a directory, and a slash
 * MORPHKV_DISK_REPORT  a file of sizeof(struct report) bytes, which tells what was called also when the process dies
 * MORPHKV_DISK_FAULT   "KINDS AT ERRNO FLAGS": of the calls of these kinds (letters, see below) that of number AT, counted
 *                      from 0, fails with ERRNO. Flags: `k` all that follow fail, too (it keeps failing); `a` it fails
 *                      after it was carried out; `s` it does half of its work (and what follows, with `k`, fails).
 * MORPHKV_DISK_MOVE    "AT FROM TO": right before the call of number AT somebody renames FROM to TO
 *
 * kinds: o open what is there    c make a file or directory    w write    s sync    d sync a directory    n rename, link    u unlink, rmdir
 *        t truncate, allocate    r read    f read through a stream    l look (stat, access, list)    k lock
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#undef fread_unlocked /* the header has a macro of that name */

#define KINDS_MAX 65520
#define FILES_MAX 65536

struct report {
    _Atomic uint64_t calls;  /* on the place */
    _Atomic uint64_t failed; /* made to fail, or to do half */
    char kinds[KINDS_MAX];   /* of each call */
};

enum verdict { PASS, FAIL, FAIL_AFTER, HALF };

static struct report *report;
static const char *place;
static size_t place_len;
static char fault_kinds[32], fault_flags[8];
static uint64_t fault_at;
static int fault_errno;
static _Atomic uint64_t eligible;
static char move_from[4096], move_to[4096];
static uint64_t move_at = UINT64_MAX;
static _Atomic unsigned char ours[FILES_MAX];

/* The function of that name behind this library. */
#define REAL(type, name, ...)                                                                                          \
    static type (*real)(__VA_ARGS__);                                                                                  \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

static int is_open(int file) { return file >= 0 && file < FILES_MAX && ours[file]; }

static void track(int file, int of_the_place) {
    if (file >= 0 && file < FILES_MAX) ours[file] = of_the_place;
}

static int is_directory(int file) {
    struct stat found;
    return fstat(file, &found) == 0 && S_ISDIR(found.st_mode);
}

/* The directory itself, too, which `place` names with a slash at its end. */
static int concerns(const char *path) {
    if (!place || !path) return 0;
    return strncmp(path, place, place_len) == 0 || (strncmp(path, place, place_len - 1) == 0 && !path[place_len - 1]);
}

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("MORPHKV_DISK_REPORT");
    const char *fault = getenv("MORPHKV_DISK_FAULT");
    if (!path) return;
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0) abort();
    report = mmap(NULL, sizeof *report, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (report == MAP_FAILED) abort();
    close(file);
    if (fault && sscanf(fault, "%31s %lu %d %7s", fault_kinds, &fault_at, &fault_errno, fault_flags) < 3) abort();
    const char *move = getenv("MORPHKV_DISK_MOVE");
    if (move && sscanf(move, "%lu %4095s %4095s", &move_at, move_from, move_to) != 3) abort();
    place = getenv("MORPHKV_DISK_PLACE");
    if (!place) abort();
    place_len = strlen(place);
}

/* What becomes of a call on the place. */
static enum verdict judge(char kind) {
    uint64_t nth = atomic_fetch_add(&report->calls, 1);
    if (nth < KINDS_MAX) report->kinds[nth] = kind;
    if (nth == move_at && syscall(SYS_rename, move_from, move_to) != 0) abort();
    if (!strchr(fault_kinds, kind)) return PASS;
    uint64_t number = atomic_fetch_add(&eligible, 1);
    int first = number == fault_at;
    if (!first && !(number > fault_at && strchr(fault_flags, 'k'))) return PASS;
    atomic_fetch_add(&report->failed, 1);
    if (first && strchr(fault_flags, 's')) return HALF;
    return strchr(fault_flags, 'a') ? FAIL_AFTER : FAIL;
}

/* Does `call` as the verdict says, where -1 and errno tell of a failure. */
#define RETURN_JUDGED(type, kind, call, half)                                                                          \
    do {                                                                                                               \
        enum verdict verdict = judge(kind);                                                                            \
        type done = -1;                                                                                                \
        if (verdict == PASS) return call;                                                                              \
        if (verdict == HALF) return half;                                                                              \
        if (verdict == FAIL_AFTER) {                                                                                   \
            done = call;                                                                                               \
            (void)done;                                                                                                \
        }                                                                                                              \
        errno = fault_errno;                                                                                           \
        return -1;                                                                                                     \
    } while (0)

/* A file that is opened although it is said that it was not would stay open for ever: it is closed again. */
static int open_judged(int (*real)(const char *, int, ...), const char *path, int flags, mode_t mode) {
    if (!concerns(path)) {
        int file = real(path, flags, mode);
        track(file, 0);
        return file;
    }
    enum verdict verdict = judge(flags & O_CREAT ? 'c' : 'o');
    int file = verdict == FAIL ? -1 : real(path, flags, mode);
    if (verdict == FAIL || verdict == FAIL_AFTER) {
        if (file >= 0) close(file);
        errno = fault_errno;
        return -1;
    }
    track(file, 1);
    return file;
}

#define MODE_OF(flags)                                                                                                 \
    mode_t mode = 0;                                                                                                   \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {                                                                           \
        va_list arguments;                                                                                             \
        va_start(arguments, flags);                                                                                    \
        mode = va_arg(arguments, mode_t);                                                                              \
        va_end(arguments);                                                                                             \
    }

#define DEFINE_OPEN(name)                                                                                              \
    int name(const char *path, int flags, ...) {                                                                       \
        REAL(int, name, const char *, int, ...);                                                                       \
        MODE_OF(flags)                                                                                                 \
        return open_judged(real, path, flags, mode);                                                                   \
    }
DEFINE_OPEN(open)
DEFINE_OPEN(open64)

/* Relative to a directory: counted where the path is absolute. */
#define DEFINE_OPENAT(name)                                                                                            \
    int name(int directory, const char *path, int flags, ...) {                                                        \
        REAL(int, name, int, const char *, int, ...);                                                                  \
        MODE_OF(flags)                                                                                                 \
        if (concerns(path)) return open(path, flags, mode);                                                            \
        int file = real(directory, path, flags, mode);                                                                 \
        track(file, 0);                                                                                                \
        return file;                                                                                                   \
    }
DEFINE_OPENAT(openat)
DEFINE_OPENAT(openat64)

int creat(const char *path, mode_t mode) { return open(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return open(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

int close(int file) {
    REAL(int, close, int);
    track(file, 0);
    return real(file);
}

int fclose(FILE *stream) {
    REAL(int, fclose, FILE *);
    track(fileno(stream), 0);
    return real(stream);
}

ssize_t write(int file, const void *bytes, size_t len) {
    REAL(ssize_t, write, int, const void *, size_t);
    if (!is_open(file)) return real(file, bytes, len);
    RETURN_JUDGED(ssize_t, 'w', real(file, bytes, len), real(file, bytes, (len + 1) / 2));
}

#define DEFINE_PWRITE(name)                                                                                            \
    ssize_t name(int file, const void *bytes, size_t len, off_t offset) {                                              \
        REAL(ssize_t, name, int, const void *, size_t, off_t);                                                         \
        if (!is_open(file)) return real(file, bytes, len, offset);                                                     \
        RETURN_JUDGED(ssize_t, 'w', real(file, bytes, len, offset), real(file, bytes, (len + 1) / 2, offset));         \
    }
DEFINE_PWRITE(pwrite)
DEFINE_PWRITE(pwrite64)

ssize_t writev(int file, const struct iovec *parts, int count) {
    REAL(ssize_t, writev, int, const struct iovec *, int);
    if (!is_open(file)) return real(file, parts, count);
    RETURN_JUDGED(ssize_t, 'w', real(file, parts, count), real(file, parts, 1));
}

#define DEFINE_PWRITEV(name)                                                                                           \
    ssize_t name(int file, const struct iovec *parts, int count, off_t offset) {                                       \
        REAL(ssize_t, name, int, const struct iovec *, int, off_t);                                                    \
        if (!is_open(file)) return real(file, parts, count, offset);                                                   \
        RETURN_JUDGED(ssize_t, 'w', real(file, parts, count, offset), real(file, parts, 1, offset));                   \
    }
DEFINE_PWRITEV(pwritev)
DEFINE_PWRITEV(pwritev64)

#define DEFINE_ON_FILE(name, kind)                                                                                     \
    int name(int file) {                                                                                               \
        REAL(int, name, int);                                                                                          \
        if (!is_open(file)) return real(file);                                                                         \
        RETURN_JUDGED(int, kind, real(file), real(file));                                                              \
    }
DEFINE_ON_FILE(fsync, is_directory(file) ? 'd' : 's')
DEFINE_ON_FILE(fdatasync, is_directory(file) ? 'd' : 's')
DEFINE_ON_FILE(syncfs, 's')

int sync_file_range(int file, off_t offset, off_t len, unsigned int flags) {
    REAL(int, sync_file_range, int, off_t, off_t, unsigned int);
    if (!is_open(file)) return real(file, offset, len, flags);
    RETURN_JUDGED(int, 's', real(file, offset, len, flags), real(file, offset, len, flags));
}

#define DEFINE_FTRUNCATE(name)                                                                                         \
    int name(int file, off_t len) {                                                                                    \
        REAL(int, name, int, off_t);                                                                                   \
        if (!is_open(file)) return real(file, len);                                                                    \
        RETURN_JUDGED(int, 't', real(file, len), real(file, len));                                                     \
    }
DEFINE_FTRUNCATE(ftruncate)
DEFINE_FTRUNCATE(ftruncate64)

#define DEFINE_FALLOCATE(name)                                                                                         \
    int name(int file, int mode, off_t offset, off_t len) {                                                            \
        REAL(int, name, int, int, off_t, off_t);                                                                       \
        if (!is_open(file)) return real(file, mode, offset, len);                                                      \
        RETURN_JUDGED(int, 't', real(file, mode, offset, len), real(file, mode, offset, len));                         \
    }
DEFINE_FALLOCATE(fallocate)
DEFINE_FALLOCATE(fallocate64)

/* It answers with the error number itself. */
int posix_fallocate(int file, off_t offset, off_t len) {
    REAL(int, posix_fallocate, int, off_t, off_t);
    if (!is_open(file)) return real(file, offset, len);
    enum verdict verdict = judge('t');
    int done = verdict == FAIL ? 0 : real(file, offset, len);
    return verdict == PASS || verdict == HALF ? done : fault_errno;
}

int rename(const char *from, const char *to) {
    REAL(int, rename, const char *, const char *);
    if (!concerns(from) && !concerns(to)) return real(from, to);
    RETURN_JUDGED(int, 'n', real(from, to), real(from, to));
}

int renameat2(int from_directory, const char *from, int to_directory, const char *to, unsigned int flags) {
    REAL(int, renameat2, int, const char *, int, const char *, unsigned int);
    if (!concerns(from) && !concerns(to)) return real(from_directory, from, to_directory, to, flags);
    RETURN_JUDGED(int, 'n', real(from_directory, from, to_directory, to, flags),
                  real(from_directory, from, to_directory, to, flags));
}

int link(const char *from, const char *to) {
    REAL(int, link, const char *, const char *);
    if (!concerns(from) && !concerns(to)) return real(from, to);
    RETURN_JUDGED(int, 'n', real(from, to), real(from, to));
}

#define DEFINE_ON_PATH(name, kind)                                                                                     \
    int name(const char *path) {                                                                                       \
        REAL(int, name, const char *);                                                                                 \
        if (!concerns(path)) return real(path);                                                                        \
        RETURN_JUDGED(int, kind, real(path), real(path));                                                              \
    }
DEFINE_ON_PATH(unlink, 'u')
DEFINE_ON_PATH(rmdir, 'u')

int mkdir(const char *path, mode_t mode) {
    REAL(int, mkdir, const char *, mode_t);
    if (!concerns(path)) return real(path, mode);
    RETURN_JUDGED(int, 'c', real(path, mode), real(path, mode));
}

ssize_t read(int file, void *bytes, size_t len) {
    REAL(ssize_t, read, int, void *, size_t);
    if (!is_open(file)) return real(file, bytes, len);
    RETURN_JUDGED(ssize_t, 'r', real(file, bytes, len), real(file, bytes, (len + 1) / 2));
}

/* Half of a direct read must still be whole sectors. */
#define HALF_OF_A_READ(len) ((len) >= 8192 ? (len) / 2 / 4096 * 4096 : (len))

#define DEFINE_PREAD(name)                                                                                             \
    ssize_t name(int file, void *bytes, size_t len, off_t offset) {                                                    \
        REAL(ssize_t, name, int, void *, size_t, off_t);                                                               \
        if (!is_open(file)) return real(file, bytes, len, offset);                                                     \
        RETURN_JUDGED(ssize_t, 'r', real(file, bytes, len, offset), real(file, bytes, HALF_OF_A_READ(len), offset));   \
    }
DEFINE_PREAD(pread)
DEFINE_PREAD(pread64)

/* Fails without an end of the file, as the C library does it. */
#define DEFINE_FREAD(name)                                                                                             \
    size_t name(void *bytes, size_t size, size_t count, FILE *stream) {                                                \
        REAL(size_t, name, void *, size_t, size_t, FILE *);                                                            \
        if (!is_open(fileno(stream)) || judge('f') == PASS) return real(bytes, size, count, stream);                   \
        errno = fault_errno;                                                                                           \
        return 0;                                                                                                      \
    }
DEFINE_FREAD(fread)
DEFINE_FREAD(fread_unlocked)

#define DEFINE_STAT(name, type)                                                                                        \
    int name(const char *path, struct type *out) {                                                                     \
        REAL(int, name, const char *, struct type *);                                                                  \
        if (!concerns(path)) return real(path, out);                                                                   \
        RETURN_JUDGED(int, 'l', real(path, out), real(path, out));                                                     \
    }
DEFINE_STAT(stat, stat)
DEFINE_STAT(stat64, stat64)

#define DEFINE_FSTAT(name, type)                                                                                       \
    int name(int file, struct type *out) {                                                                             \
        REAL(int, name, int, struct type *);                                                                           \
        if (!is_open(file)) return real(file, out);                                                                    \
        RETURN_JUDGED(int, 'l', real(file, out), real(file, out));                                                     \
    }
DEFINE_FSTAT(fstat, stat)
DEFINE_FSTAT(fstat64, stat64)

int access(const char *path, int mode) {
    REAL(int, access, const char *, int);
    if (!concerns(path)) return real(path, mode);
    RETURN_JUDGED(int, 'l', real(path, mode), real(path, mode));
}

DIR *opendir(const char *path) {
    REAL(DIR *, opendir, const char *);
    if (concerns(path) && judge('l') != PASS) {
        errno = fault_errno;
        return NULL;
    }
    DIR *directory = real(path);
    if (directory) track(dirfd(directory), concerns(path));
    return directory;
}

int closedir(DIR *directory) {
    REAL(int, closedir, DIR *);
    track(dirfd(directory), 0);
    return real(directory);
}

#define DEFINE_READDIR(name, type)                                                                                     \
    struct type *name(DIR *directory) {                                                                                \
        REAL(struct type *, name, DIR *);                                                                              \
        if (!is_open(dirfd(directory)) || judge('l') == PASS) return real(directory);                                  \
        errno = fault_errno;                                                                                           \
        return NULL;                                                                                                   \
    }
DEFINE_READDIR(readdir, dirent)
DEFINE_READDIR(readdir64, dirent64)

#define DEFINE_FCNTL(name)                                                                                             \
    int name(int file, int command, ...) {                                                                             \
        REAL(int, name, int, int, ...);                                                                                \
        va_list arguments;                                                                                             \
        va_start(arguments, command);                                                                                  \
        void *argument = va_arg(arguments, void *);                                                                    \
        va_end(arguments);                                                                                             \
        if (command != F_SETLK || !is_open(file)) return real(file, command, argument);                                \
        RETURN_JUDGED(int, 'k', real(file, command, argument), real(file, command, argument));                         \
    }
DEFINE_FCNTL(fcntl)
DEFINE_FCNTL(fcntl64)
