// Workers that wait for work: ``each(count, work)`` runs work(item, worker) for every item on all of them and returns when
// all are done. Which worker takes which item is left to chance; items write to places of their own, so results are not.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace snn {

class Workers {
  public:
    explicit Workers(int count) : count_(count) {
        for (int worker = 1; worker < count; ++worker) threads_.emplace_back([this, worker] { serve(worker); });
    }
    ~Workers() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            closing_ = true;
        }
        wake_.notify_all();
        for (std::thread &thread : threads_) thread.join();
    }
    Workers(const Workers &) = delete;
    Workers &operator=(const Workers &) = delete;

    int count() const { return count_; }

    void each(int items, const std::function<void(int, int)> &work) {
        next_ = 0;
        items_ = items;
        if (threads_.empty() || items <= 1) {
            for (int item = 0; item < items; ++item) work(item, 0);
            return;
        }
        {
            std::lock_guard<std::mutex> lock(mutex_);
            work_ = &work;
            busy_ = static_cast<int>(threads_.size());
            ++round_;
        }
        wake_.notify_all();
        take(work, 0);
        std::unique_lock<std::mutex> lock(mutex_);
        done_.wait(lock, [this] { return busy_ == 0; });
        work_ = nullptr;
    }

  private:
    void take(const std::function<void(int, int)> &work, int worker) {
        for (int item = next_++; item < items_; item = next_++) work(item, worker);
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
    std::vector<std::thread> threads_;
    std::mutex mutex_;
    std::condition_variable wake_, done_;
    std::atomic<int> next_{0};
    int items_ = 0, busy_ = 0;
    long round_ = 0;
    bool closing_ = false;
    const std::function<void(int, int)> *work_ = nullptr;
};

}  // namespace snn
