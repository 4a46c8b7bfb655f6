// How many weights this processor adds in a second, if it did nothing else: rows of a tile, one after the other, into sums
// that stay in registers. Compiled for one instruction set by ``ceiling.py``.
//
//     ceiling BYTES     of the weights that are walked through, again and again
//
// Prints, in thousand millions of weights a second: rows of two 8-bit weights in a word, as the engine's, and rows of
// 16-bit weights.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#if defined(__AVX512BW__)
constexpr int BLOCK = 64;
#else
constexpr int BLOCK = 32;
#endif
typedef int16_t Shorts __attribute__((vector_size(BLOCK)));

namespace {

constexpr int TILE = 256, ROUNDS = 7;
volatile int64_t sink;

template <class Vector>
Vector load(const void *from) {
    Vector value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

template <class Vector>
void use(const Vector *sums, int count) {
    int64_t total = 0;
    for (int one = 0; one < count; ++one)
        for (size_t lane = 0; lane < sizeof(Vector) / sizeof(sums[0][0]); ++lane) total += sums[one][lane];
    sink = total;
}

void add_bytes(const uint8_t *rows, size_t count, size_t times) {
    constexpr int blocks = TILE / BLOCK;
    Shorts whole[blocks] = {}, high[blocks] = {};
    for (size_t again = 0; again < times; ++again) {
        for (size_t row = 0; row < count; ++row)
            for (int block = 0; block < blocks; ++block) {
                Shorts words = load<Shorts>(rows + row * TILE + block * BLOCK);
                asm volatile("" : "+v"(words));  // read once, as the engine does; a compiler would read for each use
                whole[block] += words;
                high[block] += words >> 8;
            }
        asm volatile("" ::: "memory");
    }
    use(whole, blocks);
    use(high, blocks);
}

void add_shorts(const uint8_t *rows, size_t count, size_t times) {
    constexpr int blocks = TILE / BLOCK;  // of half the channels: as many bytes a row
    Shorts sums[blocks] = {};
    for (size_t again = 0; again < times; ++again) {
        for (size_t row = 0; row < count; ++row)
            for (int block = 0; block < blocks; ++block) sums[block] += load<Shorts>(rows + row * TILE + block * BLOCK);
        asm volatile("" ::: "memory");
    }
    use(sums, blocks);
}

// Thousand millions of weights a second, the best of some rounds.
void measure(const char *name, void (*run)(const uint8_t *, size_t, size_t), const uint8_t *rows, size_t count,
             int weights) {
    const size_t times = (size_t(1) << 20) / count + 1;
    double best = 0;
    for (int round = 0; round < ROUNDS; ++round) {
        const auto start = std::chrono::steady_clock::now();
        run(rows, count, times);
        const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
        const double rate = static_cast<double>(count) * times * weights / seconds.count() / 1e9;
        best = rate > best ? rate : best;
    }
    std::printf("%s %.1f\n", name, best);
}

}  // namespace

int main(int words, char **given) {
    const size_t bytes = words > 1 ? std::strtoull(given[1], nullptr, 10) : 1 << 14, count = bytes / TILE;
    auto *rows = static_cast<uint8_t *>(std::aligned_alloc(64, count * TILE));
    for (size_t at = 0; at < count * TILE; ++at) rows[at] = static_cast<uint8_t>(at * 2654435761u >> 7);
    measure("bytes", add_bytes, rows, count, TILE);
    measure("shorts", add_shorts, rows, count, TILE / 2);
}
