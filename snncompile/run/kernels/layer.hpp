// A population, pixel after pixel: what arrives is summed, the neuron takes its step, and the potentials of a pixel stay in
// the first cache for all steps. Layer after layer the weights of a tile are so read once for all steps of many samples.
#pragma once

#include "accumulate.hpp"
#include "events.hpp"
#include "network.hpp"
#include "neuron.hpp"

namespace {

// The stretches of a list (or of a grid of values) that a target pixel reads through one connection.
//
// A row of the kernel covers pixels that lie side by side, whose events lie side by side in the list, and whose weights do
// so too: one stretch serves it. Rows that follow each other without a gap (a dense layer reads all of its source) join.
//
// The places of a depthwise connection are stretches of their own, and their weights those of the place.
inline Span *spans_of(const snn::Connection &way, int height, int width, int tile, int y, int x, int pixel, Span *into) {
    const auto base = reinterpret_cast<uintptr_t>(way.weights) + static_cast<size_t>(tile - way.first_tile) * way.tile_bytes +
                      static_cast<size_t>(pixel) * way.pixel_bytes;
    const bool apart = way.form == snn::Form::depthwise;
    const int top = y * way.stride_y - way.padding_y, left = x * way.stride_x - way.padding_x;
    const auto row_of = [&](int ky, int kx, int grid) {  // where the row of event 0 would lie
        return base + static_cast<uintptr_t>((static_cast<int64_t>(ky) * way.kernel_x + kx - grid) * way.channels *
                                             static_cast<int64_t>(way.row_bytes));
    };
    Span *const first = into;
    for (int ky = 0; ky < way.kernel_y; ++ky) {
        const int row = top + ky * way.dilation_y;
        if (row < 0 || row >= height) continue;
        if (way.dilation_x == 1 && !apart) {
            const int begin = most(0, left), end = least(width, left + way.kernel_x);
            if (begin >= end) continue;
            const Span span = {static_cast<uint32_t>(row * width + begin), static_cast<uint32_t>(row * width + end),
                               row_of(ky, 0, row * width + left)};
            if (into > first && into[-1].end == span.begin && into[-1].weights == span.weights)
                into[-1].end = span.end;
            else
                *into++ = span;
            continue;
        }
        for (int kx = 0; kx < way.kernel_x; ++kx) {
            const int column = left + kx * way.dilation_x;
            if (column < 0 || column >= width) continue;
            const auto grid = static_cast<uint32_t>(row * width + column);
            *into++ = {grid, grid + 1, row_of(ky, kx, apart ? 0 : static_cast<int>(grid))};
        }
    }
    return into;
}

// One synapse a neuron, for the channels from ``lane`` on. ``width``: channels of the tiles that the factors are packed in.
template <int TILE, class Number>
int64_t receive_one_to_one(const snn::Network &network, const snn::Connection &way, int sample, int step, int pixel, int lane,
                           int valid, int width, Number *x) {
    const snn::Signal &source = network.signals[way.source];
    const auto *factors =
        reinterpret_cast<const Number *>(way.weights + way.tile_bytes * (lane / width) + way.pixel_bytes * pixel) + lane % width;
    const size_t place = static_cast<size_t>(pixel);
    if (source.masks)
        return add_one_to_one<TILE, Number>(source.mask(sample, step) + place * source.words + lane / 64, factors, way.shift, x);
    return add_values<Number>(source.value(sample, step) + place * source.channels + lane, factors, way.shift, valid, x);
}

// Each channel from its own, over a window: for the channels from ``lane`` on.
template <int TILE, class Number>
int64_t receive_depthwise(const snn::Network &network, const snn::Connection &way, const Span *spans, int count, int sample,
                          int step, int lane, int valid, Number *x) {
    const snn::Signal &source = network.signals[way.source];
    if (source.masks)
        return add_depthwise<TILE, Number>(spans, count, source.mask(sample, step) + lane / 64, source.words, valid, way.shift,
                                           x);
    int64_t units = 0;
    for (const Span *span = spans; span < spans + count; ++span)
        units += add_values<Number>(source.value(sample, step) + static_cast<size_t>(span->begin) * source.channels + lane,
                                    reinterpret_cast<const Number *>(span->weights), way.shift, valid, x);
    return units;
}

// The synapses that events, or the units of values, go through, where that is not the number of weights in their rows.
// The rows of such a connection cover all of its grid; they are counted with the first pixel of the first tile.
inline int64_t reached(const snn::Connection &way, const Span *spans, int count, const uint32_t *events,
                       const uint32_t *starts, const int32_t *values, int channels) {
    int64_t synapses = 0;
    for (const Span *span = spans; span < spans + count; ++span) {
        if (values)
            for (size_t at = static_cast<size_t>(span->begin) * channels; at < static_cast<size_t>(span->end) * channels; ++at)
                synapses += (values[at] < 0 ? -static_cast<int64_t>(values[at]) : values[at]) * way.reach[at];
        else
            for (uint32_t at = starts[span->begin]; at < starts[span->end]; ++at) synapses += way.reach[events[at]];
    }
    return synapses;
}

// What arrives at a tile of a pixel through one connection. Returns how many synapses it went through.
template <int TILE, class Number>
int64_t receive(const snn::Network &network, const snn::Connection &way, const Span *spans, int count, int sample, int step,
                int tile, int pixel, int valid, Number *x) {
    const snn::Signal &source = network.signals[way.source];
    if (way.form == snn::Form::one_to_one)
        return receive_one_to_one<TILE, Number>(network, way, sample, step, pixel, tile * TILE, valid, TILE, x);
    if (way.form == snn::Form::depthwise)
        return receive_depthwise<TILE, Number>(network, way, spans, count, sample, step, tile * TILE, valid, x);
    if (way.events < 0) {
        const int32_t *values = source.value(sample, step);
        const int64_t units =
            add_graded<TILE, Number>(spans, count, values + way.first, source.channels, way.channels, way.shift, x);
        if (!way.reach) return way.feeds(tile * TILE, TILE) * units;
        return tile || pixel ? 0 : reached(way, spans, count, nullptr, nullptr, values, source.channels);
    }
    const snn::EventStep &lists = network.events[way.events].at(sample, step);
    const uint32_t *starts = lists.starts;
    int64_t events = 0;
    for (int index = 0; index < count; ++index) events += starts[spans[index].end] - starts[spans[index].begin];
    if (!events) return 0;
    switch (way.form) {
        case snn::Form::bytes:
            if constexpr (TILE >= SNN_BLOCK)
                add_bytes<TILE / SNN_BLOCK, Number>(spans, count, lists.events, starts, way.shift, x);
            break;
        case snn::Form::shorts:
            add_shorts<2 * TILE / SNN_BLOCK, Number>(spans, count, lists.events, starts, way.shift,
                                                     static_cast<uint32_t>(way.flush), x);
            break;
        default:
            add_numbers<TILE, Number>(spans, count, lists.events, starts, way.shift, x);
    }
    if (!way.reach) return events * way.feeds(tile * TILE, TILE);
    return tile || pixel ? 0 : reached(way, spans, count, lists.events, starts, nullptr, 0);
}

// Whether a step is one of the sample, and not one at which a phase lets the population wait.
inline bool is_counted(const snn::Network &network, const snn::Population &population, int step) {
    return step >= population.phase && step - population.phase < network.steps;
}

// Whether the state starts anew. Divides only where phases are.
inline bool begins(const snn::Network &network, const snn::Population &population, int step) {
    const int logical = step - population.phase;
    if (logical > 0 && logical < network.steps) return false;
    return step == 0 || logical % network.steps == 0;
}

inline bool is_still(const snn::Connection &way, const snn::Signal &source, const snn::Piece &piece) {
    return source.constant && !way.delay && !piece.potential;
}

// What an image that is shown at every step adds to every step of a pixel: computed once. Returns whether there is one.
template <int TILE, class Number>
bool still_image(const snn::Network &network, const snn::Population &population, snn::Piece &piece, int pixel, int valid,
                 Number *still) {
    bool any = false;
    for (int index = 0; index < population.count; ++index) {
        const snn::Connection &way = population.connections[index];
        if (!is_still(way, network.signals[way.source], piece)) continue;
        if (!any)
            for (int one = 0; one < TILE; ++one) still[one] = 0;
        any = true;
        const int begin = index ? piece.ends[index - 1] : 0;
        const int64_t once = receive<TILE, Number>(network, way, piece.spans + begin, piece.ends[index] - begin, piece.sample,
                                                   0, piece.tile, pixel, valid, still);
        for (int step = piece.first; step < piece.last; ++step)
            if (is_counted(network, population, step)) piece.operations[index] += once;
    }
    return any;
}

template <class Number>
const Number *own(const snn::Parameter &parameter, int pixel, int lane) {
    return static_cast<const Number *>(parameter.data) + static_cast<size_t>(pixel) * parameter.stride + lane;
}

template <class Number>
Own<Number> own_of(const snn::Population &population, int pixel, int lane) {
    return {own<Number>(population.alpha, pixel, lane), own<Number>(population.beta, pixel, lane),
            own<Number>(population.bias, pixel, lane), own<Number>(population.threshold, pixel, lane),
            own<Number>(population.reset, pixel, lane)};
}

// The neurons of a tile take their step; spikes, counts and potentials are left where they belong.
template <int TILE, class Number>
inline void settle(const snn::Network &network, const snn::Population &population, snn::Piece &piece, int sample, int pixel,
                   int step, int lane, int valid, const Own<Number> &mine, Number *x, Number *u, Number *w) {
    const snn::Signal &target = network.signals[population.signal];
    const bool counts = is_counted(network, population, step);
    uint64_t spikes[(TILE + 63) / 64];
    fire<TILE, Number>(population.rules, population.readout, mine, x, u, w, spikes);
    if (!population.readout) {
        uint64_t *to = target.mask(sample, step) + static_cast<size_t>(pixel) * target.words + lane / 64;
        for (int word = 0; 64 * word < valid; ++word) {
            to[word] = spikes[word];
            if (counts) piece.fired += __builtin_popcountll(spikes[word]);
        }
    }
    if (!population.potentials || !counts) return;
    const size_t pixels = static_cast<size_t>(target.pixels());
    const size_t at = static_cast<size_t>(sample) * network.steps + static_cast<size_t>(step - population.phase);
    int64_t *out = population.potentials + (at * target.channels + lane) * pixels + pixel;
    for (int one = 0; one < valid; ++one) out[one * pixels] = x[one];
}

template <int TILE, class Number>
void advance_tile(const snn::Network &network, snn::Piece &piece) {
    const snn::Population &population = network.populations[piece.population];
    const snn::Signal &target = network.signals[population.signal];
    const int lane = piece.tile * TILE, valid = least(TILE, target.channels - lane), padded = population.padded();
    alignas(SNN_BLOCK) Number x[TILE], u_here[TILE], w_here[TILE], still[TILE];
    for (int pixel = piece.begin; pixel < piece.end; ++pixel) {
        const size_t place = static_cast<size_t>(pixel) * padded + lane;
        Number *u = piece.current ? static_cast<Number *>(piece.current) + place : u_here;
        Number *w = piece.potential ? static_cast<Number *>(piece.potential) + place : w_here;
        const Own<Number> mine = own_of<Number>(population, pixel, lane);
        const Number *initial = own<Number>(population.initial, pixel, lane);
        Span *at = piece.spans;
        for (int index = 0; index < population.count; ++index) {
            const snn::Connection &way = population.connections[index];
            if (way.form != snn::Form::one_to_one && way.feeds(lane, TILE)) {
                const snn::Signal &source = network.signals[way.source];
                const bool listed = way.events >= 0;
                at = spans_of(way, listed ? network.events[way.events].height : source.height,
                              listed ? network.events[way.events].width : source.width, piece.tile, pixel / target.width,
                              pixel % target.width, pixel, at);
            }
            piece.ends[index] = static_cast<int>(at - piece.spans);
        }
        const bool image = still_image<TILE, Number>(network, population, piece, pixel, valid, still);
        for (int step = piece.first; step < piece.last; ++step) {
            const bool counts = is_counted(network, population, step);
            if (begins(network, population, step))
                for (int one = 0; one < TILE; ++one) u[one] = 0, w[one] = initial[one];
            for (int one = 0; one < TILE; ++one) x[one] = image ? still[one] : 0;
            for (int index = 0; index < population.count; ++index) {
                const snn::Connection &way = population.connections[index];
                const snn::Signal &source = network.signals[way.source];
                const int then = step - way.delay;
                if (then < 0 || then >= source.steps || is_still(way, source, piece)) continue;
                const int begin = index ? piece.ends[index - 1] : 0;
                if (begin == piece.ends[index] && way.form != snn::Form::one_to_one) continue;  // other tiles, or the border
                const int64_t operations = receive<TILE, Number>(network, way, piece.spans + begin, piece.ends[index] - begin,
                                                                 piece.sample, then, piece.tile, pixel, valid, x);
                if (counts) piece.operations[index] += operations;
            }
            settle<TILE, Number>(network, population, piece, piece.sample, pixel, step, lane, valid, mine, x, u, w);
        }
    }
}

template <class Number>
void advance_number(const snn::Network &network, snn::Piece &piece, int tile) {
    switch (tile) {
        case 32: return advance_tile<32, Number>(network, piece);
        case 64: return advance_tile<64, Number>(network, piece);
        case 128: return advance_tile<128, Number>(network, piece);
        default: return advance_tile<256, Number>(network, piece);
    }
}

void advance_piece(const snn::Network &network, snn::Piece &piece) {
    const snn::Population &population = network.populations[piece.population];
    if (population.wide) return advance_number<int64_t>(network, piece, population.tile);
    advance_number<int32_t>(network, piece, population.tile);
}

}  // namespace
