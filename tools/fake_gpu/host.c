#define _GNU_SOURCE
#include "host.h"

#include <fcntl.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int users, live_fd = -1, record_fd = -1;
static uint32_t session_loads;
static struct live *live;
static struct script script, fresh;
static struct stat read_from; /* the file that `script` was read from, as it was then */
static struct handle handles[MAX_GPUS];
static char script_path[4000]; /* of this session */

/* ---- the script ---- */

static uint32_t number(const char *text, int line) {
    char *end;
    unsigned long value = strtoul(text, &end, 0);
    if (end != text && *end == 0) return value;
    if (strcmp(text, "yes") == 0) return 1;
    if (strcmp(text, "no") == 0) return 0;
    for (const struct word *w = words; w->name; w++)
        if (strcmp(text, w->name) == 0) return w->value;
    fprintf(stderr, "fake GPU: line %d of the script: no number is called %s\n", line, text);
    return 0;
}

static void numbers(struct list *list, char *text, int line) {
    list->count = 0;
    for (char *item, *rest = text; (item = strtok_r(rest, " ,\t", &rest)) && list->count < MAX_LIST;)
        list->items[list->count++] = number(item, line);
}

static void set_answer(struct answer *answers, uint32_t *count, const char *function, uint32_t status) {
    if (*count == MAX_ANSWERS) return;
    snprintf(answers[*count].function, sizeof answers->function, "%s", function);
    answers[(*count)++].status = status;
}

static int is_function(const char *key) { return !strncmp(key, "nvml", 4) || !strncmp(key, "amdsmi_", 7); }

#define KEY(name) {#name, offsetof(struct gpu, name)}
static const struct {
    const char *name;
    size_t at;
} keys[] = {
    KEY(minor), KEY(floor_mw), KEY(ceiling_mw), KEY(default_mw), KEY(cap_mw), KEY(step_mw),
    KEY(round_up), KEY(sticks), KEY(demand_mw), KEY(excess_mw), KEY(clock_mhz), KEY(reasons), KEY(persistence),
    KEY(mig), KEY(virtualization), KEY(partition), KEY(lost), KEY(delay_ms), KEY(delay_us), KEY(busy_us),
    KEY(set_delay_ms),
};

static void gpu_key(struct gpu *g, const char *key, char *value, int line) {
    unsigned field;
    if (strcmp(key, "name") == 0) snprintf(g->name, sizeof g->name, "%s", value);
    else if (strcmp(key, "bus") == 0) snprintf(g->bus, sizeof g->bus, "%s", value);
    else if (strcmp(key, "pids") == 0) numbers(&g->pids, value, line);
    else if (strcmp(key, "xids") == 0) numbers(&g->xids, value, line);
    else if (strcmp(key, "foreign_mw") == 0) numbers(&g->foreign_mw, value, line);
    else if (strcmp(key, "energy_mj") == 0) g->energy_mj = strtoull(value, NULL, 0);
    else if (sscanf(key, "field_%u", &field) == 1 && field < FIELDS) g->fields[field] = number(value, line);
    else if (is_function(key)) set_answer(g->answers, &g->answer_count, key, number(value, line));
    else {
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
            if (strcmp(key, keys[i].name) == 0) {
                *(uint32_t *)((char *)g + keys[i].at) = number(value, line);
                return;
            }
        fprintf(stderr, "fake GPU: line %d of the script: a GPU has no %s\n", line, key);
    }
}

static void host_key(const char *key, char *value, int line) {
    if (strcmp(key, "driver") == 0) snprintf(fresh.driver, sizeof fresh.driver, "%s", value);
    else if (strcmp(key, "loaded") == 0) fresh.loaded = number(value, line);
    else if (strcmp(key, "loads") == 0) fresh.loads = number(value, line);
    else if (is_function(key)) set_answer(fresh.answers, &fresh.answer_count, key, number(value, line));
    else fprintf(stderr, "fake GPU: line %d of the script: the host has no %s\n", line, key);
}

static void begin_gpu(const char *uuid) {
    struct gpu *g = &fresh.gpus[fresh.count];
    memset(g, 0, sizeof *g);
    snprintf(g->uuid, sizeof g->uuid, "%s", uuid);
    snprintf(g->name, sizeof g->name, "Fake GPU");
    snprintf(g->bus, sizeof g->bus, "00000000:%02X:00.0", fresh.count + 1);
    g->minor = fresh.count++;
    g->floor_mw = 100000;
    g->ceiling_mw = 700000;
    g->clock_mhz = 1980;
    g->persistence = 1;
    g->energy_mj = UINT64_MAX;
}

static char *stripped(char *text) {
    while (*text == ' ' || *text == '\t') text++;
    for (char *end = text + strlen(text); end > text && strchr(" \t\r\n", end[-1]);) *--end = 0;
    return text;
}

static void parse(char *text) {
    int line = 0;
    memset(&fresh, 0, sizeof fresh);
    snprintf(fresh.driver, sizeof fresh.driver, "999.42");
    fresh.loaded = fresh.loads = 1;
    for (char *rest = text, *row; (row = strsep(&rest, "\n"));) {
        line++;
        row[strcspn(row, "#")] = 0;
        row = stripped(row);
        char *equals = strchr(row, '=');
        if (*row == '[' && row[strlen(row) - 1] == ']' && fresh.count < MAX_GPUS) {
            row[strlen(row) - 1] = 0;
            begin_gpu(row + 1);
        } else if (equals) {
            *equals = 0;
            char *key = stripped(row), *value = stripped(equals + 1);
            if (fresh.count) gpu_key(&fresh.gpus[fresh.count - 1], key, value, line);
            else host_key(key, value, line);
        } else if (*row) fprintf(stderr, "fake GPU: line %d of the script is neither [GPU] nor key = value\n", line);
    }
}

const char *host_script_path(void) { return script_path; }

static int same_file(const struct stat *a, const struct stat *b) {
    return a->st_ino == b->st_ino && a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
           a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* ---- the memory of the driver ---- */

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

static struct slot *slot_of(const struct gpu *g) {
    for (uint32_t i = 0; i < live->slots; i++)
        if (strcmp(live->slot[i].uuid, g->uuid) == 0) return &live->slot[i];
    if (live->slots == MAX_GPUS) return NULL;
    struct slot *s = &live->slot[live->slots];
    memcpy(s->uuid, g->uuid, sizeof s->uuid);
    s->loads = s->foreign = s->requested_mw = 0;
    live->slots++;
    return s;
}

static void append(const struct gpu *g, uint32_t asked_mw, uint32_t enforced_mw, int pid) {
    char line[160];
    int n = snprintf(line, sizeof line, "%llu %s %u %u %d\n", (unsigned long long)now_ns(), g->uuid, asked_mw,
                     enforced_mw, pid);
    if (write(record_fd, line, n) != n) abort(); /* a record with holes proves nothing */
}

static uint32_t capped_mw(const struct gpu *g, uint32_t requested_mw) {
    return g->cap_mw && g->cap_mw < requested_mw ? g->cap_mw : requested_mw;
}

/* Counted as if the draw had been what it is now since somebody last looked, or set a limit. The caller holds the lock. */
static void count_energy(const struct gpu *g, struct slot *s) {
    uint64_t at_ns = now_ns();
    if (at_ns > s->at_ns) s->energy_uj += (at_ns - s->at_ns) * host_draw_mw(g, s) / 1000000;
    s->at_ns = at_ns;
}

/* The caller holds the lock. Whoever is killed in here leaves a record that never shows less than the device does. */
static void change(const struct gpu *g, struct slot *s, uint32_t asked_mw, uint32_t next_mw, int pid) {
    uint32_t before_mw = s->requested_mw;
    count_energy(g, s);
    if (next_mw >= before_mw) append(g, asked_mw, capped_mw(g, next_mw), pid);
    s->requested_mw = next_mw;
    if (next_mw < before_mw) append(g, asked_mw, capped_mw(g, next_mw), pid);
}

static void remember(const struct gpu *g, uint32_t loads) {
    struct slot *s = slot_of(g);
    if (s == NULL) return;
    uint32_t default_mw = g->default_mw ? g->default_mw : g->ceiling_mw;
    if (s->loads == 0) { /* a driver that nobody has used yet: no limit was ever set */
        s->requested_mw = default_mw;
        s->loads = loads;
        s->at_ns = now_ns();
    }
    if (s->loads != loads) {
        change(g, s, default_mw, default_mw, 0);
        s->loads = loads;
        s->energy_uj = 0;
    }
    for (; s->foreign < g->foreign_mw.count; s->foreign++) {
        uint32_t limit_mw = g->foreign_mw.items[s->foreign];
        change(g, s, limit_mw, limit_mw, 0);
    }
    s->foreign = g->foreign_mw.count;
}

/* Read the script again if it has changed, and say so; the caller holds the mutex. One that is away, or that an editor has just
 * emptied to write it anew, keeps its last word. */
static int refresh(void) {
    static uint32_t versions;
    struct stat st;
    if (stat(script_path, &st) != 0 || st.st_size == 0 || same_file(&st, &read_from)) return 0;
    int fd = open(script_path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    char *text = fstat(fd, &st) == 0 ? calloc(1, st.st_size + 1) : NULL;
    if (text == NULL) abort();
    ssize_t got = read(fd, text, st.st_size);
    close(fd);
    if (got <= 0) {
        free(text);
        return 0;
    }
    parse(text);
    free(text);
    flock(live_fd, LOCK_EX);
    for (uint32_t i = 0; i < fresh.count; i++) remember(&fresh.gpus[i], fresh.loads);
    flock(live_fd, LOCK_UN);
    fresh.version = ++versions;
    script = fresh;
    read_from = st;
    return 1;
}

static struct gpu *find(const char *uuid) {
    for (uint32_t i = 0; i < script.count; i++)
        if (strcmp(script.gpus[i].uuid, uuid) == 0) return &script.gpus[i];
    return NULL;
}

static void mark_stale(void) {
    for (int i = 0; i < MAX_GPUS && handles[i].uuid[0]; i++) {
        const struct gpu *g = find(handles[i].uuid);
        if (g == NULL || g->lost) handles[i].stale = 1;
    }
}

static void look(void) {
    if (refresh()) mark_stale();
}

static uint32_t answer_of(const struct answer *answers, uint32_t count, const char *function) {
    for (uint32_t i = 0; i < count; i++)
        if (strcmp(answers[i].function, function) == 0) return answers[i].status;
    return 0;
}

/* ---- the session ---- */

static int open_beside(const char *suffix, int flags) {
    char path[4096];
    snprintf(path, sizeof path, "%s%s", script_path, suffix);
    return open(path, flags | O_CREAT | O_CLOEXEC, 0600);
}

static int map_live(void) {
    live_fd = open_beside(".live", O_RDWR);
    record_fd = open_beside(".record", O_WRONLY | O_APPEND);
    if (live_fd < 0 || record_fd < 0) return codes.no_driver;
    struct stat st;
    flock(live_fd, LOCK_EX);
    if (fstat(live_fd, &st) == 0 && st.st_size == 0 && ftruncate(live_fd, sizeof *live) != 0) abort();
    int fits = fstat(live_fd, &st) == 0 && st.st_size == sizeof *live;
    live = fits ? mmap(NULL, sizeof *live, PROT_READ | PROT_WRITE, MAP_SHARED, live_fd, 0) : MAP_FAILED;
    if (live != MAP_FAILED && live->bytes == 0) live->bytes = sizeof *live;
    flock(live_fd, LOCK_UN);
    if (live == MAP_FAILED || live->bytes != sizeof *live) return codes.bad_argument;
    return 0;
}

static void unmap(void) {
    if (live != NULL && live != MAP_FAILED) munmap(live, sizeof *live);
    if (live_fd >= 0) close(live_fd);
    if (record_fd >= 0) close(record_fd);
    live = NULL;
    live_fd = record_fd = -1;
    users = 0;
    memset(&read_from, 0, sizeof read_from);
    memset(handles, 0, sizeof handles);
}

static int start(const char *function) {
    const char *path = getenv("FAKE_GPU_SCRIPT");
    if (path == NULL || access(path, R_OK) != 0) return codes.no_driver;
    snprintf(script_path, sizeof script_path, "%s", path);
    int status = map_live();
    if (status) return status;
    look();
    status = answer_of(script.answers, script.answer_count, function);
    if (status) return status;
    session_loads = script.loads;
    return script.loaded ? 0 : codes.no_driver;
}

int host_open(const char *function) {
    pthread_mutex_lock(&mutex);
    int status = users ? 0 : start(function);
    if (status) unmap();
    else users++;
    pthread_mutex_unlock(&mutex);
    return status;
}

int host_close(void) {
    pthread_mutex_lock(&mutex);
    int status = users ? 0 : codes.uninitialized;
    if (users && --users == 0) unmap();
    pthread_mutex_unlock(&mutex);
    return status;
}

static int session_status(void) {
    if (users == 0) return codes.uninitialized;
    look();
    if (!script.loaded) return codes.no_driver;
    return script.loads == session_loads ? 0 : codes.uninitialized;
}

int host_look(const char *function, struct script *out) {
    pthread_mutex_lock(&mutex);
    int status = session_status();
    if (status == 0) status = answer_of(script.answers, script.answer_count, function);
    if (status == 0 && out->version != script.version) *out = script;
    pthread_mutex_unlock(&mutex);
    return status;
}

struct handle *host_handle(const char *uuid) {
    struct handle *h = NULL;
    pthread_mutex_lock(&mutex);
    struct gpu *g = find(uuid);
    for (int i = 0; i < MAX_GPUS && g != NULL; i++) {
        if (handles[i].uuid[0] && strcmp(handles[i].uuid, uuid) != 0) continue;
        h = &handles[i];
        memcpy(h->uuid, g->uuid, sizeof h->uuid);
        h->stale = g->lost;
        break;
    }
    pthread_mutex_unlock(&mutex);
    return h;
}

static void poll_gpu(uint64_t lasts_ns, struct slot *s) {
    struct timespec begun, ended;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begun);
    for (uint64_t until_ns = now_ns() + lasts_ns; now_ns() < until_ns;) {}
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ended);
    uint64_t took_ns = (ended.tv_sec - begun.tv_sec) * 1000000000ULL + ended.tv_nsec - begun.tv_nsec;
    __atomic_fetch_add(&s->polled_ns, took_ns, __ATOMIC_RELAXED);
}

int host_enter(void *device, const char *function, struct gpu *g, struct slot **s) {
    struct handle *h = device;
    pthread_mutex_lock(&mutex);
    int status = session_status();
    if (status == 0 && (h < handles || h >= handles + MAX_GPUS || !h->uuid[0])) status = codes.bad_argument;
    if (status == 0) {
        struct gpu *found = find(h->uuid);
        if (found == NULL || h->stale) status = codes.lost;
        else *g = *found, *s = slot_of(found);
    }
    if (status == 0) status = answer_of(script.answers, script.answer_count, function);
    pthread_mutex_unlock(&mutex);
    if (status) return status;
    uint64_t sleep_ns = g->delay_ms * 1000000ULL + g->delay_us * 1000ULL;
    struct timespec delay = {sleep_ns / 1000000000, sleep_ns % 1000000000};
    if (sleep_ns) nanosleep(&delay, NULL);
    if (g->busy_us) poll_gpu(g->busy_us * 1000ULL, *s);
    return answer_of(g->answers, g->answer_count, function);
}

/* ---- what a GPU does ---- */

uint32_t host_enforced_mw(const struct gpu *g, const struct slot *s) { return capped_mw(g, s->requested_mw); }

int host_capped(const struct gpu *g, const struct slot *s) { return g->demand_mw > host_enforced_mw(g, s); }

uint32_t host_draw_mw(const struct gpu *g, const struct slot *s) {
    return (host_capped(g, s) ? host_enforced_mw(g, s) : g->demand_mw) + g->excess_mw;
}

/* Assumed: the clock falls in proportion to the power that is missing. */
uint32_t host_clock_mhz(const struct gpu *g, const struct slot *s) {
    return host_capped(g, s) ? (uint64_t)g->clock_mhz * host_enforced_mw(g, s) / g->demand_mw : g->clock_mhz;
}

static void lock(void) {
    pthread_mutex_lock(&mutex);
    flock(live_fd, LOCK_EX);
}

static void unlock(void) {
    flock(live_fd, LOCK_UN);
    pthread_mutex_unlock(&mutex);
}

uint64_t host_energy_uj(const struct gpu *g, struct slot *s) {
    if (g->energy_mj != UINT64_MAX) return g->energy_mj * 1000;
    lock();
    count_energy(g, s);
    uint64_t energy_uj = s->energy_uj;
    unlock();
    return energy_uj;
}

void host_set(const struct gpu *g, struct slot *s, uint32_t limit_mw) {
    if (g->sticks) return;
    uint32_t next_mw = limit_mw, over_mw = g->step_mw ? limit_mw % g->step_mw : 0;
    if (over_mw) next_mw += g->round_up ? g->step_mw - over_mw : -over_mw;
    lock();
    change(g, s, limit_mw, next_mw, getpid());
    unlock();
    struct timespec delay = {g->set_delay_ms / 1000, g->set_delay_ms % 1000 * 1000000L};
    if (g->set_delay_ms) nanosleep(&delay, NULL);
}
