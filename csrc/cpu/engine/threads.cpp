#include "engine/threads.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "engine/platform.h"
#include "inreach/interrupt.h"

namespace inreach {

using Clock = std::chrono::steady_clock;

// Between two calls of should_stop: a call that takes Python's lock costs some microseconds, up to 5 ms where
// other threads of Python are busy.
constexpr auto kAskEvery = std::chrono::milliseconds(50);
// The jobs of one prediction follow each other within this time; waking a thread takes about as long.
constexpr auto kSpin = std::chrono::microseconds(50);

struct StopSignal {
    std::function<bool()> should_stop;
    const std::thread::id owner = std::this_thread::get_id();
    Clock::time_point next = Clock::now() + kAskEvery;
    std::atomic<bool> raised{false};

    // Asks, on the owner's thread, when it is time to.
    void ask() {
        if (raised.load(std::memory_order_relaxed) || std::this_thread::get_id() != owner) return;
        if (Clock::now() < next) return;
        if (should_stop()) raised.store(true, std::memory_order_relaxed);
        next = Clock::now() + kAskEvery;
    }
};

namespace {

// Of the operation that this thread works for; null where nobody can stop it.
thread_local StopSignal* current_signal = nullptr;

constexpr int kMaxThreads = 1024;

int default_threads() {
    const char* text = std::getenv("INREACH_NUM_THREADS");
    if (text == nullptr || *text == '\0') return usable_processors();
    char* end = nullptr;
    const long n = std::strtol(text, &end, 10);
    if (*end != '\0' || n < 1 || n > kMaxThreads)
        throw BadThreadCount("INREACH_NUM_THREADS: expected a whole number from 1 to 1024, got '" +
                             std::string(text) + "'");
    return static_cast<int>(n);
}

// Looks for `found` for a short time, in which a sleeping thread would not even have woken up. Idle threads
// sleep.
template <typename Found>
bool spin(const Found& found) {
    static const bool alone = usable_processors() < 2;
    if (found()) return true;
    if (alone) return false;
    const Clock::time_point end = Clock::now() + kSpin;
    do {
        for (int i = 0; i < 32; ++i) {
            if (found()) return true;
            pause_processor();
        }
    } while (Clock::now() < end);
    return false;
}

// One call of parallel_for: tasks are handed out by a counter, so that a slow thread takes fewer.
struct Job {
    size_t n;
    const std::function<void(size_t)>* task;
    StopSignal* signal;
    std::atomic<size_t> next{0};
    std::mutex mutex{};
    std::exception_ptr error{};
    std::atomic<size_t> helpers{0};  // workers that have it, or that it is posted to
    std::condition_variable done{};

    void work() {
        StopSignal* const outer = std::exchange(current_signal, signal);
        try {
            for (size_t i = next.fetch_add(1); i < n; i = next.fetch_add(1)) {
                stop_point();
                (*task)(i);
            }
        } catch (...) {
            next.store(n);
            const std::lock_guard<std::mutex> lock(mutex);
            if (!error) error = std::current_exception();
        }
        current_signal = outer;
    }

    // A worker's part. The job can be gone once `helpers` is 0 and the lock is released.
    void help() {
        work();
        const std::lock_guard<std::mutex> lock(mutex);
        if (helpers.fetch_sub(1) == 1) done.notify_one();
    }

    void wait_for_helpers() {
        const auto finished = [this] { return helpers.load() == 0; };
        spin(finished);
        std::unique_lock<std::mutex> lock(mutex);
        while (!finished()) {
            if (signal == nullptr) {
                done.wait(lock);
            } else if (done.wait_for(lock, kAskEvery) == std::cv_status::timeout) {
                lock.unlock();
                signal->ask();
                lock.lock();
            }
        }
    }
};

// A thread that waits for jobs. Whoever posts one may take it back until the thread has begun it: on a busy
// machine the thread may not run for milliseconds, and the job is done by then.
class Worker {
  public:
    Worker() : thread_([this] { loop(); }) {}
    ~Worker() {
        closing_.store(true);
        wake();
        thread_.join();
    }

    void post(Job* job) {
        job_.store(job);
        wake();
    }
    // Whether the job was not begun, and never will be.
    bool take_back(Job* job) { return job_.compare_exchange_strong(job, nullptr); }

  private:
    // Both sides first write and then read what the other writes, in sequentially consistent order: either
    // the thread sees the job before it sleeps, or it is seen to sleep.
    void wake() {
        if (!asleep_.load()) return;
        const std::lock_guard<std::mutex> lock(mutex_);
        wake_.notify_one();
    }

    void loop() {
        const auto called = [this] { return job_.load() != nullptr || closing_.load(); };
        for (;;) {
            if (!spin(called)) {
                std::unique_lock<std::mutex> lock(mutex_);
                asleep_.store(true);
                wake_.wait(lock, called);
                asleep_.store(false);
            }
            if (closing_.load()) return;
            if (Job* const job = job_.exchange(nullptr)) job->help();
        }
    }

    std::atomic<Job*> job_{nullptr};
    std::atomic<bool> asleep_{false}, closing_{false};
    std::mutex mutex_;
    std::condition_variable wake_;
    std::thread thread_;  // the last: it uses the others
};

class Pool {
  public:
    explicit Pool(int threads) : size(threads) {
        workers.reserve(static_cast<size_t>(threads) - 1);
        try {
            for (int worker = 1; worker < threads; ++worker) workers.push_back(std::make_unique<Worker>());
        } catch (const std::system_error&) {
            // The system gives no more threads (a container's limit): those that started do the work.
        } catch (const std::bad_alloc&) {
        }
    }

    void run(Job& job, int threads) {
        const size_t helpers = std::min({workers.size(), static_cast<size_t>(threads) - 1, job.n - 1});
        job.helpers.store(helpers);
        for (size_t i = 0; i < helpers; ++i) workers[i]->post(&job);
        job.work();
        for (size_t i = 0; i < helpers; ++i)
            if (workers[i]->take_back(&job)) job.helpers.fetch_sub(1);
        job.wait_for_helpers();
    }

    const int size;

  private:
    std::vector<std::unique_ptr<Worker>> workers;
};

std::atomic<int> wanted{0};
thread_local int limit_here = 0;  // 0: none

// Never destroyed: at process exit the system ends the threads, in whatever state the embedding program
// leaves them. After fork the child holds only the forking thread; the parent's pool is lost to it, and it
// makes a new one.
struct PoolHolder {
    std::atomic<bool> taken{false};
    Pool* pool = nullptr;  // belongs to whoever set `taken`
    const long process = process_id();
};
std::atomic<PoolHolder*> holder{nullptr};

PoolHolder& pool_holder() {
    PoolHolder* current = holder.load(std::memory_order_acquire);
    while (current == nullptr || current->process != process_id()) {
        PoolHolder* fresh = new PoolHolder;
        if (holder.compare_exchange_strong(current, fresh)) return *fresh;
        delete fresh;
    }
    return *current;
}

// The pool, if nobody else uses it. A flag and not a mutex: the thread that asks may hold it already.
class PoolLoan {
  public:
    PoolLoan(PoolHolder& owner, int threads) : owner_(owner) {
        if (owner.taken.exchange(true, std::memory_order_acquire)) return;
        try {
            if (owner.pool != nullptr && owner.pool->size < threads)
                delete std::exchange(owner.pool, nullptr);
            if (owner.pool == nullptr) owner.pool = new Pool(threads);
        } catch (...) {
            owner.taken.store(false, std::memory_order_release);
            throw;
        }
        pool_ = owner.pool;
    }
    ~PoolLoan() {
        if (pool_ != nullptr) owner_.taken.store(false, std::memory_order_release);
    }
    PoolLoan(const PoolLoan&) = delete;
    PoolLoan& operator=(const PoolLoan&) = delete;

    Pool* pool() const { return pool_; }

  private:
    PoolHolder& owner_;
    Pool* pool_ = nullptr;
};

void run(Job& job) {
    const int threads = num_threads();
    if (threads > 1 && job.n > 1) {
        const PoolLoan loan(pool_holder(), threads);
        if (loan.pool() != nullptr) return loan.pool()->run(job, threads);
    }
    job.work();
}

}  // namespace

InterruptScope::InterruptScope(std::function<bool()> should_stop)
    : signal_(std::make_unique<StopSignal>()), outer_(std::exchange(current_signal, signal_.get())) {
    signal_->should_stop = std::move(should_stop);
}

InterruptScope::~InterruptScope() { current_signal = outer_; }

Uninterruptible::Uninterruptible() : outer_(std::exchange(current_signal, nullptr)) {}
Uninterruptible::~Uninterruptible() { current_signal = outer_; }

void stop_point() {
    if (current_signal == nullptr) return;
    current_signal->ask();
    if (current_signal->raised.load(std::memory_order_relaxed)) throw Interrupted();
}

int num_threads() {
    if (limit_here > 0) return limit_here;
    int n = wanted.load();
    if (n == 0) {
        n = default_threads();
        int expected = 0;
        if (!wanted.compare_exchange_strong(expected, n)) n = expected;
    }
    return n;
}

int limit_threads(int n) {
    if (n < 0 || n > kMaxThreads)
        throw std::invalid_argument("limit_threads: expected 0 to 1024, got " + std::to_string(n));
    return std::exchange(limit_here, n);
}

void set_num_threads(int n) {
    if (n < 1 || n > kMaxThreads)
        throw std::invalid_argument("set_num_threads: expected 1 to 1024, got " + std::to_string(n));
    wanted.store(n);
}

void parallel_for(size_t n, const std::function<void(size_t)>& task) {
    if (n == 0) return;
    Job job{n, &task, current_signal};
    run(job);
    if (job.error) std::rethrow_exception(job.error);
}

}  // namespace inreach
