/* A stand-in for libnvidia-ml.so.1 that the unmodified Python binding drives; host.h says how it is scripted. */
#define _GNU_SOURCE
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

#include "host.h"

enum { /* nvmlReturn_t, the ones used here */
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9, TIMEOUT = 10, GPU_IS_LOST = 15
};
enum { LOOK_MS = 20 }; /* without a watch the script is looked at so often */
enum { XID = 8 };                                     /* nvmlEventTypeXidCriticalError */
enum { SW_POWER_CAP = 4, ALL_REASONS = 0x1ff };       /* nvmlClocksEventReasons */
enum { UNSIGNED_INT = 1, UNSIGNED_LONG_LONG = 3 };    /* nvmlValueType_t */

const struct codes codes = {INVALID_ARGUMENT, DRIVER_NOT_LOADED, UNINITIALIZED, GPU_IS_LOST};
const struct word words[] = {
    {"uninitialized", 1}, {"invalid_argument", 2}, {"not_supported", 3}, {"no_permission", 4}, {"not_found", 6},
    {"driver_not_loaded", 9}, {"timeout", 10}, {"function_not_found", 13}, {"gpu_is_lost", 15}, {"reset_required", 16},
    {"operating_system", 17}, {"version_mismatch", 18}, {"in_use", 19}, {"memory", 20}, {"unknown", 999},
    {"passthrough", 1}, {"vgpu", 2}, {"host_vgpu", 3}, {"host_vsga", 4}, /* nvmlGpuVirtualizationMode_t */
    {0, 0},
};

typedef struct { /* nvmlFieldValue_t */
    uint32_t field, scope;
    int64_t timestamp_us, latency_us;
    uint32_t type, status;
    union { double d; uint32_t ui; uint64_t ull; } value;
} field_value;
typedef struct { /* nvmlPciInfo_t */
    char legacy[16];
    uint32_t domain, bus, device, pci_id, subsystem_id;
    char id[32];
} pci_info;
typedef struct { /* nvmlProcessInfo_t, versions 2 and 3 */
    uint32_t pid;
    uint64_t memory;
    uint32_t instance, compute;
} process_info;
typedef struct { /* nvmlEventData_t */
    void *device;
    uint64_t type, data;
    uint32_t instance, compute;
} event_data;
struct event_set {
    int watch; /* says when a file beside the script was written or renamed; -1: there are too many such watches */
    struct { struct handle *handle; char uuid[80]; uint32_t xids; } gpus[MAX_GPUS];
};

/* ---- library ---- */

int nvmlInitWithFlags(unsigned flags) { return (void)flags, host_open(__func__); }
int nvmlShutdown(void) { return host_close(); }

const char *nvmlErrorString(int status) {
    static _Thread_local char text[32];
    snprintf(text, sizeof text, "Fake error %d", status);
    return text;
}

static int text_out(const char *text, char *out, unsigned length) {
    if (strlen(text) >= length) return INSUFFICIENT_SIZE;
    strcpy(out, text);
    return SUCCESS;
}

static _Thread_local struct script script;
#define LOOK                                    \
    int looked_ = host_look(__func__, &script); \
    if (looked_) return looked_;

int nvmlSystemGetDriverVersion(char *out, unsigned length) { LOOK return text_out(script.driver, out, length); }
int nvmlDeviceGetCount_v2(unsigned *count) { LOOK return *count = script.count, SUCCESS; }

/* ---- identity ---- */

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    LOOK
    if (index >= script.count) return INVALID_ARGUMENT;
    return (*device = host_handle(script.gpus[index].uuid)) ? SUCCESS : INVALID_ARGUMENT;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    LOOK
    return (*device = host_handle(uuid)) ? SUCCESS : NOT_FOUND;
}

int nvmlDeviceGetIndex(void *device, unsigned *out) {
    CALL(device)
    LOOK
    for (*out = 0; *out < script.count; ++*out)
        if (strcmp(script.gpus[*out].uuid, g->uuid) == 0) return SUCCESS;
    return GPU_IS_LOST;
}

int nvmlDeviceGetPciInfo_v3(void *device, pci_info *out) {
    CALL(device)
    memset(out, 0, sizeof *out);
    memcpy(out->id, g->bus, sizeof out->id);
    return sscanf(g->bus, "%x:%x:%x", &out->domain, &out->bus, &out->device) == 3 ? SUCCESS : INVALID_ARGUMENT;
}

int nvmlDeviceGetUUID(void *device, char *out, unsigned n) { CALL(device) return text_out(g->uuid, out, n); }
int nvmlDeviceGetName(void *device, char *out, unsigned n) { CALL(device) return text_out(g->name, out, n); }

/* ---- one value each ---- */

#define GETTER(function, type, expression)  \
    int function(void *device, type *out) { \
        CALL(device)                        \
        *out = expression;                  \
        return SUCCESS;                     \
    }
GETTER(nvmlDeviceGetMinorNumber, unsigned, g->minor)
GETTER(nvmlDeviceGetPersistenceMode, unsigned, g->persistence)
GETTER(nvmlDeviceGetVirtualizationMode, unsigned, g->virtualization)
GETTER(nvmlDeviceGetPowerManagementLimit, unsigned, s->requested_mw)
GETTER(nvmlDeviceGetPowerManagementDefaultLimit, unsigned, g->default_mw ? g->default_mw : g->ceiling_mw)
GETTER(nvmlDeviceGetEnforcedPowerLimit, unsigned, host_enforced_mw(g, s))
GETTER(nvmlDeviceGetPowerUsage, unsigned, host_draw_mw(g, s))
GETTER(nvmlDeviceGetTotalEnergyConsumption, unsigned long long, host_energy_uj(g, s) / 1000)
GETTER(nvmlDeviceGetSupportedEventTypes, unsigned long long, XID)
GETTER(nvmlDeviceGetSupportedClocksEventReasons, unsigned long long, ALL_REASONS)
GETTER(nvmlDeviceGetCurrentClocksEventReasons, unsigned long long, g->reasons | (host_capped(g, s) ? SW_POWER_CAP : 0))
GETTER(nvmlDeviceGetCurrentClocksThrottleReasons, unsigned long long,
       g->reasons | (host_capped(g, s) ? SW_POWER_CAP : 0))

int nvmlDeviceGetClockInfo(void *device, int kind, unsigned *out) {
    CALL(device)
    return kind == 1 ? (*out = host_clock_mhz(g, s), SUCCESS) : INVALID_ARGUMENT; /* NVML_CLOCK_SM */
}

int nvmlDeviceGetMigMode(void *device, unsigned *now, unsigned *pending) {
    CALL(device)
    return *now = *pending = g->mig, SUCCESS;
}

static void one_field(const struct gpu *g, struct slot *s, field_value *v) {
    v->status = v->field < FIELDS ? g->fields[v->field] : INVALID_ARGUMENT;
    v->type = UNSIGNED_INT;
    v->value.ull = 0;
    if (v->status) return;
    switch (v->field) {
    case 83: v->type = UNSIGNED_LONG_LONG; v->value.ull = host_energy_uj(g, s) / 1000; break;
    case 185: case 186: v->value.ui = host_draw_mw(g, s); break;
    case 190: v->value.ui = host_enforced_mw(g, s); break;
    case 192: v->value.ui = s->requested_mw; break;
    default: v->status = NOT_SUPPORTED;
    }
}

int nvmlDeviceGetFieldValues(void *device, int count, field_value *values) {
    CALL(device)
    for (int i = 0; i < count; i++) one_field(g, s, &values[i]);
    return SUCCESS;
}

static int processes(const struct gpu *g, unsigned *count, process_info *out) {
    unsigned room = *count;
    *count = g->pids.count;
    if (*count > room || (out == NULL && *count)) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < *count; i++) out[i] = (process_info){g->pids.items[i], 0, -1, -1};
    return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, process_info *out) {
    CALL(device)
    return processes(g, count, out);
}

int nvmlDeviceGetComputeRunningProcesses_v2(void *device, unsigned *count, process_info *out) {
    CALL(device)
    return processes(g, count, out);
}

/* ---- limit ---- */

int nvmlDeviceGetPowerManagementLimitConstraints(void *device, unsigned *floor_mw, unsigned *ceiling_mw) {
    CALL(device)
    *floor_mw = g->floor_mw;
    *ceiling_mw = g->ceiling_mw;
    return SUCCESS;
}

int nvmlDeviceSetPowerManagementLimit(void *device, unsigned limit_mw) {
    CALL(device)
    if (limit_mw < g->floor_mw || limit_mw > g->ceiling_mw) return INVALID_ARGUMENT;
    host_set(g, s, limit_mw);
    return SUCCESS;
}

/* ---- events ---- */

int nvmlEventSetCreate(struct event_set **set) {
    LOOK
    char folder[4096];
    snprintf(folder, sizeof folder, "%s", host_script_path());
    char *slash = strrchr(folder, '/');
    struct event_set *made = *set = calloc(1, sizeof *made);
    made->watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (slash) *slash = 0;
    inotify_add_watch(made->watch, slash ? folder : ".", IN_CLOSE_WRITE | IN_MOVED_TO);
    return SUCCESS;
}

int nvmlEventSetFree(struct event_set *set) {
    if (set->watch >= 0) close(set->watch);
    free(set);
    return SUCCESS;
}

/* What is in the list already has been reported to whoever listened then. */
int nvmlDeviceRegisterEvents(void *device, unsigned long long types, struct event_set *set) {
    CALL(device)
    if (types != XID) return NOT_SUPPORTED;
    for (int i = 0; i < MAX_GPUS; i++)
        if (set->gpus[i].uuid[0] == 0 || strcmp(set->gpus[i].uuid, g->uuid) == 0) {
            set->gpus[i].handle = device;
            set->gpus[i].xids = g->xids.count;
            memcpy(set->gpus[i].uuid, g->uuid, sizeof g->uuid);
            return SUCCESS;
        }
    return INVALID_ARGUMENT;
}

static int next_xid(struct event_set *set, event_data *out) {
    for (int i = 0; i < MAX_GPUS && set->gpus[i].uuid[0]; i++)
        for (uint32_t k = 0; k < script.count; k++) {
            const struct gpu *g = &script.gpus[k];
            if (strcmp(g->uuid, set->gpus[i].uuid) != 0) continue;
            if (set->gpus[i].xids > g->xids.count) set->gpus[i].xids = g->xids.count;
            if (set->gpus[i].xids == g->xids.count) continue;
            *out = (event_data){set->gpus[i].handle, XID, g->xids.items[set->gpus[i].xids++], -1, -1};
            return 1;
        }
    return 0;
}

int nvmlEventSetWait_v2(struct event_set *set, event_data *out, unsigned timeout_ms) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t end_ms = now.tv_sec * 1000LL + now.tv_nsec / 1000000 + timeout_ms;
    for (char said[4096];;) {
        {
            LOOK
            if (next_xid(set, out)) return SUCCESS;
        }
        clock_gettime(CLOCK_MONOTONIC, &now);
        int64_t left_ms = end_ms - now.tv_sec * 1000LL - now.tv_nsec / 1000000;
        struct pollfd until = {set->watch, POLLIN, 0};
        if (left_ms <= 0) return TIMEOUT;
        poll(&until, 1, set->watch < 0 && left_ms > LOOK_MS ? LOOK_MS : left_ms);
        while (read(set->watch, said, sizeof said) > 0) {} /* what it says does not matter, the script is read anyway */
    }
}
