// The engine's one thread pool.
#pragma once

#include <cstddef>
#include <functional>
#include <stdexcept>

namespace inreach {

// INREACH_NUM_THREADS is not a number of threads.
struct BadThreadCount : std::invalid_argument {
    using std::invalid_argument::invalid_argument;
};

// Threads that parallel_for may use, including the caller. First use reads INREACH_NUM_THREADS; without it,
// the processors that this process may run on.
int num_threads();
void set_num_threads(int n);

// Threads that the operations of this thread may use, in place of that number; 0: no other number. Returns
// what was set before.
int limit_threads(int n);

// Calls task(i) once for each i in [0, n), in no particular order. Tasks must write to places of their own:
// results then cannot depend on the number of threads. A task's exception is rethrown here, and ends the
// others between tasks. Safe to call from many threads and from within a task (a call that finds the pool
// busy does its work alone), and after fork (the child makes a pool of its own). Each task begins with a
// stop_point().
void parallel_for(size_t n, const std::function<void(size_t task)>& task);

// Throws Interrupted if the operation that this thread works for was asked to stop (inreach/interrupt.h).
// Costs some 30 ns: called once in a few hundred microseconds of work.
void stop_point();

struct StopSignal;

// While one lives, this thread's operations run to their end: for those that update data in place.
class Uninterruptible {
  public:
    Uninterruptible();
    ~Uninterruptible();
    Uninterruptible(const Uninterruptible&) = delete;
    Uninterruptible& operator=(const Uninterruptible&) = delete;

  private:
    StopSignal* outer_;
};

}  // namespace inreach
