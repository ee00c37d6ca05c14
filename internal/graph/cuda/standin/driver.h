// The CUDA driver's interface, as far as the stand-in has it: types and results, with the values of the real one.
#pragma once

#include <cstddef>
#include <cstdint>

typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef struct Context* CUcontext;
typedef struct Module* CUmodule;
typedef struct Function* CUfunction;
typedef struct Stream* CUstream;
typedef struct Event* CUevent;
typedef struct Graph* CUgraph;
typedef struct Executable* CUgraphExec;
typedef struct Node* CUgraphNode;

enum CUresult {
  CUDA_SUCCESS = 0,
  CUDA_ERROR_INVALID_VALUE = 1,
  CUDA_ERROR_OUT_OF_MEMORY = 2,
  CUDA_ERROR_NOT_INITIALIZED = 3,
  CUDA_ERROR_NO_DEVICE = 100,
  CUDA_ERROR_INVALID_DEVICE = 101,
  CUDA_ERROR_INVALID_CONTEXT = 201,
  CUDA_ERROR_INVALID_PTX = 218,
  CUDA_ERROR_UNSUPPORTED_PTX_VERSION = 222,
  CUDA_ERROR_INVALID_HANDLE = 400,
  CUDA_ERROR_ILLEGAL_STATE = 401,
  CUDA_ERROR_NOT_FOUND = 500,
  CUDA_ERROR_NOT_READY = 600,
  CUDA_ERROR_CONTEXT_IS_DESTROYED = 709,
  CUDA_ERROR_NOT_SUPPORTED = 801,
  CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = 900,
  CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901,
  CUDA_ERROR_STREAM_CAPTURE_MERGE = 902,
  CUDA_ERROR_STREAM_CAPTURE_UNMATCHED = 903,
  CUDA_ERROR_STREAM_CAPTURE_UNJOINED = 904,
  CUDA_ERROR_STREAM_CAPTURE_ISOLATION = 905,
  CUDA_ERROR_STREAM_CAPTURE_IMPLICIT = 906,
  CUDA_ERROR_CAPTURED_EVENT = 907,
  CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD = 908,
};

enum { CU_STREAM_NON_BLOCKING = 1, CU_EVENT_DISABLE_TIMING = 2 };

enum CUstreamCaptureMode {
  CU_STREAM_CAPTURE_MODE_GLOBAL,
  CU_STREAM_CAPTURE_MODE_THREAD_LOCAL,
  CU_STREAM_CAPTURE_MODE_RELAXED,
};

#define DRIVER_CALL extern "C" __attribute__((visibility("default"))) CUresult

DRIVER_CALL cuInit(unsigned flags);
DRIVER_CALL cuDriverGetVersion(int* version);
DRIVER_CALL cuGetErrorName(int code, const char** name);
DRIVER_CALL cuGetErrorString(int code, const char** words);

DRIVER_CALL cuDeviceGetCount(int* count);
DRIVER_CALL cuDeviceGet(CUdevice* device, int ordinal);
DRIVER_CALL cuDeviceGetName(char* name, int length, CUdevice device);
DRIVER_CALL cuDeviceGetUuid(char uuid[16], CUdevice device);
DRIVER_CALL cuDeviceTotalMem_v2(size_t* bytes, CUdevice device);
DRIVER_CALL cuDeviceGetAttribute(int* value, int attribute, CUdevice device);

DRIVER_CALL cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device);
DRIVER_CALL cuDevicePrimaryCtxRelease_v2(CUdevice device);
DRIVER_CALL cuCtxSetCurrent(CUcontext context);
DRIVER_CALL cuCtxGetCurrent(CUcontext* context);
DRIVER_CALL cuCtxGetDevice(CUdevice* device);
DRIVER_CALL cuCtxSynchronize();

DRIVER_CALL cuMemGetInfo_v2(size_t* free, size_t* total);
DRIVER_CALL cuMemAlloc_v2(CUdeviceptr* address, size_t bytes);
DRIVER_CALL cuMemFree_v2(CUdeviceptr address);
DRIVER_CALL cuMemHostAlloc(void** address, size_t bytes, unsigned flags);
DRIVER_CALL cuMemFreeHost(void* address);
DRIVER_CALL cuMemcpyHtoD_v2(CUdeviceptr to, const void* from, size_t bytes);
DRIVER_CALL cuMemcpyDtoH_v2(void* to, CUdeviceptr from, size_t bytes);
DRIVER_CALL cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes);
DRIVER_CALL cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t bytes, CUstream stream);
DRIVER_CALL cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t bytes, CUstream stream);
DRIVER_CALL cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream);
DRIVER_CALL cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t count);
DRIVER_CALL cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count, CUstream stream);
DRIVER_CALL cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t count, CUstream stream);

DRIVER_CALL cuStreamCreate(CUstream* stream, unsigned flags);
DRIVER_CALL cuStreamDestroy_v2(CUstream stream);
DRIVER_CALL cuStreamSynchronize(CUstream stream);
DRIVER_CALL cuStreamQuery(CUstream stream);
DRIVER_CALL cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags);
DRIVER_CALL cuEventCreate(CUevent* event, unsigned flags);
DRIVER_CALL cuEventDestroy_v2(CUevent event);
DRIVER_CALL cuEventRecord(CUevent event, CUstream stream);
DRIVER_CALL cuEventSynchronize(CUevent event);
DRIVER_CALL cuEventQuery(CUevent event);
DRIVER_CALL cuEventElapsedTime(float* milliseconds, CUevent start, CUevent end);

DRIVER_CALL cuModuleLoadDataEx(CUmodule* module, const void* image, unsigned count, int* options, void** values);
DRIVER_CALL cuModuleUnload(CUmodule module);
DRIVER_CALL cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name);
DRIVER_CALL cuFuncGetAttribute(int* value, int attribute, CUfunction function);
DRIVER_CALL cuFuncSetAttribute(CUfunction function, int attribute, int value);
DRIVER_CALL cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, CUfunction function, int threads,
                                                        size_t dynamic_shared);
DRIVER_CALL cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                           unsigned block_y, unsigned block_z, unsigned dynamic_shared, CUstream stream,
                           void** parameters, void** extra);

DRIVER_CALL cuTensorMapEncodeTiled(void* map, unsigned type, unsigned rank, void* address,
                                   const unsigned long long* extents, const unsigned long long* strides,
                                   const unsigned* box, const unsigned* steps, unsigned interleave, unsigned swizzle,
                                   unsigned promotion, unsigned fill);

DRIVER_CALL cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode mode);
DRIVER_CALL cuStreamEndCapture(CUstream stream, CUgraph* graph);
DRIVER_CALL cuGraphGetNodes(CUgraph graph, CUgraphNode* nodes, size_t* count);
DRIVER_CALL cuGraphDestroy(CUgraph graph);
DRIVER_CALL cuGraphInstantiateWithFlags(CUgraphExec* executable, CUgraph graph, unsigned long long flags);
DRIVER_CALL cuGraphLaunch(CUgraphExec executable, CUstream stream);
DRIVER_CALL cuGraphExecDestroy(CUgraphExec executable);
