// The part of the CUDA driver's interface that is used here, found when the first GPU is asked for: the
// extension loads, and says what is missing, on machines without a driver. The driver's interface is stable,
// so that no header of the toolkit is needed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace inreach::cuda {

using Result = int;  // CUresult
using DeviceAddress = std::uint64_t;
using Context = void*;
using Module = void*;
using Function = void*;
using Stream = void*;

// What the driver answered to a call, or `kNoDriver` or `kOldDriver`, which it cannot say itself.
class DriverError : public std::runtime_error {
  public:
    DriverError(int error_code, const std::string& error_name, const std::string& function);

    int code;
    std::string name, call;
};

constexpr int kNoDriver = -1;   // libcuda is not there
constexpr int kOldDriver = -2;  // it lacks a function

struct Driver {
    Result (*init)(unsigned flags);
    Result (*driver_version)(int* version);
    Result (*error_name)(Result error, const char** name);
    Result (*device_count)(int* count);
    Result (*device)(int* device, int ordinal);
    Result (*device_name)(char* name, int size, int device);
    Result (*device_attribute)(int* value, int attribute, int device);
    Result (*retain_context)(Context* context, int device);
    Result (*release_context)(int device);
    Result (*push_context)(Context context);
    Result (*pop_context)(Context* context);
    Result (*memory)(std::size_t* free, std::size_t* total);
    Result (*load_module)(Module* module, const void* image);
    Result (*function)(Function* function, Module module, const char* name);
    Result (*allocate)(DeviceAddress* address, std::size_t bytes);
    Result (*free)(DeviceAddress address);
    Result (*copy_in)(DeviceAddress to, const void* from, std::size_t bytes, Stream stream);
    Result (*copy_out)(void* to, DeviceAddress from, std::size_t bytes, Stream stream);
    Result (*pointer_attribute)(void* value, int attribute, DeviceAddress pointer);
    Result (*launch)(Function function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                     unsigned block_y, unsigned block_z, unsigned shared_bytes, Stream stream,
                     void** arguments, void** extra);
    Result (*synchronize)(Stream stream);
};

// The driver, initialised. Throws DriverError; a later call tries again.
const Driver& driver();

// Throws DriverError unless `result` is 0.
void check(Result result, const char* call);

}  // namespace inreach::cuda
