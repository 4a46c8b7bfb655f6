// Products of matrices: counts of spikes (bytes, below 128) times weights of 8 bits, in sums of 32 bits.
//
// Four counts and the four weights that they meet lie side by side, which is what the instructions for such products want:
// tiles of 16 x 64 bytes (AMX), vectors (VNNI), or pairs (AVX2). Thirty-two columns are made at a time.
#pragma once

#include "network.hpp"
#include "vectors.hpp"

namespace {

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

// Sums of 32 (TWO) or 16 rows times 32 columns, in tiles 0 to 3.
template <bool TWO>
inline void no_sums() {
    _tile_zero(0);
    _tile_zero(1);
    if (!TWO) return;
    _tile_zero(2);
    _tile_zero(3);
}

template <bool TWO>
inline void load_sums(const int32_t *sums, int width) {
    const size_t line = static_cast<size_t>(width) * 4;
    _tile_loadd(0, sums, line);
    _tile_loadd(1, sums + 16, line);
    if (!TWO) return;
    _tile_loadd(2, sums + 16 * width, line);
    _tile_loadd(3, sums + 16 * width + 16, line);
}

template <bool TWO>
inline void store_sums(int32_t *sums, int width) {
    const size_t line = static_cast<size_t>(width) * 4;
    _tile_stored(0, sums, line);
    _tile_stored(1, sums + 16, line);
    if (!TWO) return;
    _tile_stored(2, sums + 16 * width, line);
    _tile_stored(3, sums + 16 * width + 16, line);
}

// One block more in these: rows of counts ``step`` bytes apart, the weights of both halves of the columns ``panel`` apart.
template <bool TWO>
inline void add_block(const uint8_t *at, size_t step, const int8_t *weights, size_t panel) {
    _tile_loadd(6, weights, 64);
    _tile_loadd(7, weights + panel, 64);
    _tile_loadd(4, at, step);
    _tile_dpbusd(0, 4, 6);
    _tile_dpbusd(1, 4, 7);
    if (!TWO) return;
    _tile_loadd(5, at + 16 * step, step);
    _tile_dpbusd(2, 5, 6);
    _tile_dpbusd(3, 5, 7);
}

// 32 (or 16) rows times 32 columns: four sums (or two) stay in tiles over the blocks from ``first`` to ``last``.
template <bool TWO>
inline void product(const snn::Matrix &matrix, int first, int last, const uint8_t *from, size_t row_bytes,
                    const int8_t *weights, int32_t *sums, int width, bool more) {
    const size_t step = matrix.step_bytes, panel = static_cast<size_t>(matrix.count) * 1024;
    if (more)
        load_sums<TWO>(sums, width);
    else
        no_sums<TWO>();
    weights += static_cast<size_t>(first) * 1024;
    for (const snn::Block *block = matrix.blocks + first; block < matrix.blocks + last; ++block, weights += 1024)
        add_block<TWO>(from + block->line * row_bytes + block->bytes, step, weights, panel);
    store_sums<TWO>(sums, width);
}

inline void products(const snn::Matrix &matrix, const uint8_t *from, size_t row_bytes, const int8_t *weights, int rows,
                     int32_t *sums, int width, bool more) {
    // where rows are many, blocks whose weights stay in the first cache for all of them, beside the counts
    const int together = rows > 64 ? 12 : matrix.count;
    for (int first = 0; first < matrix.count; first += together)
        for (int row = 0; row < rows; row += 32) {
            const int last = least(matrix.count, first + together);
            const uint8_t *at = from + row * matrix.step_bytes;
            if (rows - row > 16)
                product<true>(matrix, first, last, at, row_bytes, weights, sums + row * width, width, more || first);
            else
                product<false>(matrix, first, last, at, row_bytes, weights, sums + row * width, width, more || first);
        }
}

#else

inline void set_tiles() {}
inline void release_tiles() {}

constexpr int lanes_32 = SNN_BLOCK / 4;
constexpr int product_rows = SNN_BLOCK == 64 ? 8 : 2;
typedef int32_t Sums __attribute__((vector_size(SNN_BLOCK)));

// sums[lane] += count[0] w[lane][0] + .. + count[3] w[lane][3]; counts are below 128, so that two products fit 16 bits.
inline Sums add_products(Sums sums, uint32_t counts, Sums weights) {
#if defined(__AVX512VNNI__)
    return (Sums)_mm512_dpbusd_epi32((__m512i)sums, _mm512_set1_epi32(static_cast<int>(counts)), (__m512i)weights);
#elif defined(__AVX512BW__)
    const __m512i pairs = _mm512_maddubs_epi16(_mm512_set1_epi32(static_cast<int>(counts)), (__m512i)weights);
    return sums + (Sums)_mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
#elif defined(__AVX2__)
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi32(static_cast<int>(counts)), (__m256i)weights);
    return sums + (Sums)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#else
    for (int place = 0; place < 4; ++place)  // the bytes of a lane, each with its sign
        sums += static_cast<int32_t>(counts >> (8 * place) & 255) * ((weights << (24 - 8 * place)) >> 24);
    return sums;
#endif
}

// ``product_rows`` rows times 32 columns, over some blocks: the sums stay in registers, and weights are read once for all rows.
__attribute__((noinline)) void product(const snn::Matrix &matrix, int first, int last, const uint8_t *from, size_t row_bytes,
                    const int8_t *weights, int32_t *sums, int width, bool more) {
    constexpr int vectors = 32 / lanes_32;
    const size_t panel = static_cast<size_t>(matrix.count) * 1024, step = matrix.step_bytes;
    Sums total[product_rows][vectors];
    for (int one = 0; one < product_rows; ++one)
        for (int vector = 0; vector < vectors; ++vector)
            total[one][vector] = more ? load<Sums>(sums + one * width + vector * lanes_32) : Sums{};
    weights += static_cast<size_t>(first) * 1024;
    for (const snn::Block *block = matrix.blocks + first; block < matrix.blocks + last; ++block, weights += 1024) {
        const uint8_t *at = from + block->line * row_bytes + block->bytes;
        const int8_t *mine = weights;
        for (const uint8_t *end = at + block->used; at < end; at += 4, mine += 64) {
            Sums column[vectors];
            for (int vector = 0; vector < vectors; ++vector)
                column[vector] = in_register(load<Sums>(mine + vector * lanes_32 / 16 * panel + vector * lanes_32 % 16 * 4));
            for (int one = 0; one < product_rows; ++one)
                for (int vector = 0; vector < vectors; ++vector)
                    total[one][vector] = add_products(total[one][vector], load<uint32_t>(at + one * step), column[vector]);
        }
    }
    for (int one = 0; one < product_rows; ++one)
        for (int vector = 0; vector < vectors; ++vector) store(sums + one * width + vector * lanes_32, total[one][vector]);
}

inline void products(const snn::Matrix &matrix, const uint8_t *from, size_t row_bytes, const int8_t *weights, int rows,
                     int32_t *sums, int width, bool more) {
    // where rows are many, blocks whose weights stay in the first cache for all of them, beside the counts
    const int together = rows > 2 * product_rows ? 12 : matrix.count;
    for (int first = 0; first < matrix.count; first += together)
        for (int row = 0; row < rows; row += product_rows)
            product(matrix, first, least(matrix.count, first + together), from + row * matrix.step_bytes, row_bytes, weights,
                    sums + static_cast<size_t>(row) * width, width, more || first);
}

#endif

// What a connection brings to one row of the map, [sample, step, column][channel of the tile]. ``more``: added to the sums.
inline void products_of(const snn::Connection &way, const snn::Plane &plane, int y, int lane, int rows, int32_t *sums, int width,
                        bool more) {
    const snn::Matrix &matrix = way.matrix;
    const uint8_t *from = plane.bytes + static_cast<size_t>(y) * way.stride_y * plane.row_bytes;
    for (int column = 0; column < width; column += 32)
        products(matrix, from, plane.row_bytes, matrix.weights + static_cast<size_t>(lane + column) / 16 * matrix.count * 1024,
                 rows, sums + column, width, more);
}

}  // namespace
