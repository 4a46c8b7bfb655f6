// What a network is to the kernels: plain records and pointers, the same for every instruction set.
//
// A signal is what a population or an input sends: spikes as one bit a neuron, [sample][step][pixel][word], channels of a
// pixel side by side in 64-bit words; or integers, [sample][step][pixel][channel]. A dense layer is a signal of one pixel.
#pragma once

#include <cstddef>
#include <cstdint>

namespace snn {

struct Signal {
    int height = 1, width = 1, channels = 1;
    int words = 1;               // 64-bit words a pixel
    uint64_t *masks = nullptr;   // spikes; null where the signal is graded
    const int32_t *values = nullptr;  // integers; null where the signal is spikes
    bool constant = false;       // integers: the same at every step, held once
    int steps = 0;               // steps that masks (or values) hold a sample

    int pixels() const { return height * width; }
    uint64_t *mask(int sample, int step) const {
        return masks + (static_cast<size_t>(sample) * steps + step) * pixels() * words;
    }
    const int32_t *value(int sample, int step) const {
        const size_t held = constant ? 1 : steps;
        return values + (static_cast<size_t>(sample) * held + (constant ? 0 : step)) * pixels() * channels;
    }
};

// A pool in front of weights. A sum is a list that several pixels share; a maximum of spikes is their union. Where it is
// spread out, what it gives is followed by ``spread - 1`` pixels without events, along each axis.
struct Pool {
    int kernel_y = 1, kernel_x = 1, stride_y = 1, stride_x = 1, padding_y = 0, padding_x = 0, spread_y = 1, spread_x = 1;
    bool maximum = false;
};

// The events of one signal, or of a window of its channels, on its own grid or on a pool's: for every step a list of
// (pixel * channels + channel), in the order of the pixels, and where each pixel's events begin. Channels are the window's.
struct EventStep {
    uint32_t *events = nullptr;
    size_t capacity = 0;
    uint32_t *starts = nullptr;  // [pixels + 1]
    bool ready = false;
};

struct Events {
    int source = 0;
    int first = 0, channels = 1; // of the source
    Pool pool;
    int height = 1, width = 1;   // of the pooled grid
    EventStep *steps = nullptr;  // [sample][step]
    int held = 0;                // steps a sample

    EventStep &at(int sample, int step) const { return steps[static_cast<size_t>(sample) * held + step]; }
};

// bytes:      weights of 8 bits, two channels in a 16-bit word              (add_bytes)
// shorts:     weights of 16 bits                                            (add_shorts)
// numbers:    weights as wide as the sums; carries graded values as well    (add_numbers, add_graded)
// one_to_one: a factor a neuron                                             (add_one_to_one)
// depthwise:  a factor a neuron and place of its window, each from the channel that is its own (add_depthwise)
enum class Form : int { bytes = 0, shorts = 1, numbers = 2, one_to_one = 3, depthwise = 4 };

// Up to 64 rows of weights, from ``first`` on, and where the counts that they multiply lie: ``line`` rows of the plane and
// ``bytes`` behind the first place of a target's window.
struct Block {
    int line = 0, bytes = 0, first = 0, used = 0;
};

// The same weights once more, as the right-hand side of a product of matrices (matrix.hpp): where spikes are many, and
// where maps are small, multiplying them all costs less than looking for those that arrive.
//
// The left-hand side are counts of spikes as bytes on a plane with borders of zeros, [row][sample, step][column][channel]:
// what the targets of one row of the map read lies at a constant stride, for all of their columns, steps and samples.
struct Matrix {
    const int8_t *weights = nullptr;   // [16 target channels][block][4 rows][channel][row]; null: there are none
    const Block *blocks = nullptr;
    int count = 0;
    int columns = 0;                   // of all blocks, in fours
    int height = 0, width = 0;         // of the plane
    int rows = 0;                      // of the product, for one row of the map, sample and step
    size_t step_bytes = 0;             // from one row of the product to the next
    size_t line_bytes = 0;             // one row of the plane, for one sample and step
    const int *over_y = nullptr, *over_x = nullptr;  // how many targets read a place of the plane, along each axis
};

struct Connection {
    Form form = Form::bytes;
    int source = 0;
    int first = 0, channels = 0; // of the source: those that it reads
    int lane = 0, lanes = 0;     // of the target: those that it feeds, in whole tiles from ``first_tile`` on
    int first_tile = 0, tiles = 0;
    int events = -1;             // the lists it reads; -1: graded values or one-to-one
    int delay = 0;
    int shift = 0;               // what the weights were divided by, as a power of two
    int flush = 0;               // events after which 16-bit sums must be emptied
    int kernel_y = 1, kernel_x = 1, stride_y = 1, stride_x = 1, padding_y = 0, padding_x = 0;
    int dilation_y = 1, dilation_x = 1;
    const uint8_t *weights = nullptr;  // [tile][target pixel, or 1][ky][kx][channel][channels of the tile]
    size_t tile_bytes = 0;       // from one tile to the next
    size_t pixel_bytes = 0;      // from one target pixel to the next; 0: a convolution shares its weights
    size_t row_bytes = 0;        // one row: what one event adds to the tile
    const uint32_t *reach = nullptr;  // [event]: the synapses it goes through, where rows hold more weights than synapses
    Matrix matrix;

    // How many of the channels from ``begin`` on it feeds, of so many.
    int feeds(int begin, int count) const {
        const int end = begin + count < lane + lanes ? begin + count : lane + lanes;
        const int from = begin > lane ? begin : lane;
        return end > from ? end - from : 0;
    }
};

enum class Decay : int { keep = 0, shift = 1, product = 2, forget = 3 };

// One rule for a population; numbers as wide as its sums (int32 where that is proven to do, else int64).
struct Rules {
    int fraction = 0;            // bits of the potential below one weight unit
    int decay_bits = 12;
    bool floor = false;          // decays round down instead of toward zero
    Decay current = Decay::forget, potential = Decay::keep;
    int current_shift = 0, potential_shift = 0;
    bool current_checked = true, potential_checked = true;  // false: proven to stay inside
    bool current_wraps = false, potential_wraps = false;
    int64_t current_top = 0, potential_top = 0;  // wrap: 2^(bits-1); saturate: 2^(bits-1) - 1
    bool soft = false;
};

// What a loop over neurons may take for granted. plain: no synaptic current, no register that could overflow, no read-out;
// usual: and a potential that loses a power of two of itself, toward zero, and is reset to a value. So are most populations.
enum class Known : int { nothing = 0, plain = 1, usual = 2 };

inline Known known(const Rules &rules, bool readout) {
    if (readout || rules.current != Decay::forget || rules.current_checked || rules.potential_checked) return Known::nothing;
    return rules.potential == Decay::shift && !rules.floor && !rules.soft ? Known::usual : Known::plain;
}

// The same, said so that a compiler sees it.
template <Known KNOWN>
inline Rules given_that(Rules rules) {
    if (KNOWN == Known::nothing) return rules;
    rules.current = Decay::forget;
    rules.current_checked = rules.potential_checked = false;
    if (KNOWN == Known::plain) return rules;
    rules.potential = Decay::shift;
    rules.floor = rules.soft = false;
    return rules;
}

// Parameters a channel, or a neuron: ``stride`` numbers from one pixel to the next (0: the same for all).
struct Parameter {
    const void *data = nullptr;
    size_t stride = 0;
};

struct Population {
    int signal = 0;
    int tile = 64, tiles = 1;
    bool wide = false;           // 64-bit numbers
    bool readout = false;
    bool features = false;       // one pixel, as are its sources, and numbers of 32 bits: takes a step as steps.hpp does
    int phase = 0;
    Rules rules;
    Parameter alpha, beta, bias, threshold, reset, initial;  // alpha, beta: what is kept, in units of 2^-decay_bits
    Connection *connections = nullptr;
    int count = 0;
    int64_t *potentials = nullptr;  // [sample][step][channel][pixel], where they are kept
    int64_t fired = 0;
    int padded() const { return tile * tiles; }
};

// A word of a mask from any bit on; ``words``: what is left of the mask.
inline uint64_t word_from(const uint64_t *mask, int words, int bit) {
    const int at = bit / 64, by = bit % 64;
    const uint64_t low = at < words ? mask[at] >> by : 0;
    return by && at + 1 < words ? low | mask[at + 1] << (64 - by) : low;
}

struct Network {
    Signal *signals = nullptr;
    Events *events = nullptr;
    Population *populations = nullptr;
    int samples = 0;
    int steps = 0;               // logical steps a sample
};

// A stretch of a list: the events of the grid's pixels [begin, end), and the address where the row of event 0 would lie.
struct Span {
    uint32_t begin, end;
    uintptr_t weights;
};

// The bytes that a connection multiplies: [row of the plane][sample, step][column][channel].
struct Plane {
    const uint8_t *bytes = nullptr;
    size_t row_bytes = 0;  // from one row of the plane to the next
};

// A piece of a population: steps [first, last) of the pixels [begin, end) of one tile and sample. ``current`` and
// ``potential`` hold the state [pixel][padded] between calls; null: the piece holds all steps. ``spans`` and ``ends`` are
// room for the stretches of one pixel, ``operations`` counts [connection] that the piece adds to.
//
// A piece that multiplies is ``samples`` samples of the map's rows [begin, end), for ``tiles`` tiles (of matrix_tile) from ``tile`` on; its
// planes begin at its first sample, ``current`` and ``potential`` hold the state of its samples one after the other.
struct Piece {
    int population = 0, sample = 0, tile = 0, begin = 0, end = 0, first = 0, last = 0;
    void *current = nullptr, *potential = nullptr;
    Span *spans = nullptr;
    int *ends = nullptr;
    int64_t *operations = nullptr;
    int64_t fired = 0;
    int samples = 1, tiles = 1;
    const Plane *planes = nullptr;  // of each connection
    int32_t *sums = nullptr;        // room for what the matrices give
    uint32_t *list = nullptr;       // room for the events of most_added samples, where they are added
};

// What one instruction set brings.
struct Kernels {
    const char *name;
    int block;                   // bytes of a vector
    int widest;                  // channels of the widest tile
    int64_t (*count)(const uint64_t *masks, size_t words);                       // spikes
    int64_t (*take)(const Signal &, const uint8_t *from, uint64_t *to);         // spikes [channel][pixel] to masks
    void (*list)(const Network &, const Events &, int sample, int step);
    void (*advance)(const Network &, Piece &);
    // Lines of a plane, one after the other, from masks of the source that lie ``apart`` (null: nothing arrived). Returns the
    // events times the targets that each reaches, for one target channel.
    int64_t (*spread)(const Network &, const Connection &, const uint64_t *masks, size_t apart, int count, uint8_t *plane,
                      size_t row_bytes);
    void (*multiply)(const Network &, Piece &);
    void (*step)(const Network &, Piece &);  // of a population of features
    bool whole_blocks;           // multiplied, though not all of their columns are used
    double products;             // multiplied in the time that adding one weight of one event takes
    double visit;                // of events to a tile of one pixel and step, in weights added (benchmarks/crossover.py)
};

// Channels whose products are made, and whose neurons step, together; and the room for so many rows of sums.
constexpr int most_terms = 16;  // connections of a population that is multiplied out
constexpr int most_added = 8;   // samples whose events are added side by side: their state stays in the first cache
inline int matrix_tile(const Population &population) { return population.tile < 64 ? population.tile : 64; }
inline size_t sums_of(int rows, int tile) { return (static_cast<size_t>(rows) + 31) / 32 * 32 * tile; }

}  // namespace snn
