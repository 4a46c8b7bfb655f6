// What arrives: each event adds one row of weights, one weight for each channel of the tile.
//
// The sums of a tile stay in registers for all events of one target pixel and step. They are as narrow as can be proven:
// ``flush`` is the number of events after which a 16-bit sum could overflow, and before that they are added to ``x``.
#pragma once

#include "network.hpp"
#include "vectors.hpp"

namespace {

using snn::Span;

template <class Number>
inline void widen(const int16_t *sums, int count, int shift, Number *x) {
    for (int lane = 0; lane < count; ++lane) x[lane] += static_cast<Number>(sums[lane]) * (Number(1) << shift);
}

// Rows of bytes, two channels in a 16-bit word: word = 256 high + (low + 128).
//
// Two sums a word, both modulo 2^16: ``whole`` of the words, ``high`` of their upper halves. After n events the channel of
// the lower halves has whole - 256 high - 128 n, exactly, while n is at most 255: 255 * 128 < 2^15. One load and three
// instructions for 64 channels (of AVX-512), and nothing is multiplied.
template <int BLOCKS, class Number>
void add_bytes(const Span *spans, int count, const uint32_t *events, const uint32_t *starts, int shift, Number *x) {
    constexpr size_t row = static_cast<size_t>(BLOCKS) * SNN_BLOCK;
    constexpr int lanes = SNN_BLOCK / 2;
    Shorts whole[BLOCKS] = {}, high[BLOCKS] = {};
    constexpr int ahead = 6;  // events whose rows are on their way
    uint32_t summed = 0;
    auto flush = [&]() {
        alignas(SNN_BLOCK) int16_t sums[lanes];
        const Shorts bias = Shorts{} + static_cast<int16_t>(128 * summed);
        for (int block = 0; block < BLOCKS; ++block) {
            store(sums, whole[block] - (high[block] << 8) - bias);
            widen(sums, lanes, shift, x + block * SNN_BLOCK);
            store(sums, high[block]);
            widen(sums, lanes, shift, x + block * SNN_BLOCK + lanes);
            whole[block] = high[block] = Shorts{};
        }
        summed = 0;
    };
    for (const Span *span = spans; span < spans + count; ++span) {
        const uint32_t *event = events + starts[span->begin], *end = events + starts[span->end];
        while (event < end) {
            const uint32_t room = 255 - summed, left = static_cast<uint32_t>(end - event);
            const uint32_t now = left < room ? left : room;
            for (const uint32_t *stop = event + now; event < stop; ++event) {
                const auto *weights = reinterpret_cast<const uint8_t *>(span->weights + *event * row);
                for (size_t line = 0; row >= 256 && line < row; line += 64)  // the list has room behind its end
                    __builtin_prefetch(reinterpret_cast<const void *>(span->weights + event[ahead] * row + line));
                for (int block = 0; block < BLOCKS; ++block) {
                    const Shorts words = in_register(load<Shorts>(weights + block * SNN_BLOCK));
                    whole[block] += words;
                    high[block] += words >> 8;
                }
            }
            summed += now;
            if (summed == 255) flush();
        }
    }
    if (summed) flush();
}

// Rows of 16-bit weights: one addition a vector, twice the memory. For small layers, and for weights beyond 8 bits.
template <int BLOCKS, class Number>
void add_shorts(const Span *spans, int count, const uint32_t *events, const uint32_t *starts, int shift, uint32_t limit,
                Number *x) {
    constexpr size_t row = static_cast<size_t>(BLOCKS) * SNN_BLOCK;
    constexpr int lanes = SNN_BLOCK / 2;
    Shorts sum[BLOCKS] = {};
    uint32_t summed = 0;
    auto flush = [&]() {
        alignas(SNN_BLOCK) int16_t sums[lanes];
        for (int block = 0; block < BLOCKS; ++block) {
            store(sums, sum[block]);
            widen(sums, lanes, shift, x + block * lanes);
            sum[block] = Shorts{};
        }
        summed = 0;
    };
    for (const Span *span = spans; span < spans + count; ++span) {
        const uint32_t *event = events + starts[span->begin], *end = events + starts[span->end];
        while (event < end) {
            const uint32_t room = limit - summed, left = static_cast<uint32_t>(end - event);
            const uint32_t now = left < room ? left : room;
            for (const uint32_t *stop = event + now; event < stop; ++event) {
                const auto *weights = reinterpret_cast<const uint8_t *>(span->weights + *event * row);
                for (int block = 0; block < BLOCKS; ++block) sum[block] += load<Shorts>(weights + block * SNN_BLOCK);
            }
            summed += now;
            if (summed == limit) flush();
        }
    }
    if (summed) flush();
}

// Rows as wide as the sums: weights that nothing narrower holds.
template <int TILE, class Number>
void add_numbers(const Span *spans, int count, const uint32_t *events, const uint32_t *starts, int shift, Number *x) {
    for (const Span *span = spans; span < spans + count; ++span)
        for (uint32_t at = starts[span->begin]; at < starts[span->end]; ++at) {
            const Number *weights =
                reinterpret_cast<const Number *>(span->weights + events[at] * (TILE * sizeof(Number)));
            for (int lane = 0; lane < TILE; ++lane) x[lane] += weights[lane] * (Number(1) << shift);
        }
}

// Graded values: a row times the value; zeros cost a look. ``values`` are those of the whole grid [pixel][channel], ``apart``
// from one pixel to the next, ``channels`` of them read. Returns the sum of their magnitudes.
template <int TILE, class Number>
int64_t add_graded(const Span *spans, int count, const int32_t *values, int apart, int channels, int shift, Number *x) {
    int64_t units = 0;
    for (const Span *span = spans; span < spans + count; ++span)
        for (size_t pixel = span->begin; pixel < span->end; ++pixel)
            for (int channel = 0; channel < channels; ++channel) {
                const int32_t given = values[pixel * apart + channel];
                if (!given) continue;
                units += given < 0 ? -static_cast<int64_t>(given) : given;
                const Number value = static_cast<Number>(given) * (Number(1) << shift);
                const Number *weights =
                    reinterpret_cast<const Number *>(span->weights + (pixel * channels + channel) * (TILE * sizeof(Number)));
                for (int lane = 0; lane < TILE; ++lane) x[lane] += value * weights[lane];
            }
    return units;
}

// One synapse a neuron, and the value of its partner. Returns the sum of their magnitudes.
template <class Number>
int64_t add_values(const int32_t *values, const Number *factors, int shift, int channels, Number *x) {
    int64_t units = 0;
    for (int lane = 0; lane < channels; ++lane) {
        units += values[lane] < 0 ? -static_cast<int64_t>(values[lane]) : values[lane];
        x[lane] += static_cast<Number>(values[lane]) * factors[lane] * (Number(1) << shift);
    }
    return units;
}

// One synapse a neuron: the factors of the neurons whose partner fired. Returns the events.
template <int TILE, class Number>
int64_t add_one_to_one(const uint64_t *mask, const Number *factors, int shift, Number *x) {
    int64_t units = 0;
    using Lanes = typename Vector<Number>::type;
    constexpr int lanes = SNN_BLOCK / static_cast<int>(sizeof(Number));
    for (int at = 0; at < TILE; at += 64) {
        const uint64_t word = mask[at / 64];
        units += __builtin_popcountll(word);
        for (int lane = 0; lane < least(TILE, 64); lane += lanes)
            store(x + at + lane, load<Lanes>(x + at + lane) + (picked<Number>(word >> lane, factors + at + lane) << shift));
    }
    return units;
}

// A factor a neuron for each place of its window, all from its own channel: a span is a place, ``begin`` the pixel there, and
// ``weights`` its factors. ``masks``: the tile's, ``words`` from one pixel to the next. Returns the events.
template <int TILE, class Number>
int64_t add_depthwise(const Span *spans, int count, const uint64_t *masks, int words, int channels, int shift, Number *x) {
    using Lanes = typename Vector<Number>::type;
    constexpr int lanes = SNN_BLOCK / static_cast<int>(sizeof(Number)), part = TILE < 64 ? TILE : 64;
    constexpr int together = part / lanes < 8 ? part / lanes : 8;  // vectors of sums that stay in registers
    int64_t units = 0;
    for (int at = 0; at < TILE && at < channels; at += 64) {
        for (int begin = 0; begin < part; begin += together * lanes) {
            Lanes sums[together] = {};
            for (const Span *span = spans; span < spans + count; ++span) {
                const uint64_t word = masks[static_cast<size_t>(span->begin) * words + at / 64];
                if (!begin) units += __builtin_popcountll(word);
                const auto *factors = reinterpret_cast<const Number *>(span->weights) + at + begin;
                for (int one = 0; one < together; ++one)
                    sums[one] += picked<Number>(word >> (begin + one * lanes), factors + one * lanes);
            }
            for (int one = 0; one < together; ++one) {
                Number *to = x + at + begin + one * lanes;
                store(to, load<Lanes>(to) + (sums[one] << shift));
            }
        }
    }
    return units;
}

}  // namespace
