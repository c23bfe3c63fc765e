/* A stand-in for libnvidia-ml.so.1 that the unmodified Python binding drives and a test scripts.
 *
 * The GPUs live in the file that FAKE_NVML_STATE names, mapped shared: a test changes a field and the very next call,
 * in whatever process, behaves so. Every limit that takes effect is appended to the file that FAKE_NVML_RECORD names.
 * The layout of the two structs is mirrored in __init__.py; the byte counts in the header are compared at every init.
 *
 * To add a function: write it in the section it belongs to, begin it with GPU(device), read or write the mapped struct.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MAX_GPUS = 16, FIELDS = 256 };
enum { /* nvmlReturn_t, the ones used here */
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9, VERSION_MISMATCH = 25
};

struct gpu {
    char uuid[80], name[80];
    uint32_t floor_mw, ceiling_mw;
    uint32_t requested_mw; /* what user space last asked for and the driver took, after rounding */
    uint32_t cap_mw;       /* held from outside, by a BMC say: never enforce more than this; 0 is none */
    uint32_t step_mw;      /* a limit is rounded down to a multiple of this; 0 is exact */
    uint32_t demand_mw;    /* what the load would draw without a limit */
    uint32_t excess_mw;    /* drawn above what is allowed, by a GPU that does not obey */
    uint32_t fault;        /* every call on this GPU answers this status; 0 is none */
    uint32_t set_fault;    /* setting a limit answers this status and changes nothing */
    uint32_t sticks;       /* setting a limit answers success and changes nothing */
    uint32_t fields_fault; /* nvmlDeviceGetFieldValues as a whole answers this status */
    uint32_t legacy_fault; /* the getters with one value each answer this status */
    uint32_t delay_ms;     /* every call on this GPU takes this long */
    uint8_t field_fault[FIELDS]; /* the status of one value of nvmlDeviceGetFieldValues, by field number */
    uint32_t persistence;
    uint64_t energy_mj;
};

struct state {
    uint32_t state_bytes, gpu_bytes;
    uint32_t count, init_fault;
    char driver[80];
    struct gpu gpus[MAX_GPUS];
};

typedef struct { /* nvmlFieldValue_t */
    uint32_t field, scope;
    int64_t timestamp_us, latency_us;
    uint32_t type, status;
    union { double d; uint32_t ui; uint64_t ull; } value;
} field_value;

static struct state *state;
static int users, record = -1;

/* ---- library ---- */

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    if (state != NULL && ++users) return SUCCESS;
    const char *path = getenv("FAKE_NVML_STATE"), *record_path = getenv("FAKE_NVML_RECORD");
    int fd = path ? open(path, O_RDWR) : -1;
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) return DRIVER_NOT_LOADED;
    if (st.st_size != sizeof(struct state)) return close(fd), VERSION_MISMATCH;
    struct state *map = mmap(NULL, sizeof(struct state), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (map == MAP_FAILED) return DRIVER_NOT_LOADED;
    int fault = map->init_fault;
    if (map->state_bytes != sizeof(struct state) || map->gpu_bytes != sizeof(struct gpu)) fault = VERSION_MISMATCH;
    if (fault) return munmap(map, sizeof(struct state)), fault;
    if (record_path) record = open(record_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    state = map;
    users = 1;
    return SUCCESS;
}

int nvmlShutdown(void) {
    if (state == NULL) return UNINITIALIZED;
    if (--users > 0) return SUCCESS;
    munmap(state, sizeof(struct state));
    if (record >= 0) close(record);
    state = NULL;
    record = -1;
    return SUCCESS;
}

const char *nvmlErrorString(int status) {
    static _Thread_local char text[32];
    snprintf(text, sizeof text, "Fake error %d", status);
    return text;
}

/* ---- what the calls share ---- */

static int text_out(const char *text, char *out, unsigned length) {
    if (strlen(text) >= length) return INSUFFICIENT_SIZE;
    strcpy(out, text);
    return SUCCESS;
}

static int answer(struct gpu *g) {
    if (state == NULL) return UNINITIALIZED;
    if (g < state->gpus || g >= state->gpus + state->count) return INVALID_ARGUMENT;
    struct timespec delay = {g->delay_ms / 1000, g->delay_ms % 1000 * 1000000L};
    if (g->delay_ms) nanosleep(&delay, NULL);
    return g->fault;
}

#define GPU(device)         \
    struct gpu *g = device; \
    int fault_ = answer(g); \
    if (fault_) return fault_;

static uint32_t enforced_mw(const struct gpu *g, uint32_t requested_mw) {
    return g->cap_mw && g->cap_mw < requested_mw ? g->cap_mw : requested_mw;
}

static uint32_t draw_mw(const struct gpu *g) {
    uint32_t limit_mw = enforced_mw(g, g->requested_mw);
    return (g->demand_mw < limit_mw ? g->demand_mw : limit_mw) + g->excess_mw;
}

static void append(const struct gpu *g, unsigned asked_mw, uint32_t requested_mw) {
    struct timespec now;
    char line[160];
    clock_gettime(CLOCK_MONOTONIC, &now);
    int n = snprintf(line, sizeof line, "%lld %s %u %u\n", now.tv_sec * 1000000000LL + now.tv_nsec, g->uuid, asked_mw,
                     enforced_mw(g, requested_mw));
    if (record >= 0 && write(record, line, n) != n) abort(); /* a record with holes proves nothing */
}

/* ---- driver and identity ---- */

int nvmlSystemGetDriverVersion(char *out, unsigned length) {
    return state ? text_out(state->driver, out, length) : UNINITIALIZED;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    if (state == NULL) return UNINITIALIZED;
    *count = state->count;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    if (state == NULL) return UNINITIALIZED;
    if (index >= state->count) return INVALID_ARGUMENT;
    *device = &state->gpus[index];
    return SUCCESS;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    if (state == NULL) return UNINITIALIZED;
    for (uint32_t i = 0; i < state->count; i++)
        if (strcmp(state->gpus[i].uuid, uuid) == 0) return *device = &state->gpus[i], SUCCESS;
    return NOT_FOUND;
}

int nvmlDeviceGetIndex(void *device, unsigned *out) { GPU(device) return *out = g - state->gpus, SUCCESS; }
int nvmlDeviceGetUUID(void *device, char *out, unsigned length) { GPU(device) return text_out(g->uuid, out, length); }
int nvmlDeviceGetName(void *device, char *out, unsigned length) { GPU(device) return text_out(g->name, out, length); }
int nvmlDeviceGetPersistenceMode(void *device, unsigned *out) { GPU(device) return *out = g->persistence, SUCCESS; }

/* ---- limit ---- */

int nvmlDeviceGetPowerManagementLimitConstraints(void *device, unsigned *floor_mw, unsigned *ceiling_mw) {
    GPU(device)
    *floor_mw = g->floor_mw;
    *ceiling_mw = g->ceiling_mw;
    return SUCCESS;
}

int nvmlDeviceSetPowerManagementLimit(void *device, unsigned limit_mw) {
    GPU(device)
    if (g->set_fault) return g->set_fault;
    if (limit_mw < g->floor_mw || limit_mw > g->ceiling_mw) return INVALID_ARGUMENT;
    if (g->sticks) return SUCCESS;
    uint32_t next_mw = g->step_mw ? limit_mw - limit_mw % g->step_mw : limit_mw, before_mw = g->requested_mw;
    /* A caller may be killed between the two: the record must never show less than the device does. */
    if (next_mw >= before_mw) append(g, limit_mw, next_mw);
    g->requested_mw = next_mw;
    if (next_mw < before_mw) append(g, limit_mw, next_mw);
    return SUCCESS;
}

/* ---- one value each: the older getters, and nvmlDeviceGetFieldValues ---- */

#define GETTER(function, type, expression)           \
    int function(void *device, type *out) {          \
        GPU(device)                                  \
        if (g->legacy_fault) return g->legacy_fault; \
        *out = expression;                           \
        return SUCCESS;                              \
    }
GETTER(nvmlDeviceGetPowerManagementLimit, unsigned, g->requested_mw)
GETTER(nvmlDeviceGetPowerManagementDefaultLimit, unsigned, g->ceiling_mw)
GETTER(nvmlDeviceGetEnforcedPowerLimit, unsigned, enforced_mw(g, g->requested_mw))
GETTER(nvmlDeviceGetPowerUsage, unsigned, draw_mw(g))
GETTER(nvmlDeviceGetTotalEnergyConsumption, unsigned long long, g->energy_mj)

enum { UNSIGNED_INT = 1, UNSIGNED_LONG_LONG = 3 }; /* nvmlValueType_t */

static void one_field(struct gpu *g, field_value *v) {
    v->status = v->field < FIELDS ? g->field_fault[v->field] : NOT_SUPPORTED;
    v->type = UNSIGNED_INT;
    v->value.ull = 0;
    if (v->status) return;
    switch (v->field) {
    case 83: v->type = UNSIGNED_LONG_LONG; v->value.ull = g->energy_mj; break;
    case 186: v->value.ui = draw_mw(g); break;
    case 190: v->value.ui = enforced_mw(g, g->requested_mw); break;
    case 192: v->value.ui = g->requested_mw; break;
    default: v->status = NOT_SUPPORTED;
    }
}

int nvmlDeviceGetFieldValues(void *device, int count, field_value *values) {
    GPU(device)
    if (g->fields_fault) return g->fields_fault;
    for (int i = 0; i < count; i++) one_field(g, &values[i]);
    return SUCCESS;
}
