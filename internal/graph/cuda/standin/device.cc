// Devices and what they say about themselves.
#include <cstdio>
#include <cstring>

#include "call.h"
#include "device.h"
#include "memory.h"
#include "settings.h"

DRIVER_CALL cuDriverGetVersion(int* version) {
  *version = 12040;
  return CUDA_SUCCESS;
}

DRIVER_CALL cuDeviceGetCount(int* count) {
  return driver_call("cuDeviceGetCount", needs_driver, [&] {
    *count = settings_devices();
    return CUDA_SUCCESS;
  });
}

DRIVER_CALL cuDeviceGet(CUdevice* device, int ordinal) {
  return driver_call("cuDeviceGet", needs_driver, [&] {
    if (ordinal < 0 || ordinal >= settings_devices()) {
      return CUDA_ERROR_INVALID_DEVICE;
    }
    *device = ordinal;
    return CUDA_SUCCESS;
  });
}

template <class Body>
static CUresult device_call(const char* function, CUdevice device, Body body) {
  return driver_call(function, needs_driver, [&] {
    if (device < 0 || device >= settings_devices()) {
      return CUDA_ERROR_INVALID_DEVICE;
    }
    return body();
  });
}

DRIVER_CALL cuDeviceGetName(char* name, int length, CUdevice device) {
  return device_call("cuDeviceGetName", device, [&] {
    snprintf(name, (size_t)length, "ddpm stand-in");
    return CUDA_SUCCESS;
  });
}

DRIVER_CALL cuDeviceGetUuid(char uuid[16], CUdevice device) {
  return device_call("cuDeviceGetUuid", device, [&] {
    memset(uuid, 0, 16);
    memcpy(uuid, "ddpm stand-in ", 14);
    uuid[15] = (char)device;
    return CUDA_SUCCESS;
  });
}

DRIVER_CALL cuDeviceTotalMem_v2(size_t* bytes, CUdevice device) {
  return device_call("cuDeviceTotalMem_v2", device, [&] {
    *bytes = settings_memory();
    return CUDA_SUCCESS;
  });
}

// Shared memory as table "Technical Specifications per Compute Capability" of the CUDA programming guide has it.
SharedLimits shared_limits() {
  const Capability c = settings_capability();
  if (c.major >= 9) {
    return {232448, 233472};
  }
  if (c.major == 8 && (c.minor == 6 || c.minor == 9)) {
    return {101376, 102400};
  }
  if (c.major == 8) {
    return {166912, 167936};
  }
  return {65536, 65536};
}

DRIVER_CALL cuDeviceGetAttribute(int* value, int attribute, CUdevice device) {
  return device_call("cuDeviceGetAttribute", device, [&] {
    switch (attribute) {
      case 1:  // threads per block
      case 2:  // its extent in x
      case 3:  // in y
        *value = 1024;
        break;
      case 4:  // in z
        *value = 64;
        break;
      case 5:  // extent of a grid in x
        *value = 0x7fffffff;
        break;
      case 6:  // in y
      case 7:  // in z
        *value = 65535;
        break;
      case 8:  // shared memory per block
        *value = (int)default_shared;
        break;
      case 10:  // threads of a warp
        *value = warp_lanes;
        break;
      case 12:  // registers per block
      case 82:  // registers per multiprocessor
        *value = registers_per_multiprocessor;
        break;
      case 13:  // clock rate in kHz
        *value = 1410000;
        break;
      case 16:
        *value = settings_multiprocessors();
        break;
      case 38:  // bytes of the second-level cache
        *value = 40 << 20;
        break;
      case 39:  // threads per multiprocessor
        *value = threads_per_multiprocessor;
        break;
      case 40:  // copy engines
        *value = 2;
        break;
      case 75:
        *value = settings_capability().major;
        break;
      case 76:
        *value = settings_capability().minor;
        break;
      case 81:  // shared memory per multiprocessor
        *value = shared_limits().multiprocessor;
        break;
      case 97:  // shared memory per block, at most
        *value = shared_limits().block;
        break;
      default:
        return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
  });
}

DRIVER_CALL cuMemGetInfo_v2(size_t* free, size_t* total) {
  return driver_call("cuMemGetInfo_v2", needs_context, [&] {
    const size_t used = allocated(current_context().device);
    *total = settings_memory();
    *free = *total > used ? *total - used : 0;
    return CUDA_SUCCESS;
  });
}
