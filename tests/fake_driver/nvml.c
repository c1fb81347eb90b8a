/* A stand-in for libnvidia-ml.so.1: cards that exist only in environment variables, read at every call.
 *
 * FAKE_CUDA_DEVICES, FAKE_CUDA_NAME, FAKE_CUDA_CC, FAKE_CUDA_MEMORY_BYTES, FAKE_CUDA_VERSION, FAKE_CUDA_UUID: the
 *   cards, as in cuda.c. A name or a capability may hold several, separated by `;`, for card 0, 1, ...; the last one
 *   repeats. The UUID is card 0's; the others differ from it in their first two digits, 01, 02, ...
 * FAKE_CUDA_MIG_UUID: of a slice of card 0.
 * FAKE_CUDA_STATE: a folder with a file per process that holds a context: its name the pid, its text the bytes used.
 * FAKE_NVML_PROCESSES: "PID:BYTES,..." instead; "?" for bytes that the driver does not tell.
 * FAKE_NVML_INIT_ERROR: what nvmlInitWithFlags returns. FAKE_NVML_DRIVER_VERSION.
 * FAKE_NVML_POWER_MW, FAKE_NVML_STEP_MS: constant power, and the time between two steps of the energy counter.
 * FAKE_NVML_SM_MHZ, FAKE_NVML_MEMORY_MHZ, FAKE_NVML_TEMPERATURE_C, FAKE_NVML_REASONS: of all cards.
 * FAKE_NVML_POWER_CAP_NS, FAKE_NVML_THERMAL_NS: counters of the time under throttling.
 * FAKE_NVML_NOT_SUPPORTED: of energy, power, clocks, reasons, counters, temperature, processes, memory.
 * FAKE_NVML_REFUSAL: what those return, in place of "Not Supported".
 *
 * Compiled with -DOLD_DRIVER, it lacks what drivers of 2022 lack.
 */

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef int Result;
typedef struct card *Device;
enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7 };
enum { MAX_DEVICES = 8, MAX_PROCESSES = 64 };

static const char *text_of(const char *name, const char *otherwise) {
    const char *found = getenv(name);
    return found != NULL && *found != '\0' ? found : otherwise;
}

static long long number_of(const char *name, long long otherwise) {
    const char *found = getenv(name);
    return found != NULL && *found != '\0' ? strtoll(found, NULL, 0) : otherwise;
}

/* Copies the part of a `;` list that belongs to a card. */
static void part_of(const char *list, unsigned int index, char *part, size_t size) {
    const char *end;
    while (index-- > 0 && (end = strchr(list, ';')) != NULL) list = end + 1;
    end = strchr(list, ';');
    snprintf(part, size, "%.*s", end != NULL ? (int)(end - list) : (int)strlen(list), list);
}

static int lacks(const char *what) {
    const char *list = text_of("FAKE_NVML_NOT_SUPPORTED", "");
    const char *found = strstr(list, what);
    return found != NULL;
}

static Result refusal(void) { return (Result)number_of("FAKE_NVML_REFUSAL", NOT_SUPPORTED); }

static unsigned int count_devices(void) {
    long long count = number_of("FAKE_CUDA_DEVICES", 1);
    return count < 0 ? 0 : count > MAX_DEVICES ? MAX_DEVICES : (unsigned int)count;
}

/* A handle is the card's index plus one: null is no device. The slice has a number of its own. */
static const Device SLICE = (Device)(size_t)1000;

static unsigned int index_of(Device device) { return device == SLICE ? 0 : (unsigned int)((size_t)device - 1); }

static int is_device(Device device) { return device != NULL && index_of(device) < count_devices(); }

/* What the vendor's calls do with a slice that only a whole card knows. */
static int is_card(Device device) { return is_device(device) && device != SLICE; }

static void write_uuid(Device device, char *uuid, size_t size) {
    const char *card = text_of("FAKE_CUDA_UUID", "00112233445566778899aabbccddeeff");
    const char *digits = device == SLICE ? text_of("FAKE_CUDA_MIG_UUID", card) : card;
    char first[3];
    snprintf(first, sizeof first, "%02x", index_of(device));
    if (index_of(device) == 0) snprintf(first, sizeof first, "%.2s", digits);
    snprintf(uuid, size, "%s-%s%.6s-%.4s-%.4s-%.4s-%.12s", device == SLICE ? "MIG" : "GPU", first, digits + 2, digits + 8,
             digits + 12, digits + 16, digits + 20);
}

Result nvmlInitWithFlags(unsigned int flags) {
    (void)flags;
    return (Result)number_of("FAKE_NVML_INIT_ERROR", SUCCESS);
}

Result nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(Result result) {
    switch (result) {
    case SUCCESS: return "The operation was successful";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case NOT_FOUND: return "Not Found";
    case INSUFFICIENT_SIZE: return "Insufficient Size";
    case 9: return "Driver Not Loaded";
    case 18: return "Driver/library version mismatch";
    default: return "Unknown Error";
    }
}

Result nvmlSystemGetDriverVersion(char *version, unsigned int length) {
    snprintf(version, length, "%s", text_of("FAKE_NVML_DRIVER_VERSION", "580.65.06"));
    return SUCCESS;
}

Result nvmlSystemGetCudaDriverVersion_v2(int *version) {
    *version = (int)number_of("FAKE_CUDA_VERSION", 13000);
    return SUCCESS;
}

Result nvmlDeviceGetCount_v2(unsigned int *count) {
    *count = count_devices();
    return SUCCESS;
}

Result nvmlDeviceGetHandleByIndex_v2(unsigned int index, Device *device) {
    if (index >= count_devices()) return INVALID_ARGUMENT;
    *device = (Device)(size_t)(index + 1);
    return SUCCESS;
}

Result nvmlDeviceGetHandleByUUID(const char *wanted, Device *device) {
    char uuid[96];
    for (unsigned int index = 0; index < count_devices(); index++) {
        nvmlDeviceGetHandleByIndex_v2(index, device);
        write_uuid(*device, uuid, sizeof uuid);
        if (strcmp(uuid, wanted) == 0) return SUCCESS;
    }
    *device = SLICE;
    write_uuid(*device, uuid, sizeof uuid);
    return getenv("FAKE_CUDA_MIG_UUID") != NULL && strcmp(uuid, wanted) == 0 ? SUCCESS : NOT_FOUND;
}

Result nvmlDeviceGetName(Device device, char *name, unsigned int length) {
    if (!is_device(device)) return INVALID_ARGUMENT;
    part_of(text_of("FAKE_CUDA_NAME", "Fake GPU"), index_of(device), name, length);
    return SUCCESS;
}

Result nvmlDeviceGetUUID(Device device, char *uuid, unsigned int length) {
    if (!is_device(device)) return INVALID_ARGUMENT;
    write_uuid(device, uuid, length);
    return SUCCESS;
}

struct pci_info {
    char bus_id_legacy[16];
    unsigned int domain, bus, device, pci_device_id, pci_subsystem_id;
    char bus_id[32];
};

Result nvmlDeviceGetPciInfo_v3(Device device, struct pci_info *pci) {
    if (!is_card(device)) return INVALID_ARGUMENT;
    memset(pci, 0, sizeof *pci);
    pci->bus = index_of(device) + 1;
    snprintf(pci->bus_id, sizeof pci->bus_id, "00000000:%02X:00.0", pci->bus);
    return SUCCESS;
}

Result nvmlDeviceGetCudaComputeCapability(Device device, int *major, int *minor) {
    char capability[16];
    if (!is_card(device)) return INVALID_ARGUMENT;
    part_of(text_of("FAKE_CUDA_CC", "8.9"), index_of(device), capability, sizeof capability);
    return sscanf(capability, "%d.%d", major, minor) == 2 ? SUCCESS : INVALID_ARGUMENT;
}

Result nvmlDeviceIsMigDeviceHandle(Device device, unsigned int *is_mig) {
    if (!is_device(device)) return INVALID_ARGUMENT;
    *is_mig = device == SLICE;
    return SUCCESS;
}

Result nvmlDeviceGetDeviceHandleFromMigDeviceHandle(Device slice, Device *card) {
    if (slice != SLICE) return INVALID_ARGUMENT;
    return nvmlDeviceGetHandleByIndex_v2(0, card);
}

struct memory {
    unsigned long long total, free, used;
};

Result nvmlDeviceGetMemoryInfo(Device device, struct memory *memory) {
    if (!is_device(device)) return INVALID_ARGUMENT;
    if (lacks("memory")) return refusal();
    memory->total = (unsigned long long)number_of("FAKE_CUDA_MEMORY_BYTES", 8589934592LL);
    memory->used = memory->total / 16;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

Result nvmlDeviceGetPowerUsage(Device device, unsigned int *power_mw) {
    if (!is_card(device)) return INVALID_ARGUMENT;
    if (lacks("power")) return refusal();
    *power_mw = (unsigned int)number_of("FAKE_NVML_POWER_MW", 80000);
    return SUCCESS;
}

Result nvmlDeviceGetTotalEnergyConsumption(Device device, unsigned long long *energy_mj) {
    struct timespec now;
    long long step_ms = number_of("FAKE_NVML_STEP_MS", 100);
    if (!is_card(device)) return INVALID_ARGUMENT;
    if (lacks("energy")) return refusal();
    clock_gettime(CLOCK_MONOTONIC, &now);
    long long now_ms = (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
    long long steps = step_ms > 0 ? now_ms / step_ms : 0;
    *energy_mj = (unsigned long long)(steps * step_ms * number_of("FAKE_NVML_POWER_MW", 80000) / 1000);
    return SUCCESS;
}

Result nvmlDeviceGetClockInfo(Device device, unsigned int type, unsigned int *clock_mhz) {
    if (!is_card(device)) return INVALID_ARGUMENT;
    if (lacks("clocks")) return refusal();
    if (type != 1 && type != 2) return INVALID_ARGUMENT;
    *clock_mhz = (unsigned int)(type == 1 ? number_of("FAKE_NVML_SM_MHZ", 2520)
                                          : number_of("FAKE_NVML_MEMORY_MHZ", 10501));
    return SUCCESS;
}

Result nvmlDeviceGetTemperature(Device device, unsigned int sensor, unsigned int *celsius) {
    if (!is_card(device) || sensor != 0) return INVALID_ARGUMENT;
    if (lacks("temperature")) return refusal();
    *celsius = (unsigned int)number_of("FAKE_NVML_TEMPERATURE_C", 41);
    return SUCCESS;
}

static Result read_reasons(Device device, unsigned long long *reasons) {
    if (!is_card(device)) return INVALID_ARGUMENT;
    if (lacks("reasons")) return refusal();
    *reasons = (unsigned long long)number_of("FAKE_NVML_REASONS", 0);
    return SUCCESS;
}

Result nvmlDeviceGetCurrentClocksThrottleReasons(Device device, unsigned long long *reasons) {
    return read_reasons(device, reasons);
}

#ifndef OLD_DRIVER
Result nvmlDeviceGetCurrentClocksEventReasons(Device device, unsigned long long *reasons) {
    return read_reasons(device, reasons);
}
#endif

struct field_value {
    unsigned int field, scope;
    long long timestamp_us, latency_us;
    int value_type;
    Result result;
    unsigned long long value;
};

Result nvmlDeviceGetFieldValues(Device device, int count, struct field_value *values) {
    if (!is_card(device) || values == NULL) return INVALID_ARGUMENT;
    for (int index = 0; index < count; index++) {
        struct field_value *value = &values[index];
        value->result = lacks("counters") ? refusal() : SUCCESS;
        value->value_type = 3; /* unsigned long long */
        switch (value->field) {
        case 74: value->value = (unsigned long long)number_of("FAKE_NVML_POWER_CAP_NS", 0); break;
        case 75: value->value = (unsigned long long)number_of("FAKE_NVML_THERMAL_NS", 0); break;
        default: value->result = NOT_SUPPORTED;
        }
    }
    return SUCCESS;
}

struct process {
    unsigned int pid;
    unsigned long long used_bytes;
    unsigned int gpu_instance, compute_instance;
};

static unsigned int read_state(const char *folder, struct process *found) {
    unsigned int count = 0;
    DIR *opened = opendir(folder);
    struct dirent *entry;
    if (opened == NULL) return 0;
    while ((entry = readdir(opened)) != NULL && count < MAX_PROCESSES) {
        char path[4096];
        long pid = strtol(entry->d_name, NULL, 10);
        if (pid <= 0) continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        FILE *file = fopen(path, "r");
        if (file == NULL) continue;
        unsigned long long used = 0;
        if (fscanf(file, "%llu", &used) != 1) used = 0;
        fclose(file);
        found[count++] = (struct process){(unsigned int)pid, used, 0xFFFFFFFFu, 0xFFFFFFFFu};
    }
    closedir(opened);
    return count;
}

static unsigned int read_list(const char *list, struct process *found) {
    unsigned int count = 0;
    while (*list != '\0' && count < MAX_PROCESSES) {
        char *rest;
        unsigned int pid = (unsigned int)strtoul(list, &rest, 10);
        unsigned long long used = ~0ull; /* NVML_VALUE_NOT_AVAILABLE */
        if (*rest == ':' && rest[1] != '?') used = strtoull(rest + 1, &rest, 10);
        found[count++] = (struct process){pid, used, 0xFFFFFFFFu, 0xFFFFFFFFu};
        list = strchr(rest, ',');
        if (list == NULL) break;
        list++;
    }
    return count;
}

static Result list_processes(Device device, unsigned int *count, struct process *infos) {
    static struct process found[MAX_PROCESSES];
    if (!is_device(device) || count == NULL) return INVALID_ARGUMENT;
    if (lacks("processes")) return refusal();
    unsigned int total = 0;
    if (getenv("FAKE_NVML_PROCESSES") != NULL) total = read_list(getenv("FAKE_NVML_PROCESSES"), found);
    else if (getenv("FAKE_CUDA_STATE") != NULL) total = read_state(getenv("FAKE_CUDA_STATE"), found);
    unsigned int room = *count;
    *count = total;
    if (room < total) return INSUFFICIENT_SIZE;
    if (total > 0) memcpy(infos, found, total * sizeof *found);
    return SUCCESS;
}

Result nvmlDeviceGetComputeRunningProcesses_v2(Device device, unsigned int *count, struct process *infos) {
    return list_processes(device, count, infos);
}

#ifndef OLD_DRIVER
Result nvmlDeviceGetComputeRunningProcesses_v3(Device device, unsigned int *count, struct process *infos) {
    return list_processes(device, count, infos);
}
#endif
