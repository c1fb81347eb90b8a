/* A `libcuda.so.1` for tests on machines without a GPU: "device memory" is memory of the host.
 *
 * A stream does its work at once, in the calling thread. While it captures, copies and host functions are kept instead
 * of done, and every launch of the graph does them. Functions, symbols and constants are those of the vendor's cuda.h.
 *
 * Environment, read by cuInit:
 *   FAKE_CUDA_INIT_ERROR    what cuInit answers, such as 803
 *   FAKE_CUDA_DEVICES       how many GPUs there are (1); CUDA_VISIBLE_DEVICES="" or "-1" hides them
 *   FAKE_CUDA_NAME, FAKE_CUDA_CC, FAKE_CUDA_VERSION    "Fake GPU", "8.9", 13000
 *   FAKE_CUDA_UUID          32 hexadecimal digits (of 00112233...); of the card
 *   FAKE_CUDA_MIG_UUID      the same of a slice of it
 *   FAKE_CUDA_MEMORY_BYTES  size of its memory (8 GiB)
 *   FAKE_CUDA_FAIL          "cuGraphLaunch=719,cuMemAlloc_v2=2@3": what a function answers, from its 3rd call on
 *   FAKE_CUDA_LOG           a file to which each call is appended: its symbol, and the flags that it got
 * Compiled with OLD_DRIVER it lacks what came after CUDA 11.0, with ANCIENT_DRIVER what came with it; with CRASHING it
 * crashes in cuInit.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifndef CUDA_VERSION /* compiled without the vendor's header, which the declarations can be checked against */
typedef int CUresult;
typedef int CUdevice;
typedef int CUdevice_attribute;
typedef int CUstreamCaptureMode;
typedef unsigned long long CUdeviceptr;
typedef struct CUctx_st *CUcontext;
typedef struct CUstream_st *CUstream;
typedef struct CUevent_st *CUevent;
typedef struct CUgraph_st *CUgraph;
typedef struct CUgraphExec_st *CUgraphExec;
typedef struct CUgraphNode_st *CUgraphNode;
typedef struct { char bytes[16]; } CUuuid;
typedef void (*CUhostFn)(void *);
#define CUDA_SUCCESS 0
#endif

enum {
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    STREAM_CAPTURE_UNSUPPORTED = 900,
    ILLEGAL_STATE = 401
};

struct CUctx_st { int unused; };
typedef struct operation {
    void *target;
    const void *source;
    size_t size;
    CUhostFn function;
    struct operation *next;
} operation;
struct CUgraph_st { operation *first, *last; };
struct CUgraphExec_st { operation *first; };
struct CUstream_st { int capturing; CUgraph graph; };
struct CUevent_st { int recorded; struct timespec at; };

static int initialized, retained, context_flags;
static struct CUctx_st context;
static __thread CUcontext current;
static size_t used_bytes;

static const char *setting(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value == NULL || *value == 0 ? otherwise : value;
}

static void log_call(const char *format, ...) {
    const char *path = getenv("FAKE_CUDA_LOG");
    if (path == NULL) return;
    FILE *file = fopen(path, "a");
    if (file == NULL) return;
    va_list arguments;
    va_start(arguments, format);
    vfprintf(file, format, arguments);
    va_end(arguments);
    fputc('\n', file);
    fclose(file);
}

/* Returns what FAKE_CUDA_FAIL wants a call to answer; 0 when it is to work. */
static int injected(const char *symbol, int *calls) {
    const char *rest = getenv("FAKE_CUDA_FAIL");
    size_t length = strlen(symbol);
    ++*calls;
    while (rest != NULL && *rest) {
        if (strncmp(rest, symbol, length) == 0 && rest[length] == '=') {
            char *end;
            long code = strtol(rest + length + 1, &end, 10);
            long from = *end == '@' ? strtol(end + 1, NULL, 10) : 1;
            if (*calls >= from) return (int)code;
        }
        rest = strchr(rest, ',');
        if (rest != NULL) ++rest;
    }
    return 0;
}

#define BEGIN(needs_init) \
    do { \
        static int calls; \
        int code = injected(__func__, &calls); \
        if (code) return (CUresult)code; \
        if (needs_init && !initialized) return (CUresult)NOT_INITIALIZED; \
    } while (0)
#define LOGGED() log_call("%s", __func__)
#define NEEDS_CONTEXT() do { if (current == NULL) return (CUresult)INVALID_CONTEXT; } while (0)

static int count_devices(void) {
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    if (visible != NULL && (*visible == 0 || *visible == '-')) return 0;
    return atoi(setting("FAKE_CUDA_DEVICES", "1"));
}

static size_t memory_bytes(void) {
    return strtoull(setting("FAKE_CUDA_MEMORY_BYTES", "8589934592"), NULL, 10);
}

CUresult cuInit(unsigned int flags) {
    BEGIN(0);
    LOGGED();
#ifdef CRASHING
    abort();
#endif
    int code = atoi(setting("FAKE_CUDA_INIT_ERROR", "0"));
    if (flags != 0) return (CUresult)INVALID_VALUE;
    if (code) return (CUresult)code;
    if (count_devices() == 0) return (CUresult)NO_DEVICE;
    initialized = 1;
    return CUDA_SUCCESS;
}

CUresult cuDriverGetVersion(int *version) {
    BEGIN(0);
    *version = atoi(setting("FAKE_CUDA_VERSION", "13000"));
    return CUDA_SUCCESS;
}

static const struct { int code; const char *name, *text; } errors[] = {
    {0, "CUDA_SUCCESS", "no error"},
    {1, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {3, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {34, "CUDA_ERROR_STUB_LIBRARY", "CUDA driver is a stub library"},
    {46, "CUDA_ERROR_DEVICE_UNAVAILABLE", "CUDA-capable device(s) is/are busy or unavailable"},
    {100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {201, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "system has unsupported display driver / cuda driver combination"},
    {804, "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE", "forward compatibility was attempted on non supported HW"},
    {900, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {999, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

static CUresult find_text(int code, int wants_name, const char **text) {
    for (size_t i = 0; i < sizeof errors / sizeof *errors; ++i)
        if (errors[i].code == code) {
            *text = wants_name ? errors[i].name : errors[i].text;
            return CUDA_SUCCESS;
        }
    *text = NULL;
    return (CUresult)INVALID_VALUE;
}

CUresult cuGetErrorName(CUresult error, const char **text) { return find_text((int)error, 1, text); }
CUresult cuGetErrorString(CUresult error, const char **text) { return find_text((int)error, 0, text); }

CUresult cuDeviceGetCount(int *count) {
    BEGIN(1);
    *count = count_devices();
    return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal) {
    BEGIN(1);
    if (ordinal < 0 || ordinal >= count_devices()) return (CUresult)INVALID_DEVICE;
    *device = ordinal;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetName(char *name, int length, CUdevice device) {
    BEGIN(1);
    (void)device;
    snprintf(name, (size_t)length, "%s", setting("FAKE_CUDA_NAME", "Fake GPU"));
    return CUDA_SUCCESS;
}

static void parse_uuid(const char *digits, CUuuid *uuid) {
    for (int i = 0; i < 16; ++i) {
        unsigned int byte = 0;
        sscanf(digits + 2 * i, "%2x", &byte);
        uuid->bytes[i] = (char)byte;
    }
}

#define CARD_UUID setting("FAKE_CUDA_UUID", "00112233445566778899aabbccddeeff")

CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice device) {
    BEGIN(1);
    (void)device;
    parse_uuid(CARD_UUID, uuid);
    return CUDA_SUCCESS;
}

#ifndef OLD_DRIVER
CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device) {
    BEGIN(1);
    (void)device;
    parse_uuid(setting("FAKE_CUDA_MIG_UUID", CARD_UUID), uuid);
    return CUDA_SUCCESS;
}
#endif

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
    BEGIN(1);
    (void)device;
    int major = 0, minor = 0;
    sscanf(setting("FAKE_CUDA_CC", "8.9"), "%d.%d", &major, &minor);
    if ((int)attribute != 75 && (int)attribute != 76) return (CUresult)INVALID_VALUE;
    *value = (int)attribute == 75 ? major : minor;
    return CUDA_SUCCESS;
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
    BEGIN(1);
    (void)device;
    *bytes = memory_bytes();
    return CUDA_SUCCESS;
}

#ifndef ANCIENT_DRIVER
CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice device, unsigned int flags) {
    BEGIN(1);
    (void)device;
    log_call("%s %u", __func__, flags);
    context_flags = (int)flags;
    return CUDA_SUCCESS;
}
#endif

CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned int *flags, int *active) {
    BEGIN(1);
    (void)device;
    *flags = (unsigned int)context_flags;
    *active = retained > 0;
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *created, CUdevice device) {
    BEGIN(1);
    (void)device;
    LOGGED();
    ++retained;
    *created = &context;
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    BEGIN(1);
    (void)device;
    LOGGED();
    if (retained == 0) return (CUresult)INVALID_CONTEXT;
    --retained;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetCurrent(CUcontext *found) {
    BEGIN(1);
    *found = current;
    return CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext wanted) {
    BEGIN(1);
    current = wanted;
    return CUDA_SUCCESS;
}

CUresult cuCtxSynchronize(void) {
    BEGIN(1);
    NEEDS_CONTEXT();
    return CUDA_SUCCESS;
}

CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total_bytes) {
    BEGIN(1);
    NEEDS_CONTEXT();
    *total_bytes = memory_bytes();
    *free_bytes = *total_bytes - used_bytes;
    return CUDA_SUCCESS;
}

/* Each block is preceded by its size, so that freeing gives it back. */
#define HEADER_BYTES 64

CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t size) {
    BEGIN(1);
    NEEDS_CONTEXT();
    if (size == 0) return (CUresult)INVALID_VALUE;
    if (size > memory_bytes() - used_bytes) return (CUresult)OUT_OF_MEMORY;
    char *block = malloc(size + HEADER_BYTES);
    if (block == NULL) return (CUresult)OUT_OF_MEMORY;
    memcpy(block, &size, sizeof size);
    memset(block + HEADER_BYTES, 0xA5, size < 65536 ? size : 65536); /* nobody may rely on fresh memory */
    used_bytes += size;
    *pointer = (CUdeviceptr)(size_t)(block + HEADER_BYTES);
    return CUDA_SUCCESS;
}

CUresult cuMemFree_v2(CUdeviceptr pointer) {
    BEGIN(1);
    LOGGED();
    if (pointer == 0) return CUDA_SUCCESS;
    char *block = (char *)(size_t)pointer - HEADER_BYTES;
    size_t size;
    memcpy(&size, block, sizeof size);
    used_bytes -= size;
    free(block);
    return CUDA_SUCCESS;
}

CUresult cuMemAllocHost_v2(void **pointer, size_t size) {
    BEGIN(1);
    NEEDS_CONTEXT();
    if (size == 0) return (CUresult)INVALID_VALUE;
    *pointer = malloc(size);
    return (CUresult)(*pointer == NULL ? OUT_OF_MEMORY : 0);
}

CUresult cuMemFreeHost(void *pointer) {
    BEGIN(1);
    free(pointer);
    return CUDA_SUCCESS;
}

static void perform(const operation *work) {
    if (work->function != NULL) work->function(work->target);
    else memcpy(work->target, work->source, work->size);
}

static CUresult enqueue(CUstream stream, operation work) {
    NEEDS_CONTEXT();
    if (stream == NULL || !stream->capturing) {
        perform(&work);
        return CUDA_SUCCESS;
    }
    operation *kept = malloc(sizeof *kept);
    *kept = work;
    if (stream->graph->last == NULL) stream->graph->first = kept;
    else stream->graph->last->next = kept;
    stream->graph->last = kept;
    return CUDA_SUCCESS;
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr target, const void *source, size_t size, CUstream stream) {
    BEGIN(1);
    return enqueue(stream, (operation){.target = (void *)(size_t)target, .source = source, .size = size});
}

CUresult cuMemcpyDtoHAsync_v2(void *target, CUdeviceptr source, size_t size, CUstream stream) {
    BEGIN(1);
    return enqueue(stream, (operation){.target = target, .source = (void *)(size_t)source, .size = size});
}

/* How a stand-in for a library computes on a stream: the function reads and writes "device" memory. */
CUresult cuLaunchHostFunc(CUstream stream, CUhostFn function, void *argument) {
    BEGIN(1);
    return enqueue(stream, (operation){.target = argument, .function = function});
}

CUresult cuStreamCreate(CUstream *created, unsigned int flags) {
    BEGIN(1);
    NEEDS_CONTEXT();
    log_call("%s %u", __func__, flags);
    *created = calloc(1, sizeof **created);
    return CUDA_SUCCESS;
}

CUresult cuStreamSynchronize(CUstream stream) {
    BEGIN(1);
    NEEDS_CONTEXT();
    return (CUresult)(stream != NULL && stream->capturing ? STREAM_CAPTURE_UNSUPPORTED : 0);
}

CUresult cuStreamDestroy_v2(CUstream stream) {
    BEGIN(1);
    LOGGED();
    free(stream);
    return CUDA_SUCCESS;
}

CUresult cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode mode) {
    BEGIN(1);
    NEEDS_CONTEXT();
    log_call("%s %d", __func__, (int)mode);
    if (stream == NULL) return (CUresult)STREAM_CAPTURE_UNSUPPORTED; /* the legacy stream cannot be captured */
    if (stream->capturing) return (CUresult)ILLEGAL_STATE;
    stream->capturing = 1;
    stream->graph = calloc(1, sizeof *stream->graph);
    return CUDA_SUCCESS;
}

CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph) {
    BEGIN(1);
    LOGGED();
    if (stream == NULL || !stream->capturing) return (CUresult)ILLEGAL_STATE;
    stream->capturing = 0;
    *graph = stream->graph;
    return CUDA_SUCCESS;
}

CUresult cuEventCreate(CUevent *created, unsigned int flags) {
    BEGIN(1);
    NEEDS_CONTEXT();
    log_call("%s %u", __func__, flags);
    *created = calloc(1, sizeof **created);
    return CUDA_SUCCESS;
}

CUresult cuEventRecord(CUevent event, CUstream stream) {
    BEGIN(1);
    NEEDS_CONTEXT();
    (void)stream;
    event->recorded = 1;
    clock_gettime(CLOCK_MONOTONIC, &event->at);
    return CUDA_SUCCESS;
}

CUresult cuEventSynchronize(CUevent event) {
    BEGIN(1);
    (void)event;
    return CUDA_SUCCESS;
}

static CUresult elapse(float *milliseconds, CUevent start, CUevent end) {
    if (!start->recorded || !end->recorded) return (CUresult)INVALID_HANDLE;
    *milliseconds = (float)((double)(end->at.tv_sec - start->at.tv_sec) * 1e3
                            + (double)(end->at.tv_nsec - start->at.tv_nsec) / 1e6);
    return CUDA_SUCCESS;
}

CUresult cuEventElapsedTime(float *milliseconds, CUevent start, CUevent end) {
    BEGIN(1);
    LOGGED();
    return elapse(milliseconds, start, end);
}

#ifndef OLD_DRIVER
CUresult cuEventElapsedTime_v2(float *milliseconds, CUevent start, CUevent end) {
    BEGIN(1);
    LOGGED();
    return elapse(milliseconds, start, end);
}
#endif

CUresult cuEventDestroy_v2(CUevent event) {
    BEGIN(1);
    LOGGED();
    free(event);
    return CUDA_SUCCESS;
}

static CUresult instantiate(CUgraphExec *created, CUgraph graph) {
    if (graph == NULL) return (CUresult)INVALID_VALUE;
    *created = calloc(1, sizeof **created);
    (*created)->first = graph->first;
    return CUDA_SUCCESS;
}

CUresult cuGraphInstantiate_v2(CUgraphExec *created, CUgraph graph, CUgraphNode *node, char *log, size_t size) {
    BEGIN(1);
    LOGGED();
    (void)node, (void)log, (void)size;
    return instantiate(created, graph);
}

#ifndef OLD_DRIVER
CUresult cuGraphInstantiateWithFlags(CUgraphExec *created, CUgraph graph, unsigned long long flags) {
    BEGIN(1);
    LOGGED();
    if (flags != 0) return (CUresult)INVALID_VALUE;
    return instantiate(created, graph);
}
#endif

CUresult cuGraphLaunch(CUgraphExec graph, CUstream stream) {
    BEGIN(1);
    NEEDS_CONTEXT();
    (void)stream;
    LOGGED();
    for (const operation *work = graph->first; work != NULL; work = work->next) perform(work);
    return CUDA_SUCCESS;
}

CUresult cuGraphExecDestroy(CUgraphExec graph) {
    BEGIN(1);
    LOGGED();
    free(graph);
    return CUDA_SUCCESS;
}

CUresult cuGraphDestroy(CUgraph graph) {
    BEGIN(1);
    LOGGED();
    free(graph);
    return CUDA_SUCCESS;
}
