#include "engine/threads.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <exception>
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

// One call of parallel_for: tasks are handed out by a counter, so that a slow thread takes fewer.
struct Job {
    size_t n;
    const std::function<void(size_t)>* task;
    StopSignal* signal;
    std::atomic<size_t> next{0};
    std::mutex error_mutex;
    std::exception_ptr error;

    void work() {
        StopSignal* const outer = std::exchange(current_signal, signal);
        try {
            for (size_t i = next.fetch_add(1); i < n; i = next.fetch_add(1)) {
                stop_point();
                (*task)(i);
            }
        } catch (...) {
            next.store(n);
            const std::lock_guard<std::mutex> lock(error_mutex);
            if (!error) error = std::current_exception();
        }
        current_signal = outer;
    }
};

class Pool {
  public:
    explicit Pool(int threads) : size(threads) {
        // Nothing but a thread's own start can fail once one runs: a vector that grew then could throw and
        // destroy running threads.
        workers.reserve(static_cast<size_t>(threads) - 1);
        try {
            for (int worker = 1; worker < threads; ++worker) workers.emplace_back([this] { loop(); });
        } catch (const std::system_error&) {
            // The system gives no more threads (a container's limit): those that started do the work.
        } catch (const std::bad_alloc&) {
        }
    }

    ~Pool() {
        {
            const std::lock_guard<std::mutex> lock(mutex);
            closing = true;
        }
        wake.notify_all();
        for (std::thread& worker : workers) worker.join();
    }

    void run(Job& job) {
        {
            const std::lock_guard<std::mutex> lock(mutex);
            current = &job;
            ++round;
            busy = workers.size();
        }
        wake.notify_all();
        job.work();
        std::unique_lock<std::mutex> lock(mutex);
        const auto finished = [this] { return busy == 0; };
        if (job.signal == nullptr) {
            done.wait(lock, finished);
        } else {
            while (!done.wait_for(lock, kAskEvery, finished)) {
                lock.unlock();
                job.signal->ask();
                lock.lock();
            }
        }
        current = nullptr;
    }

    const int size;

  private:
    void loop() {
        size_t seen = 0;
        std::unique_lock<std::mutex> lock(mutex);
        for (;;) {
            wake.wait(lock, [&] { return closing || round != seen; });
            if (closing) return;
            seen = round;
            Job* job = current;
            lock.unlock();
            job->work();
            lock.lock();
            if (--busy == 0) done.notify_one();
        }
    }

    std::mutex mutex;
    std::condition_variable wake, done;
    Job* current = nullptr;
    size_t round = 0, busy = 0;
    bool closing = false;
    std::vector<std::thread> workers;
};

std::atomic<int> wanted{0};

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
            if (owner.pool != nullptr && owner.pool->size != threads)
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
        if (loan.pool() != nullptr) return loan.pool()->run(job);
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
    int n = wanted.load();
    if (n == 0) {
        n = default_threads();
        int expected = 0;
        if (!wanted.compare_exchange_strong(expected, n)) n = expected;
    }
    return n;
}

void set_num_threads(int n) {
    if (n < 1 || n > kMaxThreads)
        throw std::invalid_argument("set_num_threads: expected 1 to 1024, got " + std::to_string(n));
    wanted.store(n);
}

void parallel_for(size_t n, const std::function<void(size_t)>& task) {
    if (n == 0) return;
    Job job{n, &task, current_signal, {}, {}, {}};
    run(job);
    if (job.error) std::rethrow_exception(job.error);
}

}  // namespace inreach
