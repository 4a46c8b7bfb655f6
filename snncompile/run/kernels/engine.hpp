// A network made ready and run: memory, order and threads around the kernels.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "network.hpp"
#include "threads.hpp"

namespace snn {

// Memory on a 64-byte line that only grows, and is not cleared.
class Memory {
  public:
    uint8_t *reserve(size_t bytes);
    uint8_t *get() const { return data_.get(); }
    size_t size() const { return size_; }

  private:
    struct Free {
        void operator()(uint8_t *data) const { std::free(data); }
    };
    std::unique_ptr<uint8_t, Free> data_;
    size_t size_ = 0;
};

// Weights as integers [target pixel, or 1][ky][kx][channel][target channel]; one-to-one: [pixel, or 1][channel].
struct Weights {
    const int64_t *data;
    int pixels, rows, channels;  // rows: kernel_y * kernel_x * source channels (one-to-one: 1)
};

struct Values {
    const int64_t *data;  // [pixel, or 1][channel]
    int pixels;
};

struct Given {  // an input of this run
    int signal;
    const uint8_t *spikes;   // [sample][step][channel][pixel], or null
    const int32_t *values;   // the same order; steps is 1 where it is constant
    bool constant;
};

struct Kept {  // what a run leaves behind, [sample][step][channel][pixel]
    int population;
    uint8_t *spikes;
    int64_t *potentials;
};

class Engine {
  public:
    explicit Engine(const std::string &kernels);
    Engine(const Engine &) = delete;
    Engine &operator=(const Engine &) = delete;

    int signal(int height, int width, int channels);
    int events(int source, const Pool &pool, int height, int width);
    int population(int signal, int tile, bool wide, bool readout, int phase, const Rules &rules,
                   const std::vector<Values> &parameters);
    void connect(int population, Connection way, const Weights &weights, const std::vector<uint32_t> &reach);

    int block() const { return kernels_->block; }
    int widest() const { return kernels_->widest; }

    // Samples [0, samples) of the given inputs, ``batch`` at a time; ``pause`` is called every now and then and may throw.
    void run(const std::vector<Given> &given, const std::vector<Kept> &kept, int samples, int steps, int machine_steps,
             bool stepwise, int batch, int threads, const std::function<void()> &pause);

    std::vector<int64_t> fired;                    // a population: spikes of the last run
    std::vector<std::vector<int64_t>> operations;  // a connection: [sample][step] of the last run
    std::vector<int> first_connection;             // of a population, among all

  private:
    struct Worker;
    void prepare(int batch, int steps, int machine_steps, bool stepwise);
    void take_in(const Given &input, int first, int count, int steps, Workers &workers);
    void by_layers(int count, int first, Workers &workers, std::vector<Worker> &rooms);
    void by_steps(int count, int first, int machine_steps, Workers &workers, std::vector<Worker> &rooms);
    void list(int events, int sample, int step);
    void leave(const Kept &kept, int first, int count, Workers &workers);
    void settle(const Piece &piece, int first);

    const Kernels *kernels_;
    std::vector<Signal> signals_;
    std::vector<Events> events_;
    std::vector<Population> populations_;
    std::vector<std::vector<Connection>> connections_;  // of each population
    std::vector<std::unique_ptr<Memory>> owned_;        // weights and parameters
    std::vector<Memory> masks_, values_, starts_;
    std::vector<std::vector<EventStep>> lists_;
    std::vector<std::vector<Memory>> list_memory_;
    std::vector<bool> from_input_;                      // a signal: given from outside
    std::vector<std::vector<int>> readers_;             // a signal: the lists made of it
    Network network_;
};

}  // namespace snn
