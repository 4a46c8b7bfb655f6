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

// A pool in front of weights. A sum is a list that several pixels share; a maximum of spikes is their union.
struct Pool {
    int kernel_y = 1, kernel_x = 1, stride_y = 1, stride_x = 1, padding_y = 0, padding_x = 0;
    bool maximum = false;
};

// The events of one signal, on its own grid or on a pool's: for every step a list of (pixel * channels + channel), in the
// order of the pixels, and where each pixel's events begin.
struct EventStep {
    uint32_t *events = nullptr;
    size_t capacity = 0;
    uint32_t *starts = nullptr;  // [pixels + 1]
};

struct Events {
    int source = 0;
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
enum class Form : int { bytes = 0, shorts = 1, numbers = 2, one_to_one = 3 };

struct Connection {
    Form form = Form::bytes;
    int source = 0;
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
    int phase = 0;
    Rules rules;
    Parameter alpha, beta, bias, threshold, reset, initial;  // alpha, beta: what is kept, in units of 2^-decay_bits
    Connection *connections = nullptr;
    int count = 0;
    int64_t *potentials = nullptr;  // [sample][step][channel][pixel], where they are kept
    int64_t fired = 0;
    int padded() const { return tile * tiles; }
};

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

// A piece of a population: steps [first, last) of the pixels [begin, end) of one tile and sample. ``current`` and
// ``potential`` hold the state [pixel][padded] between calls; null: the piece holds all steps. ``spans`` and ``ends`` are
// room for the stretches of one pixel, ``operations`` for counts [connection][logical step] that the piece adds to.
struct Piece {
    int population = 0, sample = 0, tile = 0, begin = 0, end = 0, first = 0, last = 0;
    void *current = nullptr, *potential = nullptr;
    Span *spans = nullptr;
    int *ends = nullptr;
    int64_t *operations = nullptr;
    int64_t fired = 0;
};

// What one instruction set brings.
struct Kernels {
    const char *name;
    int block;                   // bytes of a vector
    int widest;                  // channels of the widest tile
    void (*list)(const Network &, const Events &, int sample, int step);
    void (*advance)(const Network &, Piece &);
};

}  // namespace snn
