/*
 * fake.c: a library with the names of the driver that computes nothing. Tests of
 * package driver open it as DDPM_LIBCUDA to see what becomes of errors, of which a
 * working driver has few. The environment says what happens:
 *
 *   FAKE_DEVICES  how many GPUs there are (1)
 *   FAKE_VERSION  what cuDriverGetVersion tells (12040)
 *   FAKE_ERRORS   which calls fail: "cuMemAlloc_v2=2 cuStreamSynchronize=700"
 *
 * It has no tensor maps, like a driver that is too old for them, and no words for
 * error 12345.
 */
#include <cuda.h>
#include <stdio.h>
#include <string.h>

static int number(const char *variable, int otherwise) {
  const char *text = getenv(variable);
  return text != NULL ? atoi(text) : otherwise;
}

/* What FAKE_ERRORS has for a call, else success. */
static CUresult answer(const char *call) {
  const char *errors = getenv("FAKE_ERRORS");
  size_t length = strlen(call);
  for (const char *at = errors; at != NULL && (at = strstr(at, call)) != NULL; at += length) {
    if (at[length] == '=') {
      return (CUresult)atoi(at + length + 1);
    }
  }
  return CUDA_SUCCESS;
}

/* A handle that is not null. */
static void *handle(void) {
  static int target;
  return &target;
}

CUresult cuInit(unsigned int flags) {
  (void)flags;
  return answer("cuInit");
}

CUresult cuDriverGetVersion(int *version) {
  *version = number("FAKE_VERSION", 12040);
  return answer("cuDriverGetVersion");
}

CUresult cuGetErrorName(CUresult error, const char **text) {
  static char name[32];
  if (error == 12345) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  snprintf(name, sizeof name, "CUDA_ERROR_%d", (int)error);
  *text = name;
  return CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult error, const char **text) {
  static char words[32];
  if (error == 12345) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  snprintf(words, sizeof words, "words of error %d", (int)error);
  *text = words;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *count) {
  *count = number("FAKE_DEVICES", 1);
  return answer("cuDeviceGetCount");
}

CUresult cuDeviceGet(CUdevice *device, int ordinal) {
  *device = ordinal;
  return answer("cuDeviceGet");
}

CUresult cuDeviceGetName(char *name, int length, CUdevice device) {
  snprintf(name, length, "Fake GPU %d", device);
  return answer("cuDeviceGetName");
}

CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice device) {
  memset(uuid, device, sizeof *uuid);
  return answer("cuDeviceGetUuid");
}

CUresult cuDeviceTotalMem(size_t *bytes, CUdevice device) {
  (void)device;
  *bytes = (size_t)16 << 30;
  return answer("cuDeviceTotalMem_v2");
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
  (void)device;
  *value = (int)attribute;
  return answer("cuDeviceGetAttribute");
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
  (void)device;
  *context = handle();
  return answer("cuDevicePrimaryCtxRetain");
}

CUresult cuDevicePrimaryCtxRelease(CUdevice device) {
  (void)device;
  return answer("cuDevicePrimaryCtxRelease_v2");
}

CUresult cuCtxSetCurrent(CUcontext context) {
  (void)context;
  return answer("cuCtxSetCurrent");
}

CUresult cuCtxSynchronize(void) { return answer("cuCtxSynchronize"); }

CUresult cuMemGetInfo(size_t *free, size_t *total) {
  *free = (size_t)15 << 30;
  *total = (size_t)16 << 30;
  return answer("cuMemGetInfo_v2");
}

CUresult cuMemAlloc(CUdeviceptr *address, size_t bytes) {
  *address = (CUdeviceptr)(uintptr_t)malloc(bytes);
  return answer("cuMemAlloc_v2");
}

CUresult cuMemHostAlloc(void **host, size_t bytes, unsigned int flags) {
  (void)flags;
  *host = malloc(bytes);
  return answer("cuMemHostAlloc");
}

CUresult cuStreamCreate(CUstream *stream, unsigned int flags) {
  (void)flags;
  *stream = handle();
  return answer("cuStreamCreate");
}

CUresult cuStreamSynchronize(CUstream stream) {
  (void)stream;
  return answer("cuStreamSynchronize");
}

CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned int count, CUjit_option *options,
                            void **values) {
  (void)image;
  *module = handle();
  CUresult code = answer("cuModuleLoadDataEx");
  for (unsigned int i = 0; code != CUDA_SUCCESS && i + 1 < count; i++) {
    if (options[i] == CU_JIT_ERROR_LOG_BUFFER && options[i + 1] == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES) {
      snprintf(values[i], (size_t)(uintptr_t)values[i + 1], "line 7: no such instruction\n");
    }
  }
  return code;
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
  (void)module;
  (void)name;
  *function = handle();
  return answer("cuModuleGetFunction");
}

CUresult cuLaunchKernel(CUfunction function, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z,
                        unsigned int block_x, unsigned int block_y, unsigned int block_z, unsigned int shared_bytes,
                        CUstream stream, void **params, void **extra) {
  (void)function, (void)grid_x, (void)grid_y, (void)grid_z, (void)block_x, (void)block_y, (void)block_z;
  (void)shared_bytes, (void)stream, (void)extra;
  /* The parameters are those of TestLaunchIsCheap: two numbers with a sum of 7. */
  const int *numbers = params[0];
  if (numbers[0] + numbers[1] != 7) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  return answer("cuLaunchKernel");
}

CUresult cuStreamBeginCapture(CUstream stream, CUstreamCaptureMode mode) {
  (void)stream, (void)mode;
  return answer("cuStreamBeginCapture_v2");
}

CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph) {
  (void)stream;
  CUresult code = answer("cuStreamEndCapture");
  *graph = code == CUDA_SUCCESS ? handle() : NULL;
  return code;
}

CUresult cuGraphDestroy(CUgraph graph) {
  (void)graph;
  return answer("cuGraphDestroy");
}

CUresult cuGraphGetNodes(CUgraph graph, CUgraphNode *nodes, size_t *count) {
  (void)graph, (void)nodes;
  *count = 3;
  return answer("cuGraphGetNodes");
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags) {
  (void)graph, (void)flags;
  *exec = handle();
  return answer("cuGraphInstantiateWithFlags");
}
