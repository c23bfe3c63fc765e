/* What the fake libraries share: GPUs that a text file scripts, and that forget nothing while processes come and go.
 *
 * FAKE_GPU_SCRIPT names the script; `python -m tools.fake_gpu` explains its keys. It is read again whenever it has
 * changed: the very next call, in whatever process, behaves by it. Beside it lie
 *   SCRIPT.live    what the driver itself remembers: limits, energy; mapped shared by every process. The two structs
 *                  are mirrored in __init__.py, and the byte count in the header is compared when it is opened
 *   SCRIPT.record  one line for each limit that took effect: nanoseconds of CLOCK_MONOTONIC, GPU, limit asked, limit
 *                  enforced, pid of the writer; pid 0 is the script: a foreign write, a driver that was reloaded
 *
 * To add a function to a library: begin it with CALL(device), answer from *g (the script) and *s (the memory).
 */
#ifndef FAKE_GPU_HOST_H
#define FAKE_GPU_HOST_H

#include <stdint.h>

enum { MAX_GPUS = 16, MAX_LIST = 128, MAX_ANSWERS = 24, FIELDS = 512 };

struct list {
    uint32_t count, items[MAX_LIST];
};

struct answer {
    char function[56];
    uint32_t status;
};

struct gpu { /* one section of the script; the keys are the names */
    char uuid[80], name[80], bus[32];
    uint32_t minor;
    uint32_t floor_mw, ceiling_mw;
    uint32_t default_mw;  /* the limit that a fresh driver starts with; 0: the ceiling */
    uint32_t cap_mw;      /* held from outside, by a BMC say: never enforce more than this; 0 is none */
    uint32_t step_mw;     /* a limit is rounded to a multiple of this; 0 is exact */
    uint32_t round_up;    /* ... upwards */
    uint32_t sticks;      /* setting a limit answers success and changes nothing */
    uint32_t demand_mw;   /* what the load would draw without a limit */
    uint32_t excess_mw;   /* drawn above what is allowed, by a GPU that does not obey */
    uint32_t clock_mhz;   /* of the processors, without a limit in the way */
    uint32_t reasons;     /* bits of nvmlClocksEventReasons, besides the power cap that follows from the draw */
    uint32_t persistence, mig, virtualization, partition;
    uint32_t lost;        /* every call answers that the GPU is lost, and old handles stay lost when it is back */
    uint32_t delay_ms;    /* every call takes this long, before it does anything */
    uint32_t delay_us;    /* ... and this long */
    uint32_t busy_us;     /* ... and keeps the processor busy for this long, as a driver that polls its GPU does */
    uint32_t set_delay_ms; /* setting a limit takes this long, after the limit is in force */
    uint64_t energy_mj;   /* a counter that stands still; UINT64_MAX: it counts what is drawn */
    struct list pids;     /* what computes on it */
    struct list xids;     /* each number that is added at the end is reported once */
    struct list foreign_mw; /* each limit that is added at the end is set once, by somebody else */
    uint16_t fields[FIELDS]; /* the status of one value of nvmlDeviceGetFieldValues, by field number */
    uint32_t answer_count;
    struct answer answers[MAX_ANSWERS]; /* what a function answers instead of doing its work */
};

struct script {
    char driver[80];
    uint32_t loaded; /* 0: there is no driver */
    uint32_t loads;  /* more: it was unloaded and loaded again, limits and counters start anew */
    uint32_t answer_count;
    struct answer answers[MAX_ANSWERS]; /* what holds for every GPU, and for calls on none */
    uint32_t count;
    struct gpu gpus[MAX_GPUS]; /* in the order of their indices */
    uint32_t version; /* another in each reading of the file; a copy of this one need not be made again */
};

struct slot { /* what the driver remembers of one GPU */
    char uuid[80];
    uint32_t requested_mw; /* what user space last asked for and the driver took, after rounding */
    uint32_t loads, foreign; /* what was seen of the script: its loads, how many limits of somebody else */
    uint64_t energy_uj, at_ns;
    uint64_t polled_ns; /* processor time that calls have spent polling, whoever made them */
};

struct live {
    uint32_t bytes, slots;
    struct slot slot[MAX_GPUS];
};

struct word { /* a name for a number, for whoever writes a script */
    const char *name;
    uint32_t value;
};

/* Given by each library. */
extern const struct word words[];
extern const struct codes {
    int bad_argument, no_driver, uninitialized, lost;
} codes;

struct handle {
    uint32_t stale; /* the GPU was lost since this handle was given out */
    char uuid[80];
};

/* The session, counted like the real ones. Answers a status, `function` being what the script may call it. */
int host_open(const char *function);
int host_close(void);

/* Begin a call that is about no GPU: the status that is to be answered, else 0 and the script in *out,
 * which is what an earlier call left there, or zeros. */
int host_look(const char *function, struct script *out);

/* A handle for the GPU, or NULL. It works from now on, unless the GPU is lost. */
struct handle *host_handle(const char *uuid);

/* Begin a call on a GPU: the delay, the status that is to be answered, the script and the memory of it. */
int host_enter(void *device, const char *function, struct gpu *g, struct slot **s);
#define CALL(device)                                           \
    struct gpu gpu_, *g = &gpu_;                               \
    struct slot *s;                                            \
    int status_ = host_enter(device, __func__, g, &s);         \
    if (status_) return status_;                               \
    (void)s;

void host_set(const struct gpu *g, struct slot *s, uint32_t limit_mw);
uint32_t host_enforced_mw(const struct gpu *g, const struct slot *s);
uint32_t host_draw_mw(const struct gpu *g, const struct slot *s);
uint32_t host_clock_mhz(const struct gpu *g, const struct slot *s);
int host_capped(const struct gpu *g, const struct slot *s);
uint64_t host_energy_uj(const struct gpu *g, struct slot *s);
const char *host_script_path(void);

#endif
