// Counts of spikes as bytes, on a plane with borders of zeros: the left-hand side of what products.hpp multiplies.
#pragma once

#include "network.hpp"
#include "vectors.hpp"

namespace {

// Bits as bytes of 0 or 1, eight at a time: byte i keeps bit i alone, and what is not zero becomes one.
inline uint64_t eight_bytes(uint64_t bits) {
    const uint64_t alone = ((bits & 255) * 0x0101010101010101u) & 0x8040201008040201u;
    return ((alone + 0x7f7f7f7f7f7f7f7fu) >> 7) & 0x0101010101010101u;
}

// How many of some words have each of 64 bits: at most 127 of them.
struct Counts {
#if defined(__AVX512BW__)
    __m512i bytes = _mm512_setzero_si512();
    void add(uint64_t word) { bytes = _mm512_mask_add_epi8(bytes, word, bytes, _mm512_set1_epi8(1)); }
    void leave(int count, uint8_t *to) const { _mm512_mask_storeu_epi8(to, ~uint64_t{0} >> (64 - count), bytes); }
#else
    uint64_t bytes[8] = {};
    void add(uint64_t word) {
        for (int at = 0; at < 8; ++at) bytes[at] += eight_bytes(word >> (8 * at));
    }
    void leave(int count, uint8_t *to) const { __builtin_memcpy(to, bytes, static_cast<size_t>(count)); }
#endif
};

inline void clear(uint8_t *to, size_t bytes) {
    if (bytes) __builtin_memset(to, 0, bytes);
}

// So many channels of a pixel, from any one on.
inline uint64_t word_of(const uint64_t *mask, int words, int first, int count) {
    return snn::word_from(mask, words, first) & (~uint64_t{0} >> (64 - count));
}

// The bytes of one place: the sum, or the union, of the pixels of its window, for the channels that a connection reads.
// WHOLE: all of the source's. Returns the events.
template <bool WHOLE>
inline int64_t spread_pixel(const snn::Signal &source, const snn::Connection &way, const snn::Pool &pool, const uint64_t *masks,
                            int y, int x, uint8_t *to) {
    const int top = most(0, y * pool.stride_y - pool.padding_y);
    const int bottom = least(source.height, y * pool.stride_y - pool.padding_y + pool.kernel_y);
    const int left = most(0, x * pool.stride_x - pool.padding_x);
    const int right = least(source.width, x * pool.stride_x - pool.padding_x + pool.kernel_x);
    int64_t events = 0;
    for (int channel = 0; channel < way.channels; channel += 64) {
        Counts counts;
        uint64_t any = 0;
        const int here = least(64, way.channels - channel);
        for (int row = top; row < bottom; ++row)
            for (int column = left; column < right; ++column) {
                const uint64_t *mask = masks + (static_cast<size_t>(row) * source.width + column) * source.words;
                const uint64_t bits = WHOLE ? mask[channel / 64] : word_of(mask, source.words, way.first + channel, here);
                any |= bits;
                if (pool.maximum || !bits) continue;
                events += __builtin_popcountll(bits);
                counts.add(bits);
            }
        if (pool.maximum) {
            events += __builtin_popcountll(any);
            counts.add(any);
        }
        counts.leave(here, to + channel);
    }
    return events;
}

inline bool is_pooled(const snn::Pool &pool) {
    return pool.kernel_y * pool.kernel_x > 1 || pool.stride_y * pool.stride_x > 1 || pool.padding_y + pool.padding_x > 0;
}

// The words of one pixel as they are. Returns the events.
inline int64_t spread_words(const uint64_t *mask, int channels, uint8_t *to) {
    int64_t events = 0;
    for (int left = channels; left > 0; left -= 64, to += 64, ++mask) {
        Counts counts;
        counts.add(*mask);
        counts.leave(least(64, left), to);
        events += __builtin_popcountll(*mask);
    }
    return events;
}

// A window of its channels. Returns the events.
inline int64_t spread_window(const snn::Signal &source, const snn::Connection &way, const uint64_t *mask, uint8_t *to) {
    int64_t events = 0;
    for (int channel = 0; channel < way.channels; channel += 64) {
        const int here = least(64, way.channels - channel);
        const uint64_t bits = word_of(mask, source.words, way.first + channel, here);
        events += spread_words(&bits, here, to + channel);
    }
    return events;
}

// The places [left, right) of one row, those of the source's row ``y``. Returns the events times the targets along the row.
template <bool POOLED, bool WHOLE>
int64_t spread_row(const snn::Signal &source, const snn::Connection &way, const snn::Pool &pool, const uint64_t *masks, int y,
                   int left, int right, uint8_t *to) {
    const int channels = way.channels, words = source.words;  // bytes that are written may be anything, to a compiler
    const int *over = way.matrix.over_x;
    const uint64_t *mask = masks + static_cast<size_t>(y) * source.width * words;
    int64_t events = 0;
    for (int column = left; column < right; ++column, mask += words) {
        uint8_t *place = to + static_cast<size_t>(column) * channels;
        if (POOLED)
            events += over[column] * spread_pixel<WHOLE>(source, way, pool, masks, y, column - way.padding_x, place);
        else if (WHOLE)
            events += over[column] * spread_words(mask, channels, place);
        else
            events += over[column] * spread_window(source, way, mask, place);
    }
    return events;
}

// The plane of one sample and step, see Kernels::spread.
inline int64_t spread_line(const snn::Network &network, const snn::Connection &way, const uint64_t *masks, uint8_t *plane,
                           size_t row_bytes) {
    const snn::Signal &source = network.signals[way.source];
    const snn::Matrix &matrix = way.matrix;
    const snn::Events &grid = network.events[way.events];
    const snn::Pool &pool = grid.pool;
    const bool pooled = is_pooled(pool), whole = way.channels == source.channels;
    const size_t channels = static_cast<size_t>(way.channels);
    const int left = least(way.padding_x, matrix.width), right = least(matrix.width, way.padding_x + grid.width);
    int64_t total = 0;
    for (int row = 0; row < matrix.height; ++row) {
        uint8_t *to = plane + row * row_bytes;
        const int y = row - way.padding_y;
        if (!masks || y < 0 || y >= grid.height) {
            clear(to, matrix.line_bytes);
            continue;
        }
        clear(to, left * channels);
        const auto places = pooled ? (whole ? spread_row<true, true> : spread_row<true, false>)
                                   : (whole ? spread_row<false, true> : spread_row<false, false>);
        const int64_t events = places(source, way, pool, masks, y, left, right, to);
        clear(to + right * channels, matrix.line_bytes - right * channels);
        total += events * matrix.over_y[row];
    }
    return total;
}

int64_t spread(const snn::Network &network, const snn::Connection &way, const uint64_t *masks, size_t apart, int count,
               uint8_t *plane, size_t row_bytes) {
    const snn::Signal &source = network.signals[way.source];
    int64_t events = 0;
    if (masks && source.pixels() == 1 && way.channels == source.channels && way.matrix.height * way.matrix.width == 1 &&
        !(way.padding_y | way.padding_x) && !is_pooled(network.events[way.events].pool)) {  // features: a line holds whole words
        for (int line = 0; line < count; ++line, plane += way.matrix.line_bytes, masks += apart)
            events += spread_words(masks, 64 * source.words, plane);
        return events;
    }
    for (int line = 0; line < count; ++line, plane += way.matrix.line_bytes)
        events += spread_line(network, way, masks ? masks + line * apart : nullptr, plane, row_bytes);
    return events;
}

}  // namespace
