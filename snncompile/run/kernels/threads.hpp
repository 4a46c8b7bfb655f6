// Workers that wait for work: ``each(count, work)`` runs work(item, worker) for every item on all of them and returns when
// all are done. Which worker takes which item is left to chance; items write to places of their own, so results are not.
//
// What a worker throws ends the round and is thrown again by ``each``, in the thread that called it: an exception that
// leaves a thread of its own would end the process. ``pause`` is called by that thread alone, every 50 ms at most, and
// may throw as well: so a long round can be interrupted.
#pragma once

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace snn {

class Workers {
  public:
    explicit Workers(int count, std::function<void()> pause = {}) : count_(count), pause_(std::move(pause)), owner_(getpid()) {
        try {
            for (int worker = 1; worker < count; ++worker) threads_.emplace_back([this, worker] { serve(worker); });
        } catch (...) {  // no more threads: those that run must end before the vector does
            close();
            throw;
        }
    }
    ~Workers() { close(); }
    Workers(const Workers &) = delete;
    Workers &operator=(const Workers &) = delete;

    int count() const { return count_; }

    // Workers of a process that this one was forked off cannot be ended: their threads stayed behind.
    struct End {
        void operator()(Workers *workers) const {
            if (workers->is_here()) delete workers;
        }
    };
    bool is_here() const { return owner_ == getpid(); }

    // What the rounds from now on ask now and then.
    void ask(std::function<void()> pause) { pause_ = std::move(pause); }

    void each(int items, const std::function<void(int, int)> &work) {
        next_ = 0;
        items_ = items;
        if (threads_.empty() || items <= 1) {
            for (int item = 0; item < items; ++item) {
                look(0);
                work(item, 0);
            }
            return;
        }
        failed_ = nullptr;
        stopping_ = false;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            work_ = &work;
            busy_ = static_cast<int>(threads_.size());
            ++round_;
        }
        wake_.notify_all();
        take(work, 0);
        {
            std::unique_lock<std::mutex> lock(mutex_);
            done_.wait(lock, [this] { return busy_ == 0; });
            work_ = nullptr;
        }
        stopping_ = false;
        if (failed_) std::rethrow_exception(std::exchange(failed_, nullptr));
    }

    // For work that takes long: throws where the round is to end.
    void look(int worker) {
        if (stopping_.load(std::memory_order_relaxed)) throw Stopped();
        if (worker || !pause_) return;
        const auto now = std::chrono::steady_clock::now();
        if (now < due_) return;
        due_ = now + std::chrono::milliseconds(50);
        pause_();
    }

  private:
    struct Stopped {};

    void take(const std::function<void(int, int)> &work, int worker) {
        try {
            for (int item = next_++; item < items_; item = next_++) {
                look(worker);
                work(item, worker);
            }
        } catch (...) {
            std::lock_guard<std::mutex> lock(mutex_);
            if (!stopping_) failed_ = std::current_exception();  // the first is told; the others were stopped by it
            stopping_ = true;
        }
    }
    void close() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            closing_ = true;
        }
        wake_.notify_all();
        for (std::thread &thread : threads_) thread.join();
        threads_.clear();
    }
    void serve(int worker) {
        long seen = 0;
        for (;;) {
            const std::function<void(int, int)> *work;
            {
                std::unique_lock<std::mutex> lock(mutex_);
                wake_.wait(lock, [&] { return closing_ || round_ != seen; });
                if (closing_) return;
                seen = round_;
                work = work_;
            }
            take(*work, worker);
            std::lock_guard<std::mutex> lock(mutex_);
            if (--busy_ == 0) done_.notify_one();
        }
    }

    const int count_;
    std::function<void()> pause_;
    const pid_t owner_;
    std::chrono::steady_clock::time_point due_ = std::chrono::steady_clock::now();
    std::vector<std::thread> threads_;
    std::mutex mutex_;
    std::condition_variable wake_, done_;
    std::atomic<int> next_{0};
    int items_ = 0, busy_ = 0;
    long round_ = 0;
    bool closing_ = false;
    std::atomic<bool> stopping_{false};
    std::exception_ptr failed_;
    const std::function<void(int, int)> *work_ = nullptr;
};

}  // namespace snn
