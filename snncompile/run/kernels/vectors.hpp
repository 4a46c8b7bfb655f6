// Vectors of the instruction set that a translation unit is compiled for: SNN_BLOCK bytes each.
//
// Written with the vector types that GCC and Clang share, so that one text of a kernel serves every instruction set; only
// turning a comparison into bits and bits into a list needs instructions by name. Everything here and in the kernels is in
// an unnamed namespace and uses no template of the standard library: what is compiled for AVX-512 must not be merged by
// the linker with what runs everywhere.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#ifndef SNN_BLOCK
#error "SNN_BLOCK is the number of bytes of a vector"
#endif

namespace {

typedef int16_t Shorts __attribute__((vector_size(SNN_BLOCK)));

template <class Number>
struct Vector;
template <>
struct Vector<int32_t> {
    typedef int32_t type __attribute__((vector_size(SNN_BLOCK)));
    typedef int32_t narrow __attribute__((vector_size(SNN_BLOCK)));  // as many lanes of 32 bits
};
template <>
struct Vector<int64_t> {
    typedef int64_t type __attribute__((vector_size(SNN_BLOCK)));
    typedef int32_t narrow __attribute__((vector_size(SNN_BLOCK / 2)));
};

template <class V>
inline V load(const void *from) {
    V value;
    __builtin_memcpy(&value, from, sizeof value);
    return value;
}

template <class V>
inline void store(void *to, V value) {
    __builtin_memcpy(to, &value, sizeof value);
}

// Read once: a compiler that meets two uses would read memory twice, and reading is what adding weights waits for.
template <class V>
inline V in_register(V value) {
#if defined(__AVX512F__)
    __asm__("" : "+v"(value));
#elif defined(__AVX2__)
    __asm__("" : "+x"(value));
#endif
    return value;
}

inline int least(int a, int b) { return a < b ? a : b; }
inline int most(int a, int b) { return a > b ? a : b; }

// One bit a lane: a > b.
template <class Number>
inline uint64_t above(typename Vector<Number>::type a, typename Vector<Number>::type b) {
#if defined(__AVX512F__)
    if (sizeof(Number) == 4) return _mm512_cmpgt_epi32_mask((__m512i)a, (__m512i)b);
    return _mm512_cmpgt_epi64_mask((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    const auto larger = a > b;
    if (sizeof(Number) == 4) return static_cast<unsigned>(_mm256_movemask_ps((__m256)larger));
    return static_cast<unsigned>(_mm256_movemask_pd((__m256d)larger));
#elif defined(__SSE2__)
    const auto larger = a > b;
    if (sizeof(Number) == 4) return static_cast<unsigned>(_mm_movemask_ps((__m128)larger));
    return static_cast<unsigned>(_mm_movemask_pd((__m128d)larger));
#elif defined(__aarch64__)  // no instruction gathers bits: each lane keeps one of its own, and they are added
    const auto larger = a > b;
    if (sizeof(Number) == 4) {
        const uint32x4_t bits = {1, 2, 4, 8};
        return vaddvq_u32(vandq_u32((uint32x4_t)larger, bits));
    }
    const uint64x2_t bits = {1, 2};
    return vaddvq_u64(vandq_u64((uint64x2_t)larger, bits));
#else
    uint64_t bits = 0;
    for (int lane = 0; lane < SNN_BLOCK / static_cast<int>(sizeof(Number)); ++lane)
        bits |= static_cast<uint64_t>(a[lane] > b[lane]) << lane;
    return bits;
#endif
}

// The lanes whose bit is set, zero elsewhere.
template <class Number>
inline typename Vector<Number>::type picked(uint64_t bits, const Number *from) {
#if defined(__AVX512F__)
    if (sizeof(Number) == 4)
        return (typename Vector<Number>::type)_mm512_maskz_loadu_epi32(static_cast<__mmask16>(bits), from);
    return (typename Vector<Number>::type)_mm512_maskz_loadu_epi64(static_cast<__mmask8>(bits), from);
#else
    typename Vector<Number>::type lanes;
    for (int lane = 0; lane < SNN_BLOCK / static_cast<int>(sizeof(Number)); ++lane) lanes[lane] = lane;
    const auto ones = -(((typename Vector<Number>::type{} + static_cast<Number>(bits)) >> lanes) & 1);
    return ones & load<typename Vector<Number>::type>(from);
#endif
}

}  // namespace
