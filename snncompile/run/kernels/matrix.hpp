// Where spikes are many: counts of spikes as bytes, times all the weights, and the neuron behind it.
//
//     x[s, p, n] = sum over k of count[s, p, k] w[k, n]       s: sample and step, p: target pixel, k: place of its window
//
// A product of 8-bit matrices with sums of 32 bits, exact: run/compiled.py offers it where no partial sum can leave them. It
// costs the same for any number of spikes, so the engine takes it where that is less than the events would cost.
#pragma once

#include "layer.hpp"

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

inline void clear(uint8_t *to, size_t bytes) { __builtin_memset(to, 0, bytes); }

// The bytes of one place: the sum, or the union, of the pixels of its window. Returns the events.
inline int64_t spread_pixel(const snn::Signal &source, const snn::Pool &pool, const uint64_t *masks, int y, int x, uint8_t *to) {
    const int top = most(0, y * pool.stride_y - pool.padding_y);
    const int bottom = least(source.height, y * pool.stride_y - pool.padding_y + pool.kernel_y);
    const int left = most(0, x * pool.stride_x - pool.padding_x);
    const int right = least(source.width, x * pool.stride_x - pool.padding_x + pool.kernel_x);
    int64_t events = 0;
    for (int word = 0; word < source.words; ++word) {
        Counts counts;
        uint64_t any = 0;
        for (int row = top; row < bottom; ++row)
            for (int column = left; column < right; ++column) {
                const uint64_t bits = masks[(static_cast<size_t>(row) * source.width + column) * source.words + word];
                any |= bits;
                if (pool.maximum || !bits) continue;
                events += __builtin_popcountll(bits);
                counts.add(bits);
            }
        if (pool.maximum) {
            events += __builtin_popcountll(any);
            counts.add(any);
        }
        counts.leave(least(64, source.channels - 64 * word), to + 64 * word);
    }
    return events;
}

int64_t spread(const snn::Network &network, const snn::Connection &way, const uint64_t *masks, int index, uint8_t *plane,
               size_t row_bytes) {
    const snn::Signal &source = network.signals[way.source];
    const snn::Matrix &matrix = way.matrix;
    const snn::Events &grid = network.events[way.events];
    const snn::Pool &pool = grid.pool;
    const bool pooled = pool.kernel_y * pool.kernel_x > 1 || pool.stride_y * pool.stride_x > 1 || pool.padding_y + pool.padding_x;
    const size_t channels = static_cast<size_t>(source.channels);
    const int left = least(way.padding_x, matrix.width), right = least(matrix.width, way.padding_x + grid.width);
    int64_t total = 0;
    for (int row = 0; row < matrix.height; ++row) {
        uint8_t *to = plane + row * row_bytes + index * matrix.line_bytes;
        const int y = row - way.padding_y;
        if (!masks || y < 0 || y >= grid.height) {
            clear(to, matrix.line_bytes);
            continue;
        }
        clear(to, left * channels);
        int64_t events = 0;
        const uint64_t *mask = masks + static_cast<size_t>(y) * source.width * source.words;
        for (int column = left; column < right; ++column) {
            uint8_t *pixel = to + column * channels;
            int64_t here = 0;
            if (pooled) {
                here = spread_pixel(source, pool, masks, y, column - way.padding_x, pixel);
            } else {
                for (int word = 0; word < source.words; ++word, ++mask) {
                    Counts counts;
                    counts.add(*mask);
                    counts.leave(least(64, source.channels - 64 * word), pixel + 64 * word);
                    here += __builtin_popcountll(*mask);
                }
            }
            events += here * matrix.over_x[column];
        }
        clear(to + right * channels, matrix.line_bytes - right * channels);
        total += events * matrix.over_y[row];
    }
    return total;
}

#if defined(__AMX_INT8__)

constexpr int product_rows = 32;  // that are made together: the room for sums is rounded up to them

// Shapes of the eight tiles of a thread: 16 rows of 64 bytes each.
inline void set_tiles() {
    struct {
        uint8_t palette = 1, start = 0, reserved[14] = {};
        uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
        uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } shapes;
    _tile_loadconfig(&shapes);
}

inline void release_tiles() { _tile_release(); }

// 32 (or 16) rows times 32 columns: four sums (or two) stay in tiles over all blocks.
template <bool TWO>
inline void product(const snn::Matrix &matrix, const uint8_t *from, size_t row_bytes, const int8_t *weights, int32_t *sums,
                    int width) {
    const size_t step = matrix.step_bytes, panel = static_cast<size_t>(matrix.count) * 1024;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (const snn::Block *block = matrix.blocks; block < matrix.blocks + matrix.count; ++block, weights += 1024) {
        const uint8_t *at = from + block->line * row_bytes + block->bytes;
        _tile_loadd(6, weights, 64);
        _tile_loadd(7, weights + panel, 64);
        _tile_loadd(4, at, step);
        _tile_dpbusd(0, 4, 6);
        _tile_dpbusd(1, 4, 7);
        if (!TWO) continue;
        _tile_loadd(5, at + 16 * step, step);
        _tile_dpbusd(2, 5, 6);
        _tile_dpbusd(3, 5, 7);
    }
    const size_t line = static_cast<size_t>(width) * 4;
    _tile_stored(0, sums, line);
    _tile_stored(1, sums + 16, line);
    if (!TWO) return;
    _tile_stored(2, sums + 16 * width, line);
    _tile_stored(3, sums + 16 * width + 16, line);
}

inline void products(const snn::Matrix &matrix, const uint8_t *from, size_t row_bytes, const int8_t *weights, int rows,
                     int32_t *sums, int width) {
    for (int row = 0; row < rows; row += 32) {
        const uint8_t *at = from + row * matrix.step_bytes;
        if (rows - row > 16)
            product<true>(matrix, at, row_bytes, weights, sums + row * width, width);
        else
            product<false>(matrix, at, row_bytes, weights, sums + row * width, width);
    }
}

#else

inline void set_tiles() {}
inline void release_tiles() {}

constexpr int lanes_32 = SNN_BLOCK / 4;
constexpr int product_rows = SNN_BLOCK == 64 ? 8 : 2;
typedef int32_t Sums __attribute__((vector_size(SNN_BLOCK)));

// sums[lane] += count[0] w[lane][0] + .. + count[3] w[lane][3]; counts are below 128, so that two products fit 16 bits.
inline Sums add_products(Sums sums, uint32_t counts, const int8_t *weights) {
#if defined(__AVX512VNNI__)
    return (Sums)_mm512_dpbusd_epi32((__m512i)sums, _mm512_set1_epi32(static_cast<int>(counts)), load<__m512i>(weights));
#elif defined(__AVX512BW__)
    const __m512i pairs = _mm512_maddubs_epi16(_mm512_set1_epi32(static_cast<int>(counts)), load<__m512i>(weights));
    return sums + (Sums)_mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
#elif defined(__AVX2__)
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi32(static_cast<int>(counts)), load<__m256i>(weights));
    return sums + (Sums)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#else
    const Sums four = load<Sums>(weights);  // the bytes of a lane, each with its sign
    for (int place = 0; place < 4; ++place)
        sums += static_cast<int32_t>(counts >> (8 * place) & 255) * ((four << (24 - 8 * place)) >> 24);
    return sums;
#endif
}

inline void products(const snn::Matrix &matrix, const uint8_t *from, size_t row_bytes, const int8_t *weights, int rows,
                     int32_t *sums, int width) {
    constexpr int vectors = 32 / lanes_32;
    const size_t panel = static_cast<size_t>(matrix.count) * 1024;
    for (int row = 0; row < rows; row += product_rows) {
        Sums total[product_rows][vectors] = {};
        const int8_t *mine = weights;
        for (const snn::Block *block = matrix.blocks; block < matrix.blocks + matrix.count; ++block, mine += 1024) {
            const uint8_t *at = from + row * matrix.step_bytes + block->line * row_bytes + block->bytes;
            for (int quad = 0; quad < (block->used + 3) / 4; ++quad)
                for (int one = 0; one < product_rows; ++one)
                    for (int vector = 0; vector < vectors; ++vector) {
                        const int lane = vector * lanes_32;
                        total[one][vector] = add_products(
                            total[one][vector], load<uint32_t>(at + one * matrix.step_bytes + 4 * quad),
                            mine + (lane / 16) * panel + quad * 64 + lane % 16 * 4);
                    }
        }
        for (int one = 0; one < product_rows; ++one)
            for (int vector = 0; vector < vectors; ++vector)
                store(sums + (row + one) * width + vector * lanes_32, total[one][vector]);
    }
}

#endif

// What a connection brings to one row of the map, [sample, step, column][channel of the tile].
inline void products_of(const snn::Connection &way, const snn::Plane &plane, int y, int lane, int rows, int32_t *sums, int width) {
    const snn::Matrix &matrix = way.matrix;
    const uint8_t *from = plane.bytes + static_cast<size_t>(y) * way.stride_y * plane.row_bytes;
    for (int column = 0; column < width; column += 32)
        products(matrix, from, plane.row_bytes, matrix.weights + static_cast<size_t>(lane + column) / 16 * matrix.count * 1024,
                 rows, sums + column, width);
}

inline int sum_rows(const snn::Matrix &matrix, const snn::Piece &piece) {
    return piece.samples * (piece.last - piece.first) * matrix.rows;
}

template <int TILE, class Number>
void multiply_tile(const snn::Network &network, snn::Piece &piece) {
    const snn::Population &population = network.populations[piece.population];
    const snn::Signal &target = network.signals[population.signal];
    const int lane = piece.tile * TILE, valid = least(TILE, target.channels - lane), padded = population.padded();
    const int steps = piece.last - piece.first;
    alignas(SNN_BLOCK) Number x[TILE], u_here[TILE], w_here[TILE];
    for (int y = piece.begin; y < piece.end; ++y) {
        int32_t *room = piece.sums;
        for (int index = 0; index < population.count; ++index) {
            const snn::Connection &way = population.connections[index];
            if (way.form == snn::Form::one_to_one) continue;
            const int rows = sum_rows(way.matrix, piece);
            products_of(way, piece.planes[index], y, lane, rows, room, TILE);
            room += snn::sums_of(rows, TILE);
        }
        for (int one = 0; one < piece.samples * target.width; ++one) {
            const int sample = one / target.width, column = one % target.width, pixel = y * target.width + column;
            const size_t place = (static_cast<size_t>(sample) * target.pixels() + pixel) * padded + lane;
            Number *u = piece.current ? static_cast<Number *>(piece.current) + place : u_here;
            Number *w = piece.potential ? static_cast<Number *>(piece.potential) + place : w_here;
            const Own<Number> mine = own_of<Number>(population, pixel, lane);
            const Number *initial = own<Number>(population.initial, pixel, lane);
            for (int step = piece.first; step < piece.last; ++step) {
                if (begins(network, population, step))
                    for (int channel = 0; channel < TILE; ++channel) u[channel] = 0, w[channel] = initial[channel];
                for (int channel = 0; channel < TILE; ++channel) x[channel] = 0;
                const int32_t *sums = piece.sums;
                for (int index = 0; index < population.count; ++index) {
                    const snn::Connection &way = population.connections[index];
                    if (way.form == snn::Form::one_to_one) {
                        const int then = step - way.delay;
                        if (then < 0 || then >= network.signals[way.source].steps) continue;
                        const int64_t operations = receive_one_to_one<TILE, Number>(
                            network, way, piece.sample + sample, then, pixel, lane, valid, population.tile, x);
                        if (is_counted(network, population, step)) piece.operations[index] += operations;
                        continue;
                    }
                    const int rows = way.matrix.rows;
                    const int32_t *mine_too =
                        sums + (static_cast<size_t>(sample * steps + step - piece.first) * rows + column) * TILE;
                    for (int channel = 0; channel < TILE; ++channel)
                        x[channel] += static_cast<Number>(mine_too[channel]) * (Number(1) << way.shift);
                    sums += snn::sums_of(sum_rows(way.matrix, piece), TILE);
                }
                settle<TILE, Number>(network, population, piece, piece.sample + sample, pixel, step, lane, valid, mine, x, u, w);
            }
        }
    }
}

void multiply_piece(const snn::Network &network, snn::Piece &piece) {
    const snn::Population &population = network.populations[piece.population];
    set_tiles();
    if (snn::matrix_tile(population) == 32)
        population.wide ? multiply_tile<32, int64_t>(network, piece) : multiply_tile<32, int32_t>(network, piece);
    else
        population.wide ? multiply_tile<64, int64_t>(network, piece) : multiply_tile<64, int32_t>(network, piece);
    release_tiles();
}

}  // namespace
