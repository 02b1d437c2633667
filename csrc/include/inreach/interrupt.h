// Stopping a running operation.
#pragma once

#include <exception>
#include <functional>
#include <memory>

namespace inreach {

// Thrown by an operation that was asked to stop. Its output arrays then hold nothing of use.
struct Interrupted : std::exception {
    const char* what() const noexcept override { return "interrupted"; }
};

struct StopSignal;

// While one lives, the operations that this thread calls (searches, building an index, descriptors) call
// should_stop() on this thread about every 50 ms. Once it returns true they throw Interrupted, within
// milliseconds and on all threads. should_stop must not throw. channel_add runs to its end: it updates sums
// in place.
class InterruptScope {
  public:
    explicit InterruptScope(std::function<bool()> should_stop);
    ~InterruptScope();
    InterruptScope(const InterruptScope&) = delete;
    InterruptScope& operator=(const InterruptScope&) = delete;

  private:
    std::unique_ptr<StopSignal> signal_;
    StopSignal* outer_;
};

}  // namespace inreach
