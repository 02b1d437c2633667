#include "threads.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

namespace inreach {
namespace {

constexpr int kMaxThreads = 1024;

int processors() {
#if defined(__linux__)
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
    return std::max(1u, std::thread::hardware_concurrency());
}

int default_threads() {
    const char* text = std::getenv("INREACH_NUM_THREADS");
    if (text == nullptr || *text == '\0') return processors();
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
    const std::function<void(size_t, int)>* task;
    std::atomic<size_t> next{0};
    std::mutex error_mutex;
    std::exception_ptr error;

    void work(int worker) {
        try {
            for (size_t i = next.fetch_add(1); i < n; i = next.fetch_add(1)) (*task)(i, worker);
        } catch (...) {
            next.store(n);
            const std::lock_guard<std::mutex> lock(error_mutex);
            if (!error) error = std::current_exception();
        }
    }
};

class Pool {
  public:
    explicit Pool(int threads) : pid(getpid()), size(threads) {
        try {
            for (int worker = 1; worker < threads; ++worker)
                workers.emplace_back([this, worker] { loop(worker); });
        } catch (const std::system_error&) {
            // The system gives no more threads (a container's limit): those that started do the work.
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
            busy = static_cast<int>(workers.size());
        }
        wake.notify_all();
        job.work(0);
        std::unique_lock<std::mutex> lock(mutex);
        done.wait(lock, [this] { return busy == 0; });
        current = nullptr;
    }

    const pid_t pid;
    const int size;

  private:
    void loop(int worker) {
        size_t seen = 0;
        std::unique_lock<std::mutex> lock(mutex);
        for (;;) {
            wake.wait(lock, [&] { return closing || round != seen; });
            if (closing) return;
            seen = round;
            Job* job = current;
            lock.unlock();
            job->work(worker);
            lock.lock();
            if (--busy == 0) done.notify_one();
        }
    }

    std::vector<std::thread> workers;
    std::mutex mutex;
    std::condition_variable wake, done;
    Job* current = nullptr;
    size_t round = 0;
    int busy = 0;
    bool closing = false;
};

std::atomic<int> wanted{0};

// Never destroyed: at process exit the threads are ended by the system, in whatever state the embedding
// program leaves them. After fork the child holds only the forking thread, so it must not touch these locks,
// which another thread may have held: it starts anew.
struct PoolHolder {
    std::mutex mutex;
    Pool* pool = nullptr;
    pid_t pid = getpid();
};
std::atomic<PoolHolder*> holder{nullptr};

PoolHolder& pool_holder() {
    PoolHolder* current = holder.load(std::memory_order_acquire);
    while (current == nullptr || current->pid != getpid()) {
        PoolHolder* fresh = new PoolHolder;
        if (holder.compare_exchange_strong(current, fresh)) return *fresh;
        delete fresh;
    }
    return *current;
}

}  // namespace

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

void parallel_for(size_t n, const std::function<void(size_t, int)>& task) {
    if (n == 0) return;
    Job job{n, &task, {}, {}, {}};
    const int threads = num_threads();
    PoolHolder& owner = pool_holder();
    std::unique_lock<std::mutex> lock(owner.mutex, std::defer_lock);
    if (threads > 1 && n > 1 && lock.try_lock()) {
        if (owner.pool != nullptr && owner.pool->size != threads) {
            delete owner.pool;
            owner.pool = nullptr;
        }
        if (owner.pool == nullptr) owner.pool = new Pool(threads);
        owner.pool->run(job);
    } else {
        job.work(0);
    }
    if (job.error) std::rethrow_exception(job.error);
}

}  // namespace inreach
