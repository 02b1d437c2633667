#include "gpu.h"

namespace inreach::cuda {

namespace {

// CUdevice_attribute and CUpointer_attribute, of which the driver's interface fixes the numbers.
constexpr int kMultiprocessors = 16, kMajor = 75, kMinor = 76, kHostPageTables = 100;
constexpr int kMemoryType = 2;

// The GPU's context is current in this thread for as long as this lives; then the caller's is again.
class Current {
  public:
    explicit Current(Context context) { check(driver().push_context(context), "cuCtxPushCurrent"); }
    ~Current() {
        Context before = nullptr;
        driver().pop_context(&before);
    }
    Current(const Current&) = delete;
    Current& operator=(const Current&) = delete;
};

int attribute(int which, int device) {
    int value = 0;
    check(driver().device_attribute(&value, which, device), "cuDeviceGetAttribute");
    return value;
}

}  // namespace

int device_count() {
    int count = 0;
    check(driver().device_count(&count), "cuDeviceGetCount");
    return count;
}

int driver_version() {
    int version = 0;
    check(driver().driver_version(&version), "cuDriverGetVersion");
    return version;
}

Gpu::Gpu(int number, const void* image) : ordinal(number) {
    int device = 0;
    check(driver().device(&device, number), "cuDeviceGet");
    major = attribute(kMajor, device);
    minor = attribute(kMinor, device);
    multiprocessors = attribute(kMultiprocessors, device);
    reads_host_memory_ = attribute(kHostPageTables, device) != 0;
    char text[256] = {};
    check(driver().device_name(text, sizeof text - 1, device), "cuDeviceGetName");
    name = text;
    check(driver().retain_context(&context_, device), "cuDevicePrimaryCtxRetain");
    try {
        const Current current(context_);
        check(driver().load_module(&module_, image), "cuModuleLoadData");
    } catch (...) {
        driver().release_context(device);
        throw;
    }
}

// The module goes with the primary context. A process that ends may have lost its driver already: nothing is
// checked.
Gpu::~Gpu() {
    try {
        driver().release_context(ordinal);
    } catch (const DriverError&) {
    }
}

DeviceAddress Gpu::allocate(std::size_t bytes) const {
    const Current current(context_);
    DeviceAddress address = 0;
    check(driver().allocate(&address, bytes ? bytes : 1), "cuMemAlloc");
    return address;
}

void Gpu::release(DeviceAddress address) const {
    const Current current(context_);
    check(driver().free(address), "cuMemFree");
}

std::size_t Gpu::free_bytes() const {
    const Current current(context_);
    std::size_t free = 0, total = 0;
    check(driver().memory(&free, &total), "cuMemGetInfo");
    return free;
}

std::size_t Gpu::total_bytes() const {
    const Current current(context_);
    std::size_t free = 0, total = 0;
    check(driver().memory(&free, &total), "cuMemGetInfo");
    return total;
}

void Gpu::copy_in(DeviceAddress to, const void* from, std::size_t bytes, Stream stream) const {
    if (bytes == 0) return;
    const Current current(context_);
    check(driver().copy_in(to, from, bytes, stream), "cuMemcpyHtoDAsync");
    // The driver copies from ordinary memory before it returns. It reads page-locked memory later, and a GPU
    // that walks the host's page tables (Grace Hopper) may do so with all memory.
    unsigned kind = 0;
    const auto address = reinterpret_cast<DeviceAddress>(from);
    const bool known = driver().pointer_attribute(&kind, kMemoryType, address) == 0 && kind != 0;
    if (known || reads_host_memory_) check(driver().synchronize(stream), "cuStreamSynchronize");
}

void Gpu::copy_out(void* to, DeviceAddress from, std::size_t bytes, Stream stream, bool wait) const {
    const Current current(context_);
    if (bytes) check(driver().copy_out(to, from, bytes, stream), "cuMemcpyDtoHAsync");
    if (wait) check(driver().synchronize(stream), "cuStreamSynchronize");
}

Function Gpu::function(const std::string& kernel) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = functions_.find(kernel);
    if (found != functions_.end()) return found->second;
    Function function = nullptr;
    check(driver().function(&function, module_, kernel.c_str()), ("cuModuleGetFunction " + kernel).c_str());
    functions_[kernel] = function;
    return function;
}

void Gpu::launch(const std::string& kernel, const unsigned (&grid)[3], unsigned block,
                 const std::vector<void*>& arguments, Stream stream) {
    const Current current(context_);
    // The driver reads the arguments before it returns and changes none.
    void** const values = const_cast<void**>(arguments.data());
    check(
        driver().launch(function(kernel), grid[0], grid[1], grid[2], block, 1, 1, 0, stream, values, nullptr),
        ("cuLaunchKernel " + kernel).c_str());
}

void Gpu::synchronize(Stream stream) const {
    const Current current(context_);
    check(driver().synchronize(stream), "cuStreamSynchronize");
}

}  // namespace inreach::cuda
