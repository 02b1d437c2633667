#include "driver.h"

#include <cstdlib>
#include <mutex>

#include <dlfcn.h>

namespace inreach::cuda {

namespace {

std::string sentence(const std::string& name, const std::string& call) { return call + ": " + name; }

template <class F>
void find(void* library, const char* name, F& function) {
    function = reinterpret_cast<F>(dlsym(library, name));
    if (!function) throw DriverError(kOldDriver, "the driver has no such function", name);
}

Driver open_driver() {
    // Another place than the system's: for installations of an unusual kind, and for tests.
    const char* const place = std::getenv("INREACH_LIBCUDA");
    void* const library = dlopen(place && *place ? place : "libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) throw DriverError(kNoDriver, "no NVIDIA driver was found", "libcuda.so.1");
    Driver found = {};
    find(library, "cuInit", found.init);
    find(library, "cuDriverGetVersion", found.driver_version);
    find(library, "cuGetErrorName", found.error_name);
    find(library, "cuDeviceGetCount", found.device_count);
    find(library, "cuDeviceGet", found.device);
    find(library, "cuDeviceGetName", found.device_name);
    find(library, "cuDeviceGetAttribute", found.device_attribute);
    find(library, "cuDevicePrimaryCtxRetain", found.retain_context);
    find(library, "cuDevicePrimaryCtxRelease_v2", found.release_context);
    find(library, "cuCtxPushCurrent_v2", found.push_context);
    find(library, "cuCtxPopCurrent_v2", found.pop_context);
    find(library, "cuMemGetInfo_v2", found.memory);
    find(library, "cuModuleLoadData", found.load_module);
    find(library, "cuModuleGetFunction", found.function);
    find(library, "cuMemAlloc_v2", found.allocate);
    find(library, "cuMemFree_v2", found.free);
    find(library, "cuMemcpyHtoDAsync_v2", found.copy_in);
    find(library, "cuMemcpyDtoHAsync_v2", found.copy_out);
    find(library, "cuPointerGetAttribute", found.pointer_attribute);
    find(library, "cuLaunchKernel", found.launch);
    find(library, "cuStreamSynchronize", found.synchronize);
    return found;
}

std::mutex the_mutex;
Driver the_driver = {};
bool opened = false, initialised = false;

}  // namespace

DriverError::DriverError(int error_code, const std::string& error_name, const std::string& function)
    : std::runtime_error(sentence(error_name, function)),
      code(error_code),
      name(error_name),
      call(function) {}

const Driver& driver() {
    const std::lock_guard<std::mutex> lock(the_mutex);
    if (!opened) {
        the_driver = open_driver();
        opened = true;
    }
    if (!initialised) {
        const Result result = the_driver.init(0);
        const char* name = nullptr;
        if (result != 0) {
            the_driver.error_name(result, &name);
            throw DriverError(result, name ? name : "error " + std::to_string(result), "cuInit");
        }
        initialised = true;
    }
    return the_driver;
}

void check(Result result, const char* call) {
    if (result == 0) return;
    const char* name = nullptr;
    driver().error_name(result, &name);
    throw DriverError(result, name ? name : "error " + std::to_string(result), call);
}

}  // namespace inreach::cuda
