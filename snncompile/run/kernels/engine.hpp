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

// Weights as integers [target pixel, or 1][ky][kx][channel][target channel], of those that a connection reads and feeds;
// one-to-one: [pixel, or 1][channel]; depthwise: [1][ky][kx][channel].
struct Weights {
    const int64_t *data;
    int pixels, rows, channels;  // rows: kernel_y * kernel_x * source channels (one-to-one, depthwise: 1)
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
    uint64_t *words;   // the spikes once more, a bit each, [sample][step][word]: the first is the highest of the first byte
    int64_t *numbers;  // and how many there are, [sample][step]
};

// Room of one thread: the stretches and counts of a piece, sums and planes of what is multiplied, and the state of samples
// that go step by step.
struct Worker {
    std::vector<Span> spans;
    std::vector<int> ends;
    std::vector<int64_t> counts;
    Memory sums, list;
    std::vector<int64_t> fired, places, operations;  // of steps that were taken, until they are told (Engine::tell)
    std::vector<Memory> planes, current, potential;
    std::vector<Plane> views;

    // A piece that uses this room.
    Piece piece(int population) {
        Piece made;
        made.population = population;
        made.spans = spans.data();
        made.ends = ends.data();
        made.operations = counts.data();
        made.planes = views.data();
        counts.assign(counts.size(), 0);
        return made;
    }

    // Room for the sums of a piece of so many samples and steps.
    int32_t *room(const Population &population, int lines) {
        size_t size = 0;
        for (int index = 0; index < population.count; ++index)
            size += sums_of(lines * population.connections[index].matrix.rows, matrix_tile(population));
        return reinterpret_cast<int32_t *>(sums.reserve(size * sizeof(int32_t)));
    }
};

// What a population's sums cost: products that are made of counts and weights (0: they cannot be), or weights that events
// add, and tiles of a pixel and step that they are brought to.
struct Cost {
    double made = 0, added = 0, visits = 0;
};

// Samples that take their steps together.
struct Group {
    int sample, samples;
};

inline int divided_up(int whole, int part) { return (whole + part - 1) / part; }

inline bool has_matrix(const Connection &way) { return way.matrix.weights != nullptr; }

// Room for a plane: products are made for whole blocks and rows, which read (and do not use) what lies behind the end.
inline size_t plane_bytes(const Matrix &matrix, int lines) {
    return matrix.line_bytes * lines * matrix.height + 32 * matrix.step_bytes + matrix.line_bytes + 128;
}

class Engine {
  public:
    explicit Engine(const std::string &kernels);
    Engine(const Engine &) = delete;
    Engine &operator=(const Engine &) = delete;

    int signal(int height, int width, int channels);
    // Of so many channels of a source from ``first`` on.
    int events(int source, int first, int channels, const Pool &pool, int height, int width);
    int population(int signal, int tile, bool wide, bool readout, int phase, const Rules &rules,
                   const std::vector<Values> &parameters);
    // ``matrix``: whether counts below 128 times its weights may be multiplied out in sums of 32 bits. ``reach``: as in
    // Connection, or empty.
    void connect(int population, Connection way, const Weights &weights, bool matrix, const std::vector<uint32_t> &reach);

    int block() const { return kernels_->block; }
    int widest() const { return kernels_->widest; }
    int features() const;  // populations that take their steps as such
    Cost cost(int population, int samples, int steps) const;

    // Samples [0, samples) of the given inputs, ``batch`` at a time; ``pause`` is called every now and then and may throw.
    void run(const std::vector<Given> &given, const std::vector<Kept> &kept, int samples, int steps, int machine_steps,
             bool stepwise, int batch, int threads, const std::function<void()> &pause);

    std::vector<int64_t> fired;                    // a population: spikes of the last run
    std::vector<int64_t> operations;               // a connection: synapses that its events went through in the last run
    std::vector<int> first_connection;             // of a population, among all

    double products;            // as Kernels; 0: none are multiplied out, infinity: all that may
    double visit;               // as Kernels
    int64_t multiplied = 0;     // pieces that were, in the last run

  private:
    void connect_matrix(Connection &way, const Signal &target, const Weights &weights, int before);
    void prepare(int batch, int steps, int machine_steps, bool stepwise);
    void take_in(const Given &input, int first, int count, int steps, Workers &workers);
    void take_spikes(const Given &input, int first, int sample, int samples);
    void by_layers(int count, Workers &workers);
    struct Part {
        int first, count;  // samples of a batch
        int room;          // of its first worker
    };
    void run_layers(const Part &part, Workers &workers);
    void advance_layer(int population, const Part &part, Workers &workers, int64_t &spikes);
    void multiply_layer(int population, const Part &part, Workers &workers, int64_t &spikes);
    void by_steps(const std::vector<Given> &given, int first, int count, int machine_steps, Workers &workers);
    void begin_group(const Group &group, Worker &room);
    void tell(Worker &room);
    void step_population(int population, const Group &group, int step, Worker &room);
    void step_features(Piece &piece, const Group &group, Worker &room);
    void spread_step(Piece &piece, const Group &group, Worker &room);
    bool has_features(int population) const;
    bool multiplies(int population, int samples, int steps) const;
    size_t state_bytes(int population) const;
    void forget_lists(int first, int count);
    void list(int events, int sample, int step);
    void seen(int signal, int64_t spikes, int64_t places);
    void leave(const Kept &kept, int first, int count, Workers &workers);
    void settle(const Piece &piece);

    const Kernels *kernels_;
    std::vector<Signal> signals_;
    std::vector<Events> events_;
    std::vector<Population> populations_;
    std::vector<std::vector<Connection>> connections_;  // of each population
    std::vector<std::unique_ptr<Memory>> owned_;        // weights and parameters
    std::vector<std::unique_ptr<std::vector<Block>>> blocks_;
    std::vector<std::unique_ptr<std::vector<int>>> over_;
    std::vector<Memory> masks_, values_, starts_;
    std::vector<int64_t> spikes_, places_;              // a signal: seen in this run
    std::vector<std::vector<EventStep>> lists_;
    std::vector<std::vector<Memory>> list_memory_;
    std::vector<Worker> rooms_;                         // of each thread
    std::unique_ptr<Workers, Workers::End> workers_;    // of the last run
    Network network_;
};

}  // namespace snn
