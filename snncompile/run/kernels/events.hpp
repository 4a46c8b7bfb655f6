// From bytes to bits, and from bits to lists: the events of one step, pixel after pixel, each as (pixel * channels + channel).
//
// Pixels that lie side by side have their events side by side, so that what a kernel row of a convolution reads is one
// stretch of the list. A pooled pixel's list holds the events of all pixels of its window one after the other: a count of
// three is the same event three times, which is what a sum of spikes means to the weights behind it.
#pragma once

#include "network.hpp"
#include "vectors.hpp"

namespace {

int64_t count(const uint64_t *masks, size_t words) {
    int64_t spikes = 0;
    for (size_t word = 0; word < words; ++word) spikes += __builtin_popcountll(masks[word]);
    return spikes;
}

// Up to 64 bytes of 0 or 1 as bits.
inline uint64_t bits_of(const uint8_t *from, int count) {
#if defined(__AVX512BW__)
    return _mm512_test_epi8_mask(_mm512_maskz_loadu_epi8(~uint64_t{0} >> (64 - count), from), _mm512_set1_epi8(-1));
#else
    // eight at a time: the product puts byte i at bit 56 + i, and no two terms meet in a bit
    uint64_t word = 0;
    for (int eight = 0; eight < count; eight += 8) {
        uint64_t bytes = 0;
        __builtin_memcpy(&bytes, from + eight, static_cast<size_t>(least(8, count - eight)));
        word |= (bytes * 0x0102040810204080u) >> 56 << eight;
    }
    return word;
#endif
}

// Bit i of word j and bit j of word i change places where i and j differ in the bit APART alone.
template <int APART>
inline void exchange(uint64_t *words) {
    constexpr uint64_t low = ~uint64_t{0} / ((uint64_t{1} << APART) + 1);
    for (int first = 0; first < 64; first += 2 * APART)
        for (int at = first; at < first + APART; ++at) {
            const uint64_t other = ((words[at] >> APART) ^ words[at + APART]) & low;
            words[at] ^= other << APART;
            words[at + APART] ^= other;
        }
}

// 64 words of 64 bits: rows become columns.
inline void transpose(uint64_t *words) {
    exchange<32>(words);
    exchange<16>(words);
    exchange<8>(words);
    exchange<4>(words);
    exchange<2>(words);
    exchange<1>(words);
}

// An input's spikes as they are given, [channel][pixel], as masks [pixel][word]. Returns how many there are.
int64_t take(const snn::Signal &signal, const uint8_t *from, uint64_t *to) {
    const int pixels = signal.pixels();
    constexpr int few = 8;  // channels: less than it takes to turn whole squares over
    if (pixels == 1) {
        int64_t spikes = 0;
        for (int at = 0; at < signal.channels; at += 64) {
            __builtin_prefetch(from + at + 1024);
            to[at / 64] = bits_of(from + at, least(64, signal.channels - at));
            spikes += __builtin_popcountll(to[at / 64]);
        }
        return spikes;
    }
    const size_t words = static_cast<size_t>(pixels) * signal.words;
    if (signal.channels <= few) {
        __builtin_memset(to, 0, words * 8);
        for (int channel = 0; channel < signal.channels; ++channel, from += pixels)
            for (int pixel = 0; pixel < pixels; ++pixel) to[pixel] |= static_cast<uint64_t>(from[pixel] != 0) << channel;
        return count(to, words);
    }
    for (int pixel = 0; pixel < pixels; pixel += 64) {
        const int width = least(64, pixels - pixel);
        for (int word = 0; word < signal.words; ++word) {
            uint64_t square[64] = {};
            for (int channel = 64 * word; channel < least(64 * word + 64, signal.channels); ++channel) {
                const uint8_t *row = from + static_cast<size_t>(channel) * pixels + pixel;
                __builtin_prefetch(row + 64, 0, 2);
                square[channel % 64] = bits_of(row, width);
            }
            transpose(square);
            for (int at = 0; at < width; ++at) to[static_cast<size_t>(pixel + at) * signal.words + word] = square[at];
        }
    }
    return count(to, words);
}

// Append the set bits of a word. Writes up to 64 entries past what it keeps.
inline uint32_t *append(uint64_t word, uint32_t base, uint32_t *out) {
#if defined(__AVX512F__)
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i index = _mm512_add_epi32(lanes, _mm512_set1_epi32(static_cast<int>(base)));
    for (int part = 0; part < 4; ++part) {
        const __mmask16 mask = static_cast<__mmask16>(word >> (16 * part));
        // compressed in a register, then stored whole: compressing into memory is slow on some processors
        _mm512_storeu_si512(out, _mm512_maskz_compress_epi32(mask, index));
        out += __builtin_popcount(mask);
        index = _mm512_add_epi32(index, _mm512_set1_epi32(16));
    }
    return out;
#else
    while (word) {
        *out++ = base + static_cast<uint32_t>(__builtin_ctzll(word));
        word &= word - 1;
    }
    return out;
#endif
}

// The places [begin, end) of a source, along one axis, whose events a place of the grid holds.
inline void window(int place, int kernel, int stride, int padding, int spread, int size, int &begin, int &end) {
    const bool held = spread == 1 || place % spread == 0;
    if (spread > 1) place /= spread;
    begin = most(0, place * stride - padding);
    end = held ? least(size, place * stride - padding + kernel) : begin;
}

// Writes the list and the starts; ``events.steps`` has room for every event.
inline void list_events(const snn::Network &network, const snn::Events &events, int sample, int step) {
    const snn::Signal &source = network.signals[events.source];
    const snn::Pool &pool = events.pool;
    const uint64_t *masks = source.mask(sample, step);
    snn::EventStep &into = events.at(sample, step);
    uint32_t *out = into.events;
    uint32_t base = 0, *start = into.starts;
    // the window's words, the bits of its ends alone, and what its first channel is counted from
    const int first = events.first / 64, last = (events.first + events.channels - 1) / 64;
    const uint64_t from = ~uint64_t{0} << (events.first % 64);
    const uint64_t until = ~uint64_t{0} >> (63 - (events.first + events.channels - 1) % 64);
    const auto within = [&](uint64_t bits, int word) {
        if (word == first) bits &= from;
        return word == last ? bits & until : bits;
    };
    const auto channel = [&](int word) { return 64u * static_cast<uint32_t>(word) - static_cast<uint32_t>(events.first); };
    for (int y = 0; y < events.height; ++y) {
        int top, bottom, left, right;
        window(y, pool.kernel_y, pool.stride_y, pool.padding_y, pool.spread_y, source.height, top, bottom);
        for (int x = 0; x < events.width; ++x, base += static_cast<uint32_t>(events.channels)) {
            window(x, pool.kernel_x, pool.stride_x, pool.padding_x, pool.spread_x, source.width, left, right);
            *start++ = static_cast<uint32_t>(out - into.events);
            if (pool.maximum) {
                for (int word = first; word <= last; ++word) {
                    uint64_t any = 0;
                    for (int row = top; row < bottom; ++row)
                        for (int column = left; column < right; ++column)
                            any |= masks[(static_cast<size_t>(row) * source.width + column) * source.words + word];
                    any = within(any, word);
                    if (any) out = append(any, base + channel(word), out);
                }
                continue;
            }
            for (int row = top; row < bottom; ++row) {
                const uint64_t *mask = masks + (static_cast<size_t>(row) * source.width + left) * source.words;
                for (int column = left; column < right; ++column, mask += source.words)
                    for (int word = first; word <= last; ++word) {
                        const uint64_t bits = within(mask[word], word);
                        if (bits) out = append(bits, base + channel(word), out);
                    }
            }
        }
    }
    *start = static_cast<uint32_t>(out - into.events);
}

}  // namespace
