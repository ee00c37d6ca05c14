// Launches.
#include "call.h"
#include "failures.h"
#include "module.h"
#include "pool.h"

static bool fits(const Function& f, const Dim3& grid, unsigned threads, unsigned dynamic_shared) {
  const unsigned max_grid_x = 0x7fffffff, max_grid_yz = 65535;
  return grid.x >= 1 && grid.y >= 1 && grid.z >= 1 && grid.x <= max_grid_x && grid.y <= max_grid_yz &&
         grid.z <= max_grid_yz && threads >= 1 && threads <= f.max_threads && dynamic_shared <= f.dynamic_shared;
}

static void run_kernel(Context& context, const Function& function, const std::vector<char>& parameters, Dim3 grid,
                       unsigned threads, unsigned dynamic_shared) {
  context.failed = failure_of_launch(function.kernel->name);
  if (context.failed) {
    return;
  }
  Launch launch{};
  launch.kernel = function.kernel;
  launch.parameters = parameters;
  launch.grid = grid;
  launch.threads = threads;
  launch.dynamic_shared = dynamic_shared;
  launch.hopper = function.hopper;
  launch.registers = (registers_of(function) + 7) / 8 * 8;  // as they are allocated
  run_launch(launch);
}

DRIVER_CALL cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                           unsigned block_y, unsigned block_z, unsigned dynamic_shared, CUstream stream,
                           void** parameters, void** extra) {
  return driver_call("cuLaunchKernel", needs_context, [&] {
    Stream* s = find_stream(current_context(), stream);
    if (!s || !is_function(function)) {
      return CUDA_ERROR_INVALID_HANDLE;
    }
    if (block_y != 1 || block_z != 1) {
      die_in_driver("kernel %s is launched with %ux%ux%u threads; blocks are one-dimensional here",
                    function->kernel->name, block_x, block_y, block_z);
    }
    const Dim3 grid{grid_x, grid_y, grid_z};
    if (!fits(*function, grid, block_x, dynamic_shared) || !parameters || extra) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    const auto* first = (const char*)parameters[0];
    std::vector<char> copy(first, first + function->kernel->parameter_bytes);
    return enqueue(*s, [context = s->context, function = *function, copy, grid, block_x, dynamic_shared] {
      run_kernel(*context, function, copy, grid, block_x, dynamic_shared);
    });
  });
}
