/* The disk of disk.h: files with versions of their sectors, names with their changes, and the calls that
 * come by here. */
#define _GNU_SOURCE
#include "tests/support/sim/disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/support/sim/inner.h"

/* A sector as it could have reached the disk. */
struct version {
    uint64_t at; /* when: counts changes */
    uint64_t sector;
    uint8_t bytes[SIM_SECTOR];
};

struct length {
    uint64_t at;
    uint64_t len;
    bool shorter; /* what was behind it is gone */
};

struct file {
    struct file *next;
    ino_t inode;
    bool named; /* now */
    uint8_t *durable;
    size_t durable_len, cap; /* behind the length there are zeros */
    struct version *versions;
    size_t version_count, version_cap;
    struct length *lengths;
    size_t length_count, length_cap;
    uint64_t len; /* now */
};

struct name {
    char text[SIM_DISK_NAME_LEN]; /* "": free */
    struct file *file;
};

/* from: that name is gone; to: that one means the file. Either may be "". */
struct change {
    uint64_t at;
    char from[SIM_DISK_NAME_LEN], to[SIM_DISK_NAME_LEN];
    struct file *file;
};

static struct disk {
    bool mounted;
    char dir[PATH_MAX];
    dev_t device;
    ino_t inode;
    void (*changed)(void);
    uint64_t now; /* counts changes */
    struct file *files;
    struct name names[SIM_DISK_NAMES], durable[SIM_DISK_NAMES];
    struct change *changes;
    size_t change_count, change_cap;
} disk;

struct sim_disk_failures sim_disk_failures;
bool sim_disk_full, sim_disk_sets_nothing_aside;

static void *must_grow(void *ptr, size_t *cap, size_t wanted, size_t size)
{
    if (wanted <= *cap)
        return ptr;
    size_t fresh = *cap ? *cap : 16;
    while (fresh < wanted)
        fresh *= 2;
    ptr = realloc(ptr, fresh * size);
    if (!ptr)
        sim_fail("no memory for the simulation itself");
    memset((uint8_t *)ptr + *cap * size, 0, (fresh - *cap) * size);
    *cap = fresh;
    return ptr;
}

/* --- names ---------------------------------------------------------------------------------------- */

static struct name *find_name(struct name *names, const char *text)
{
    for (unsigned i = 0; i < SIM_DISK_NAMES; i++)
        if (strcmp(names[i].text, text) == 0)
            return &names[i];
    return NULL;
}

static void put_name(struct name *names, const char *text, struct file *file)
{
    struct name *name = find_name(names, text);
    if (!name)
        name = find_name(names, "");
    if (!name || strlen(text) >= sizeof(name->text))
        sim_fail("the directory of the simulated disk has no room for %s", text);
    strcpy(name->text, text);
    name->file = file;
}

static void apply_change(struct name *names, const struct change *change)
{
    if (change->from[0]) {
        struct name *name = find_name(names, change->from);
        if (name)
            *name = (struct name){.text = ""};
    }
    if (change->to[0])
        put_name(names, change->to, change->file);
}

static void change_names(const char *from, const char *to, struct file *file)
{
    disk.changes =
        must_grow(disk.changes, &disk.change_cap, disk.change_count + 1, sizeof(*disk.changes));
    struct change *change = &disk.changes[disk.change_count++];
    *change = (struct change){.at = ++disk.now, .file = file};
    snprintf(change->from, sizeof(change->from), "%s", from);
    snprintf(change->to, sizeof(change->to), "%s", to);
    apply_change(disk.names, change);
    for (struct file *f = disk.files; f; f = f->next) {
        f->named = false;
        for (unsigned i = 0; i < SIM_DISK_NAMES; i++)
            f->named |= disk.names[i].text[0] && disk.names[i].file == f;
    }
}

static void sync_names(uint64_t until)
{
    size_t n = 0;
    while (n < disk.change_count && disk.changes[n].at <= until)
        apply_change(disk.durable, &disk.changes[n++]);
    disk.change_count -= n;
    if (disk.change_count > 0)
        memmove(disk.changes, disk.changes + n, disk.change_count * sizeof(*disk.changes));
}

/* --- files ---------------------------------------------------------------------------------------- */

static struct file *file_new(ino_t inode)
{
    struct file *file = calloc(1, sizeof(*file));
    if (!file)
        sim_fail("no memory for the simulation itself");
    file->inode = inode;
    file->named = true;
    file->next = disk.files;
    disk.files = file;
    return file;
}

/* What stands in the file now goes into the model as durable. */
static void load(struct file *file, int fd, size_t len)
{
    file->durable = must_grow(file->durable, &file->cap, len + 1, 1);
    if (syscall(SYS_pread64, fd, file->durable, len, 0) != (long)len)
        sim_fail("a file of the simulated disk cannot be read");
    file->durable_len = file->len = len;
}

static bool is_disk(int fd)
{
    struct stat st;
    return disk.mounted && fstat(fd, &st) == 0 && S_ISDIR(st.st_mode) && st.st_dev == disk.device &&
           st.st_ino == disk.inode;
}

/* The file behind a descriptor, which may have been made just now; NULL: none of this disk. */
static struct file *file_of(int fd)
{
    struct stat st;
    char link[40], path[PATH_MAX];
    if (!disk.mounted || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_dev != disk.device)
        return NULL;
    for (struct file *file = disk.files; file; file = file->next)
        if (file->inode == st.st_ino && file->named == (st.st_nlink > 0))
            return file;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof(path) - 1);
    size_t dir_len = strlen(disk.dir);
    if (len <= 0 || strncmp(path, disk.dir, dir_len) != 0 || path[dir_len] != '/')
        return NULL;
    path[len] = '\0';
    struct file *file = file_new(st.st_ino);
    change_names("", path + dir_len + 1, file);
    return file;
}

static bool is_new(const struct file *file)
{
    for (unsigned i = 0; i < SIM_DISK_NAMES; i++)
        if (disk.names[i].file == file && strstr(disk.names[i].text, ".new"))
            return true;
    return false;
}

/* Names that the disk knows of only by now are made known. */
static struct file *file_named(int dir_fd, const char *text)
{
    struct name *name = find_name(disk.names, text);
    struct stat st;
    if (name)
        return name->file;
    if (fstatat(dir_fd, text, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return NULL;
    struct file *file = file_new(st.st_ino);
    change_names("", text, file);
    return file;
}

static void note_length(struct file *file, uint64_t len)
{
    file->lengths =
        must_grow(file->lengths, &file->length_cap, file->length_count + 1, sizeof(*file->lengths));
    file->lengths[file->length_count++] =
        (struct length){.at = ++disk.now, .len = len, .shorter = len < file->len};
    file->len = len;
}

/* The sectors of [from, to) are as the file has them now. */
static void note_sectors(struct file *file, int fd, uint64_t from, uint64_t to)
{
    disk.now++;
    for (uint64_t sector = from / SIM_SECTOR; sector * SIM_SECTOR < to; sector++) {
        file->versions = must_grow(file->versions, &file->version_cap, file->version_count + 1,
                                   sizeof(*file->versions));
        struct version *version = &file->versions[file->version_count++];
        memset(version, 0, sizeof(*version));
        version->at = disk.now;
        version->sector = sector;
        if (syscall(SYS_pread64, fd, version->bytes, SIM_SECTOR, sector * SIM_SECTOR) < 0)
            sim_fail("a file of the simulated disk cannot be read");
    }
}

/* --- what is left --------------------------------------------------------------------------------- */

struct image {
    uint8_t *bytes;
    size_t len, cap;
};

/* What is applied of what came since the last sync. */
struct choice {
    struct test_random *luck; /* NULL: all, */
    unsigned of_8;            /* else each version with these odds, */
    size_t lengths;           /* and so many lengths */
    uint64_t until;           /* and of all this only what is not younger */
};

static void set_length(struct image *image, const struct length *length)
{
    if (length->shorter && length->len < image->cap)
        memset(image->bytes + length->len, 0, image->cap - length->len);
    image->len = (size_t)length->len;
    image->bytes = must_grow(image->bytes, &image->cap, image->len + 1, 1);
}

static void put_version(struct image *image, const struct version *version)
{
    size_t end = (size_t)(version->sector + 1) * SIM_SECTOR;
    image->bytes = must_grow(image->bytes, &image->cap, end, 1);
    memcpy(image->bytes + end - SIM_SECTOR, version->bytes, SIM_SECTOR);
}

static void choose(const struct file *file, const struct choice *choice, struct image *image)
{
    size_t v = 0, l = 0;
    uint64_t gone_from = UINT64_MAX; /* behind this, an old file that was not cut yet */
    while (v < file->version_count || l < file->length_count) {
        const struct version *version = v < file->version_count ? &file->versions[v] : NULL;
        const struct length *length = l < file->length_count ? &file->lengths[l] : NULL;
        if (length && (!version || length->at < version->at)) {
            if (length->at <= choice->until && l < choice->lengths)
                set_length(image, length);
            else if (length->shorter && length->len < gone_from)
                gone_from = length->len;
            l++;
            continue;
        }
        if (version->at <= choice->until && (version->sector + 1) * SIM_SECTOR <= gone_from &&
            (!choice->luck || test_random_below(choice->luck, 8) < choice->of_8))
            put_version(image, version);
        v++;
    }
}

static void forget(struct file *file, uint64_t until)
{
    size_t v = 0, l = 0;
    while (v < file->version_count && file->versions[v].at <= until)
        v++;
    while (l < file->length_count && file->lengths[l].at <= until)
        l++;
    file->version_count -= v;
    file->length_count -= l;
    if (file->version_count > 0)
        memmove(file->versions, file->versions + v, file->version_count * sizeof(*file->versions));
    if (file->length_count > 0)
        memmove(file->lengths, file->lengths + l, file->length_count * sizeof(*file->lengths));
}

/* Makes durable what came until then: all, or what luck leaves of it; the rest is forgotten. */
static void sync_file(struct file *file, uint64_t until, struct test_random *luck)
{
    struct image image = {file->durable, file->durable_len, file->cap};
    struct choice choice = {.luck = luck, .of_8 = 4, .lengths = SIZE_MAX, .until = until};
    choose(file, &choice, &image);
    file->durable = image.bytes;
    file->durable_len = image.len;
    file->cap = image.cap;
    forget(file, until);
}

void sim_disk_cut(struct test_random *luck, struct sim_remains *ret)
{
    static const unsigned odds[] = {0, 1, 4, 4, 4, 7, 8};
    struct name names[SIM_DISK_NAMES];
    memcpy(names, disk.durable, sizeof(names));
    size_t changes = test_random_below(luck, disk.change_count + 1);
    for (size_t i = 0; i < changes; i++)
        apply_change(names, &disk.changes[i]);
    *ret = (struct sim_remains){.count = 0};
    for (unsigned i = 0; i < SIM_DISK_NAMES; i++) {
        if (!names[i].text[0])
            continue;
        const struct file *file = names[i].file;
        struct image image = {.len = file->durable_len};
        image.bytes = must_grow(NULL, &image.cap, file->durable_len + 1, 1);
        if (file->durable_len > 0)
            memcpy(image.bytes, file->durable, file->durable_len);
        struct choice choice = {
            .luck = luck,
            .of_8 = odds[test_random_below(luck, sizeof(odds) / sizeof(odds[0]))],
            .lengths = test_random_below(luck, file->length_count + 1),
            .until = UINT64_MAX,
        };
        choose(file, &choice, &image);
        struct sim_remain *remain = &ret->files[ret->count++];
        strcpy(remain->name, names[i].text);
        remain->bytes = image.bytes;
        remain->len = image.len;
    }
}

const struct sim_remain *sim_remains_find(const struct sim_remains *remains, const char *name)
{
    for (unsigned i = 0; i < remains->count; i++)
        if (strcmp(remains->files[i].name, name) == 0)
            return &remains->files[i];
    return NULL;
}

void sim_remains_write(const struct sim_remains *remains, const char *dir)
{
    for (unsigned i = 0; i < remains->count; i++) {
        const struct sim_remain *remain = &remains->files[i];
        char path[PATH_MAX];
        snprintf(path, sizeof(path), "%s/%s", dir, remain->name);
        int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (fd < 0 || syscall(SYS_pwrite64, fd, remain->bytes, remain->len, 0) != (long)remain->len)
            sim_fail("what a loss of power has left cannot be written");
        close(fd);
    }
}

void sim_remains_free(struct sim_remains *remains)
{
    for (unsigned i = 0; i < remains->count; i++)
        free(remains->files[i].bytes);
    remains->count = 0;
}

/* --- from mount to unmount ------------------------------------------------------------------------ */

void sim_disk_mount(const char *dir, void (*changed)(void))
{
    struct stat st;
    sim_disk_unmount();
    if (!realpath(dir, disk.dir) || stat(disk.dir, &st) < 0)
        sim_fail("there is no %s for the simulated disk", dir);
    disk.device = st.st_dev;
    disk.inode = st.st_ino;
    disk.changed = changed;
    disk.mounted = true;
    sim_disk_failures = (struct sim_disk_failures){0};
    DIR *stream = opendir(disk.dir);
    for (struct dirent *entry; stream && (entry = readdir(stream));) {
        int fd = entry->d_name[0] == '.'
                     ? -1
                     : openat(dirfd(stream), entry->d_name, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            continue;
        if (fstat(fd, &st) < 0)
            sim_fail("a file of the simulated disk cannot be looked at");
        struct file *file = file_new(st.st_ino);
        load(file, fd, (size_t)st.st_size);
        put_name(disk.names, entry->d_name, file);
        put_name(disk.durable, entry->d_name, file);
        close(fd);
    }
    if (!stream)
        sim_fail("the directory of the simulated disk cannot be read");
    closedir(stream);
}

void sim_disk_unmount(void)
{
    while (disk.files) {
        struct file *file = disk.files;
        disk.files = file->next;
        free(file->durable);
        free(file->versions);
        free(file->lengths);
        free(file);
    }
    free(disk.changes);
    disk = (struct disk){.mounted = false};
}

uint64_t sim_disk_now(void)
{
    return disk.now;
}

static void tell_change(void)
{
    if (disk.mounted && disk.changed)
        disk.changed();
}

static void count_failure(const struct file *file)
{
    if (!file)
        sim_disk_failures.of_directory++;
    else if (is_new(file))
        sim_disk_failures.of_new++;
    else
        sim_disk_failures.of_file++;
}

/* --- what is done to it --------------------------------------------------------------------------- */

/* What a write that fails has written nobody knows. */
int sim_disk_write(int fd, const void *bytes, size_t len, uint64_t offset, int fault)
{
    struct file *file = file_of(fd);
    size_t part = len;
    if (fault == SIM_SHORT && len > 1)
        part = 1 + (size_t)sim_below(len - 1);
    else if (fault < 0)
        part = sim_below(2) ? (size_t)sim_below(len + 1) : 0;
    long n = part > 0 ? syscall(SYS_pwrite64, fd, bytes, part, offset) : 0;
    int res = n < 0 ? -errno : (int)n;
    if (file && n > 0) {
        if (offset + (uint64_t)n > file->len)
            note_length(file, offset + (uint64_t)n);
        note_sectors(file, fd, offset, offset + (uint64_t)n);
    }
    if (file && fault < 0)
        count_failure(file);
    sim_event("disk: %zu bytes at %llu: %d, fault %d", len, (unsigned long long)offset, res, fault);
    if (file)
        tell_change();
    return fault < 0 ? fault : res;
}

/* `begun`: sim_disk_now() as it was then. */
int sim_disk_sync(int fd, uint64_t begun, int fault)
{
    struct file *file = file_of(fd);
    bool names = !file && is_disk(fd);
    struct test_random luck = {sim_below(UINT32_MAX)};
    sim_event("disk: a sync of %s: %d", names ? "names" : "a file", fault);
    if (!file && !names)
        return fault;
    if (file)
        sync_file(file, begun, fault < 0 ? &luck : NULL);
    else if (fault == 0)
        sync_names(begun);
    if (fault < 0)
        count_failure(file);
    tell_change();
    return fault;
}

int sim_disk_reserve(int fd, int mode, uint64_t offset, uint64_t len, int fault)
{
    struct file *file = file_of(fd);
    if (file && sim_disk_sets_nothing_aside)
        return -EOPNOTSUPP;
    if (file && sim_disk_full)
        return -ENOSPC;
    if (fault < 0)
        return fault;
    if (syscall(SYS_fallocate, fd, mode, offset, len) < 0)
        return -errno;
    if (file && mode == 0 && offset + len > file->len) {
        note_length(file, offset + len);
        sim_event("disk: room up to %llu", (unsigned long long)(offset + len));
        tell_change();
    }
    return 0;
}

/* A rename that is said to have failed may have been done all the same, where the answer was lost. */
int sim_disk_rename(int dir_fd, const char *from, int to_fd, const char *to, unsigned flags,
                    int fault)
{
    bool ours = is_disk(dir_fd) && is_disk(to_fd);
    struct file *file = ours ? file_named(dir_fd, from) : NULL;
    bool done = fault == 0 || (fault == -EIO && sim_chance(2000));
    long r = done ? syscall(SYS_renameat2, dir_fd, from, to_fd, to, flags) : 0;
    int res = r < 0 ? -errno : 0;
    sim_event("disk: a rename: %d, fault %d, %s", res, fault, done ? "done" : "not done");
    if (ours && fault < 0 && done)
        sim_disk_failures.of_directory++;
    else if (ours && fault < 0)
        sim_disk_failures.of_new++;
    if (file && done && res == 0) {
        change_names(from, to, file);
        tell_change();
    }
    return fault < 0 ? fault : res;
}

/* --- the calls that block ------------------------------------------------------------------------- */

static int fail_with(int res)
{
    if (res >= 0)
        return res;
    errno = -res;
    return -1;
}

static int fault_of(const int *refusals)
{
    return sim_refusal(refusals, sim.odds.blocking);
}

ssize_t pwrite(int fd, const void *bytes, size_t len, off_t offset)
{
    static const int refusals[] = {-EIO, -ENOSPC, -EDQUOT, -EINTR, SIM_SHORT, 0};
    if (!file_of(fd))
        return syscall(SYS_pwrite64, fd, bytes, len, offset);
    return fail_with(sim_disk_write(fd, bytes, len, (uint64_t)offset, fault_of(refusals)));
}

static const int sync_refusals[] = {-EIO, -ENOSPC, -EDQUOT, 0};

int fdatasync(int fd)
{
    if (!file_of(fd))
        return (int)syscall(SYS_fdatasync, fd);
    return fail_with(sim_disk_sync(fd, disk.now, fault_of(sync_refusals)));
}

int fsync(int fd)
{
    if (!file_of(fd) && !is_disk(fd))
        return (int)syscall(SYS_fsync, fd);
    return fail_with(sim_disk_sync(fd, disk.now, fault_of(sync_refusals)));
}

int ftruncate(int fd, off_t len)
{
    static const int refusals[] = {-EIO, -EINTR, 0};
    struct file *file = file_of(fd);
    int fault = file ? fault_of(refusals) : 0;
    if (fault < 0)
        return fail_with(fault);
    int r = (int)syscall(SYS_ftruncate, fd, len);
    if (r == 0 && file && (uint64_t)len != file->len) {
        note_length(file, (uint64_t)len);
        sim_event("disk: cut at %llu", (unsigned long long)len);
        tell_change();
    }
    return r;
}

int fallocate(int fd, int mode, off_t offset, off_t len)
{
    static const int refusals[] = {-ENOSPC, -EDQUOT, -EIO, -EINTR, 0};
    int fault = file_of(fd) ? sim_refusal(refusals, sim.odds.no_room) : 0;
    return fail_with(sim_disk_reserve(fd, mode, (uint64_t)offset, (uint64_t)len, fault));
}

int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
    static const int refusals[] = {-EIO, -ENOSPC, -EDQUOT, -ENOMEM, 0};
    int fault = is_disk(from_fd) ? fault_of(refusals) : 0;
    return fail_with(sim_disk_rename(from_fd, from, to_fd, to, flags, fault));
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    return renameat2(from_fd, from, to_fd, to, 0);
}

int unlinkat(int fd, const char *text, int flags)
{
    int r = (int)syscall(SYS_unlinkat, fd, text, flags);
    if (r == 0 && is_disk(fd) && find_name(disk.names, text)) {
        change_names(text, "", NULL);
        sim_event("disk: %s is removed", text);
        tell_change();
    }
    return r;
}
