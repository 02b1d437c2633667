// The one thread pool of the CPU engine.
#pragma once

#include <cstddef>
#include <functional>
#include <stdexcept>

namespace inreach {

// INREACH_NUM_THREADS holds something that is no number of threads.
struct BadThreadCount : std::invalid_argument {
    using std::invalid_argument::invalid_argument;
};

// Threads that parallel_for may use, the caller counted. First use reads INREACH_NUM_THREADS; without it, the
// processors that this process may run on.
int num_threads();
void set_num_threads(int n);

// Calls task(i, worker) once for each i in [0, n), in no particular order; worker in [0, num_threads()) names
// the thread, for scratch memory. Tasks must write to places of their own: results then cannot depend on the
// number of threads. A task's exception is rethrown here. Safe to call from many threads (who finds the pool
// busy does its work alone) and after fork (the child makes a pool of its own).
void parallel_for(size_t n, const std::function<void(size_t task, int worker)>& task);

}  // namespace inreach
