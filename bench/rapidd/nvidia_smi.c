/* A stand-in for nvidia-smi, for what the loops of loop.sh ask of it: start NVML, look at every GPU or set limits, end.
 *
 *     nvidia-smi --query-gpu=index,enforced.power.limit,power.limit,power.draw --format=csv,noheader,nounits [-lms MS]
 *     nvidia-smi -i 0,3 -pl WATTS
 *
 * It is kinder than the real one, which maps a library of megabytes, attaches to every GPU of the host when it starts
 * NVML, and asks for far more than it prints.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void *library;

static void *function(const char *name) {
    void *found = dlsym(library, name);
    if (found == NULL) exit(12);
    return found;
}

static void must(int status) {
    if (status) exit(status & 0xff);
}

static void look(unsigned count, void **gpus) {
    int (*enforced)(void *, unsigned *) = function("nvmlDeviceGetEnforcedPowerLimit");
    int (*requested)(void *, unsigned *) = function("nvmlDeviceGetPowerManagementLimit");
    int (*draw)(void *, unsigned *) = function("nvmlDeviceGetPowerUsage");
    for (unsigned i = 0; i < count; i++) {
        unsigned mw[3];
        must(enforced(gpus[i], &mw[0]));
        must(requested(gpus[i], &mw[1]));
        must(draw(gpus[i], &mw[2]));
        printf("%u, %.2f, %.2f, %.2f\n", i, mw[0] / 1e3, mw[1] / 1e3, mw[2] / 1e3);
    }
    fflush(stdout);
}

static void set(unsigned count, void **gpus, char *which, double watts) {
    int (*set_limit)(void *, unsigned) = function("nvmlDeviceSetPowerManagementLimit");
    for (char *item, *rest = which; (item = strsep(&rest, ","));) {
        unsigned index = strtoul(item, NULL, 10);
        if (index >= count) exit(6);
        must(set_limit(gpus[index], watts * 1000));
    }
}

int main(int argc, char **argv) {
    char *which = NULL;
    double watts = 0;
    long every_ms = 0;
    for (int i = 1; i + 1 < argc; i++) {
        if (strcmp(argv[i], "-i") == 0) which = argv[i + 1];
        if (strcmp(argv[i], "-pl") == 0) watts = atof(argv[i + 1]);
        if (strcmp(argv[i], "-lms") == 0) every_ms = atol(argv[i + 1]);
    }
    library = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    if (library == NULL) return 12;
    unsigned count;
    void *gpus[64];
    must(((int (*)(unsigned))function("nvmlInitWithFlags"))(0));
    must(((int (*)(unsigned *))function("nvmlDeviceGetCount_v2"))(&count));
    int (*handle)(unsigned, void **) = function("nvmlDeviceGetHandleByIndex_v2");
    for (unsigned i = 0; i < count && i < 64; i++) must(handle(i, &gpus[i]));
    if (which && watts > 0) set(count, gpus, which, watts);
    else look(count, gpus);
    for (struct timespec pause = {every_ms / 1000, every_ms % 1000 * 1000000L}; every_ms;) {
        nanosleep(&pause, NULL);
        look(count, gpus);
    }
    must(((int (*)(void))function("nvmlShutdown"))());
    return 0;
}
