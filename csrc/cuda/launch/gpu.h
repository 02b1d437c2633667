// One GPU: its primary context (the one that torch and CuPy use as well) with the package's kernels loaded
// into it.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "driver.h"

namespace inreach::cuda {

class Gpu {
  public:
    // `image`: fatbin or cubin, read once. Throws DriverError.
    Gpu(int ordinal, const void* image);
    ~Gpu();
    Gpu(const Gpu&) = delete;
    Gpu& operator=(const Gpu&) = delete;

    int ordinal, major, minor, multiprocessors;
    std::string name;

    // Memory, aligned to 256 bytes. `release` waits for the work that was given to the GPU before.
    DeviceAddress allocate(std::size_t bytes) const;
    void release(DeviceAddress address) const;
    std::size_t free_bytes() const;
    std::size_t total_bytes() const;

    // In the order of `stream`. `from` may be changed as soon as copy_in returns; copy_out waits where asked
    // to, and otherwise `to` is valid after the stream has been waited for.
    void copy_in(DeviceAddress to, const void* from, std::size_t bytes, Stream stream) const;
    void copy_out(void* to, DeviceAddress from, std::size_t bytes, Stream stream, bool wait) const;
    void launch(const std::string& kernel, const unsigned (&grid)[3], unsigned block,
                const std::vector<void*>& arguments, Stream stream);
    void synchronize(Stream stream) const;

  private:
    Function function(const std::string& kernel);

    Context context_ = nullptr;
    Module module_ = nullptr;
    bool reads_host_memory_ = false;
    std::mutex mutex_;
    std::map<std::string, Function> functions_;
};

int device_count();
int driver_version();

}  // namespace inreach::cuda
