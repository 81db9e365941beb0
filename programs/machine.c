#include "machine.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

/* Of the first line "key : value" of a file; value is left alone if there is none. */
static void read_field(const char *path, const char *key, char *value, size_t capacity) {
    char line[512];
    FILE *const file = fopen(path, "r");
    if (!file)
        return;
    while (fgets(line, sizeof line, file)) {
        char *const colon = strchr(line, ':');
        if (strncmp(line, key, strlen(key)) != 0 || !colon)
            continue;
        const char *const text = colon + 1 + strspn(colon + 1, " \t");
        snprintf(value, capacity, "%.*s", (int)strcspn(text, "\n"), text);
        break;
    }
    fclose(file);
}

/* A field of /proc in "N kB", as bytes; 0 where there is none. */
static int64_t read_kilobytes(const char *path, const char *key) {
    char text[64] = "";
    long long kilobytes = 0;
    read_field(path, key, text, sizeof text);
    sscanf(text, "%lld", &kilobytes);
    return (int64_t)kilobytes * 1024;
}

machine_facts machine_read(void) {
    machine_facts facts = {.cpu = "unknown CPU", .system = "unknown system"};
    struct utsname name;
    cpu_set_t set;
    read_field("/proc/cpuinfo", "model name", facts.cpu, sizeof facts.cpu);
    facts.cpus = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : sysconf(_SC_NPROCESSORS_ONLN);
    facts.memory_total = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
    facts.memory_free = read_kilobytes("/proc/meminfo", "MemAvailable");
    if (uname(&name) == 0)
        snprintf(facts.system, sizeof facts.system, "%.60s %.60s %.60s", name.sysname, name.release, name.machine);
    return facts;
}

int64_t peak_memory(void) {
    const int64_t peak = read_kilobytes("/proc/self/status", "VmHWM");
    struct rusage usage;
    if (peak > 0 || getrusage(RUSAGE_SELF, &usage) != 0)
        return peak;
    return (int64_t)usage.ru_maxrss * 1024;
}

void peak_memory_reset(void) {
    FILE *const file = fopen("/proc/self/clear_refs", "w");
    if (!file)
        return;
    fputs("5", file); /* proc(5): resets VmHWM */
    fclose(file);
}
