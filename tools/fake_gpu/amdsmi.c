/* A stand-in for libamd_smi.so that the unmodified Python package amdsmi drives; host.h says how it is scripted.
 *
 * The package looks up every function of the library when it is imported; those that are not here come from stubs that
 * `build` makes out of the package itself, and answer AMDSMI_STATUS_NOT_SUPPORTED. Power caps are in microwatts, draw
 * is in watts, energy in units of 15.3 microjoules, as in the library. Structs are laid out as in amdsmi_wrapper.py.
 */
#include <stdio.h>
#include <string.h>

#include "host.h"

enum { SUCCESS = 0, INVAL = 1, NOT_SUPPORTED = 2, NOT_FOUND = 31, NOT_INIT = 32, DRIVER_NOT_LOADED = 34 };
enum { PARTS_SET_NOTHING = NOT_SUPPORTED, UW_PER_MW = 1000 };

const struct codes codes = {INVAL, DRIVER_NOT_LOADED, NOT_INIT, NOT_FOUND};
const struct word words[] = {
    {"inval", 1}, {"not_supported", 2}, {"not_yet_implemented", 3}, {"drm_error", 6}, {"no_perm", 10}, {"io", 12},
    {"busy", 30}, {"not_found", 31}, {"not_init", 32}, {"driver_not_loaded", 34}, {"no_data", 40},
    {"bare_metal", 1}, {"host", 2}, {"guest", 3}, {"passthrough", 4}, /* amdsmi_virtualization_mode_t */
    {0, 0},
};

typedef struct { uint32_t major, minor, release; const char *build; } version;
typedef struct { uint64_t power_cap, default_cap, dpm_cap, min_cap, max_cap, reserved[3]; } power_cap_info;
typedef struct {
    uint64_t socket_w;
    uint32_t current_w, average_w;
    uint64_t voltages_mv[3];
    uint32_t limit_w;
    uint64_t reserved[18];
} power_info;
typedef struct { uint32_t clk, min, max; uint8_t locked, deep_sleep; uint32_t reserved[4]; } clk_info;
typedef struct { char version[256], date[256], name[256]; } driver_info;
typedef struct {
    char market_name[256];
    uint32_t vendor;
    char vendor_name[256];
    uint32_t subvendor;
    uint64_t device;
    uint32_t revision;
    char serial[256];
    uint32_t oam, units;
    uint64_t graphics_version;
    uint32_t subsystem, reserved[21];
} asic_info;
typedef struct { uint64_t id; uint32_t node, partition, reserved[12]; } kfd_info;
typedef struct { uint32_t render, card, hsa, hip; char uuid[256]; } enumeration_info;
typedef struct {
    char name[256];
    uint32_t pid;
    uint64_t memory;
    struct { uint64_t gfx, enc; uint32_t reserved[12]; } engines;
    struct { uint64_t gtt, cpu, vram; uint32_t reserved[10]; } memories;
    char container[256];
    uint32_t occupancy, reserved[11];
} process_info;
typedef struct {
    uint64_t counters[15];
    uint8_t prochot, power, socket, regulator, memory, clock;
    uint64_t per_die[8][64];
    uint8_t active_per_die[4][64];
    uint64_t reserved[3][64];
} violations;

static _Thread_local struct script script;
#define LOOK                                    \
    int looked_ = host_look(__func__, &script); \
    if (looked_) return looked_;

/* ---- library ---- */

int amdsmi_init(uint64_t flags) { return (void)flags, host_open(__func__); }
int amdsmi_shut_down(void) { return host_close(); }

int amdsmi_get_lib_version(version *out) {
    LOOK
    *out = (version){26, 0, 2, "fake"};
    sscanf(script.driver, "lib %u", &out->major); /* `driver = lib 27` is a library of another major version */
    return SUCCESS;
}

/* One socket holds all. */
int amdsmi_get_socket_handles(uint32_t *count, void **out) {
    LOOK
    if (out != NULL) out[0] = &script;
    return *count = 1, SUCCESS;
}

int amdsmi_get_processor_handles(void *socket, uint32_t *count, void **out) {
    (void)socket;
    LOOK
    *count = script.count;
    for (uint32_t i = 0; out != NULL && i < script.count; i++) out[i] = host_handle(script.gpus[i].uuid);
    return SUCCESS;
}

/* ---- identity ---- */

static void text_out(char out[256], const char *text) { snprintf(out, 256, "%.255s", text); }

int amdsmi_get_gpu_device_uuid(void *device, uint32_t *length, char *out) {
    CALL(device)
    return snprintf(out, *length, "%s", g->uuid), SUCCESS;
}

int amdsmi_get_gpu_device_bdf(void *device, uint64_t *out) {
    CALL(device)
    unsigned domain, bus, slot, function;
    if (sscanf(g->bus, "%x:%x:%x.%x", &domain, &bus, &slot, &function) != 4) return INVAL;
    return *out = (uint64_t)domain << 16 | bus << 8 | slot << 3 | function, SUCCESS;
}

int amdsmi_get_gpu_asic_info(void *device, asic_info *out) {
    CALL(device)
    memset(out, 0, sizeof *out);
    text_out(out->market_name, g->name);
    return SUCCESS;
}

int amdsmi_get_gpu_driver_info(void *device, driver_info *out) {
    CALL(device)
    LOOK
    memset(out, 0, sizeof *out);
    text_out(out->version, script.driver);
    return SUCCESS;
}

int amdsmi_get_gpu_kfd_info(void *device, kfd_info *out) {
    CALL(device)
    memset(out, 0, sizeof *out);
    return out->partition = g->partition, SUCCESS;
}

int amdsmi_get_gpu_enumeration_info(void *device, enumeration_info *out) {
    CALL(device)
    memset(out, 0, sizeof *out);
    return out->render = 128 + g->minor, SUCCESS;
}

int amdsmi_get_gpu_virtualization_mode(void *device, uint32_t *out) {
    CALL(device)
    return *out = g->virtualization, SUCCESS;
}

/* ---- limit ---- */

int amdsmi_get_power_cap_info(void *device, uint32_t sensor, power_cap_info *out) {
    CALL(device)
    if (sensor != 0) return INVAL;
    memset(out, 0, sizeof *out);
    out->power_cap = (uint64_t)host_enforced_mw(g, s) * UW_PER_MW;
    out->default_cap = (uint64_t)(g->default_mw ? g->default_mw : g->ceiling_mw) * UW_PER_MW;
    out->min_cap = (uint64_t)g->floor_mw * UW_PER_MW;
    out->max_cap = (uint64_t)g->ceiling_mw * UW_PER_MW;
    return SUCCESS;
}

int amdsmi_set_power_cap(void *device, uint32_t sensor, uint64_t cap_uw) {
    CALL(device)
    uint64_t limit_mw = cap_uw / 1000000 * 1000; /* the kernel driver knows whole watts */
    if (g->partition) return PARTS_SET_NOTHING;
    if (sensor != 0 || limit_mw < g->floor_mw || limit_mw > g->ceiling_mw) return INVAL;
    host_set(g, s, limit_mw);
    return SUCCESS;
}

/* ---- what it does ---- */

int amdsmi_get_power_info(void *device, power_info *out) {
    CALL(device)
    uint32_t draw_w = host_draw_mw(g, s) / 1000;
    memset(out, 0, sizeof *out);
    out->socket_w = out->current_w = draw_w;
    out->average_w = UINT32_MAX;
    if (g->fields[0]) out->average_w = draw_w, out->current_w = UINT32_MAX; /* `field_0 = 1`: MI200 and before */
    out->limit_w = host_enforced_mw(g, s) / 1000;
    return SUCCESS;
}

int amdsmi_get_energy_count(void *device, uint64_t *count, float *resolution_uj, uint64_t *at_ns) {
    CALL(device)
    *resolution_uj = 15.3f;
    *count = (uint64_t)(host_energy_uj(g, s) / 15.3);
    *at_ns = s->at_ns;
    return SUCCESS;
}

int amdsmi_get_clock_info(void *device, int kind, clk_info *out) {
    CALL(device)
    memset(out, 0, sizeof *out);
    return kind == 0 ? (out->clk = host_clock_mhz(g, s), SUCCESS) : INVAL; /* AMDSMI_CLK_TYPE_GFX */
}

/* `reasons` as in the NVML fake: 0x04 power cap, 0x20 and 0x40 heat, 0x80 power brake. */
int amdsmi_get_violation_status(void *device, violations *out) {
    CALL(device)
    memset(out, 0, sizeof *out);
    out->power = host_capped(g, s) || g->reasons & 0x04;
    out->socket = !!(g->reasons & 0x20);
    out->memory = !!(g->reasons & 0x40);
    out->prochot = !!(g->reasons & 0x80);
    out->regulator = UINT8_MAX; /* not told */
    return SUCCESS;
}

int amdsmi_get_gpu_process_list(void *device, uint32_t *count, process_info *out) {
    CALL(device)
    uint32_t room = *count;
    *count = g->pids.count;
    for (uint32_t i = 0; i < *count && i < room; i++) {
        memset(&out[i], 0, sizeof out[i]);
        out[i].pid = g->pids.items[i];
    }
    return SUCCESS;
}
