// One step of a population of features, for the samples of a group: no map, no borders, and whatever arrives at a sample is
// one row of sums, so that its neurons step while these are in the first cache.
//
// The sums are products of all counts and weights, or what the events of a sample add: the neurons are the same.
#pragma once

#include "multiply.hpp"

namespace {

// The neurons of a word of channels: one bit for each that fires. ``before`` gets the potentials before the reset, or is
// null. What a compiler is to see through is fixed in ``rules`` by its caller.
template <int WIDTH>
inline uint64_t step_word(const snn::Rules &rules, bool readout, const Own<int32_t> &own, const int32_t *sums, int32_t *u,
                          int32_t *w, int32_t *before) {
    constexpr int lanes = SNN_BLOCK / 4;
    const bool holds = rules.current != snn::Decay::forget;
    uint64_t bits = 0;
    for (int lane = 0; lane < WIDTH; lane += lanes) {
        auto current = Numbers<int32_t>{}, potential = load<Numbers<int32_t>>(w + lane);
        if (holds) current = load<Numbers<int32_t>>(u + lane);
        const auto v = stepped<int32_t>(rules, readout, own, lane, load<Numbers<int32_t>>(sums + lane), current, potential, bits);
        if (holds) store(u + lane, current);
        store(w + lane, potential);
        if (before) store(before + lane, v);
    }
    return bits;
}

// Channels [from, end) of some samples of a group, whose sums lie ``apart``.
struct Rows {
    int one, last, from, end;
    const int32_t *sums;
    size_t apart;
};

template <int WIDTH, snn::Known KNOWN, snn::Decay DECAY>
void step_rows(const snn::Network &network, const snn::Population &population, snn::Piece &piece, const Rows &rows) {
    const snn::Signal &target = network.signals[population.signal];
    constexpr bool any = KNOWN == snn::Known::nothing;
    snn::Rules rules = snn::given_that<KNOWN>(population.rules);
    if (!any) rules.potential = DECAY;
    rules.fraction += population.connections->shift;
    const bool readout = any && population.readout, counts = is_counted(network, population, piece.first);
    const bool keeps = any && population.potentials && counts, fresh = begins(network, population, piece.first);
    const size_t padded = static_cast<size_t>(population.padded());
    const auto *initial = static_cast<const int32_t *>(population.initial.data);
    alignas(SNN_BLOCK) int32_t before[WIDTH];
    int64_t fired = 0;
    for (int channel = rows.from; channel < rows.end; channel += WIDTH) {
        const Own<int32_t> own = own_of<int32_t>(population, 0, channel);
        const int32_t *sums = rows.sums + (channel - rows.from);
        for (int sample = rows.one; sample < rows.last; ++sample, sums += rows.apart) {
            int32_t *u = static_cast<int32_t *>(piece.current) + sample * padded + channel;
            int32_t *w = static_cast<int32_t *>(piece.potential) + sample * padded + channel;
            if (fresh)
                for (int lane = 0; lane < WIDTH; ++lane) u[lane] = 0, w[lane] = initial[channel + lane];
            const uint64_t bits = step_word<WIDTH>(rules, readout, own, sums, u, w, keeps ? before : nullptr);
            if (!readout) target.mask(piece.sample + sample, piece.first)[channel / 64] = bits;
            fired += __builtin_popcountll(bits);
            if (!keeps) continue;
            const size_t at = static_cast<size_t>(piece.sample + sample) * network.steps + (piece.first - population.phase);
            int64_t *out = population.potentials + at * target.channels + channel;
            for (int lane = 0; lane < least(WIDTH, target.channels - channel); ++lane) out[lane] = before[lane];
        }
    }
    if (counts) piece.fired += fired;
}

typedef void (*StepRows)(const snn::Network &, const snn::Population &, snn::Piece &, const Rows &);

template <int WIDTH>
StepRows rows_of(const snn::Population &population) {
    using snn::Decay;
    using snn::Known;
    const Known known = population.potentials ? Known::nothing : snn::known(population.rules, population.readout);
    if (known == Known::nothing) return step_rows<WIDTH, Known::nothing, Decay::keep>;
    if (known == Known::usual) return step_rows<WIDTH, Known::usual, Decay::shift>;
    switch (population.rules.potential) {
        case Decay::keep: return step_rows<WIDTH, Known::plain, Decay::keep>;
        case Decay::shift: return step_rows<WIDTH, Known::plain, Decay::shift>;
        case Decay::product: return step_rows<WIDTH, Known::plain, Decay::product>;
        default: return step_rows<WIDTH, Known::plain, Decay::forget>;
    }
}

#if defined(__AMX_INT8__)

// 32 (or 16) samples times 32 channels, through all connections: their sums never leave the tiles.
template <bool TWO>
inline void feature_product(const snn::Population &population, const snn::Plane *planes, int row, int channel,
                            int32_t *sums, int width) {
    no_sums<TWO>();
    for (int index = 0; index < population.count; ++index) {
        const snn::Matrix &matrix = population.connections[index].matrix;
        const size_t step = matrix.step_bytes, panel = static_cast<size_t>(matrix.count) * 1024;
        const uint8_t *at = planes[index].bytes + row * step;
        const int8_t *weights = matrix.weights + channel / 16 * panel;
        for (const uint8_t *end = at + 64 * matrix.count; at < end; at += 64, weights += 1024)
            add_block<TWO>(at, step, weights, panel);
    }
    store_sums<TWO>(sums, width);
}

// All samples and channels of a piece: sums [tile][sample][channel of the tile], ``apart`` from one tile to the next.
inline void feature_products(const snn::Population &population, const snn::Piece &piece, int width, size_t apart) {
    for (int column = 0; column < piece.tiles * width; column += 32)
        for (int row = 0; row < piece.samples; row += 32) {
            int32_t *sums = piece.sums + column / width * apart + static_cast<size_t>(row) * width + column % width;
            if (piece.samples - row > 16)
                feature_product<true>(population, piece.planes, row, column, sums, width);
            else
                feature_product<false>(population, piece.planes, row, column, sums, width);
        }
}

#else

inline void feature_products(const snn::Population &population, const snn::Piece &piece, int width, size_t apart) {
    for (int tile = 0; tile < piece.tiles; ++tile)
        for (int index = 0; index < population.count; ++index)
            products_of(population.connections[index], piece.planes[index], 0, tile * width, piece.samples,
                        piece.sums + tile * apart, width, index > 0);
}

#endif

// The events of one sample, one connection after the other: stretches of a list, each with the weights of its first tile.
struct Arriving {
    uint32_t *list;
    int count;
    const snn::Connection *ways[snn::most_terms];
    uint32_t starts[snn::most_terms + 1];
};

// Returns the end of the list.
inline uint32_t *list_arriving(const snn::Network &network, const snn::Population &population, snn::Piece &piece, int sample,
                               uint32_t *list, Arriving &into) {
    const bool counts = is_counted(network, population, piece.first);
    const int channels = network.signals[population.signal].channels;
    into.list = list;
    into.count = 0;
    into.starts[0] = 0;
    for (int index = 0; index < population.count; ++index) {
        const snn::Connection &way = population.connections[index];
        const snn::Signal &source = network.signals[way.source];
        const int then = piece.first - way.delay;
        if (then < 0 || then >= source.steps) continue;
        const uint64_t *mask = source.mask(piece.sample + sample, then);
        const uint32_t *begin = list;
        for (int word = 0; word < source.words; ++word)
            if (mask[word]) list = append(mask[word], 64u * static_cast<uint32_t>(word), list);
        if (list == begin) continue;
        if (counts) piece.operations[index] += static_cast<int64_t>(list - begin) * channels;
        into.ways[into.count++] = &way;
        into.starts[into.count] = static_cast<uint32_t>(list - into.list);
    }
    return list;
}

// The rows of the first events of a stretch are called for while those of the stretch before it are added.
inline void call_for(const uint8_t *weights, size_t row_bytes, const uint32_t *event, const uint32_t *end) {
    constexpr int few = 4;
    end = end - event < few ? end : event + few;
    for (; event < end; ++event)
        for (size_t line = 0; line < row_bytes; line += 64) __builtin_prefetch(weights + *event * row_bytes + line);
}

inline void call_for(const Arriving &from, int at) {
    const snn::Connection &way = *from.ways[at];
    call_for(way.weights, way.row_bytes, from.list + from.starts[at], from.list + from.starts[at + 1]);
}

// The masks of a sample that is listed later: from sample to sample they lie too far apart for the processor to guess.
inline void call_for_masks(const snn::Network &network, const snn::Population &population, const snn::Piece &piece,
                           int sample) {
    for (int index = 0; index < population.count; ++index) {
        const snn::Connection &way = population.connections[index];
        const snn::Signal &source = network.signals[way.source];
        const int then = piece.first - way.delay;
        if (then < 0 || then >= source.steps) continue;
        const uint64_t *mask = source.mask(piece.sample + sample, then);
        for (int word = 0; word < source.words + 7; word += 8)
            __builtin_prefetch(mask + least(word, source.words - 1));
    }
}

// As many 16-bit sums as a vector has, in 32 bits.
inline void widen_all(Shorts sums, int32_t *x) {
    constexpr int half = SNN_BLOCK / 4;
#if defined(__AVX512BW__)  // spelled out: compilers go through narrower vectors
    const __m256i upper = _mm512_maskz_extracti64x4_epi64(0xff, (__m512i)sums, 1);
    store(x, _mm512_maskz_cvtepi16_epi32(0xffff, _mm512_castsi512_si256((__m512i)sums)));
    store(x + half, _mm512_maskz_cvtepi16_epi32(0xffff, upper));
#elif defined(__AVX2__)
    store(x, _mm256_cvtepi16_epi32(_mm256_castsi256_si128((__m256i)sums)));
    store(x + half, _mm256_cvtepi16_epi32(_mm256_extracti128_si256((__m256i)sums, 1)));
#else
    typedef int16_t Half __attribute__((vector_size(SNN_BLOCK / 2)));
    Half parts[2];
    store(parts, sums);
    for (int part = 0; part < 2; ++part) store(x + part * half, __builtin_convertvector(parts[part], Numbers<int32_t>));
#endif
}

// ``add_bytes`` for at most 255 events, in ``x``: sums leave the registers once.
template <int BLOCKS>
inline void add_few_bytes(const Span *spans, int count, const uint32_t *events, const uint32_t *starts, int32_t *x) {
    constexpr size_t row = static_cast<size_t>(BLOCKS) * SNN_BLOCK;
    Shorts whole[BLOCKS] = {}, high[BLOCKS] = {};
    uint32_t summed = 0;
    for (const Span *span = spans; span < spans + count; ++span) {
        const uint32_t *event = events + starts[span->begin], *end = events + starts[span->end];
        const auto *weights = reinterpret_cast<const uint8_t *>(span->weights);
        if (span + 1 < spans + count)
            call_for(reinterpret_cast<const uint8_t *>(span[1].weights), row, events + starts[span[1].begin],
                     events + starts[span[1].end]);
        summed += static_cast<uint32_t>(end - event);
        for (; event < end; ++event) {
            const uint8_t *from = weights + *event * row;
            for (int block = 0; block < BLOCKS; ++block) {
                const Shorts words = in_register(load<Shorts>(from + block * SNN_BLOCK));
                whole[block] += words;
                high[block] += words >> 8;
            }
        }
    }
    const Shorts bias = Shorts{} + static_cast<int16_t>(128 * summed);
    for (int block = 0; block < BLOCKS; ++block) {
        widen_all(whole[block] - (high[block] << 8) - bias, x + block * SNN_BLOCK);
        widen_all(high[block], x + block * SNN_BLOCK + SNN_BLOCK / 2);
    }
}

inline bool has_bytes(const Arriving &from) {
    for (int at = 0; at < from.count; ++at)
        if (from.ways[at]->form != snn::Form::bytes) return false;
    return true;
}

// What they add, in ``sums``: bytes of all connections without a pause.
template <int TILE>
inline void add_events(const snn::Population &population, const snn::Piece &piece, const Arriving &from, int32_t *sums) {
    for (int tile = 0; tile < population.tiles; ++tile) {
        int32_t *x = sums + tile * TILE;
        const bool few = TILE >= SNN_BLOCK && from.count && from.starts[from.count] <= 255 && has_bytes(from);
        for (int lane = 0; !few && lane < TILE; ++lane) x[lane] = 0;
        for (int at = 0, next; at < from.count; at = next) {
            const snn::Form form = from.ways[at]->form;
            Span *span = piece.spans;
            for (next = at; next < from.count && from.ways[next]->form == form; ++next) {
                const auto base = reinterpret_cast<uintptr_t>(from.ways[next]->weights) + tile * from.ways[next]->tile_bytes;
                *span++ = {static_cast<uint32_t>(next), static_cast<uint32_t>(next) + 1, base};
                if (form == snn::Form::shorts) break;  // each has a limit of its own
            }
            if (form == snn::Form::shorts)
                add_shorts<2 * TILE / SNN_BLOCK, int32_t>(piece.spans, 1, from.list, from.starts, 0,
                                                          static_cast<uint32_t>(from.ways[next++]->flush), x);
            else if constexpr (TILE >= SNN_BLOCK) {
                if (few)
                    add_few_bytes<TILE / SNN_BLOCK>(piece.spans, from.count, from.list, from.starts, x);
                else
                    add_bytes<TILE / SNN_BLOCK, int32_t>(piece.spans, next - at, from.list, from.starts, 0, x);
            }
        }
    }
}

template <int TILE>
void step_tiles(const snn::Network &network, const snn::Population &population, snn::Piece &piece) {
    constexpr int width = TILE < 64 ? TILE : 64;
    const StepRows step = rows_of<width>(population);
    const size_t padded = static_cast<size_t>(population.padded());
    for (int first = 0; piece.list && first < piece.samples; first += snn::most_added) {
        const int last = least(piece.samples, first + snn::most_added);
        Arriving from[snn::most_added];
        uint32_t *list = piece.list;
        for (int sample = first; sample < last; ++sample)
            list = list_arriving(network, population, piece, sample, list, from[sample - first]);
        for (int sample = first; sample < last; ++sample) {
            if (sample + snn::most_added < piece.samples)
                call_for_masks(network, population, piece, sample + snn::most_added);
            for (size_t line = 0; line < padded; line += 16)  // its state, which its neurons read next
                __builtin_prefetch(static_cast<const int32_t *>(piece.potential) + sample * padded + line);
            if (sample + 1 < last && from[sample + 1 - first].count) call_for(from[sample + 1 - first], 0);
            add_events<TILE>(population, piece, from[sample - first], piece.sums + (sample - first) * padded);
        }
        step(network, population, piece, {first, last, 0, population.padded(), piece.sums, padded});
    }
    if (piece.list) return;
    // all products, then all neurons: going back and forth between tiles and vectors costs time
    const size_t apart = snn::sums_of(piece.samples, width);
    set_tiles();
    feature_products(population, piece, width, apart);
    release_tiles();
    for (int tile = 0; tile < piece.tiles; ++tile)
        step(network, population, piece,
             {0, piece.samples, tile * width, tile * width + width, piece.sums + tile * apart, width});
}

// One step of ``piece.samples`` samples: events are added where there is a list, else all is multiplied.
void step_piece(const snn::Network &network, snn::Piece &piece) {
    const snn::Population &population = network.populations[piece.population];
    switch (population.tile) {
        case 32: return step_tiles<32>(network, population, piece);
        case 64: return step_tiles<64>(network, population, piece);
        case 128: return step_tiles<128>(network, population, piece);
        default: return step_tiles<256>(network, population, piece);
    }
}

}  // namespace
